//! The short way: plain packets of established connections to real servers by direct routing, finished in one pass.
//!
//! What these stages do to a frame is what parse, lookup, track and forward would do to it. Whatever else a frame may be (a first
//! packet, a state that changes, a removed real server, a tunnel, a packet too long) they leave to them, untouched.

use crate::connection::entry::Plain;
use crate::connection::{ConnectionTable, Entry, EntryId};
use crate::forward::decrement;
use crate::lanes::{Fate, Lanes, each};
use crate::plain::{Ethernet, Family, V4, V6};
use crate::rules::Rules;
use crate::settings::Ttl;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::verdict::Verdict;
use crate::ways::{Terms, Way};

/// Stage: finds out which frames are plain packets, hashes their keys and asks for their lines of the connection table's index,
/// so that cache misses overlap.
#[inline(never)]
pub fn glance(lanes: &mut Lanes, ethernet: &Ethernet, table: &ConnectionTable) {
    let (mut plain_v4, mut plain_v6) = (0_u64, 0_u64);
    let Lanes { frames, hashes, .. } = &mut *lanes;
    for frame in frames.iter() {
        frame.prefetch();
    }
    for (i, (frame, hash)) in frames.iter().zip(hashes).enumerate() {
        let (bytes, whole, doubted) = (frame.data(), frame.packet_len(), frame.doubts_ip_checksum());
        if let Some(head) = V4::head(bytes).filter(|head| V4::is_plain(head, whole, doubted, ethernet)) {
            *hash = V4::hash(head, table.hasher());
            plain_v4 |= 1 << i;
        } else if let Some(head) = V6::head(bytes).filter(|head| V6::is_plain(head, whole, doubted, ethernet)) {
            *hash = V6::hash(head, table.hasher());
            plain_v6 |= 1 << i;
        } else {
            continue;
        }
        table.prefetch_bucket(*hash);
    }
    (lanes.plain_v4, lanes.plain_v6) = (plain_v4, plain_v6);
}

/// What the established stage finds out about a burst.
#[derive(Default)]
struct Found {
    /// Lanes that are left to the next stages.
    left: u64,
    /// Connections with a packet that is left, by the low bits of the entry: packets behind it stay behind it.
    held: u64,
    /// Ports by which the others leave.
    ports: u64,
}

impl Found {
    /// Leaves a lane with a packet of this entry to the next stages.
    fn leave(&mut self, lane: usize, id: Option<EntryId>) {
        self.left |= 1 << lane;
        self.held |= id.map_or(0, bit);
    }
}

const fn bit(id: EntryId) -> u64 {
    1 << (id.0 & 63)
}

impl Tracker {
    /// Stage: asks for the entry that each plain packet most likely has, so that cache misses overlap.
    #[inline(never)]
    pub fn seek(&self, lanes: &mut Lanes) {
        let count = lanes.len();
        let Lanes { hashes, guesses, .. } = &mut *lanes;
        // What the other lanes have in the place of a hash does no harm.
        for (hash, guess) in hashes.iter().zip(guesses).take(count) {
            *guess = self.connections.prefetch_entry(*hash);
        }
        for i in each(lanes.plain_v6) {
            self.connections.prefetch_addresses(lanes.guesses[i]);
        }
    }

    /// Stage: sends on what belongs to an established connection. Cost: four lines, those of the entry, the real server and the
    /// counters of both it and the service, and for IPv6 that of the addresses.
    #[inline]
    pub fn established(&mut self, lanes: &mut Lanes, rules: &Rules, now: Tick) {
        let mut found = Found::default();
        for i in each(lanes.flows) {
            // Flows by now are those that are not plain, which the next stages look at.
            let id = self.connections.find(lanes.hashes[i], &lanes.packets[i].key);
            found.held |= id.map_or(0, bit);
        }
        if lanes.plain_v4 != 0 {
            self.established_of::<V4>(lanes.plain_v4, lanes, &mut found, rules, now);
        }
        if lanes.plain_v6 != 0 {
            self.established_of::<V6>(lanes.plain_v6, lanes, &mut found, rules, now);
        }
        lanes.through = (lanes.plain_v4 | lanes.plain_v6) & !found.left;
        lanes.through_ports = found.ports;
    }

    #[inline(never)]
    fn established_of<F: Family>(&mut self, plain: u64, lanes: &mut Lanes, found: &mut Found, rules: &Rules, now: Tick) {
        let lowers = rules.settings.ttl == Ttl::Decrement;
        let Lanes { frames, hashes, guesses, fates, .. } = lanes;
        for i in each(plain) {
            let (frame, mut id) = (frames[i].data_mut(), guesses[i]);
            let Some(head) = F::head(frame) else {
                found.leave(i, None);
                continue;
            };
            let continues = F::continues(head);
            let entry = match continues.and_then(|(plain, _)| F::entry(&mut self.connections, id, plain, head)) {
                Some(entry) => entry,
                None => match self.look_closer::<F>(hashes[i], continues, head) {
                    (Some(other), true) => {
                        id = other;
                        self.connections.entry_mut(id)
                    }
                    (other, _) => {
                        found.leave(i, other);
                        continue;
                    }
                },
            };
            let length = F::length(head);
            let tcp = continues.is_some_and(|(_, tcp)| tcp);
            let sent = way_on(entry, tcp, rules, now).filter(|(way, ..)| length <= way.mtu && found.held & bit(id) == 0);
            let Some((way, terms, expires)) = sent.filter(|_| !lowers || decrement(frame, F::V4)) else {
                found.leave(i, Some(id));
                continue;
            };
            if let Some(addresses) = frame.first_chunk_mut() {
                *addresses = way.addresses;
            }
            entry.renew(expires);
            way.share.traffic.count_in(length);
            terms.traffic.count_in(length);
            fates[i] = Fate::Send(way.port, Verdict::Forwarded);
            found.ports |= 1 << (way.port & 63);
        }
    }

    /// The entry of a plain packet that was not where it was sought, and whether it is one that the packet `continues`.
    #[inline(never)]
    fn look_closer<F: Family>(&mut self, hash: u64, continues: Option<(Plain, bool)>, head: &F::Head) -> (Option<EntryId>, bool) {
        let id = self.connections.find(hash, &F::key(head));
        let plain = |(id, (plain, _))| F::entry(&mut self.connections, id, plain, head).is_some();
        (id, id.zip(continues).is_some_and(plain))
    }
}

/// How a packet of this entry goes on, and when the entry then ends; `None` when the next stages are to look at it.
#[inline(always)]
fn way_on<'r>(entry: &Entry, tcp: bool, rules: &'r Rules, now: Tick) -> Option<(&'r Way, &'r Terms, Tick)> {
    let (way, terms) = (rules.ways.way(entry.server())?, rules.ways.terms(entry.service())?);
    let expires = entry.later(now, if tcp { terms.tcp } else { terms.udp })?;
    Some((way, terms, expires))
}
