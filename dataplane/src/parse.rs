//! From bytes to a [`Packet`]: every frame is checked once, here, and what follows relies on it.

use dpdk::net::{EthernetHeader, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader, checksum, ether_type, protocol};
use zerocopy::FromBytes;

use crate::address::Address;
use crate::connection::Key;
use crate::sctp;
use crate::verdict::Verdict;

/// Bytes before the IP header: an Ethernet header without tags.
pub const L3: usize = 14;
/// The same as offsets are kept.
const L3_OFFSET: u16 = 14;
/// Bytes of an IPv6 header.
const IPV6_HEADER: u16 = 40;
/// Extension headers that are walked in one IPv6 packet (RFC 8200); with more the packet goes to the kernel.
const MAX_EXTENSION_HEADERS: usize = 8;

/// What a packet is to the stages that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A whole TCP segment, UDP datagram or SCTP packet: the key has ports.
    Flow,
    /// An ARP packet; the key means nothing.
    Arp,
    /// ICMP for IPv4.
    Icmp,
    /// ICMP for IPv6, but for neighbour discovery.
    Icmpv6,
    /// Neighbour discovery (RFC 4861): ICMPv6 types 133 to 137.
    Discovery,
    /// A fragment, the first one or a later one.
    Fragment,
    /// Any other IP packet, for the kernel.
    Other,
}

/// What the stages need to know of a frame; 16-byte aligned and two cache lines at most.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// What it is.
    pub kind: Kind,
    /// Whether it is IPv4.
    pub v4: bool,
    /// Whether the frame was sent to our own MAC, not to a group.
    pub to_us: bool,
    /// TCP's flags byte; for SCTP what [`sctp::read`] makes of its chunks; 0 for everything else.
    pub tcp_flags: u8,
    /// Offset of the transport header from the start of the frame.
    pub l4: u16,
    /// Length of the IP packet in bytes, without Ethernet header and padding.
    pub length: u16,
    /// Source and destination; ports only for [`Kind::Flow`].
    pub key: Key,
}

impl Packet {
    /// Whether it may be an answer to a question of the kernel's about a neighbour.
    pub const fn is_neighbour_message(&self) -> bool {
        matches!(self.kind, Kind::Arp | Kind::Discovery)
    }

    /// A packet of no kind that any stage acts on, to fill a burst with.
    pub const NONE: Self = Self {
        kind: Kind::Other,
        v4: true,
        to_us: false,
        tcp_flags: 0,
        l4: 0,
        length: 0,
        key: Key { client: Address(0), virtual_: Address(0), client_port: 0, virtual_port: 0, protocol: 0 },
    };
}

/// Reads a frame as far as forwarding needs it.
///
/// `frame` is the contiguous beginning, `whole` the length of all of it, `checksum_bad` the device's word on the IPv4 header
/// checksum. Errors are the verdict for a frame that breaks its own rules. Sources: RFC 791, RFC 8200, RFC 9293, RFC 768,
/// RFC 1122 section 3.2.1.3. Cost: one pass over the headers, no more than 64 bytes without extension headers; see
/// [`plain`](crate::plain) for the short way.
#[inline(never)]
pub fn parse(frame: &[u8], whole: usize, our_mac: [u8; 6], checksum_bad: bool) -> Result<Packet, Verdict> {
    let Ok((ethernet, l3)) = EthernetHeader::ref_from_prefix(frame) else { return Err(Verdict::Short) };
    let to_us = ethernet.destination == our_mac;
    if !to_us && ethernet.destination[0] & 1 == 0 {
        return Err(Verdict::NotOurMac);
    }
    if ethernet.source == our_mac {
        return Err(Verdict::OwnMacSource);
    }
    if ethernet.source[0] & 1 != 0 {
        return Err(Verdict::MartianSource);
    }
    let room = whole - L3;
    match ethernet.ether_type.get() {
        ether_type::IPV4 => ipv4(l3, room, to_us, checksum_bad),
        ether_type::IPV6 => ipv6(l3, room, to_us),
        ether_type::ARP => Ok(Packet { kind: Kind::Arp, to_us, ..Packet::NONE }),
        ether_type::VLAN | ether_type::QINQ => Err(Verdict::UnknownVlan),
        _ => Err(Verdict::EtherType),
    }
}

#[inline]
fn ipv4(l3: &[u8], room: usize, to_us: bool, checksum_bad: bool) -> Result<Packet, Verdict> {
    let Ok((ip, _)) = Ipv4Header::ref_from_prefix(l3) else { return Err(Verdict::Short) };
    if ip.version() != 4 {
        return Err(Verdict::BadVersion);
    }
    let header = ip.header_len();
    if header < size_of::<Ipv4Header>() {
        return Err(Verdict::BadHeaderLength);
    }
    let length = ip.total_length.get();
    if usize::from(length) < header || usize::from(length) > room {
        return Err(Verdict::BadLength);
    }
    let Some(headers) = l3.get(..header) else { return Err(Verdict::Short) };
    if checksum_bad || checksum::internet(headers) != 0 {
        return Err(Verdict::BadChecksum);
    }
    let (source, destination) = (u32::from_be_bytes(ip.source), u32::from_be_bytes(ip.destination));
    check_v4(source, destination)?;
    if !to_us && destination >> 28 != 0xe && destination != u32::MAX {
        // A group's MAC with one host's address: RFC 1122 section 3.3.6 has it dropped.
        return Err(Verdict::NotOurMac);
    }
    let mut packet = Packet {
        kind: Kind::Other,
        v4: true,
        to_us,
        tcp_flags: 0,
        // An IHL is at most 60.
        l4: L3_OFFSET + u16::from(ip.ihl()) * 4,
        length,
        key: Key {
            client: Address::v4(source),
            virtual_: Address::v4(destination),
            client_port: 0,
            virtual_port: 0,
            protocol: ip.protocol,
        },
    };
    if ip.is_fragment() {
        packet.kind = Kind::Fragment;
        return Ok(packet);
    }
    transport(&mut packet, l3.get(header..).unwrap_or_default(), usize::from(length) - header)?;
    Ok(packet)
}

/// Refuses addresses that no packet may have: "this network" and loopback, and as a source multicast, reserved and broadcast
/// (RFC 1122, RFC 6890).
#[inline]
pub(crate) const fn check_v4(source: u32, destination: u32) -> Result<(), Verdict> {
    if matches!(source >> 24, 0 | 127 | 224..=255) {
        return Err(Verdict::MartianSource);
    }
    if matches!(destination >> 24, 0 | 127) {
        return Err(Verdict::MartianDestination);
    }
    Ok(())
}

/// Refuses addresses that no packet may have: loopback and IPv4's, as a source groups, as a destination none.
#[inline]
pub(crate) const fn check_v6(source: Address, destination: Address) -> Result<(), Verdict> {
    if source.0 >> 120 == 0xff || source.0 == 1 || source.is_v4() {
        return Err(Verdict::MartianSource);
    }
    if destination.0 <= 1 || destination.is_v4() {
        return Err(Verdict::MartianDestination);
    }
    Ok(())
}

#[inline]
fn ipv6(l3: &[u8], room: usize, to_us: bool) -> Result<Packet, Verdict> {
    let Ok((ip, _)) = Ipv6Header::ref_from_prefix(l3) else { return Err(Verdict::Short) };
    if ip.version() != 6 {
        return Err(Verdict::BadVersion);
    }
    let Some(length) = ip.payload_length.get().checked_add(IPV6_HEADER).filter(|l| usize::from(*l) <= room) else {
        return Err(Verdict::BadLength);
    };
    let source = Address(u128::from_be_bytes(ip.source));
    let destination = Address(u128::from_be_bytes(ip.destination));
    check_v6(source, destination)?;
    if !to_us && destination.0 >> 120 != 0xff {
        return Err(Verdict::NotOurMac);
    }
    let mut packet = Packet {
        kind: Kind::Other,
        v4: false,
        to_us,
        tcp_flags: 0,
        l4: L3_OFFSET + IPV6_HEADER,
        length,
        key: Key { client: source, virtual_: destination, client_port: 0, virtual_port: 0, protocol: ip.next_header },
    };
    if !matches!(ip.next_header, protocol::TCP | protocol::UDP | protocol::ICMPV6) {
        skip_extension_headers(&mut packet, l3)?;
    }
    if source.0 == 0 && packet.kind != Kind::Icmpv6 && packet.key.protocol != protocol::ICMPV6 {
        // Only duplicate address detection speaks without an address (RFC 4862 section 5.4.2).
        return Err(Verdict::MartianSource);
    }
    if packet.kind == Kind::Fragment {
        return Ok(packet);
    }
    let skipped = usize::from(packet.l4) - L3;
    transport(&mut packet, l3.get(skipped..).unwrap_or_default(), usize::from(length) - skipped)?;
    Ok(packet)
}

/// Walks to the transport header, or to a fragment header that has others beside it.
fn skip_extension_headers(packet: &mut Packet, l3: &[u8]) -> Result<(), Verdict> {
    let end = usize::from(packet.length);
    let (next, at) = extension_headers(l3, packet.key.protocol, size_of::<Ipv6Header>(), end)?;
    packet.key.protocol = next;
    if next == protocol::FRAGMENT {
        packet.kind = Kind::Fragment;
    }
    // `at` is at most `end`, a 16-bit length.
    packet.l4 = u16::try_from(L3 + at).map_err(|_| Verdict::BadLength)?;
    Ok(())
}

/// Walks hop-by-hop, routing and destination options in `bytes`, from the header `next` at `at` on, up to `end` (RFC 8200
/// section 4); gives the header that it ended at, and where that is. A fragment header of a packet in one piece is walked
/// like any other: such packets are what they would be without it (RFC 6946).
pub(crate) fn extension_headers(bytes: &[u8], mut next: u8, mut at: usize, end: usize) -> Result<(u8, usize), Verdict> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let units = match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => *bytes.get(at + 1).ok_or(Verdict::Short)?,
            protocol::FRAGMENT => {
                let Some(Ok((header, _))) = bytes.get(at..).map(Ipv6FragmentHeader::ref_from_prefix) else { return Err(Verdict::Short) };
                if header.fragment_offset() != 0 || header.more_fragments() {
                    break;
                }
                0
            }
            _ => break,
        };
        next = *bytes.get(at).ok_or(Verdict::Short)?;
        at += 8 + usize::from(units) * 8;
        if at > end {
            return Err(Verdict::BadHeaderLength);
        }
    }
    Ok((next, at))
}

#[inline]
fn transport(packet: &mut Packet, l4: &[u8], length: usize) -> Result<(), Verdict> {
    match packet.key.protocol {
        protocol::TCP => {
            if length < size_of::<TcpHeader>() {
                return Err(Verdict::BadLength);
            }
            let Ok((tcp, _)) = TcpHeader::ref_from_prefix(l4) else { return Err(Verdict::Short) };
            let offset = tcp.data_offset();
            if offset < size_of::<TcpHeader>() || offset > length {
                return Err(Verdict::BadHeaderLength);
            }
            packet.kind = Kind::Flow;
            packet.tcp_flags = tcp.flags;
            packet.key.client_port = tcp.source_port.get();
            packet.key.virtual_port = tcp.destination_port.get();
        }
        protocol::UDP => {
            if length < size_of::<UdpHeader>() {
                return Err(Verdict::BadLength);
            }
            let Ok((udp, _)) = UdpHeader::ref_from_prefix(l4) else { return Err(Verdict::Short) };
            let claimed = usize::from(udp.length.get());
            if claimed < size_of::<UdpHeader>() || claimed > length {
                return Err(Verdict::BadLength);
            }
            packet.kind = Kind::Flow;
            packet.key.client_port = udp.source_port.get();
            packet.key.virtual_port = udp.destination_port.get();
        }
        protocol::SCTP => {
            let whole = l4.get(..length).unwrap_or(l4);
            let Some((client_port, virtual_port, flags)) = sctp::read(whole) else {
                return Err(if whole.len() == length { Verdict::BadLength } else { Verdict::Short });
            };
            packet.kind = Kind::Flow;
            packet.tcp_flags = flags;
            packet.key.client_port = client_port;
            packet.key.virtual_port = virtual_port;
        }
        protocol::ICMP if packet.v4 => packet.kind = Kind::Icmp,
        protocol::ICMPV6 if !packet.v4 => packet.kind = if matches!(l4.first(), Some(133..=137)) { Kind::Discovery } else { Kind::Icmpv6 },
        _ => packet.kind = Kind::Other,
    }
    if !packet.to_us && packet.kind == Kind::Flow {
        // A group is nobody's virtual service: routing protocols and the like are the kernel's.
        packet.kind = Kind::Other;
    }
    Ok(())
}
