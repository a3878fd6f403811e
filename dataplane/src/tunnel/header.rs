//! What stands in front of a packet in a tunnel: an IP header, and for GUE and GRE another one behind it.

use dpdk::net::{Ipv4Header, Ipv6Header, UdpHeader, checksum, ether_type, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::address::Address;
use crate::connection::Key;
use crate::parse::L3;
use crate::service::Encapsulation;

/// ECN bits (RFC 3168).
const ECN: u8 = 3;
/// ECT(0) stands in the outer header for a mark of congestion in the inner one, as IPVS has it (RFC 3168 section 9.1.1).
const ECT_0: u8 = 2;
/// The GUE header without options: version 0, no control message, no flags (draft-ietf-intarea-gue section 3).
const GUE: usize = 4;
/// GRE's flag for a checksum (RFC 2784 section 2.1).
const GRE_CHECKSUM: u8 = 0x80;

/// Bytes of an IP header without options of that family.
pub(super) const fn ip_header(v4: bool) -> usize {
    if v4 { size_of::<Ipv4Header>() } else { size_of::<Ipv6Header>() }
}

impl Encapsulation {
    /// Bytes between the outer IP header and the packet inside: 0, 4, 8 or 12.
    pub const fn overhead(self) -> usize {
        match self {
            Self::IpIp => 0,
            Self::Gue { .. } => size_of::<UdpHeader>() + GUE,
            Self::Gre { checksum: false } => 4,
            Self::Gre { checksum: true } => 8,
        }
    }

    /// Whether a checksum goes over the whole packet.
    pub const fn has_checksum(self) -> bool {
        matches!(self, Self::Gue { checksum: true, .. } | Self::Gre { checksum: true })
    }
}

/// What the outer header takes over from the inner one.
pub(super) struct Inner {
    /// DSCP and ECN.
    pub(super) traffic_class: u8,
    /// TTL or hop limit.
    pub(super) hops: u8,
    /// Whether the packet outside may be cut.
    pub(super) may_fragment: bool,
    /// IP protocol number of the inner packet.
    protocol: u8,
}

/// A packet that is about to get its outer headers.
pub(super) struct Outer {
    /// The DIP.
    pub(super) source: Address,
    /// The RIP.
    pub(super) destination: Address,
    /// What stands between the headers.
    pub(super) encapsulation: Encapsulation,
    /// For an IPv4 header.
    pub(super) id: u16,
    /// UDP source port, for GUE.
    pub(super) source_port: u16,
    /// Bytes of the packet inside.
    pub(super) length: u16,
}

impl Inner {
    /// What an IPv4 packet of zeros gives.
    pub(super) const NOTHING: Self = Self { traffic_class: 0, hops: 0, may_fragment: true, protocol: protocol::IPIP };

    #[inline(always)]
    pub(super) fn of(frame: &[u8], v4: bool) -> Option<Self> {
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
}

/// Bytes that a tunnel to `rip` puts before a packet.
pub fn outer_length(rip: Address, encapsulation: Encapsulation) -> usize {
    ip_header(rip.is_v4()) + encapsulation.overhead()
}

/// Writes the outer headers into `frame`, an Ethernet header with the ether type of the packet inside, [`outer_length`] bytes for
/// them, and the packet; `None` when something of it is missing. For the control plane's own frames: workers make room in mbufs.
pub fn write_outer(frame: &mut [u8], source: Address, rip: Address, encapsulation: Encapsulation) -> Option<()> {
    /// A source port for GUE that all such frames may share.
    const SOURCE_PORT: u16 = 32_768;
    const ETHER_TYPE: usize = L3 - 2;
    let added = outer_length(rip, encapsulation);
    let v4 = frame.get(ETHER_TYPE..L3)? == ether_type::IPV4.to_be_bytes();
    // `Inner` reads behind an Ethernet header: the bytes before the packet are as good as one.
    let inner = Inner::of(frame.get(added..)?, v4)?;
    let length = u16::try_from(frame.len().checked_sub(L3 + added)?).ok()?;
    let outer = Outer { source, destination: rip, encapsulation, id: 0, source_port: SOURCE_PORT, length };
    outer.write(frame, &inner)?;
    let kind = if rip.is_v4() { ether_type::IPV4 } else { ether_type::IPV6 };
    frame.get_mut(ETHER_TYPE..L3)?.copy_from_slice(&kind.to_be_bytes());
    Some(())
}

/// The source port of a flow's GUE datagrams, one of 32768 to 60999: it spreads flows over the receiver's queues (RFC 6438),
/// and is the same for all packets of a flow, on every worker.
pub(super) fn flow_port(key: &Key) -> u16 {
    const FIRST: u64 = 32_768;
    const PORTS: u64 = 28_232;
    let fold = |a: Address| {
        let [.., h3, h2, h1, h0] = (a.0 ^ a.0 >> 64).to_be_bytes();
        u64::from(u32::from_be_bytes([h3, h2, h1, h0]))
    };
    let ports = u64::from(key.client_port) << 16 | u64::from(key.virtual_port);
    let mixed = (fold(key.client) << 32 ^ fold(key.virtual_) ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The high half times the number of ports: less than the number of ports in its own high half.
    u16::try_from(FIRST + (((mixed >> 32) * PORTS) >> 32)).unwrap_or_default()
}

impl Outer {
    /// Writes the outer headers behind the Ethernet header of `frame`, in front of the inner packet; `None` when it is shorter
    /// than they are. Cost: one pass over the packet where a checksum is wanted.
    pub(super) fn write(&self, frame: &mut [u8], inner: &Inner) -> Option<()> {
        let (header, payload) = frame.get_mut(L3..)?.split_at_mut_checked(ip_header(self.destination.is_v4()))?;
        let between = u16::try_from(self.encapsulation.overhead()).ok()?;
        let length = self.length.saturating_add(between);
        let next = match self.encapsulation {
            Encapsulation::IpIp => inner.protocol,
            Encapsulation::Gue { port, checksum } => self.gue(payload, inner, length, port, checksum)?,
            Encapsulation::Gre { checksum } => gre(payload, inner, checksum)?,
        };
        match (self.source.as_v4(), self.destination.as_v4()) {
            (Some(source), Some(destination)) => {
                let mut ip = Ipv4Header {
                    version_ihl: 0x45,
                    tos: inner.traffic_class,
                    total_length: length.saturating_add(20).into(),
                    identification: self.id.into(),
                    flags_fragment: if inner.may_fragment { 0 } else { Ipv4Header::DONT_FRAGMENT }.into(),
                    ttl: inner.hops,
                    protocol: next,
                    checksum: 0.into(),
                    source: source.to_be_bytes(),
                    destination: destination.to_be_bytes(),
                };
                ip.checksum = checksum::internet(ip.as_bytes()).into();
                ip.write_to(header).ok()
            }
            _ => Ipv6Header {
                version_class_flow: (6 << 28 | u32::from(inner.traffic_class) << 20).into(),
                payload_length: length.into(),
                next_header: next,
                hop_limit: inner.hops,
                source: self.source.0.to_be_bytes(),
                destination: self.destination.0.to_be_bytes(),
            }
            .write_to(header)
            .ok(),
        }
    }

    fn gue(&self, payload: &mut [u8], inner: &Inner, length: u16, port: u16, checksum: bool) -> Option<u8> {
        let udp =
            UdpHeader { source_port: self.source_port.into(), destination_port: port.into(), length: length.into(), checksum: 0.into() };
        udp.write_to_prefix(payload).ok()?;
        payload.get_mut(8..12)?.copy_from_slice(&[0, inner.protocol, 0, 0]);
        if checksum {
            let pseudo = if let (Some(s), Some(d)) = (self.source.as_v4(), self.destination.as_v4()) {
                checksum::pseudo_v4(s.to_be_bytes(), d.to_be_bytes(), protocol::UDP, length)
            } else {
                let (s, d) = (self.source.0.to_be_bytes(), self.destination.0.to_be_bytes());
                checksum::pseudo_v6(&s, &d, protocol::UDP, u32::from(length))
            };
            let sum = checksum::udp_segment(pseudo, payload);
            payload.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
        }
        Some(protocol::UDP)
    }
}

fn gre(payload: &mut [u8], inner: &Inner, checksum: bool) -> Option<u8> {
    let kind = if inner.protocol == protocol::IPIP { ether_type::IPV4 } else { ether_type::IPV6 };
    let [high, low] = kind.to_be_bytes();
    payload.get_mut(..4)?.copy_from_slice(&[if checksum { GRE_CHECKSUM } else { 0 }, 0, high, low]);
    if checksum {
        payload.get_mut(4..8)?.fill(0);
        let sum = checksum::internet(payload);
        payload.get_mut(4..6)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(protocol::GRE)
}
