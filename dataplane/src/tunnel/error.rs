//! ICMP errors about our own tunnels: a router on the way to a real server quotes the outer packet, and the client whose packet is
//! inside is told what the router said (RFC 2003 section 4, RFC 2473 section 8).

use dpdk::mempool::Mempool;
use dpdk::net::{Ipv4Header, Ipv6Header, ether_type, protocol};
use zerocopy::FromBytes;

use super::{LEAST_V6, Tunnels};
use crate::address::Address;
use crate::connection::{EntryId, Key};
use crate::handover::{HandOver, Journey};
use crate::icmp_error::{self, About, Cause, IcmpErrors};
use crate::icmp_related::{is_intact, is_of_service};
use crate::lanes::{Fate, Lanes, each};
use crate::masquerade::for_reply;
use crate::parse::{Kind, L3, Packet};
use crate::rules::Rules;
use crate::service::Method;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::verdict::Verdict;

const ICMP_HEADER: usize = 8;
/// "Fragmentation needed" is "destination unreachable" with this code (RFC 792).
const FRAGMENTATION_NEEDED: u8 = 4;

/// What the stage looks at beside the frames.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The port that they came by.
    pub port: u16,
    /// The rules.
    pub rules: &'a Rules,
    /// The connections.
    pub tracker: &'a Tracker,
    /// The ports' MACs, by port.
    pub macs: &'a [[u8; 6]],
    /// Where frames for clients come from.
    pub pool: &'a Mempool,
    /// The present.
    pub now: Tick,
}

impl Tunnels {
    /// Stage: takes notice of ICMP errors about tunnels of ours, and tells the clients. Cost without ICMP and the like: one
    /// comparison a burst.
    #[inline]
    pub fn take_notice(&mut self, lanes: &mut Lanes, around: Around<'_>, handover: &mut Option<HandOver>, errors: &mut IcmpErrors) {
        for i in each(lanes.others) {
            let packet = lanes.packets[i];
            let candidate = matches!(packet.kind, Kind::Icmp | Kind::Icmpv6) && around.rules.is_local(packet.key.virtual_, around.port);
            let handover = handover.as_mut().map(|handover| (handover, &mut lanes.journeys[i]));
            if candidate && let Some(fate) = self.notice(lanes.frames[i].data(), &packet, around, handover, errors) {
                lanes.others &= !(1 << i);
                lanes.fates[i] = fate;
            }
        }
    }

    /// What becomes of an error about a tunnel of ours; `None` for anything else, which is left alone.
    ///
    /// The quote must hold a request of a connection, wrapped as we wrap it and bound for that connection's real server, so that
    /// who does not see the packets can neither shorten the path nor have clients told anything. Where another worker may have the
    /// connection, it goes there.
    #[inline(never)]
    fn notice(
        &mut self,
        frame: &[u8],
        packet: &Packet,
        around: Around<'_>,
        handover: Option<(&mut HandOver, &mut Journey)>,
        errors: &mut IcmpErrors,
    ) -> Option<Fate> {
        let Around { rules, tracker, .. } = around;
        let icmp = frame.get(usize::from(packet.l4)..L3 + usize::from(packet.length))?;
        let said = Said::read(icmp, packet.v4)?;
        let quote = Quote::read(icmp.get(ICMP_HEADER..)?, packet.v4)?;
        if quote.source != packet.key.virtual_ {
            return None;
        }
        let Some(id) = tracker.connections.find(tracker.connections.hash(&quote.request), &quote.request) else {
            let (handover, journey) = handover.filter(|_| is_of_service(&quote.request, rules))?;
            let owner = handover.directory().owner(&quote.request);
            return handover.error_elsewhere(journey, owner);
        };
        let entry = tracker.connections.entry(id);
        let target = rules.server(entry.server()).filter(|_| entry.method() == Method::Tunnel)?;
        if (target.server.tunnel?.source, target.server.address) != (quote.source, quote.destination) {
            return None;
        }
        if !is_intact(frame, packet) {
            return Some(Fate::Drop(Verdict::BadChecksum));
        }
        let cause = match said {
            Said::TooBig(mtu) => {
                if !self.paths.learn(target.server.address, mtu, around.now) {
                    return None;
                }
                // The link's, even while its MAC is one of ours and nothing is sent by it: what the client learns outlasts that.
                let link = target.server.next_hop.map_or(u16::MAX, |hop| hop.mtu);
                let room = self.paths.towards(target.server.address, link, around.now).saturating_sub(quote.overhead);
                quote.too_big(room)
            }
            Said::Other(kind, code) => match (packet.v4, quote.v4) {
                (true, true) => Some(Cause::OfTunnel(kind, code)),
                // Unreachable: the host for IPv4, the address for IPv6 (RFC 2473 sections 8.2 and 8.3).
                (_, true) => Some(Cause::OfTunnel(3, 1)),
                (_, false) => Some(Cause::OfTunnel(1, 3)),
            },
        };
        if let Some(cause) = cause {
            tell(id, &quote, cause, around, errors);
        }
        Some(Fate::Drop(Verdict::TunnelError))
    }
}

/// Sends the client an error about its packet, by the gateway. One on a network of ours, or where there is no gateway, is not told: nobody
/// remembers its MAC, and its next packet that is too long draws an error anyway.
fn tell(id: EntryId, quote: &Quote<'_>, cause: Cause, Around { rules, tracker, macs, pool, .. }: Around<'_>, errors: &mut IcmpErrors) {
    let Some(hop) = rules.routes.way_to(quote.request.client, None) else { return };
    let Some(mac) = macs.get(usize::from(hop.port)) else { return };
    let about = About { packet: quote.packet, v4: quote.v4, macs: [hop.mac, *mac], source: None };
    if errors.send(hop.port, || icmp_error::write_about(pool, about, cause)) {
        let entry = tracker.connections.entry(id);
        for_reply(entry.server(), entry.service(), rules, |traffic| {
            traffic.out_packets.add(1);
            traffic.out_bytes.add(quote.packet.len() as u64);
        });
    }
}

/// What an error says.
#[derive(Clone, Copy)]
enum Said {
    /// "Fragmentation needed" or "packet too big": the MTU that the next link has.
    TooBig(u16),
    /// Type and code of any other that is about the way.
    Other(u8, u8),
}

impl Said {
    /// Reads destination unreachable, source quench and time exceeded (RFC 792), or destination unreachable, packet too big and time
    /// exceeded (RFC 4443); `None` for any other message.
    fn read(icmp: &[u8], v4: bool) -> Option<Self> {
        let &[kind, code, _, _, a, b, c, d] = icmp.first_chunk()?;
        match (v4, kind) {
            (true, 3) if code == FRAGMENTATION_NEEDED => Some(Self::TooBig(u16::from_be_bytes([c, d]))),
            (false, 2) => Some(Self::TooBig(u16::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(u16::MAX))),
            (true, 3 | 4 | 11) | (false, 1 | 3) => Some(Self::Other(kind, code)),
            _ => None,
        }
    }
}

/// The outer packet as a router quotes it.
struct Quote<'a> {
    source: Address,
    destination: Address,
    /// The packet inside, as far as it is quoted.
    packet: &'a [u8],
    /// Whether that is IPv4.
    v4: bool,
    /// Bytes in front of it.
    overhead: u16,
    /// Its key.
    request: Key,
}

impl<'a> Quote<'a> {
    /// The client is told what its packets may have at most, if it can do anything about it: an IPv4 one that allows fragments gets
    /// no error, and for IPv6 every link takes 1280 bytes.
    fn too_big(&self, room: u16) -> Option<Cause> {
        if self.v4 {
            let asks = self.packet.get(6).is_some_and(|flags| flags & 0x40 != 0);
            return asks.then_some(Cause::TooBig(room));
        }
        let (ip, _) = Ipv6Header::ref_from_prefix(self.packet).ok()?;
        let most = room.max(LEAST_V6);
        (ip.payload_length.get() > most - 40).then_some(Cause::TooBig(most))
    }

    fn read(quote: &'a [u8], v4: bool) -> Option<Self> {
        let (outer, rest) = Header::read(quote, v4)?;
        let (inner_v4, packet) = match outer.protocol {
            protocol::IPIP => (true, rest),
            protocol::IPV6 => (false, rest),
            protocol::UDP => gue(rest)?,
            protocol::GRE => gre(rest)?,
            _ => return None,
        };
        let (inner, ports) = Header::read(packet, inner_v4)?;
        if !matches!(inner.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return None;
        }
        let overhead = u16::try_from(quote.len() - packet.len()).ok()?;
        let &[a, b, c, d] = ports.first_chunk()?;
        let request = Key {
            client: inner.source,
            virtual_: inner.destination,
            client_port: u16::from_be_bytes([a, b]),
            virtual_port: u16::from_be_bytes([c, d]),
            protocol: inner.protocol,
        };
        Some(Self { source: outer.source, destination: outer.destination, packet, v4: inner_v4, overhead, request })
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
