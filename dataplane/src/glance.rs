//! The first look at a frame: whether it is a plain packet, and where its connection most likely is.

use dpdk::mbuf::Mbuf;

use crate::connection::ConnectionTable;
use crate::lanes::{Lanes, each};
use crate::plain::{Ethernet, Family, Tcp, Transport, Udp, V4, V6};
use crate::rules::Rules;
use crate::service::Method;
use crate::shortcut::{Direct, Masqueraded, Shortcut};
use crate::track::Tracker;
use crate::translate::plain::Translated;

/// What a look at frames needs beside them.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    /// How plain frames begin.
    pub(crate) ethernet: &'a Ethernet,
    /// The connection table.
    pub(crate) table: &'a ConnectionTable,
    /// The rules.
    pub(crate) rules: &'a Rules,
}

/// Stage: finds out which frames are plain packets, hashes their keys and asks for their lines of the connection table's index,
/// so that cache misses overlap. Frames that the [established stage](Tracker::established) has looked at while it sent others on are
/// plain, or of another kind than those.
#[inline]
pub fn glance(lanes: &mut Lanes, ethernet: &Ethernet, tracker: &Tracker, rules: &Rules) {
    let left = lanes.all() & !lanes.plain.all();
    if left != 0 {
        let sight = Sight { ethernet, table: &tracker.connections, rules };
        match tracker.usual {
            Method::Masquerading => look::<Masqueraded>(left, lanes, sight),
            Method::DirectRouting | Method::Tunnel => look::<Direct<false>>(left, lanes, sight),
        }
    }
}

#[inline(never)]
fn look<S: Shortcut>(left: u64, lanes: &mut Lanes, sight: Sight<'_>) {
    let (begin, v6_first) = (lanes.glanced, lanes.v6_first);
    lanes.glanced = lanes.len();
    lanes.frames.as_slice()[begin..].iter().for_each(if v6_first { V6::prefetch } else { V4::prefetch });
    // The family of most TCP packets of the burst before is most likely that of nearly all now.
    if v6_first {
        lanes.plain.tcp_v6 |= look_for::<V6, Tcp, S>(left, lanes, sight);
        lanes.plain.tcp_v4 |= look_for::<V4, Tcp, S>(left & !lanes.plain.all(), lanes, sight);
    } else {
        lanes.plain.tcp_v4 |= look_for::<V4, Tcp, S>(left, lanes, sight);
        lanes.plain.tcp_v6 |= look_for::<V6, Tcp, S>(left & !lanes.plain.all(), lanes, sight);
    }
    lanes.plain.udp_v4 |= look_for::<V4, Udp, S>(left & !lanes.plain.all(), lanes, sight);
    lanes.plain.udp_v6 |= look_for::<V6, Udp, S>(left & !lanes.plain.all(), lanes, sight);
}

/// Which of these frames are plain packets of this kind.
#[inline(always)]
fn look_for<F: Translated, T: Transport, S: Shortcut>(which: u64, lanes: &mut Lanes, sight: Sight<'_>) -> u64 {
    let Lanes { frames, hashes, answers, .. } = lanes;
    let frames = frames.as_slice();
    let hashes = &mut hashes[..frames.len()];
    // Nearly all mostly are, about which there is nothing to note then.
    let mut others = 0_u64;
    for i in each(which) {
        match look_at::<F, T, S>(&frames[i], &mut hashes[i], sight) {
            Some(answer) => *answers |= u64::from(answer) << i,
            None => others |= 1 << i,
        }
    }
    which & !others
}

/// Whether a plain packet of this kind most likely is an answer; `None` if the frame is no such packet. The hash is known and the line of the index
/// on its way then.
#[inline(always)]
pub(crate) fn look_at<F: Translated, T: Transport, S: Shortcut>(frame: &Mbuf, hash: &mut u64, sight: Sight<'_>) -> Option<bool> {
    let Sight { ethernet, table, rules } = sight;
    let head = F::head(frame.data())?;
    if !F::is_plain::<T>(head, frame.packet_len(), frame.doubts_ip_checksum(), ethernet) {
        return None;
    }
    let hasher = table.hasher();
    *hash = hasher.mix(F::word(head, hasher), F::ports(head), T::PROTOCOL as u8);
    Some(S::seek::<F>(table, head, *hash, rules))
}
