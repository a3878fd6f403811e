//! The short way: plain packets of established connections to real servers by direct routing, finished in one pass.
//!
//! What these stages do to a frame is what parse, track and forward would do to it. Whatever else a frame may be (a first
//! packet, a state that changes, a removed real server, another method, a packet too long) they leave to the next, untouched.

use dpdk::burst::BURST;
use dpdk::mbuf::Mbuf;

use crate::connection::{ConnectionTable, EntryId, entry};
use crate::forward::decrement;
use crate::lanes::{Fate, Lanes, Plain, each};
use crate::plain::{Ethernet, Family, Tcp, Transport, Udp, V4, V6};
use crate::rules::Rules;
use crate::service::Method;
use crate::settings::Ttl;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::verdict::Verdict;

/// Lanes ahead of which entries are asked for: their lines have come by then, and the memory is not asked for more at once than it brings
/// while packets are sent on.
const AHEAD: usize = 24;

/// Stage: finds out which frames are plain packets, hashes their keys and asks for their lines of the connection table's index,
/// so that cache misses overlap.
#[inline(never)]
pub fn glance(lanes: &mut Lanes, ethernet: &Ethernet, table: &ConnectionTable) {
    // The family of the last TCP packet of the burst before is most likely that of nearly all now.
    let v6_first = lanes.plain.tcp_v6 > lanes.plain.tcp_v4;
    let all = lanes.all();
    let Lanes { frames, hashes, .. } = &mut *lanes;
    for frame in frames.iter() {
        frame.prefetch(0);
    }
    if v6_first {
        // Where its ports are.
        frames.iter().for_each(|frame| frame.prefetch(64));
    }
    let (frames, hashes) = (frames.as_slice(), &mut hashes[..frames.len()]);
    let (tcp_v4, tcp_v6);
    if v6_first {
        tcp_v6 = glance_of_all::<V6, Tcp>(all, frames, hashes, ethernet, table);
        tcp_v4 = glance_of::<V4, Tcp>(all & !tcp_v6, frames, hashes, ethernet, table);
    } else {
        tcp_v4 = glance_of_all::<V4, Tcp>(all, frames, hashes, ethernet, table);
        tcp_v6 = glance_of::<V6, Tcp>(all & !tcp_v4, frames, hashes, ethernet, table);
    }
    let udp_v4 = glance_of::<V4, Udp>(all & !(tcp_v4 | tcp_v6), frames, hashes, ethernet, table);
    let udp_v6 = glance_of::<V6, Udp>(all & !(tcp_v4 | tcp_v6 | udp_v4), frames, hashes, ethernet, table);
    lanes.plain = Plain { tcp_v4, udp_v4, tcp_v6, udp_v6 };
}

/// Which frames are plain packets of the kind that nearly all are of: the loop has nothing to note about those.
#[inline(always)]
fn glance_of_all<F: Family, T: Transport>(
    all: u64,
    frames: &[Mbuf],
    hashes: &mut [u64],
    ethernet: &Ethernet,
    table: &ConnectionTable,
) -> u64 {
    let mut left = 0_u64;
    for i in 0..frames.len() {
        if !glance_at::<F, T>(&frames[i], &mut hashes[i], ethernet, table) {
            left |= 1 << i;
        }
    }
    all & !left
}

/// Which of these frames are plain packets of this kind.
#[inline]
fn glance_of<F: Family, T: Transport>(
    which: u64,
    frames: &[Mbuf],
    hashes: &mut [u64],
    ethernet: &Ethernet,
    table: &ConnectionTable,
) -> u64 {
    each(which).filter(|i| glance_at::<F, T>(&frames[*i], &mut hashes[*i], ethernet, table)).fold(0, |kind, i| kind | 1 << i)
}

/// Whether a frame is a plain packet of this kind, of which the hash is known and the line on its way then.
#[inline(always)]
fn glance_at<F: Family, T: Transport>(frame: &Mbuf, hash: &mut u64, ethernet: &Ethernet, table: &ConnectionTable) -> bool {
    let Some(head) = F::head(frame.data()) else { return false };
    if !F::is_plain::<T>(head, frame.packet_len(), frame.doubts_ip_checksum(), ethernet) {
        return false;
    }
    let hasher = table.hasher();
    *hash = hasher.mix(F::word(head, hasher), F::ports(head), T::PROTOCOL as u8);
    table.prefetch_bucket(*hash);
    true
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
    #[inline(never)]
    fn leave(&mut self, lane: usize, id: EntryId) {
        self.left |= 1 << lane;
        self.held |= bit(id);
    }
}

/// The connections that this one is not told apart from where a word says which ones packets are held of.
pub(crate) const fn bit(id: EntryId) -> u64 {
    1 << (id.0 & 63)
}

impl Tracker {
    /// Stage: asks for the entries that the first plain packets most likely have, so that cache misses overlap; for those of the others the next
    /// stage asks as it goes, unless it leaves them or looks elsewhere first.
    #[inline(never)]
    pub fn seek(&self, lanes: &mut Lanes, rules: &Rules) {
        let end = if self.rewrites {
            BURST
        } else if rules.ways.are_many() {
            2 * AHEAD
        } else {
            AHEAD
        };
        (lanes.guessed, lanes.led) = (0, 0);
        self.guess(lanes, end);
    }

    /// Asks for the entries of lanes up to `end`.
    fn guess(&self, lanes: &mut Lanes, end: usize) {
        let (begin, end) = (lanes.guessed, end.min(lanes.len()));
        let Lanes { hashes, guesses, guessed, .. } = lanes;
        if let (Some(hashes), Some(guesses)) = (hashes.get(begin..end), guesses.get_mut(begin..end)) {
            // What lanes that are not plain have in the place of a hash does no harm.
            for (hash, guess) in hashes.iter().zip(guesses) {
                *guess = self.connections.prefetch_entry(*hash);
            }
            *guessed = end;
        }
    }

    /// Stage: sends on what belongs to an established connection by direct routing. Where the burst before was mostly of other methods, it
    /// leaves all to the next stage, which knows every method. Cost: three lines, those of the entry,
    /// of the real server's way and of the service's terms, which count.
    #[inline]
    pub fn established(&mut self, lanes: &mut Lanes, rules: &Rules, now: Tick) {
        let mut found = Found { left: 0, held: 0, ports: 0 };
        for i in each(lanes.flows) {
            // Flows by now are those that are not plain, which the next stages look at.
            lanes.entries[i] = self.connections.find(lanes.hashes[i], &lanes.packets[i].key);
            found.held |= lanes.entries[i].map_or(0, bit);
        }
        lanes.held = found.held;
        let Plain { tcp_v4, udp_v4, tcp_v6, udp_v6 } = lanes.plain;
        for (plain, [send, send_one_of_many]) in [
            (
                tcp_v4,
                [Self::send_on::<V4, Tcp, false> as fn(&mut Self, _, &mut Lanes, &mut Found, &Rules, Tick), Self::send_on::<V4, Tcp, true>],
            ),
            (udp_v4, [Self::send_on::<V4, Udp, false>, Self::send_on::<V4, Udp, true>]),
            (tcp_v6, [Self::send_on::<V6, Tcp, false>, Self::send_on::<V6, Tcp, true>]),
            (udp_v6, [Self::send_on::<V6, Udp, false>, Self::send_on::<V6, Udp, true>]),
        ] {
            if self.rewrites {
                found.left |= plain;
            } else if plain != 0 {
                let send = if rules.ways.are_many() { send_one_of_many } else { send };
                send(self, plain, lanes, &mut found, rules, now);
            }
        }
        lanes.through = lanes.plain.all() & !found.left;
        lanes.through_ports = found.ports;
    }

    /// Asks for the ways of the lanes that have guesses, up to `end`.
    fn ask_ways(&self, lanes: &mut Lanes, end: usize, rules: &Rules) {
        let end = end.min(lanes.guessed);
        lanes.guesses.get(lanes.led..end).unwrap_or_default().iter().for_each(|guess| self.ask_way(*guess, rules));
        lanes.led = lanes.led.max(end);
    }

    /// Asks for the way that the entry in this place says. Cost: its line, which has come.
    #[inline(always)]
    fn ask_way(&self, guess: EntryId, rules: &Rules) {
        if let Some(entry) = self.connections.get(guess) {
            rules.ways.prefetch(entry.server(), entry.service());
        }
    }

    /// Sends the plain packets of one kind on, where ways are `MANY` or few.
    #[inline(never)]
    fn send_on<F: Family, T: Transport, const MANY: bool>(
        &mut self,
        plain: u64,
        lanes: &mut Lanes,
        found: &mut Found,
        rules: &Rules,
        now: Tick,
    ) {
        // A step a packet does not keep ahead of packets that are few among others.
        let few = lanes.len() - plain.count_ones() as usize > AHEAD;
        if few {
            self.guess(lanes, BURST);
        }
        if MANY {
            self.ask_ways(lanes, if few { BURST } else { AHEAD }, rules);
        }
        let (mut next, mut led) = (lanes.guessed, lanes.led);
        let Lanes { frames, hashes, guesses, fates, .. } = &mut *lanes;
        let frames = frames.iter_mut().into_slice();
        for i in each(plain) {
            if next < frames.len() {
                guesses[next % BURST] = self.connections.prefetch_entry(hashes[next % BURST]);
                next += 1;
            }
            if MANY && led < next {
                self.ask_way(guesses[led % BURST], rules);
                led += 1;
            }
            if let Some(port) = self.send::<F, T>(frames[i].data_mut(), guesses[i], found.held, rules, now) {
                found.sent(port, &mut fates[i]);
            } else {
                // All packets of a connection have the same guess.
                found.leave(i, guesses[i]);
            }
        }
        (lanes.guessed, lanes.led) = (next, led);
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
        let entry = self.connections.plain(id, established, addresses, F::ports(head))?;
        if !continues || held & bit(id) != 0 {
            return None;
        }
        let (way, terms) = (rules.ways.way(entry.server())?, rules.ways.terms(entry.service())?);
        let expires = entry.later(now, T::timeout(terms))?;
        if length > way.mtu() {
            return None;
        }
        if rules.settings.ttl == Ttl::Decrement && !decrement(frame, F::V4) {
            return None;
        }
        way.address(frame)?;
        entry.renew(expires);
        way.tally().count(length);
        terms.tally().count(length);
        Some(way.port())
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
