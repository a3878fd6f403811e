//! Reading frames, field by field, as RFC 791, 8200, 826, 9293 and 768 lay them out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{sctp, tcp};

/// Bytes before the IP header.
pub const L3: usize = 14;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tcp { flags: u8 },
    Udp,
    Sctp { event: sctp::Event, first: u8 },
    Icmp,
    Icmpv6,
    Discovery,
    Arp,
    Fragment,
    Other,
}

/// What a frame turned out to be.
#[derive(Clone, Debug)]
pub struct Packet {
    pub kind: Kind,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    /// Where the transport header begins in the frame.
    pub l4: usize,
    /// Bytes of the IP packet.
    pub length: usize,
    /// Whether the frame was sent to our own MAC, not to a group.
    pub to_us: bool,
}

impl Packet {
    pub fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::Tcp { .. } | Kind::Udp | Kind::Sctp { .. })
    }

    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Whether it asks for a connection: SYN, INIT.
    pub fn opens(&self) -> bool {
        match self.kind {
            Kind::Tcp { flags } => flags & tcp::SYN != 0,
            Kind::Sctp { first, .. } => first == 1,
            _ => false,
        }
    }

    /// Whether it ends one at once: RST, ABORT.
    pub fn aborts(&self) -> bool {
        match self.kind {
            Kind::Tcp { flags } => flags & tcp::RST != 0,
            Kind::Sctp { first, .. } => first == 6,
            _ => false,
        }
    }
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn v4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

pub fn v6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    octets.into()
}

/// RFC 1071, two bytes at a time; an odd last byte counts as the high one.
pub fn ones_sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

pub fn ones(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

pub fn checksum(bytes: &[u8]) -> u16 {
    ones(ones_sum(bytes))
}

/// The checksum of a message behind the pseudo-header of either family.
pub fn checksum_with(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let addresses = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => ones_sum(&s.octets()) + ones_sum(&d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => ones_sum(&s.octets()) + ones_sum(&d.octets()),
        _ => panic!("two families"),
    };
    ones(addresses + u32::from(protocol) + message.len() as u32 + ones_sum(message))
}

const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What the frame is, or the verdict on one that breaks its own rules.
pub fn read(frame: &[u8], our_mac: [u8; 6]) -> Result<Packet, &'static str> {
    if frame.len() < L3 {
        return Err("short");
    }
    let to_us = frame[..6] == our_mac;
    let to_group = frame[0] % 2 == 1;
    if !to_us && !to_group {
        return Err("not_our_mac");
    }
    if frame[6..12] == our_mac {
        return Err("own_mac_source");
    }
    if frame[6] % 2 == 1 {
        return Err("martian_source");
    }
    let mut packet = match be16(frame, 12) {
        0x0800 => read_v4(frame, to_us)?,
        0x86dd => read_v6(frame, to_us)?,
        0x0806 => Packet { kind: Kind::Arp, source: NOBODY, destination: NOBODY, protocol: 0, l4: L3, length: frame.len() - L3, to_us },
        0x8100 | 0x88a8 => return Err("unknown_vlan"),
        _ => return Err("ether_type"),
    };
    // What is sent to a group is nobody's virtual service.
    if packet.is_flow() && !to_us {
        packet.kind = Kind::Other;
        packet.source.set_port(0);
        packet.destination.set_port(0);
    }
    Ok(packet)
}

fn read_v4(frame: &[u8], to_us: bool) -> Result<Packet, &'static str> {
    let ip = &frame[L3..];
    if ip.len() < 20 {
        return Err("short");
    }
    if ip[0] >> 4 != 4 {
        return Err("bad_version");
    }
    let header = usize::from(ip[0] & 15) * 4;
    if header < 20 {
        return Err("bad_header_length");
    }
    let length = usize::from(be16(ip, 2));
    if length < header || length > ip.len() {
        return Err("bad_length");
    }
    if checksum(&ip[..header]) != 0 {
        return Err("bad_checksum");
    }
    let (source, destination) = (v4_at(ip, 12), v4_at(ip, 16));
    if matches!(source.octets()[0], 0 | 127) || source.octets()[0] >= 224 {
        return Err("martian_source");
    }
    if matches!(destination.octets()[0], 0 | 127) {
        return Err("martian_destination");
    }
    if !to_us && !destination.is_multicast() && !destination.is_broadcast() {
        return Err("not_our_mac");
    }
    let packet = Packet {
        kind: Kind::Other,
        source: (source, 0).into(),
        destination: (destination, 0).into(),
        protocol: ip[9],
        l4: L3 + header,
        length,
        to_us,
    };
    if be16(ip, 6) & 0x3fff != 0 {
        return Ok(Packet { kind: Kind::Fragment, ..packet });
    }
    read_transport(frame, packet)
}

fn read_v6(frame: &[u8], to_us: bool) -> Result<Packet, &'static str> {
    let ip = &frame[L3..];
    if ip.len() < 40 {
        return Err("short");
    }
    if ip[0] >> 4 != 6 {
        return Err("bad_version");
    }
    let length = 40 + usize::from(be16(ip, 4));
    if length > ip.len() || length > 0xffff {
        return Err("bad_length");
    }
    let (source, destination) = (v6_at(ip, 8), v6_at(ip, 24));
    if source.is_multicast() || source.is_loopback() || source.to_ipv4_mapped().is_some() {
        return Err("martian_source");
    }
    if destination.is_unspecified() || destination.is_loopback() || destination.to_ipv4_mapped().is_some() {
        return Err("martian_destination");
    }
    if !to_us && !destination.is_multicast() {
        return Err("not_our_mac");
    }
    // Up to eight of hop-by-hop options, routing header, destination options and fragment headers of whole packets, to whatever
    // follows.
    let (mut next, mut at, mut walked) = (ip[6], 40, 0);
    while matches!(next, 0 | 43 | 44 | 60) && walked < 8 {
        if ip.len() < at + if next == 44 { 8 } else { 2 } {
            return Err("short");
        }
        if next == 44 && be16(ip, at + 2) & 0xfff9 != 0 {
            break;
        }
        let units = if next == 44 { 0 } else { usize::from(ip[at + 1]) };
        next = ip[at];
        at += 8 + 8 * units;
        if at > length {
            return Err("bad_header_length");
        }
        walked += 1;
    }
    let kind = if next == 44 { Kind::Fragment } else { Kind::Other };
    let packet =
        Packet { kind, source: (source, 0).into(), destination: (destination, 0).into(), protocol: next, l4: L3 + at, length, to_us };
    // Only duplicate address detection speaks without an address.
    if source.is_unspecified() && next != 58 {
        return Err("martian_source");
    }
    if packet.kind == Kind::Fragment { Ok(packet) } else { read_transport(frame, packet) }
}

fn read_transport(frame: &[u8], mut packet: Packet) -> Result<Packet, &'static str> {
    let message = &frame[packet.l4..L3 + packet.length];
    match (packet.protocol, packet.is_v4()) {
        (6, _) => {
            if message.len() < 20 {
                return Err("bad_length");
            }
            let header = usize::from(message[12] >> 4) * 4;
            if header < 20 || header > message.len() {
                return Err("bad_header_length");
            }
            packet.kind = Kind::Tcp { flags: message[13] };
        }
        (17, _) => {
            if message.len() < 8 {
                return Err("bad_length");
            }
            let claimed = usize::from(be16(message, 4));
            if claimed < 8 || claimed > message.len() {
                return Err("bad_length");
            }
            packet.kind = Kind::Udp;
        }
        (132, _) => {
            let (event, first) = sctp::read(message).ok_or("bad_length")?;
            packet.kind = Kind::Sctp { event, first };
        }
        (1, true) => packet.kind = Kind::Icmp,
        (58, false) => packet.kind = if matches!(message.first(), Some(133..=137)) { Kind::Discovery } else { Kind::Icmpv6 },
        _ => {}
    }
    if packet.is_flow() {
        packet.source.set_port(be16(message, 0));
        packet.destination.set_port(be16(message, 2));
    }
    Ok(packet)
}

/// The connection's packet that an ICMP error quotes: protocol, source and destination. `None` when it says too little.
pub fn quoted(error: &[u8], v4: bool) -> Option<(u8, SocketAddr, SocketAddr)> {
    let quote = error.get(8..)?;
    let (protocol, source, destination, ports): (u8, IpAddr, IpAddr, usize) = if v4 {
        let header = usize::from(quote.first()? & 15) * 4;
        if quote.len() < 20 || quote[0] >> 4 != 4 || header < 20 || be16(quote, 6) & 0x1fff != 0 {
            return None;
        }
        (quote[9], v4_at(quote, 12).into(), v4_at(quote, 16).into(), header)
    } else {
        if quote.len() < 40 || quote[0] >> 4 != 6 {
            return None;
        }
        (quote[6], v6_at(quote, 8).into(), v6_at(quote, 24).into(), 40)
    };
    if quote.len() < ports + 4 || !matches!(protocol, 6 | 17 | 132) {
        return None;
    }
    Some((protocol, (source, be16(quote, ports)).into(), (destination, be16(quote, ports + 2)).into()))
}
