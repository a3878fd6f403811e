//! ICMP errors that the director sends to clients (port unreachable, time exceeded, too big), and what limits them and resets.

use arrayvec::ArrayVec;
use dpdk::burst::BURST;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{EthernetHeader, Ipv4Header, Ipv6Header, checksum, ether_type, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::limiter::Limiter;
use crate::parse::{L3, Packet};

/// Why a client is told that its packet was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// No real server takes new connections (RFC 792 type 3 code 3, RFC 4443 type 1 code 4).
    PortUnreachable,
    /// The TTL or hop limit ran out (RFC 792 type 11 code 0, RFC 4443 type 3 code 0).
    TimeExceeded,
    /// The packet is longer than this MTU in bytes (RFC 1191 type 3 code 4, RFC 4443 type 2).
    TooBig(u16),
    /// No real server takes new connections, and the service has a TCP reset tell so; not for [`write`].
    Reset,
}

/// An ICMP error is at most this long as an IPv4 packet (RFC 1812 section 4.3.2.3).
const MAX_V4: usize = 576;
/// An ICMP error is at most this long as an IPv6 packet (RFC 4443 section 2.4).
const MAX_V6: usize = 1280;
const ICMP_HEADER: usize = 8;

/// Errors asked for during a burst, written together, and limited in rate.
#[derive(Debug)]
pub struct IcmpErrors {
    wanted: ArrayVec<(usize, Cause), BURST>,
    /// Errors a second.
    pub limiter: Limiter,
}

impl IcmpErrors {
    /// No errors yet, at most so many a second as the limiter lets pass.
    pub fn new(limiter: Limiter) -> Self {
        Self { wanted: ArrayVec::new(), limiter }
    }

    /// Asks for an error about the frame in lane `lane`; dropped when the rate is used up.
    pub fn ask(&mut self, lane: usize, cause: Cause) {
        if self.limiter.take() {
            // A lane asks at most once, so there is always room.
            let _ = self.wanted.try_push((lane, cause));
        }
    }

    /// What was asked for, oldest first; empties the list.
    pub fn take(&mut self) -> ArrayVec<(usize, Cause), BURST> {
        std::mem::take(&mut self.wanted)
    }
}

/// Writes the error about `offending` into a fresh frame that goes back to the MAC it came from.
///
/// The source is the address that the client wrote to, as the kernel has it for its own addresses. `None` when the pool is
/// empty or the frame too short to quote. Sources: RFC 792, RFC 1812 section 4.3.2, RFC 4443.
pub fn write(pool: &Mempool, offending: &[u8], packet: &Packet, our_mac: [u8; 6], cause: Cause) -> Option<Mbuf> {
    let (ethernet, l3) = EthernetHeader::ref_from_prefix(offending).ok()?;
    let original = l3.get(..usize::from(packet.length).min(l3.len()))?;
    let (header, most) = if packet.v4 { (size_of::<Ipv4Header>(), MAX_V4) } else { (size_of::<Ipv6Header>(), MAX_V6) };
    let quote = original.get(..original.len().min(most - header - ICMP_HEADER))?;
    let mut frame = pool.alloc()?;
    let bytes = frame.append(L3 + header + ICMP_HEADER + quote.len())?;
    let (ether_out, rest) = bytes.split_at_mut(L3);
    let reply = EthernetHeader {
        destination: ethernet.source,
        source: our_mac,
        ether_type: if packet.v4 { ether_type::IPV4 } else { ether_type::IPV6 }.into(),
    };
    reply.write_to(ether_out).ok()?;
    let (ip_out, icmp_out) = rest.split_at_mut(header);
    icmp_out[ICMP_HEADER..].copy_from_slice(quote);
    if packet.v4 {
        v4(ip_out, icmp_out, l3, cause)?;
    } else {
        v6(ip_out, icmp_out, l3, cause)?;
    }
    Some(frame)
}

fn v4(ip_out: &mut [u8], icmp: &mut [u8], original: &[u8], cause: Cause) -> Option<()> {
    let (from, _) = Ipv4Header::ref_from_prefix(original).ok()?;
    let (kind, code, mtu) = match cause {
        Cause::PortUnreachable | Cause::Reset => (3, 3, 0),
        Cause::TimeExceeded => (11, 0, 0),
        Cause::TooBig(mtu) => (3, 4, mtu),
    };
    icmp[..ICMP_HEADER].fill(0);
    icmp[0] = kind;
    icmp[1] = code;
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    let sum = checksum::internet(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = u16::try_from(ip_out.len() + icmp.len()).ok()?;
    // Internetwork control, do not fragment: an atomic datagram, whose id means nothing (RFC 6864).
    ip_out[..4].copy_from_slice(&[0x45, 0xc0, total.to_be_bytes()[0], total.to_be_bytes()[1]]);
    ip_out[4..12].copy_from_slice(&[0, 0, 0x40, 0, 64, protocol::ICMP, 0, 0]);
    ip_out[12..16].copy_from_slice(&from.destination);
    ip_out[16..20].copy_from_slice(&from.source);
    let sum = checksum::internet(ip_out);
    ip_out[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn v6(ip_out: &mut [u8], icmp: &mut [u8], original: &[u8], cause: Cause) -> Option<()> {
    let (from, _) = Ipv6Header::ref_from_prefix(original).ok()?;
    let (kind, code, mtu) = match cause {
        Cause::PortUnreachable | Cause::Reset => (1, 4, 0),
        Cause::TimeExceeded => (3, 0, 0),
        Cause::TooBig(mtu) => (2, 0, u32::from(mtu)),
    };
    icmp[..ICMP_HEADER].fill(0);
    icmp[0] = kind;
    icmp[1] = code;
    icmp[4..8].copy_from_slice(&mtu.to_be_bytes());
    let length = u16::try_from(icmp.len()).ok()?;
    ip_out[..8].copy_from_slice(&[0x60, 0, 0, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], protocol::ICMPV6, 64]);
    ip_out[8..24].copy_from_slice(&from.destination);
    ip_out[24..40].copy_from_slice(&from.source);
    let sum = checksum::segment(checksum::pseudo_v6(&from.destination, &from.source, protocol::ICMPV6, u32::from(length)), icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(())
}
