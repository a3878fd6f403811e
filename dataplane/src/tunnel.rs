//! Tunnels: the whole packet is carried inside another IP packet to its real server (RFC 2003, RFC 2473).
//!
//! The outer header is written into the headroom in front of the frame. What it takes over from the inner one is what IPVS
//! takes over: DSCP, ECN, TTL and "do not fragment".

use arrayvec::ArrayVec;
use dpdk::burst::BURST;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{EthernetHeader, Ipv4Header, Ipv6Header, checksum, ether_type, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::address::Address;
use crate::forward::{Refusal, decrement};
use crate::icmp_error::{Cause, IcmpErrors};
use crate::lanes::{Fate, Lanes};
use crate::parse::{Kind, L3, Packet};
use crate::rules::{Rules, ServerRules};
use crate::verdict::Verdict;

/// Every link carries IPv6 packets of this length (RFC 8200 section 5), so no sender is asked for shorter ones.
const LEAST_V6: u16 = 1280;
/// ECN bits (RFC 3168).
const ECN: u8 = 3;
/// ECT(0) stands in the outer header for a mark of congestion in the inner one, as IPVS has it (RFC 3168 section 9.1.1).
const ECT_0: u8 = 2;

/// What a worker needs for tunnels: ids for packets that may be fragmented, and fragments on their way out.
#[derive(Debug)]
pub struct Tunnels {
    next_id: u16,
    id_step: u16,
    /// Second and later fragments, with the port that each leaves by; the first ones are in their lanes.
    pub later_fragments: ArrayVec<(u16, Mbuf), BURST>,
}

/// What the outer header takes over from the inner one.
struct Inner {
    traffic_class: u8,
    hops: u8,
    may_fragment: bool,
    /// IP protocol number of the inner packet.
    protocol: u8,
}

impl Tunnels {
    /// For worker `index` of `workers`, which share the ids among them (RFC 6864).
    pub fn new(index: usize, workers: usize) -> Self {
        let number = |n| u16::try_from(n).unwrap_or(1);
        Self { next_id: number(index), id_step: number(workers), later_fragments: ArrayVec::new() }
    }

    /// Stage: every frame that forward left for a tunnel gets its outer header. `macs` are the ports' own, by port; `pool` is
    /// where fragments come from. Cost without tunnels: one comparison a burst.
    #[inline]
    pub fn encapsulate(&mut self, lanes: &mut Lanes, rules: &Rules, macs: &[[u8; 6]], pool: &Mempool, errors: &mut IcmpErrors) {
        while lanes.tunnelled != 0 {
            let i = lanes.tunnelled.trailing_zeros() as usize;
            lanes.tunnelled &= lanes.tunnelled - 1;
            let Fate::Server(server) = lanes.fates[i] else { continue };
            let packet = lanes.packets[i];
            let sent = match rules.server(server) {
                Some(target) => self.wrap(&mut lanes.frames[i], &packet, target, macs, pool),
                None => Err((Verdict::RealServerRemoved, None)),
            };
            lanes.fates[i] = match sent {
                Ok(port) => Fate::Send(port, Verdict::Forwarded),
                Err((verdict, cause)) => {
                    if let Some(cause) = cause.filter(|_| packet.kind == Kind::Flow) {
                        errors.ask(i, cause);
                    }
                    Fate::Drop(verdict)
                }
            };
        }
    }

    /// Puts the frame into a tunnel to `target`; gives the port that it leaves by.
    ///
    /// Of a frame that is refused nothing is changed but its TTL, which IPVS lowers before it looks at the length.
    fn wrap(&mut self, frame: &mut Mbuf, packet: &Packet, target: &ServerRules, macs: &[[u8; 6]], pool: &Mempool) -> Result<u16, Refusal> {
        let Some(hop) = target.next_hop else {
            return Err((if target.loops { Verdict::WouldLoop } else { Verdict::NoNextHop }, None));
        };
        let (Some(mac), Some(source)) = (macs.get(usize::from(hop.port)), target.server.tunnel_source) else {
            return Err((Verdict::NoNextHop, None));
        };
        if !decrement(frame.data_mut(), packet.v4) {
            return Err((Verdict::TtlExpired, Some(Cause::TimeExceeded)));
        }
        let inner = Inner::of(frame.data(), packet.v4).ok_or((Verdict::Short, None))?;
        let destination = target.server.address;
        let added = if destination.is_v4() { size_of::<Ipv4Header>() } else { size_of::<Ipv6Header>() };
        let added_length = if destination.is_v4() { 20 } else { 40 };
        let room = hop.mtu.saturating_sub(added_length);
        let fits = packet.length <= room;
        if !fits {
            let told = if packet.v4 { (!inner.may_fragment).then_some(room) } else { Some(room.max(LEAST_V6)) };
            if let Some(most) = told.filter(|most| packet.length > *most) {
                return Err((Verdict::TooBig, Some(Cause::TooBig(most))));
            }
            // Only an outer IPv4 header can be fragmented here, and only a frame in one piece.
            if !destination.is_v4() || !frame.is_contiguous() {
                return Err((Verdict::TooBig, None));
            }
        }
        // What a device added behind the packet to fill the frame would be carried along.
        let _ = frame.truncate(L3 + usize::from(packet.length));
        frame.prepend(added).ok_or((Verdict::NoBuffer, None))?;
        let ethernet = EthernetHeader {
            destination: hop.mac,
            source: *mac,
            ether_type: if destination.is_v4() { ether_type::IPV4 } else { ether_type::IPV6 }.into(),
        };
        let header = frame.data_mut();
        let written = ethernet.write_to_prefix(header).is_ok()
            && if let (Some(source), Some(destination)) = (source.as_v4(), destination.as_v4()) {
                // A packet in one piece that stays so needs no id (RFC 6864 section 4.1).
                let id = if inner.may_fragment { self.id() } else { 0 };
                inner.outer_v4(packet.length, id, source, destination).write_to_prefix(&mut header[L3..]).is_ok()
            } else {
                inner.outer_v6(packet.length, source, destination).write_to_prefix(&mut header[L3..]).is_ok()
            };
        if !written {
            return Err((Verdict::Short, None));
        }
        if !fits {
            self.fragment(frame, hop.mtu, hop.port, pool)?;
        }
        Ok(hop.port)
    }

    /// Cuts the outer packet, which has an IPv4 header without options, into pieces of at most `mtu` bytes (RFC 791).
    fn fragment(&mut self, frame: &mut Mbuf, mtu: u16, port: u16, pool: &Mempool) -> Result<(), Refusal> {
        const HEADERS: usize = L3 + size_of::<Ipv4Header>();
        let before = self.later_fragments.len();
        // Offsets count in units of eight bytes.
        let most = usize::from(mtu).saturating_sub(size_of::<Ipv4Header>()) & !7;
        let whole = frame.len().saturating_sub(HEADERS);
        if most == 0 {
            return Err((Verdict::TooBig, None));
        }
        for offset in (most..whole).step_by(most) {
            let length = most.min(whole - offset);
            let more = offset + length < whole;
            let copied = pool.alloc().and_then(|mut piece| {
                let bytes = piece.append(HEADERS + length)?;
                bytes[..HEADERS].copy_from_slice(frame.data().get(..HEADERS)?);
                bytes[HEADERS..].copy_from_slice(frame.data().get(HEADERS + offset..HEADERS + offset + length)?);
                mark_fragment(bytes, offset, more)?;
                Some(piece)
            });
            if copied.is_none_or(|piece| self.later_fragments.try_push((port, piece)).is_err()) {
                self.later_fragments.truncate(before);
                return Err((Verdict::NoBuffer, None));
            }
        }
        let _ = frame.truncate(HEADERS + most);
        mark_fragment(frame.data_mut(), 0, true).ok_or((Verdict::Short, None))
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(self.id_step);
        self.next_id
    }
}

/// Makes the IPv4 packet in `frame` the fragment at `offset`.
fn mark_fragment(frame: &mut [u8], offset: usize, more: bool) -> Option<()> {
    let length = u16::try_from(frame.len() - L3).ok()?;
    let (ip, _) = Ipv4Header::mut_from_prefix(frame.get_mut(L3..)?).ok()?;
    let more = if more { Ipv4Header::MORE_FRAGMENTS } else { 0 };
    ip.total_length = length.into();
    ip.flags_fragment = (u16::try_from(offset / 8).ok()? | more).into();
    ip.checksum = ip.expected_checksum().into();
    Some(())
}

impl Inner {
    fn of(frame: &[u8], v4: bool) -> Option<Self> {
        let l3 = frame.get(L3..)?;
        let inner = if v4 {
            let (ip, _) = Ipv4Header::ref_from_prefix(l3).ok()?;
            let may_fragment = ip.flags_fragment.get() & Ipv4Header::DONT_FRAGMENT == 0;
            Self { traffic_class: ip.tos, hops: ip.ttl, may_fragment, protocol: protocol::IPIP }
        } else {
            // The first four bytes are version (4 bits), traffic class (8) and flow label (20).
            let traffic_class = l3.first()? << 4 | l3.get(1)? >> 4;
            Self { traffic_class, hops: *l3.get(7)?, may_fragment: true, protocol: protocol::IPV6 }
        };
        let ecn = if inner.traffic_class & ECN == ECN { ECT_0 } else { inner.traffic_class & ECN };
        Some(Self { traffic_class: inner.traffic_class & !ECN | ecn, ..inner })
    }

    fn outer_v4(&self, length: u16, id: u16, source: u32, destination: u32) -> Ipv4Header {
        let mut header = Ipv4Header {
            version_ihl: 0x45,
            tos: self.traffic_class,
            total_length: length.saturating_add(20).into(),
            identification: id.into(),
            flags_fragment: if self.may_fragment { 0 } else { Ipv4Header::DONT_FRAGMENT }.into(),
            ttl: self.hops,
            protocol: self.protocol,
            checksum: 0.into(),
            source: source.to_be_bytes(),
            destination: destination.to_be_bytes(),
        };
        header.checksum = checksum::internet(header.as_bytes()).into();
        header
    }

    fn outer_v6(&self, length: u16, source: Address, destination: Address) -> Ipv6Header {
        Ipv6Header {
            version_class_flow: (6 << 28 | u32::from(self.traffic_class) << 20).into(),
            payload_length: length.into(),
            next_header: self.protocol,
            hop_limit: self.hops,
            source: source.0.to_be_bytes(),
            destination: destination.0.to_be_bytes(),
        }
    }
}
