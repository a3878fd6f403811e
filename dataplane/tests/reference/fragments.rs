//! Fragments (RFC 791, RFC 8200 section 4.5) to VIPs and of masqueraded answers: all of a datagram go where its first one went.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use dataplane::address::Address;
use dataplane::connection::Hasher;
use dataplane::service::Method;

use super::connections::Key;
use super::handover::Journey;
use super::wire::{Kind, L3, Packet, be16};
use super::{Director, Fate, Lane, sctp};

/// Two seconds.
const LIFETIME: u32 = 200;
/// Fragments that wait, those of one datagram, and those whose first one has come.
const WAITING: usize = 512;
const OF_ONE: usize = 64;
/// Datagrams are remembered in so many places, so many in each; which, nobody can foretell who does not know the secret.
const PLACES: u64 = 1024;
const IN_ONE: usize = 4;

/// What all fragments of a datagram have in common: source, destination, id, and for IPv4 the protocol.
pub type Datagram = (IpAddr, IpAddr, u32, u8);

/// One fragment: its bytes within the datagram, whether others follow, and where in the frame they are.
struct Piece {
    datagram: Datagram,
    from: usize,
    to: usize,
    more: bool,
    next: u8,
    at: usize,
}

/// What became of a first fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Server(u32, Method),
    Answer,
    Passed(usize),
    Kernel,
    Dropped,
    Overlapping,
}

/// What a part is to those that came before.
#[derive(PartialEq, Eq)]
enum Part {
    New,
    Known,
    Overlaps,
    Unclear,
}

#[derive(Clone)]
struct Known {
    datagram: Datagram,
    way: Way,
    service: Option<u32>,
    ports: (u16, u16),
    protocol: u8,
    /// Eight bytes each: whether they have come.
    units: Vec<bool>,
    end: Option<usize>,
    until: u32,
}

impl Known {
    fn add(&mut self, piece: &Piece) -> Part {
        let (from, to) = (piece.from / 8, piece.to.div_ceil(8));
        if self.units.len() < to + 1 {
            self.units.resize(to + 1, false);
        }
        let have = self.units[from..to].iter().filter(|unit| **unit).count();
        if have == to - from {
            return Part::Known;
        }
        if have > 0 {
            return Part::Overlaps;
        }
        let touches = (from > 0 && self.units[from - 1]) || self.units[to];
        let runs = self.units.iter().zip([&false].into_iter().chain(&self.units)).filter(|(unit, before)| **unit && !**before).count();
        if runs == 8 && !touches {
            return Part::Unclear;
        }
        self.units[from..to].fill(true);
        if !piece.more {
            self.end = Some(to);
        }
        Part::New
    }

    fn is_complete(&self) -> bool {
        let last = self.units.iter().rposition(|unit| *unit).map_or(0, |last| last + 1);
        self.end == Some(last) && self.units[..last].iter().all(|unit| *unit)
    }
}

/// A fragment that waits, in the order in which they came.
#[derive(Clone)]
pub struct Waiting {
    number: usize,
    datagram: Datagram,
    pub frame: Vec<u8>,
    /// How it came, and by which port.
    pub journey: Journey,
    until: u32,
}

#[derive(Clone)]
pub struct Fragments {
    hasher: Hasher,
    known: BTreeMap<u64, [Option<Known>; IN_ONE]>,
    waiting: Vec<Waiting>,
    next_number: usize,
    /// Fragments whose first one has come.
    pub ready: VecDeque<Waiting>,
    /// First fragments of this burst, by lane, with how far they reach.
    firsts: Vec<(usize, Datagram, usize)>,
}

fn is_over(now: u32, until: u32) -> bool {
    now.wrapping_sub(until) < 1 << 31
}

impl Fragments {
    pub fn new(seed: [u64; 4]) -> Self {
        let (waiting, ready, firsts) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { hasher: Hasher::new(seed), known: BTreeMap::new(), waiting, next_number: 0, ready, firsts }
    }

    fn place(&mut self, (source, destination, id, protocol): Datagram) -> &mut [Option<Known>; IN_ONE] {
        let key = dataplane::connection::Key {
            client: Address::from(source),
            virtual_: Address::from(destination),
            client_port: (id >> 16) as u16,
            virtual_port: id as u16,
            protocol,
        };
        let place = self.hasher.hash(&key) % 0x1_0000 % PLACES;
        self.known.entry(place).or_default()
    }

    fn find(&mut self, datagram: Datagram, now: u32) -> Option<&mut Known> {
        self.place(datagram).iter_mut().flatten().find(|known| known.datagram == datagram && !is_over(now, known.until))
    }

    fn forget(&mut self, datagram: Datagram) {
        for known in self.place(datagram) {
            if known.as_ref().is_some_and(|known| known.datagram == datagram) {
                *known = None;
            }
        }
    }

    /// In the place of the same datagram, of none, or of the one with least time left.
    fn remember(&mut self, new: Known, now: u32) {
        let place = self.place(new.datagram);
        let same = place.iter().position(|known| known.as_ref().is_some_and(|known| known.datagram == new.datagram));
        let free = place.iter().position(|known| known.as_ref().is_none_or(|known| is_over(now, known.until)));
        let left = |n: &usize| place[*n].as_ref().map_or(0, |known| known.until.wrapping_sub(now));
        let oldest = (0..IN_ONE).min_by_key(left).expect("four");
        place[same.or(free).unwrap_or(oldest)] = Some(new);
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether some have waited too long.
    pub fn are_due(&self, now: u32) -> bool {
        self.waiting.first().is_some_and(|first| is_over(now, first.until))
    }

    /// Those that have waited too long, 64 at most.
    pub fn expired(&mut self, now: u32) -> usize {
        let count = self.waiting.iter().take(64).take_while(|waiting| is_over(now, waiting.until)).count();
        self.waiting.drain(..count);
        count
    }

    /// Keeps one; `false` if it, or the oldest in its stead, is given up.
    pub fn hold(&mut self, frame: Vec<u8>, journey: Journey, datagram: Datagram, now: u32) -> bool {
        let mut new = Waiting { number: 0, datagram, frame, journey, until: now.wrapping_add(LIFETIME) };
        if self.find(datagram, now).is_some() && self.ready.len() < WAITING {
            self.ready.push_back(new);
            return true;
        }
        if self.waiting.iter().filter(|waiting| waiting.datagram == datagram).count() >= OF_ONE {
            return false;
        }
        // Places are used in turn: one that is free again counts until all older ones are.
        let first = self.waiting.first().map_or(self.next_number, |first| first.number);
        let full = self.next_number - first == WAITING;
        if full {
            self.waiting.remove(0);
        }
        new.number = self.next_number;
        self.next_number += 1;
        self.waiting.push(new);
        !full
    }

    fn let_go(&mut self, datagram: Datagram) {
        let mut at = 0;
        while at < self.waiting.len() && self.ready.len() < WAITING {
            if self.waiting[at].datagram == datagram {
                self.ready.push_back(self.waiting.remove(at));
            } else {
                at += 1;
            }
        }
    }
}

fn read(frame: &[u8], packet: &Packet) -> Result<Piece, &'static str> {
    let end = L3 + packet.length;
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    let (id, word, next, at) = if packet.is_v4() {
        (u32::from(be16(frame, 18)), u32::from(be16(frame, 20)), packet.protocol, packet.l4)
    } else {
        let header = frame.get(packet.l4..packet.l4 + 8).ok_or("short")?;
        // The offset counts eight bytes as IPv4's does, and lies three bits higher.
        let word = u32::from(be16(header, 2));
        (u32::from(be16(header, 4)) << 16 | u32::from(be16(header, 6)), word >> 3 | (word & 1) << 13, header[0], packet.l4 + 8)
    };
    let (from, more) = ((word & 0x1fff) as usize * 8, word & 0x2000 != 0);
    let length = end.checked_sub(at).ok_or("fragment_bad")?;
    if length == 0 || (more && !length.is_multiple_of(8)) || from + length > 65_535 {
        return Err("fragment_bad");
    }
    Ok(Piece { datagram: (source, destination, id, packet.protocol), from, to: from + length, more, next, at })
}

/// Makes the packet what its first fragment says that it is.
fn complete(frame: &[u8], packet: &mut Packet, piece: &Piece) -> Result<(), &'static str> {
    let end = L3 + packet.length;
    let (mut next, mut at) = (piece.next, piece.at);
    for _ in 0..8 {
        if packet.is_v4() || !matches!(next, 0 | 43 | 44 | 60) {
            break;
        }
        let header = frame.get(at..at + if next == 44 { 8 } else { 2 }).ok_or("short")?;
        if next == 44 && be16(header, 2) & 0xfff9 != 0 {
            break;
        }
        at += 8 + if next == 44 { 0 } else { usize::from(header[1]) * 8 };
        next = header[0];
        if at > end {
            return Err("bad_header_length");
        }
    }
    let message = &frame[at..end];
    (packet.protocol, packet.l4) = (next, at);
    packet.kind = match next {
        6 => {
            if message.len() < 20 {
                return Err("fragment_tiny");
            }
            let header = usize::from(message[12] >> 4) * 4;
            if header < 20 {
                return Err("bad_header_length");
            }
            if header > message.len() {
                return Err("fragment_tiny");
            }
            Kind::Tcp { flags: message[13] }
        }
        17 => {
            if message.len() < 8 {
                return Err("fragment_tiny");
            }
            if usize::from(be16(message, 4)) <= message.len() {
                return Err("bad_length");
            }
            Kind::Udp
        }
        132 => {
            let (event, first) = sctp::read(message).ok_or("fragment_tiny")?;
            Kind::Sctp { event, first }
        }
        _ => return Ok(()),
    };
    packet.source.set_port(be16(message, 0));
    packet.destination.set_port(be16(message, 2));
    Ok(())
}

impl Director {
    /// Whether fragments between these are placed.
    fn is_placed(&self, packet: &Packet) -> bool {
        let (source, destination) = (packet.source.ip(), packet.destination.ip());
        packet.kind == Kind::Fragment
            && packet.to_us
            && (self.is_served(destination) || (self.is_masquerading_server(source) && !self.is_own(destination)))
    }

    /// What becomes of a fragment; `None` for one that is nobody's service's. A first one becomes the packet that it begins.
    pub(super) fn place(&mut self, at: usize, lane: &mut Lane) -> Option<Fate> {
        let Lane { frame, packet: Some(packet), journey, .. } = lane else { return None };
        if !self.is_placed(packet) {
            return None;
        }
        Some(match read(frame, packet) {
            Err(verdict) => Fate::Drop(verdict),
            Ok(piece) if piece.from == 0 => self.first_fragment(at, frame, packet, &piece),
            Ok(piece) => self.later_fragment(frame, packet, &piece, journey),
        })
    }

    fn first_fragment(&mut self, at: usize, frame: &[u8], packet: &mut Packet, piece: &Piece) -> Fate {
        let mut whole = packet.clone();
        if let Err(verdict) = complete(frame, &mut whole, piece) {
            return Fate::Drop(verdict);
        }
        if let Some(known) = self.fragments.find(piece.datagram, self.now) {
            if known.way == Way::Overlapping {
                return Fate::Drop("fragment_overlap");
            }
            if !packet.is_v4() {
                if known.add(piece) == Part::Overlaps {
                    known.way = Way::Overlapping;
                }
                return Fate::Drop("fragment_overlap");
            }
            if (known.ports, known.protocol) != ((whole.source.port(), whole.destination.port()), whole.protocol) {
                return Fate::Drop("fragment_overlap");
            }
        }
        self.fragments.firsts.push((at, piece.datagram, piece.to));
        let is_flow = whole.is_flow();
        *packet = whole;
        if is_flow { Fate::Undecided } else { Fate::Kernel }
    }

    fn later_fragment(&mut self, frame: &mut [u8], packet: &Packet, piece: &Piece, journey: &mut Journey) -> Fate {
        let Some(known) = self.fragments.find(piece.datagram, self.now) else { return Fate::Hold(piece.datagram) };
        if known.way == Way::Overlapping {
            return Fate::Drop("fragment_overlap");
        }
        let header = match known.protocol {
            6 => 20,
            132 => 16,
            _ => 8,
        };
        if piece.from < header {
            return Fate::Drop("fragment_tiny");
        }
        let part = known.add(piece);
        if !packet.is_v4() && part != Part::New {
            if part == Part::Overlaps {
                known.way = Way::Overlapping;
            }
            return Fate::Drop("fragment_overlap");
        }
        let Known { way, service, ports, protocol, .. } = *known;
        if known.is_complete() {
            self.fragments.forget(piece.datagram);
        }
        let bytes = piece.to - piece.from;
        match way {
            Way::Server(server, method) => {
                let known = self.servers.contains_key(&server);
                self.traffic_if(known.then_some(server), service, |traffic| traffic.bytes += bytes as u64);
                Fate::Server(server, method)
            }
            Way::Answer => self.answer_fragment(frame, packet, ports, protocol, bytes),
            Way::Passed(to) => self.elsewhere(journey, Some(to)).unwrap_or(Fate::Drop("fragment")),
            Way::Kernel => Fate::Kernel,
            Way::Dropped | Way::Overlapping => Fate::Drop("fragment"),
        }
    }

    /// Before a burst.
    pub(super) fn no_firsts(&mut self) {
        self.fragments.firsts.clear();
    }

    /// Lanes of first fragments.
    pub(super) fn firsts(&self) -> Vec<usize> {
        self.fragments.firsts.iter().map(|(lane, ..)| *lane).collect()
    }

    /// Whether a first fragment's checksum, that of SCTP, would have to know how long the whole packet is.
    fn cannot_be_mended(&self, lane: &Lane) -> bool {
        let Some(packet) = lane.packet.as_ref().filter(|packet| packet.protocol == 132) else { return false };
        match (&lane.fate, lane.answers) {
            (Fate::Server(server, Method::Masquerading), _) => {
                let vport = packet.destination.port();
                self.real_end(*server, vport).is_some_and(|end| end.port() != vport)
            }
            (Fate::Send(..), Some(key)) => key.virtual_.port() != packet.source.port(),
            _ => false,
        }
    }

    /// Remembers what became of the first fragments, before anything is sent.
    pub(super) fn learn(&mut self, lanes: &mut [Lane]) {
        for (at, datagram, reach) in std::mem::take(&mut self.fragments.firsts) {
            if self.cannot_be_mended(&lanes[at]) {
                lanes[at].fate = Fate::Drop("fragment_checksum");
            }
            let Lane { packet: Some(packet), fate, journey, .. } = &lanes[at] else { continue };
            let key = Key::of(packet);
            let entry = self.connections.get(&key).filter(|_| packet.is_flow()).map(|entry| (entry.service, entry.server));
            let way = match fate {
                Fate::Server(server, method) => Way::Server(*server, *method),
                Fate::Kernel => Way::Kernel,
                Fate::HandOver(to) => Way::Passed(*to),
                Fate::Send(..) => Way::Answer,
                _ => Way::Dropped,
            };
            if let Some((_, server)) = entry {
                self.keep_flow(&key, server);
                if journey.under_way {
                    self.note(packet.protocol, packet.source, packet.destination);
                }
            }
            let service = entry
                .map(|(service, _)| service)
                .or_else(|| if packet.is_flow() { self.service_of(packet).map(|(id, _)| id) } else { None });
            let ports = (SocketAddr::port(&packet.source), packet.destination.port());
            let until = self.now.wrapping_add(LIFETIME);
            let mut units = vec![true; reach.div_ceil(8)];
            units.push(false);
            let known = Known { datagram, way, service, ports, protocol: packet.protocol, units, end: None, until };
            self.fragments.remember(known, self.now);
            self.fragments.let_go(datagram);
        }
    }
}
