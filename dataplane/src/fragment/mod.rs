//! Fragments to VIPs: every one of a datagram reaches the real server of its first one, in whatever order they come, and
//! nothing is put together (RFC 791, RFC 8200 section 4.5).
//!
//! A first fragment is treated as the packet whose ports it has, and remembered. A later one follows it; if it came before it,
//! it waits. So do those of the answers of masquerading real servers. Where another worker may have the flow of a first
//! fragment, it is passed on (`trail.rs`), and later ones go the same way. What is remembered and what waits is bounded, and the oldest of it makes way, so that a flood costs others the
//! fragments that are long under way, and established connections nothing.
//!
//! Dropped is what hides a transport header from whoever looks only at first fragments (RFC 1858, RFC 3128), and for IPv6
//! every fragment that overlaps another (RFC 5722). A duplicate is dropped too, for IPv6.

mod held;
mod known;
mod piece;
mod ranges;
mod trail;

use arrayvec::ArrayVec;
use dpdk::burst::{BURST, Burst};
use dpdk::mbuf::Mbuf;
use dpdk::net::protocol;

use crate::connection::{Hasher, Key};
use crate::handover::{Came, HandOver, Journey};
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{Kind, Packet};
use crate::rules::Rules;
use crate::service::{Method, Protocol, ServiceKey};
use crate::tick::Tick;
use crate::track::Tracker;
use crate::verdict::Verdict;
pub use held::Arrival;
use held::Held;
use known::{Datagram, Known, Way};
use piece::Piece;
use ranges::{Part, Ranges};

/// How long a datagram is remembered after its first fragment, and a later fragment waits for it, in seconds.
const LIFETIME: u32 = 2;

/// What a worker knows of datagrams in fragments: 4096 datagrams and 512 waiting fragments at most, about 600 KiB.
#[derive(Debug)]
pub struct Fragments {
    hasher: Hasher,
    known: Known,
    held: Held,
    /// First fragments of this burst, by lane.
    firsts: ArrayVec<(usize, First), BURST>,
    /// Fragments of this burst that are to wait, by lane.
    waiting: ArrayVec<(usize, u64, Key), BURST>,
    /// Fragments whose first one has come.
    ready: ArrayVec<(Arrival, Mbuf), { held::MOST }>,
}

/// What the stage looks at beside the fragments.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The ports' MACs, by port.
    pub macs: &'a [[u8; 6]],
    /// The rules.
    pub rules: &'a Rules,
    /// The connections.
    pub tracker: &'a Tracker,
    /// The way to other workers.
    pub handover: Option<&'a HandOver>,
    /// The present.
    pub now: Tick,
}

#[derive(Clone, Copy, Debug)]
struct First {
    hash: u64,
    datagram: Key,
    range: (usize, usize),
}

impl Fragments {
    /// None known; `seed` makes the secret hash.
    pub fn new(seed: [u64; 4]) -> Self {
        Self {
            hasher: Hasher::new(seed),
            known: Known::new(),
            held: Held::new(),
            firsts: ArrayVec::new(),
            waiting: ArrayVec::new(),
            ready: ArrayVec::new(),
        }
    }

    /// Stage: decides about every fragment for a VIP, or from a masquerading real server. A first one of a flow is one of the
    /// flows from here on. Cost without fragments and the like: three stores and a comparison a burst.
    #[inline]
    pub fn place(&mut self, lanes: &mut Lanes, sight: Sight<'_>) {
        self.firsts.clear();
        self.waiting.clear();
        lanes.firsts = 0;
        for i in each(lanes.others) {
            let Lanes { frames, packets, journeys, .. } = &mut *lanes;
            let packet = &mut packets[i];
            if packet.kind != Kind::Fragment || !packet.to_us || !is_ours(&packet.key, sight.rules) {
                continue;
            }
            let fate = self.decide(i, &mut frames[i], packet, &mut journeys[i], sight);
            let hash = sight.tracker.connections.hash(&packet.key);
            if fate == Fate::Undecided {
                lanes.flows |= 1 << i;
                lanes.firsts |= 1 << i;
                lanes.hashes[i] = hash;
            }
            lanes.others &= !(1 << i);
            // The rest of an answer, on its way already.
            lanes.long |= u64::from(matches!(fate, Fate::Send(..))) << i;
            lanes.fates[i] = fate;
        }
    }

    /// Decides about the fragment in lane `lane`. A first one of a flow becomes that flow and stays undecided; `learn` is to be
    /// told what became of it.
    fn decide(&mut self, lane: usize, frame: &mut Mbuf, packet: &mut Packet, journey: &mut Journey, sight: Sight<'_>) -> Fate {
        match Piece::read(frame.data(), packet) {
            Ok(piece) if piece.range.0 == 0 => self.first(lane, &piece, frame.data(), packet, sight.now),
            Ok(piece) => self.later(lane, &piece, frame, packet, journey, sight),
            Err(verdict) => Fate::Drop(verdict),
        }
    }

    fn first(&mut self, lane: usize, piece: &Piece, frame: &[u8], packet: &mut Packet, now: Tick) -> Fate {
        let flow = match piece.complete(frame, packet) {
            Ok(flow) => flow,
            Err(verdict) => return Fate::Drop(verdict),
        };
        let hash = self.hasher.hash(&piece.datagram);
        if let Some(known) = self.known.find(hash, &piece.datagram, now) {
            if known.way == Way::Overlapping {
                return Fate::Drop(Verdict::FragmentOverlap);
            }
            let other = known.ports != (packet.key.client_port, packet.key.virtual_port) || known.protocol != packet.key.protocol;
            // For IPv6 whatever came before is overlapped, or the same once more; for IPv4 a sender may have run out of ids, but
            // another header in the place of the one that was looked at is a trick.
            if !packet.v4 && known.ranges.add(piece.range, piece.more) == Part::Overlaps {
                known.way = Way::Overlapping;
            }
            if !packet.v4 || other {
                return Fate::Drop(Verdict::FragmentOverlap);
            }
        }
        // There is one place a lane, and this is called once for each.
        let _ = self.firsts.try_push((lane, First { hash, datagram: piece.datagram, range: piece.range }));
        if flow {
            packet.kind = Kind::Flow;
            return Fate::Undecided;
        }
        Fate::Kernel
    }

    fn later(
        &mut self,
        lane: usize,
        piece: &Piece,
        frame: &mut Mbuf,
        packet: &Packet,
        journey: &mut Journey,
        Sight { macs, rules, tracker, handover, now }: Sight<'_>,
    ) -> Fate {
        let (hash, key) = (self.hasher.hash(&piece.datagram), piece.datagram);
        let Some(known) = self.known.find(hash, &key, now) else {
            let _ = self.waiting.try_push((lane, hash, key));
            return Fate::Hold;
        };
        if known.way == Way::Overlapping {
            return Fate::Drop(Verdict::FragmentOverlap);
        }
        if piece.range.0 < Piece::header(known.protocol) {
            return Fate::Drop(Verdict::FragmentTiny);
        }
        match known.ranges.add(piece.range, piece.more) {
            Part::Overlaps if !packet.v4 => {
                known.way = Way::Overlapping;
                return Fate::Drop(Verdict::FragmentOverlap);
            }
            Part::Known | Part::Unclear if !packet.v4 => return Fate::Drop(Verdict::FragmentOverlap),
            // Who puts IPv4 datagrams together decides, and no header is touched.
            Part::New | Part::Known | Part::Overlaps | Part::Unclear => {}
        }
        let Datagram { way, service, ports, protocol, .. } = *known;
        if known.ranges.is_complete() {
            self.known.remove(hash, &key);
        }
        // As if the datagram had come whole: one packet, of which this adds so many bytes.
        let bytes = (piece.range.1 - piece.range.0) as u64;
        match way {
            Way::Server(server, method) => {
                let service = service.and_then(|id| rules.service_ref(id)).map(|found| &*found.traffic);
                let share = rules.server(server).map(|target| &target.share.traffic);
                for traffic in service.map(|t| &**t).into_iter().chain(share) {
                    traffic.in_bytes.add(bytes);
                }
                Fate::Server(server, method)
            }
            Way::Reply => {
                let key = Key { client_port: ports.0, virtual_port: ports.1, protocol, ..packet.key };
                tracker.reply_fragment(&key, frame, packet, bytes, rules, macs).unwrap_or_else(|fate| fate)
            }
            // Whom its first one was to visit, in that order.
            Way::Passed(to) => handover.and_then(|h| h.elsewhere(journey, Some(to))).unwrap_or(Fate::Drop(Verdict::Fragment)),
            Way::Kernel => Fate::Kernel,
            Way::Dropped | Way::Overlapping => Fate::Drop(Verdict::Fragment),
        }
    }

    /// Stage: remembers what became of the first fragments of this burst, and lets go on what waited for them. Cost without
    /// fragments: one load a burst.
    #[inline]
    pub fn learn(&mut self, lanes: &mut Lanes, rules: &Rules, tracker: &Tracker, now: Tick) {
        if !self.firsts.is_empty() {
            self.learn_firsts(lanes, rules, tracker, now);
        }
    }

    #[inline(never)]
    fn learn_firsts(&mut self, lanes: &mut Lanes, rules: &Rules, tracker: &Tracker, now: Tick) {
        for (lane, first) in self.firsts.drain(..) {
            if cannot_be_mended(&lanes.packets[lane], lanes.frames[lane].data(), lanes.fates[lane], rules) {
                lanes.fates[lane] = Fate::Drop(Verdict::FragmentChecksum);
            }
            let packet = &lanes.packets[lane];
            let way = match lanes.fates[lane] {
                Fate::Server(server, method) => Way::Server(server, method),
                Fate::Kernel => Way::Kernel,
                Fate::HandOver(to) => Way::Passed(to),
                // Of all that is not plain, only answers are on their way already.
                Fate::Send(..) => Way::Reply,
                _ => Way::Dropped,
            };
            let protocol = packet.key.protocol;
            let (key, hash) = (&packet.key, lanes.hashes[lane]);
            let entry = (packet.kind == Kind::Flow).then(|| tracker.connections.find(hash, key)).flatten();
            if let Some(id) = entry {
                tracker.keep_flow(id, key, rules, now);
                if lanes.journeys[lane].came() == Came::FromWorker {
                    // The next one need not be sent around.
                    tracker.note(key);
                }
            }
            let service = match entry {
                Some(id) => Some(tracker.connections.entry(id).service()),
                None if packet.kind == Kind::Flow => rules.find_marked(key).or_else(|| {
                    let of_flow = Protocol::of_flow(protocol);
                    rules.find(&ServiceKey { protocol: of_flow, address: key.virtual_, port: key.virtual_port })
                }),
                None => None,
            };
            let mut ranges = Ranges::default();
            ranges.add(first.range, true);
            let ports = (packet.key.client_port, packet.key.virtual_port);
            let until = now.after_seconds(LIFETIME);
            self.known.insert(first.hash, Datagram { key: first.datagram, way, service, ports, protocol, ranges, until }, now);
            self.held.take(first.hash, &first.datagram, &mut self.ready);
        }
    }

    /// Keeps the frame of lane `lane`, which came by `port` and is to wait; gives back one that cannot wait any longer.
    pub fn hold(&mut self, lane: usize, frame: Mbuf, port: usize, came: Came, now: Tick) -> Option<(Arrival, Mbuf)> {
        let arrival = Arrival { port: u16::try_from(port).unwrap_or(u16::MAX), came };
        let Some(&(_, hash, key)) = self.waiting.iter().find(|waiting| waiting.0 == lane) else { return Some((arrival, frame)) };
        if self.known.find(hash, &key, now).is_some() && !self.ready.is_full() {
            // Its first one is of this very burst.
            let _ = self.ready.try_push((arrival, frame));
            return None;
        }
        self.held.push(hash, key, (arrival, frame), now.after_seconds(LIFETIME))
    }

    /// Puts fragments whose first one has come into `frames`, all of one arrival, which it gives; `None` when there are none.
    #[inline]
    pub fn next_ready(&mut self, frames: &mut Burst) -> Option<Arrival> {
        let arrival = self.ready.first()?.0;
        let same = self.ready.iter().take(frames.room()).take_while(|ready| ready.0 == arrival).count();
        for (_, frame) in self.ready.drain(..same) {
            let _ = frames.push(frame);
        }
        Some(arrival)
    }

    /// A fragment that has waited in vain. Cost when none waits: one load.
    #[inline]
    pub fn expired(&mut self, now: Tick) -> Option<(Arrival, Mbuf)> {
        if self.held.is_empty() { None } else { self.held.expired(now) }
    }
}

/// Whether a masqueraded first fragment's checksum would be wrong: that of SCTP (`CRC32c`) covers all fragments, and is mended by how far a
/// changed port lies from their end, which the first one does not tell.
///
/// The kernel puts such packets together first. Associations find the length that fits by themselves (RFC 9260 section 8.4), so
/// hardly any packet of theirs is ever fragmented.
fn cannot_be_mended(packet: &Packet, frame: &[u8], fate: Fate, rules: &Rules) -> bool {
    if packet.key.protocol != protocol::SCTP {
        return false;
    }
    match fate {
        Fate::Server(server, Method::Masquerading) => {
            let vport = packet.key.virtual_port;
            rules.server(server).is_some_and(|target| target.server.port_for(vport) != vport)
        }
        // An answer has its vport by now, whatever has become of its connection since.
        Fate::Send(..) => {
            frame.get(usize::from(packet.l4)..).and_then(|l4| l4.first_chunk()) != Some(&packet.key.client_port.to_be_bytes())
        }
        _ => false,
    }
}

/// Whether fragments from and to these addresses are placed: those to a VIP and those of a masquerading real server's answers.
fn is_ours(key: &Key, rules: &Rules) -> bool {
    rules.is_service_address(key.virtual_) || (rules.masqueraders.have(key.client) && !rules.is_own(key.virtual_))
}
