//! Outer headers that are prepared but for what is each packet's own.

use dpdk::mbuf::Mbuf;
use dpdk::net::{Ipv4Header, checksum, ether_type, protocol};

use super::header::{Inner, Outer, flow_port, ip_header};
use super::{Tunnels, low_half};
use crate::address::Address;
use crate::connection::Key;
use crate::forward::decrement;
use crate::parse::L3;
use crate::plain::Family;
use crate::service::{NextHop, Tunnel};

/// Bytes of the longest headers: Ethernet, IPv6, UDP and GUE.
const LONGEST: usize = 66;
/// Bytes of the shortest headers with IPv6: Ethernet and IPv6.
const SHORTEST_V6: usize = 54;
/// Where an outer IPv4 header has its checksum.
const CHECKSUM_V4: usize = 24;
/// Bytes of UDP and GUE.
const GUE: usize = 12;
/// Bytes of GRE.
const GRE: usize = 4;

/// How plain packets get into a real server's tunnel: one cache line with an outer IPv4 header alone or GRE, else two.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Prepared {
    /// The longest IP packet in bytes that fits the link.
    pub room: u16,
    /// The port that frames leave by.
    pub port: u16,
    /// The sum of an outer IPv4 header's words around a packet without a byte, which its checksum is of.
    sum: u16,
    /// Bytes of the headers, with the Ethernet header. Each number is of one sort of headers alone.
    length: u8,
    /// The headers around an IPv4 packet without a byte, of which class and TTL are 0.
    headers: [u8; LONGEST],
    /// The link's MTU.
    pub mtu: u16,
    /// The RIP.
    pub destination: Address,
}

impl Prepared {
    /// For a tunnel to `destination` by `hop`, whose port has the MAC `source`; `None` for one whose checksum goes over whole packets.
    pub fn new(tunnel: Tunnel, destination: Address, hop: NextHop, source: [u8; 6]) -> Option<Self> {
        let v4 = destination.is_v4();
        if tunnel.encapsulation.has_checksum() || tunnel.source.is_v4() != v4 {
            return None;
        }
        let mut headers = [0; LONGEST];
        headers[..6].copy_from_slice(&hop.mac);
        headers[6..12].copy_from_slice(&source);
        headers[12..L3].copy_from_slice(&if v4 { ether_type::IPV4 } else { ether_type::IPV6 }.to_be_bytes());
        let outer = Outer { source: tunnel.source, destination, encapsulation: tunnel.encapsulation, id: 0, source_port: 0, length: 0 };
        outer.write(&mut headers, &Inner::NOTHING)?;
        let added = u16::try_from(ip_header(v4) + tunnel.encapsulation.overhead()).ok()?;
        let length = u8::try_from(L3 + usize::from(added)).ok()?;
        let sum = if v4 { !number(&headers, CHECKSUM_V4) } else { 0 };
        Some(Self { room: hop.mtu.saturating_sub(added), port: hop.port, sum, length, headers, mtu: hop.mtu, destination })
    }

    /// Puts a plain packet into the tunnel; `ids` are for outer packets that may be cut on their way. `None`, and nothing is changed,
    /// without ids for such a one, or when the packet's time is up or there is no room in front of it.
    ///
    /// The packet is known to fit. Cost: its headers written once, and no checksum over more than what changes.
    #[inline(always)]
    pub(crate) fn wrap<F: Family>(&self, frame: &mut Mbuf, ids: Option<&mut Tunnels>) -> Option<()> {
        // Most tunnels are of IP in IP.
        if self.length == 34 { self.put::<F, 34>(frame, ids) } else { self.wrap_longer::<F>(frame, ids) }
    }

    /// [`wrap`](Self::wrap) with headers that are longer.
    #[inline(never)]
    fn wrap_longer<F: Family>(&self, frame: &mut Mbuf, ids: Option<&mut Tunnels>) -> Option<()> {
        match self.length {
            38 => self.put::<F, 38>(frame, ids),
            46 => self.put::<F, 46>(frame, ids),
            54 => self.put::<F, 54>(frame, ids),
            58 => self.put::<F, 58>(frame, ids),
            66 => self.put::<F, 66>(frame, ids),
            _ => None,
        }
    }

    /// [`wrap`](Self::wrap) with headers of `N` bytes.
    #[inline(always)]
    fn put<F: Family, const N: usize>(&self, frame: &mut Mbuf, ids: Option<&mut Tunnels>) -> Option<()> {
        let v4 = const { N < SHORTEST_V6 };
        let outer = if v4 { 20 } else { 40 };
        let (whole, added) = (frame.data(), N - L3);
        let between = added - usize::from(outer);
        let head = F::head(whole)?;
        let (length, more, inner) = (F::length(head), u16::try_from(added).ok()?, Inner::of(whole, F::V4)?);
        if inner.hops <= 1 || frame.headroom() < added || !frame.is_contiguous() {
            return None;
        }
        let source_port = if between == GUE { flow_port(&Key::of(F::addresses(head), F::ports(head), 0)) } else { 0 };
        let id = if v4 && inner.may_fragment { low_half(ids?.id()) } else { 0 };
        // Bytes of the outer packet, and of all that is behind the outer IP header.
        let (whole_length, behind) = (length + more, length + more - outer);
        let hops = inner.hops - 1;
        let whole = frame.reframe(added, L3 + usize::from(length))?;
        // It is long enough, and its time is not up.
        decrement(whole.get_mut(added..)?, F::V4);
        let to: &mut [u8; N] = whole.first_chunk_mut()?;
        *to = *self.headers.first_chunk()?;
        if v4 {
            let flags = if inner.may_fragment { 0 } else { Ipv4Header::DONT_FRAGMENT };
            let mut sum = u32::from(self.sum) + u32::from(inner.traffic_class) + u32::from(length) + u32::from(id);
            sum += u32::from(flags) + (u32::from(hops) << 8);
            if !F::V4 && between == 0 {
                sum += u32::from(protocol::IPV6 - protocol::IPIP);
                to[23] = protocol::IPV6;
            }
            to[15] = inner.traffic_class;
            set(to, 16, whole_length);
            set(to, 18, id);
            set(to, 20, flags);
            to[22] = hops;
            set(to, CHECKSUM_V4, checksum::finish_few(sum));
        } else {
            // Version, class and flow label, which is 0.
            set(to, 14, 6 << 12 | u16::from(inner.traffic_class) << 4);
            set(to, 18, behind);
            if !F::V4 && between == 0 {
                to[20] = protocol::IPV6;
            }
            to[21] = hops;
        }
        if between == GUE {
            set(to, N - GUE, source_port);
            set(to, N - GUE + 4, behind);
            if !F::V4 {
                to[N - 3] = protocol::IPV6;
            }
        }
        if between == GRE && !F::V4 {
            set(to, N - 2, ether_type::IPV6);
        }
        Some(())
    }
}

/// Two bytes in network order. Cost: none beyond the load, as `at` is a constant.
#[inline(always)]
fn number<const N: usize>(headers: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([headers[at], headers[at + 1]])
}

#[inline(always)]
fn set<const N: usize>(headers: &mut [u8; N], at: usize, value: u16) {
    [headers[at], headers[at + 1]] = value.to_be_bytes();
}
