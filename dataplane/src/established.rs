//! The short way: plain packets of established connections to real servers by direct routing, finished in one pass.
//!
//! What these stages do to a frame is what parse, track and forward would do to it. Whatever else a frame may be (a first
//! packet, a state that changes, a removed real server, another method, a packet too long) they leave to the next, untouched.

use dpdk::burst::BURST;

use crate::connection::{EntryId, entry};
use crate::forward::decrement;
use crate::glance::{Sight, look_at};
use crate::lanes::{Fate, Lanes, Plain, each, has};
use crate::plain::{Ethernet, Family, Tcp, Transport, Udp, V4, V6};
use crate::rules::Rules;
use crate::service::Method;
use crate::settings::Ttl;
use crate::shortcut::{Direct, Guessed, Masqueraded, Shortcut, Tunnelled};
use crate::tick::Tick;
use crate::track::Tracker;
use crate::translate::plain::Translated;
use crate::tunnel::Tunnels;
use crate::verdict::Verdict;

/// Lanes ahead of which entries are asked for: their lines have come by then, and the memory is not asked for more at once than it brings
/// while packets are sent on.
const AHEAD: usize = 24;
/// As [`AHEAD`], where a burst is looked at while the one before it is sent on: for lines of the index and for entries.
const HALF: usize = BURST / 2;
/// Lanes ahead of which frames are asked for that are looked at.
const FRAMES_AHEAD: usize = 8;
/// Lanes ahead of which entries are asked for once more, from the second cache, to which they have come, into the first one, unless they are read to
/// ask for what is read beside them.
const NEAR: usize = 6;
/// Lanes ahead of which is asked for what is read beside the entries, where packets are sent one by one.
const QUARTER: usize = BURST / 4;

/// What the stages of established connections work with beside the frames.
#[derive(Debug)]
pub struct Around<'a> {
    /// The port that the burst came by.
    pub port: u16,
    /// How plain frames begin that come by it.
    pub ethernet: Ethernet,
    /// The rules.
    pub rules: &'a Rules,
    /// The ports' own MACs, by port.
    pub macs: &'a [[u8; 6]],
    /// Ids and lengths of tunnelled packets.
    pub tunnels: &'a mut Tunnels,
    /// The present.
    pub now: Tick,
}

/// What the established stages find out about a burst.
pub(crate) struct Found {
    /// Lanes that are left to the next stages.
    pub(crate) left: u64,
    /// Connections with a packet that is left, by [`bit`]: packets behind it stay behind it.
    pub(crate) held: u64,
    /// Ports by which the others leave.
    pub(crate) ports: u64,
}

impl Found {
    /// The packet in this lane, of this entry, was sent on by a port, or is left to the next stages.
    #[inline(always)]
    pub(crate) fn take(&mut self, lane: usize, id: EntryId, sent: Option<u16>, fate: &mut Fate) {
        match sent {
            Some(port) => self.sent(port, fate),
            None => self.leave(lane, id),
        }
    }

    #[inline(always)]
    fn sent(&mut self, port: u16, fate: &mut Fate) {
        *fate = Fate::Send(port, Verdict::Forwarded);
        self.ports |= 1 << (port & 63);
    }

    /// Apart from the way that nearly every packet goes.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave(&mut self, lane: usize, id: EntryId) {
        self.left |= 1 << lane;
        self.held |= bit(id);
    }
}

/// The connections that this one is not told apart from where a word says which ones packets are held of.
pub(crate) const fn bit(id: EntryId) -> u64 {
    1 << (id.0 & 63)
}

impl Tracker {
    /// Stage: sends on what belongs to an established connection with the method that is usual. Cost: two lines, those of the entry
    /// and of the real server's way, which counts.
    #[inline]
    pub fn established(&mut self, lanes: &mut Lanes, ahead: &mut Lanes, around: &mut Around<'_>) {
        let mut found = Found { left: 0, held: 0, ports: 0 };
        for i in each(lanes.flows) {
            // Flows by now are those that are not plain, which the next stages look at.
            lanes.entries[i] = self.connections.find(lanes.hashes[i], &lanes.packets[i].key);
            found.held |= lanes.entries[i].or_else(|| self.connections.answered(lanes.hashes[i])).map_or(0, bit);
        }
        lanes.held = found.held;
        // All packets of a connection have the same guess, so that those behind one that is left are left too.
        let basis = (self.usual, self.connections.changes());
        if lanes.guessed_on != basis {
            (lanes.guessed, lanes.asked) = (0, 0);
        }
        (lanes.guessed_on, ahead.guessed_on) = (basis, basis);
        match self.usual {
            Method::DirectRouting if around.rules.ways.are_many() => self.send_all::<Direct<true>>(lanes, ahead, &mut found, around),
            Method::DirectRouting => self.send_all::<Direct<false>>(lanes, ahead, &mut found, around),
            Method::Tunnel => self.send_all::<Tunnelled>(lanes, ahead, &mut found, around),
            Method::Masquerading => self.send_all::<Masqueraded>(lanes, ahead, &mut found, around),
        }
        lanes.through = lanes.plain.all() & !found.left;
        lanes.through_ports = found.ports;
    }

    /// Sends the plain packets of all kinds on, which most likely are of connections with one method.
    #[inline(always)]
    fn send_all<S: Shortcut>(&mut self, lanes: &mut Lanes, ahead: &mut Lanes, found: &mut Found, around: &mut Around<'_>) {
        let Plain { tcp_v4, udp_v4, tcp_v6, udp_v6 } = lanes.plain;
        ahead.plain.tcp_v4 |= self.send_kind::<V4, Tcp, S>(tcp_v4, lanes, ahead, found, around);
        ahead.plain.udp_v4 |= self.send_kind::<V4, Udp, S>(udp_v4, lanes, ahead, found, around);
        ahead.plain.tcp_v6 |= self.send_kind::<V6, Tcp, S>(tcp_v6, lanes, ahead, found, around);
        ahead.plain.udp_v6 |= self.send_kind::<V6, Udp, S>(udp_v6, lanes, ahead, found, around);
    }

    /// Sends the plain packets of one kind on; gives the lanes ahead in which there are more of them, of those that were looked at meanwhile.
    #[inline(always)]
    fn send_kind<F: Translated, T: Transport, S: Shortcut>(
        &mut self,
        plain: u64,
        lanes: &mut Lanes,
        ahead: &mut Lanes,
        found: &mut Found,
        around: &mut Around<'_>,
    ) -> u64 {
        match plain {
            0 => 0,
            // A core walks the page tables for lines that are asked for in a row at once, but does not look ahead as far as the next packet's. With
            // few connections there is little to walk to, and one packet after the other takes fewer steps.
            u64::MAX if ahead.frames.is_full() && ahead.glanced == 0 => {
                if self.connections.are_many() {
                    self.send_whole::<F, T, S, HALF>(lanes, ahead, found, around)
                } else {
                    self.send_whole::<F, T, S, 1>(lanes, ahead, found, around)
                }
            }
            _ => {
                self.send_some::<F, T, S>(plain, lanes, found, around);
                0
            }
        }
    }

    /// Sends a whole burst of one kind on, a full one, and looks at the full one behind it, at `N` packets whenever as many are to be sent: then the
    /// memory is never asked for more at once than it brings.
    #[inline(never)]
    fn send_whole<F: Translated, T: Transport, S: Shortcut, const N: usize>(
        &mut self,
        lanes: &mut Lanes,
        ahead: &mut Lanes,
        found: &mut Found,
        around: &mut Around<'_>,
    ) -> u64 {
        self.guess::<S>(lanes, HALF);
        // The entries of a group that is sent came while the one before it was: what is read beside them comes while others are looked at.
        let beside = if N > 1 { 0 } else { QUARTER };
        self.ask::<S>(lanes, beside, around.rules);
        let Lanes { frames, hashes, guesses, fates, guessed, answers, .. } = &mut *lanes;
        let Lanes {
            frames: coming,
            hashes: hashes_ahead,
            guesses: guesses_ahead,
            guessed: guessed_ahead,
            glanced,
            answers: answers_ahead,
            ..
        } = ahead;
        let whole = (frames.iter_mut().into_slice().first_chunk_mut::<BURST>(), coming.as_slice().first_chunk::<BURST>());
        let (Some(frames), Some(coming)) = whole else { return 0 };
        coming[..FRAMES_AHEAD].iter().for_each(F::prefetch);
        let mut others = 0_u64;
        for begin in (0..BURST / N).map(|group| group * N) {
            for i in begin..begin + N {
                if S::ASKS && i + beside < BURST {
                    S::ask(self, &frames[i + beside], hashes[i + beside], guesses[i + beside], around.rules);
                }
                if i + FRAMES_AHEAD < BURST {
                    F::prefetch(&coming[i + FRAMES_AHEAD]);
                }
                let sight = Sight { ethernet: &around.ethernet, table: &self.connections, rules: around.rules };
                match look_at::<F, T, S>(&coming[i], &mut hashes_ahead[i], sight) {
                    Some(answer) => *answers_ahead |= u64::from(answer) << i,
                    None => others |= 1 << i,
                }
            }
            for i in begin..begin + N {
                // What lanes that are not plain have in the place of a hash does no harm.
                if begin < HALF {
                    guesses[i + HALF] = S::guess(&self.connections, hashes[i + HALF], has(*answers, i + HALF));
                } else {
                    guesses_ahead[i - HALF] = S::guess(&self.connections, hashes_ahead[i - HALF], has(*answers_ahead, i - HALF));
                }
            }
            for i in begin..begin + N {
                if let Some(guess) = guesses.get(i + NEAR)
                    && !S::ASKS
                {
                    self.connections.prefetch_near(*guess);
                }
                let known = Guessed { hash: hashes[i], answers: has(*answers, i), held: found.held, alone: found.left == 0 };
                let sent = S::send::<F, T>(self, &mut frames[i], &mut guesses[i], known, around);
                found.take(i, guesses[i], sent, &mut fates[i]);
            }
        }
        (*guessed, *guessed_ahead, *glanced) = (BURST, HALF, BURST);
        !others
    }

    /// Sends the plain packets of one kind on.
    #[inline(never)]
    fn send_some<F: Translated, T: Transport, S: Shortcut>(
        &mut self,
        plain: u64,
        lanes: &mut Lanes,
        found: &mut Found,
        around: &mut Around<'_>,
    ) {
        let all = plain == lanes.all();
        // A step a packet does not keep ahead of packets that are few among others.
        let few = lanes.len() - plain.count_ones() as usize > AHEAD;
        self.guess::<S>(lanes, if few { BURST } else { AHEAD + QUARTER });
        self.ask::<S>(lanes, if few { BURST } else { QUARTER }, around.rules);
        let (mut guessed, mut asked) = (lanes.guessed, lanes.asked);
        let Lanes { frames, hashes, guesses, fates, answers, .. } = &mut *lanes;
        let frames = frames.iter_mut().into_slice();
        for i in each(plain) {
            if guessed < frames.len() {
                guesses[guessed % BURST] = S::guess(&self.connections, hashes[guessed % BURST], has(*answers, guessed));
                guessed += 1;
            }
            if S::ASKS && asked < guessed {
                S::ask(self, &frames[asked], hashes[asked % BURST], guesses[asked % BURST], around.rules);
                asked += 1;
            }
            let known = Guessed { hash: hashes[i], answers: has(*answers, i), held: found.held, alone: all && found.left == 0 };
            let sent = S::send::<F, T>(self, &mut frames[i], &mut guesses[i], known, around);
            found.take(i, guesses[i], sent, &mut fates[i]);
        }
        (lanes.guessed, lanes.asked) = (guessed, asked);
    }

    /// Asks for the entries of lanes up to `end`.
    fn guess<S: Shortcut>(&self, lanes: &mut Lanes, end: usize) {
        let (begin, end) = (lanes.guessed, end.min(lanes.len()));
        let Lanes { hashes, guesses, guessed, answers, .. } = lanes;
        if let (Some(hashes), Some(guesses)) = (hashes.get(begin..end), guesses.get_mut(begin..end)) {
            // What lanes that are not plain have in the place of a hash does no harm.
            for ((lane, hash), guess) in (begin..).zip(hashes).zip(guesses) {
                *guess = S::guess(&self.connections, *hash, has(*answers, lane));
            }
            *guessed = end;
        }
    }

    /// Asks for what is read beside the entries of lanes up to `end` that have guesses.
    fn ask<S: Shortcut>(&self, lanes: &mut Lanes, end: usize, rules: &Rules) {
        let end = end.min(lanes.guessed);
        if !S::ASKS || end <= lanes.asked {
            return;
        }
        for i in lanes.asked..end {
            S::ask(self, &lanes.frames[i], lanes.hashes[i], lanes.guesses[i], rules);
        }
        lanes.asked = end;
    }

    /// Sends a packet on whose entry is `id`; gives the port. `None`, and nothing is changed, if it is not, or if the next stages
    /// are to look at the packet.
    #[inline(always)]
    pub(crate) fn send<F: Family, T: Transport>(
        &mut self,
        frame: &mut [u8],
        id: EntryId,
        held: u64,
        rules: &Rules,
        now: Tick,
    ) -> Option<u16> {
        let head = F::head(frame)?;
        let (continues, length) = (T::continues(F::transport(head)), F::length(head));
        let established = const { entry::Plain::new(T::PROTOCOL, T::ESTABLISHED, Method::DirectRouting, F::V4) };
        let addresses = F::word(head, self.connections.hasher());
        if !continues || held & bit(id) != 0 {
            return None;
        }
        let entry = self.connections.plain(id, established, addresses, F::ports(head))?;
        let server = entry.server();
        let way = rules.ways.way(server)?;
        let hop = way.hop();
        let exit = rules.ways.exit(hop);
        let expires = entry.later(now, T::timeout(exit.lifetimes))?;
        if length > exit.mtu {
            return None;
        }
        if rules.settings.ttl == Ttl::Decrement && !decrement(frame, F::V4) {
            return None;
        }
        exit.address(frame, hop.mac())?;
        entry.renew(expires);
        rules.ways.count(server, way, length);
        Some(exit.port)
    }
}

/// Stage: reads the plain packets that the established stage left.
#[inline]
pub fn parse_left(lanes: &mut Lanes) {
    let left = !lanes.through;
    let Plain { tcp_v4, udp_v4, tcp_v6, udp_v6 } = lanes.plain;
    if lanes.plain.all() & left != 0 {
        read::<V4, Tcp>(tcp_v4 & left, lanes);
        read::<V4, Udp>(udp_v4 & left, lanes);
        read::<V6, Tcp>(tcp_v6 & left, lanes);
        read::<V6, Udp>(udp_v6 & left, lanes);
    }
}

#[inline(never)]
fn read<F: Family, T: Transport>(which: u64, lanes: &mut Lanes) {
    for i in each(which) {
        let packet = F::head(lanes.frames[i].data()).map_or(Err(Verdict::Short), F::read::<T>);
        lanes.fates[i] = packet.as_ref().map_or_else(|verdict| Fate::Drop(*verdict), |_| Fate::Undecided);
        if let Ok(packet) = packet {
            lanes.packets[i] = packet;
            lanes.flows |= 1 << i;
        }
    }
}
