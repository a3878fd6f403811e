//! Frames as clients, routers and attackers send them, from right ones to noise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::answers;
use super::choices::Choices;
use super::rig::{MACS, ROUTER_MAC};
use crate::reference::Director;
use crate::reference::connections::Key;
use crate::reference::wire::{checksum, checksum_with};

/// The longest frame that a buffer holds.
pub const LONGEST: usize = 2048;

/// What frames are about.
pub struct Places {
    /// Addresses of our own.
    pub ours: Vec<IpAddr>,
    /// Ends of services.
    pub services: Vec<(u8, SocketAddr)>,
    /// Connections that there were packets of lately.
    pub recent: Vec<Key>,
    /// The one that there was a packet of last.
    pub last: Option<Key>,
}

/// Whether any worker has a connection.
fn is_known(directors: &[Director], key: &Key) -> bool {
    directors.iter().any(|director| director.knows(key))
}

/// Connections that are remembered to be met again.
const RECENT: usize = 200;

impl Places {
    /// A connection of late, rather one that there is still.
    pub fn connection(&self, c: &mut Choices<'_>, directors: &[Director]) -> Key {
        let start = c.below(self.recent.len());
        let tries = self.recent.iter().cycle().skip(start).take(if c.one_in(8) { 1 } else { 16 });
        *tries.filter(|key| is_known(directors, key)).chain([&self.recent[start]]).next().expect("at least one")
    }

    fn remember(&mut self, c: &mut Choices<'_>, key: Key) {
        if self.recent.len() < RECENT {
            self.recent.push(key);
        } else {
            self.recent[c.below(RECENT)] = key;
        }
    }
}

const CLIENTS_V4: [[u8; 4]; 8] = [
    [198, 51, 100, 1],
    [198, 51, 100, 2],
    [198, 51, 100, 77],
    [198, 51, 101, 1],
    [203, 0, 113, 9],
    [192, 0, 2, 1],
    [10, 10, 24, 1],
    [100, 64, 0, 1],
];

pub fn client(c: &mut Choices<'_>, v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::from(c.pick(&CLIENTS_V4)).into()
    } else {
        let [high, low] = [c.pick(&[0x2001_0db8_u32, 0x2001_0db9, 0xfd00_0010]), c.pick(&[1_u32, 2, 0x1_0001, 0x77])];
        Ipv6Addr::from_bits(u128::from(high) << 96 | u128::from(low)).into()
    }
}

/// A frame, and sometimes what is left of one.
pub fn frame(c: &mut Choices<'_>, port: usize, places: &mut Places, directors: &[Director]) -> Vec<u8> {
    let known = c.below(4) < 3 && !places.recent.is_empty();
    // A conversation goes on, often within a burst.
    let connection = if c.one_in(3) { places.last } else { known.then(|| places.connection(c, directors)) };
    places.last = connection.or(places.last);
    let answers_from = connection.and_then(|key| directors.iter().find_map(|director| director.answers_from(&key)));
    let passing = connection.filter(|key| answers_from.is_none() && key.virtual_.is_ipv6() && c.one_in(8));
    if let Some(key) = passing {
        return answers::answer(c, port, key.protocol, key.virtual_, key.client);
    }
    let mut frame = match (c.below(16), connection.zip(answers_from)) {
        (0..4, Some((key, from))) => answers::of_connection(c, port, &key, from),
        (13, Some((key, from))) => answers::error(c, port, key.protocol, from, key.client),
        (0..10, _) => flow(c, port, places, connection, directors),
        (10, _) => arp(c, port, places),
        (11, _) => discovery(c, port, places),
        (12, _) => echo(c, port, places),
        (13 | 14, _) => icmp_error(c, port, places, connection),
        _ if c.one_in(4) => answers::unasked(c, port),
        _ => other(c, port, places),
    };
    if c.one_in(8) {
        mutate(c, &mut frame);
    }
    frame.truncate(LONGEST);
    frame
}

/// Whether a frame is a packet of this family and protocol without anything unusual about it, from a router to `mac`.
pub fn is_plain(frame: &[u8], (v4, protocol): (bool, u8), mac: [u8; 6]) -> bool {
    let (kind, carries, l4, shortest) = if v4 { ([8, 0, 0x45], 23, 34, 60) } else { ([0x86, 0xdd, 0x60], 20, 54, 74) };
    if frame.len() < shortest || frame[..6] != mac || frame[6..12] != ROUTER_MAC || frame[12..15] != kind || frame[carries] != protocol {
        return false;
    }
    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let length = if v4 { number(16).saturating_sub(20) } else { number(18) };
    let whole = !v4 || (frame[20] & 0x3f | frame[21] == 0 && checksum(&frame[14..34]) == 0);
    let claimed = if protocol == 17 { number(l4 + 4).max(8) } else { usize::from(frame[l4 + 12] >> 4).max(5) * 4 };
    whole && l4 + length <= frame.len() && claimed <= length
}

/// Whether a [plain](is_plain) packet neither begins nor ends a connection by itself.
pub fn goes_on(frame: &[u8], (v4, protocol): (bool, u8)) -> bool {
    const BEGINS_OR_ENDS: u8 = 7;
    protocol != 6 || frame[if v4 { 47 } else { 67 }] & BEGINS_OR_ENDS == 0
}

fn end_of_service(c: &mut Choices<'_>, places: &Places) -> (u8, SocketAddr) {
    let at_random = (c.pick(&[6, 17, 132]), SocketAddr::new(c.pick(&places.ours), c.pick(&[80, 53, 0, 81])));
    if places.services.is_empty() || c.one_in(12) { at_random } else { c.pick(&places.services) }
}

/// The packet of a connection: of one that there is, or of whatever client.
fn flow(c: &mut Choices<'_>, port: usize, places: &mut Places, known: Option<Key>, directors: &[Director]) -> Vec<u8> {
    let (protocol, source, destination) = if let Some(key) = known {
        (key.protocol, key.client, key.virtual_)
    } else {
        let (protocol, mut destination) = end_of_service(c, places);
        if destination.port() == 0 || c.one_in(32) {
            destination.set_port(c.pick(&[80, 81, 443, 53, 0, 65535]));
        }
        let ip = if c.one_in(64) { c.pick(&places.ours) } else { client(c, destination.is_ipv4()) };
        let ip = if ip.is_ipv4() == destination.is_ipv4() { ip } else { client(c, destination.is_ipv4()) };
        let port = if c.one_in(40) { 20 } else { 1000 + c.below(24) as u16 };
        let source = SocketAddr::new(ip, port);
        places.last = Some(Key { template: false, aside: 0, protocol, client: source, virtual_: destination });
        places.remember(c, Key { template: false, aside: 0, protocol, client: source, virtual_: destination });
        (protocol, source, destination)
    };
    let payload = payload(c);
    let first = known.is_none_or(|key| !is_known(directors, &key));
    packet(c, port, protocol, source, destination, &payload, first)
}

/// A datagram to a service that many fragments can be made of.
pub fn long_datagram(c: &mut Choices<'_>, port: usize, places: &Places) -> Vec<u8> {
    let (_, to) = end_of_service(c, places);
    let from = SocketAddr::new(client(c, to.is_ipv4()), 1000 + c.below(24) as u16);
    packet(c, port, 17, from, to, &[7; 1200], true)
}

pub fn payload(c: &mut Choices<'_>) -> Vec<u8> {
    let size = match c.below(12) {
        0..8 => c.below(24),
        8 => 1400 + c.below(120),
        9 => 1180 + c.below(100),
        10 => c.below(1900),
        _ => 0,
    };
    vec![c.byte(); size]
}

/// A packet of some connection; `first` when it is to begin one.
pub fn packet(
    c: &mut Choices<'_>,
    port: usize,
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
    first: bool,
) -> Vec<u8> {
    let message = match protocol {
        17 => datagram(c, source, destination, payload),
        132 => association(c, source, destination, payload, first),
        _ => segment(c, source, destination, payload, first),
    };
    ip(c, port, source.ip(), destination.ip(), protocol, &message)
}

fn segment(c: &mut Choices<'_>, source: SocketAddr, destination: SocketAddr, payload: &[u8], first: bool) -> Vec<u8> {
    let flags = match c.below(16) {
        0..12 if first => 2,
        0..5 => 2,
        5..9 => 16,
        9..11 => 17,
        11 => 4,
        12 => 24,
        13 => 18,
        _ => c.byte(),
    };
    let words = if c.one_in(6) { 5 + c.below(11) } else { 5 };
    let mut message = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, (words as u8) << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    message.resize(words * 4, 1);
    message.extend(payload);
    let sum = checksum_with(source.ip(), destination.ip(), 6, &message);
    message[16..18].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An SCTP packet of one or two chunks; nobody looks at its checksum.
fn association(c: &mut Choices<'_>, source: SocketAddr, destination: SocketAddr, payload: &[u8], first: bool) -> Vec<u8> {
    let mut message = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    message.extend([0; 8]);
    for n in 0..=usize::from(c.one_in(3)) {
        let kind = match c.below(8) {
            0..5 if first && n == 0 => 1,
            7 => c.byte(),
            _ => c.pick(&[0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14]),
        };
        let body = if n == 0 { c.below(12) } else { payload.len() };
        let length = if c.one_in(16) { c.byte().into() } else { 4 + body as u16 };
        message.extend([kind, 0]);
        message.extend(length.to_be_bytes());
        message.resize(message.len() + body.next_multiple_of(4), 5);
    }
    message
}

pub fn datagram(c: &mut Choices<'_>, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let length = if c.one_in(24) { c.pick(&[0, 7, 8, length.wrapping_add(1), length - 1, 65535]) } else { length };
    let mut message = [source.port(), destination.port(), length, 0].map(u16::to_be_bytes).concat();
    message.extend(payload);
    if c.one_in(2) {
        let sum = checksum_with(source.ip(), destination.ip(), 17, &message);
        message[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn hops(c: &mut Choices<'_>) -> u8 {
    if c.one_in(12) { c.pick(&[0, 1, 2, 255]) } else { 64 }
}

fn ethernet(c: &mut Choices<'_>, port: usize, ether_type: u16) -> Vec<u8> {
    let to = match c.below(64) {
        63 => [0xff; 6],
        62 => [1, 0, 0x5e, 0, 0, 1],
        61 => [0x33, 0x33, 0, 0, 0, 1],
        60 => [2, 0, 0, 0, 9, 9],
        59 => MACS[1 - port],
        _ => MACS[port],
    };
    let from = match c.below(64) {
        63 => MACS[port],
        62 => [3, 0, 0, 0, 0, 1],
        61 => c.bytes(6).try_into().expect("six"),
        _ => ROUTER_MAC,
    };
    [&to[..], &from, &ether_type.to_be_bytes()].concat()
}

/// The packet around a message, with padding behind it as short frames have.
pub fn ip(c: &mut Choices<'_>, port: usize, source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let options = if c.one_in(12) { 4 * c.below(11) } else { 0 };
            let fragment = match c.below(48) {
                47 => c.short(),
                46 => 0x2000,
                45 => 1 + c.below(200) as u16,
                0..20 => 0,
                _ => 0x4000,
            };
            let mut header = vec![0x45 + (options / 4) as u8, if c.one_in(6) { c.byte() } else { 0 }];
            header.extend((20 + options as u16 + message.len() as u16).to_be_bytes());
            header.extend(c.short().to_be_bytes());
            header.extend(fragment.to_be_bytes());
            header.extend([hops(c), protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            // No operation, or record route, timestamp, stream id and whatever else, of which some lie about their length.
            while c.one_in(2) && header.len() < 20 + options {
                let (kind, length) = (c.pick(&[7, 68, 131, 136, 148, 0, 1, 30]), 2 + c.below(9));
                header.extend([kind, length as u8]);
                header.resize(header.len() + length - 2, 4);
            }
            header.resize(20 + options, 1);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [&ethernet(c, port, 0x0800), &header, message].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut next = protocol;
            let mut extensions = Vec::new();
            if c.one_in(12) {
                let most = if c.one_in(8) { 10 } else { 3 };
                for _ in 0..c.below(most) {
                    let units = c.below(3);
                    let kind = c.pick(&[0, 43, 60, 60, 0, 43, 44, 51]);
                    let mut header = vec![next, if kind == 44 { 0 } else { units as u8 }];
                    header.resize(if kind == 44 { 8 } else { 8 + 8 * units }, if kind == 44 { c.byte() } else { 0 });
                    extensions = [header, extensions].concat();
                    next = kind;
                }
            }
            let class = if c.one_in(6) { c.byte() } else { 0 };
            let mut header = vec![0x60 | class >> 4, class << 4 | c.byte() & 15, 0, c.byte()];
            header.extend(((extensions.len() + message.len()) as u16).to_be_bytes());
            header.extend([next, hops(c)]);
            header.extend(source.octets());
            header.extend(destination.octets());
            [&ethernet(c, port, 0x86dd), &header, &extensions[..], message].concat()
        }
        _ => panic!("two families"),
    };
    if frame.len() < 60 && !c.one_in(4) {
        frame.resize(60, 0);
    } else if c.one_in(32) {
        let more = c.below(40);
        frame.resize(frame.len() + more, 0xee);
    }
    frame
}

fn of_family(places: &Places, c: &mut Choices<'_>, v4: bool) -> IpAddr {
    let some: Vec<IpAddr> = places.ours.iter().filter(|a| a.is_ipv4() == v4).copied().collect();
    if some.is_empty() || c.one_in(6) { client(c, v4) } else { c.pick(&some) }
}

fn arp(c: &mut Choices<'_>, port: usize, places: &Places) -> Vec<u8> {
    let mut frame = ethernet(c, port, 0x0806);
    if !c.one_in(3) {
        frame[..6].fill(0xff);
    }
    let octets = |address: IpAddr| if let IpAddr::V4(v4) = address { v4.octets() } else { [0; 4] };
    let sender = if c.one_in(12) { of_family(places, c, true) } else { client(c, true) };
    let target = if c.one_in(8) { sender } else { of_family(places, c, true) };
    let mac: Vec<u8> = if c.one_in(16) { c.bytes(6) } else { frame[6..12].to_vec() };
    frame.extend([0, 1, 8, 0, 6, 4, 0]);
    frame.push(if c.one_in(8) { c.byte() % 4 } else { 1 + u8::from(c.one_in(4)) });
    frame.extend(mac);
    frame.extend(octets(sender));
    frame.extend([0; 6]);
    frame.extend(octets(target));
    if !c.one_in(4) {
        frame.resize(60, 0);
    }
    frame
}

/// An ICMPv6 message with its checksum.
fn icmpv6(source: IpAddr, destination: IpAddr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum_with(source, destination, 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn discovery(c: &mut Choices<'_>, port: usize, places: &Places) -> Vec<u8> {
    let source = if c.one_in(6) { Ipv6Addr::UNSPECIFIED.into() } else { client(c, false) };
    let target = of_family(places, c, false);
    let IpAddr::V6(target_v6) = target else { panic!("IPv6") };
    let destination: IpAddr = if c.one_in(2) {
        Ipv6Addr::from_bits(0xff02 << 112 | 1 << 32 | 0xff00_0000 | target_v6.to_bits() & 0xff_ffff).into()
    } else {
        target
    };
    let kind = if c.one_in(4) { 133 + c.below(5) as u8 } else { 135 };
    let mut message = vec![kind, u8::from(c.one_in(24)), 0, 0, 0, 0, 0, 0];
    message.extend(target_v6.octets());
    for _ in 0..c.below(3) {
        let units = if c.one_in(8) { c.below(4) } else { 1 };
        let mut option = vec![c.pick(&[1, 2, 14]), units as u8];
        option.resize(if c.one_in(16) { 5 } else { 8 * units.max(1) }, 7);
        message.extend(option);
    }
    if c.one_in(16) {
        message.push(1);
    }
    let mut frame = ip(c, port, source, destination, 58, &icmpv6(source, destination, message));
    if !c.one_in(16) {
        frame[21] = 255;
    }
    if destination != target && !c.one_in(8) {
        frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 1]);
    }
    frame
}

fn echo(c: &mut Choices<'_>, port: usize, places: &Places) -> Vec<u8> {
    let v4 = c.one_in(2);
    let (source, destination) = (client(c, v4), of_family(places, c, v4));
    let size = if c.one_in(8) { c.below(1500) } else { c.below(60) };
    let noise = c.byte();
    let kind = if c.one_in(8) {
        c.byte()
    } else if v4 {
        8
    } else {
        128
    };
    let mut message = vec![kind, u8::from(c.one_in(32)), 0, 0, 1, 2, 0, 1];
    message.resize(8 + size, noise);
    if c.one_in(24) {
        message.truncate(c.below(9).max(4));
    }
    if v4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        message = icmpv6(source, destination, message);
    }
    ip(c, port, source, destination, if v4 { 1 } else { 58 }, &message)
}

/// An error from a router about a packet of a VIP's to a client, of a connection that there is or that somebody made up.
fn icmp_error(c: &mut Choices<'_>, port: usize, places: &Places, known: Option<Key>) -> Vec<u8> {
    let (protocol, client_end, virtual_) = if let Some(key) = known {
        (key.protocol, key.client, key.virtual_)
    } else {
        let (protocol, end) = end_of_service(c, places);
        (protocol, SocketAddr::new(client(c, end.is_ipv4()), 1000 + c.below(24) as u16), end)
    };
    let destination = if c.one_in(16) { of_family(places, c, virtual_.is_ipv4()) } else { virtual_.ip() };
    error(c, port, protocol, virtual_, client_end, destination)
}

/// An error from a router to `to` about a packet from `source` to `destination`.
pub fn error(c: &mut Choices<'_>, port: usize, protocol: u8, source: SocketAddr, destination: SocketAddr, to: IpAddr) -> Vec<u8> {
    let v4 = source.is_ipv4();
    let size = if c.one_in(8) { c.below(1400) } else { 12 + c.below(40) };
    let mut quoted = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    quoted.resize(4 + size, 3);
    let quote = ip(&mut Choices::Seed(u64::from(c.byte())), 0, source.ip(), destination.ip(), protocol, &quoted).split_off(14);
    let kind = if c.one_in(8) {
        c.byte()
    } else if v4 {
        c.pick(&[3, 4, 11])
    } else {
        c.pick(&[1, 2, 3])
    };
    let mut message = vec![kind, c.pick(&[0, 1, 3, 4]), 0, 0, 0, 0, c.pick(&[0, 5]), c.byte()];
    message.extend(&quote[..if c.one_in(10) { c.below(quote.len() + 1) } else { quote.len() }]);
    let from = client(c, v4);
    if v4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        message = icmpv6(from, to, message);
    }
    ip(c, port, from, to, if v4 { 1 } else { 58 }, &message)
}

/// Other protocols, other ether types, plain noise.
fn other(c: &mut Choices<'_>, port: usize, places: &Places) -> Vec<u8> {
    match c.below(4) {
        0 | 1 => {
            let v4 = c.one_in(2);
            let (source, destination) = (client(c, v4), of_family(places, c, v4));
            let size = c.below(80);
            let message = c.bytes(size);
            let protocol = if c.one_in(2) { c.byte() } else { c.pick(&[47, 50, 132, 4, 41, 2, 89, 112]) };
            ip(c, port, source, destination, protocol, &message)
        }
        2 => {
            let ether_type = c.pick(&[0x8100, 0x88a8, 0x8808, 0x88cc, 0x0026, 0x8847]);
            let size = c.below(60);
            [ethernet(c, port, ether_type), c.bytes(size)].concat()
        }
        _ => {
            let size = c.below(90);
            c.bytes(size)
        }
    }
}

/// Damage: cut short, bits turned, fields set; now and then with the header's checksum mended, so that it is read on.
fn mutate(c: &mut Choices<'_>, frame: &mut Vec<u8>) {
    for _ in 0..=c.below(3) {
        if frame.is_empty() {
            return;
        }
        // Headers are where it hurts.
        let reach = if c.one_in(4) { frame.len() } else { frame.len().min(78) };
        let at = c.below(reach);
        match c.below(6) {
            0 => frame.truncate(at),
            1 => frame[at] = c.byte(),
            2 | 3 => frame[at] ^= 1 << c.below(8),
            4 => frame[at] = c.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            _ => {
                let more = c.below(30);
                frame.resize(frame.len() + more, c.byte());
            }
        }
    }
    if !c.one_in(4) && frame.len() >= 34 && frame[12..14] == [8, 0] {
        let header = 14 + usize::from(frame[14] & 15) * 4;
        if (34..=frame.len()).contains(&header) {
            frame[24..26].fill(0);
            let sum = checksum(&frame[14..header]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
}
