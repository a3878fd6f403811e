//! ICMP errors about our own tunnels: a router on the way to a real server quotes the outer packet.

use dpdk::net::{Ipv4Header, Ipv6Header, checksum, ether_type, protocol};
use zerocopy::FromBytes;

use super::Tunnels;
use crate::address::Address;
use crate::connection::Key;
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{Kind, L3, Packet};
use crate::rules::Rules;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::verdict::Verdict;

const ICMP_HEADER: usize = 8;

impl Tunnels {
    /// Stage: drops what [`Self::is_notice`] took notice of. Cost without ICMP and the like: one comparison a burst.
    #[inline]
    pub fn take_notice(&mut self, lanes: &mut Lanes, port: u16, rules: &Rules, tracker: &Tracker, now: Tick) {
        for i in each(lanes.others) {
            let packet = lanes.packets[i];
            let candidate = matches!(packet.kind, Kind::Icmp | Kind::Icmpv6) && rules.is_local(packet.key.virtual_, port);
            if candidate && self.is_notice(lanes.frames[i].data(), &packet, rules, tracker, now) {
                lanes.others &= !(1 << i);
                lanes.fates[i] = Fate::Drop(Verdict::TunnelError);
            }
        }
    }

    /// Takes notice of "fragmentation needed" (RFC 792) or "packet too big" (RFC 4443) about a tunnel of ours: from now on
    /// clients are told the length that fits. `true` when that is what the frame is; anything else is left alone.
    ///
    /// The quote must hold a request of a connection, wrapped as we wrap it and bound for that connection's real server, so that
    /// who does not see the packets cannot shorten the path.
    fn is_notice(&mut self, frame: &[u8], packet: &Packet, rules: &Rules, tracker: &Tracker, now: Tick) -> bool {
        let said = || {
            let icmp = frame.get(usize::from(packet.l4)..L3 + usize::from(packet.length))?;
            let mtu = too_big(frame, icmp, packet.v4)?;
            let quote = Quote::read(icmp.get(ICMP_HEADER..)?, packet.v4)?;
            let target = rules.server(tracker.server_of(&quote.request)?.0)?;
            let tunnel = target.server.tunnel?;
            let ours = (tunnel.source, target.server.address) == (quote.source, quote.destination) && quote.source == packet.key.virtual_;
            ours.then_some((target.server.address, mtu))
        };
        said().is_some_and(|(server, mtu)| self.paths.learn(server, mtu, now))
    }
}

/// The MTU that a right "too big" names.
fn too_big(frame: &[u8], icmp: &[u8], v4: bool) -> Option<u16> {
    if v4 {
        let &[3, 4, _, _, _, _, high, low] = icmp.first_chunk()? else { return None };
        (checksum::internet(icmp) == 0).then_some(u16::from_be_bytes([high, low]))
    } else {
        let &[2, 0, _, _, a, b, c, d] = icmp.first_chunk()? else { return None };
        let (ip, _) = Ipv6Header::ref_from_prefix(frame.get(L3..)?).ok()?;
        let pseudo = checksum::pseudo_v6(&ip.source, &ip.destination, protocol::ICMPV6, u32::try_from(icmp.len()).ok()?);
        let mtu = u16::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(u16::MAX);
        (checksum::segment(pseudo, icmp) == 0).then_some(mtu)
    }
}

/// The outer packet as a router quotes it.
struct Quote {
    source: Address,
    destination: Address,
    /// The request inside.
    request: Key,
}

impl Quote {
    fn read(quote: &[u8], v4: bool) -> Option<Self> {
        let (outer, rest) = Header::read(quote, v4)?;
        let (inner_v4, inner) = match outer.protocol {
            protocol::IPIP => (true, rest),
            protocol::IPV6 => (false, rest),
            protocol::UDP => gue(rest)?,
            protocol::GRE => gre(rest)?,
            _ => return None,
        };
        let (inner, ports) = Header::read(inner, inner_v4)?;
        let &[a, b, c, d] = ports.first_chunk()?;
        let request = Key {
            client: inner.source,
            virtual_: inner.destination,
            client_port: u16::from_be_bytes([a, b]),
            virtual_port: u16::from_be_bytes([c, d]),
            protocol: inner.protocol,
        };
        Some(Self { source: outer.source, destination: outer.destination, request })
    }
}

/// The packet in a GUE datagram (draft-ietf-intarea-gue): its family and its bytes.
fn gue(udp: &[u8]) -> Option<(bool, &[u8])> {
    let &[first, next, ..] = udp.get(8..)?.first_chunk::<4>()?;
    // Two bits of version, one for control messages, five for the length of options in words.
    let after = udp.get(12 + usize::from(first & 0x1f) * 4..).filter(|_| first & 0xe0 == 0)?;
    match next {
        protocol::IPIP => Some((true, after)),
        protocol::IPV6 => Some((false, after)),
        _ => None,
    }
}

/// The packet behind a GRE header as we write it: a checksum at most (RFC 2784).
fn gre(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let &[flags, version, high, low] = bytes.first_chunk()?;
    let after = match (flags, version) {
        (0, 0) => bytes.get(4..)?,
        (0x80, 0) => bytes.get(8..)?,
        _ => return None,
    };
    match u16::from_be_bytes([high, low]) {
        ether_type::IPV4 => Some((true, after)),
        ether_type::IPV6 => Some((false, after)),
        _ => None,
    }
}

struct Header {
    source: Address,
    destination: Address,
    protocol: u8,
}

impl Header {
    /// An IP header that is not one of a later fragment, and what follows it.
    fn read(bytes: &[u8], v4: bool) -> Option<(Self, &[u8])> {
        if v4 {
            let (ip, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
            let right = ip.version() == 4 && ip.header_len() >= size_of::<Ipv4Header>() && ip.is_first_fragment();
            let address = |octets| Address::v4(u32::from_be_bytes(octets));
            let header = Self { source: address(ip.source), destination: address(ip.destination), protocol: ip.protocol };
            Some((header, bytes.get(ip.header_len()..).filter(|_| right)?))
        } else {
            let (ip, rest) = Ipv6Header::ref_from_prefix(bytes).ok()?;
            let address = |octets| Address(u128::from_be_bytes(octets));
            let header = Self { source: address(ip.source), destination: address(ip.destination), protocol: ip.next_header };
            Some((header, rest)).filter(|_| ip.version() == 6)
        }
    }
}
