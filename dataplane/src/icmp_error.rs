//! ICMP errors that the director sends (port unreachable, time exceeded, too big, what routers say of tunnels), and what limits them
//! and resets.

use arrayvec::ArrayVec;
use dpdk::burst::BURST;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{EthernetHeader, Ipv4Header, Ipv6Header, checksum, ether_type, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::address::Address;
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
    /// What a router said of the tunnel that the packet went through: type and code of the error in the packet's own family.
    OfTunnel(u8, u8),
    /// No real server takes new connections, and the service has a TCP reset tell so; not for [`write`].
    Reset,
}

/// An ICMP error is at most this long as an IPv4 packet (RFC 1812 section 4.3.2.3).
const MAX_V4: usize = 576;
/// An ICMP error is at most this long as an IPv6 packet (RFC 4443 section 2.4).
const MAX_V6: usize = 1280;
const ICMP_HEADER: usize = 8;

/// An error that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The lane of the frame that it is about.
    pub lane: usize,
    /// What it says.
    pub cause: Cause,
    /// Whose it is; `None` for the address that the packet was sent to.
    pub source: Option<Address>,
}

/// What an error is about, and which way it goes.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The packet, from its IP header on.
    pub packet: &'a [u8],
    /// Whether it is IPv4.
    pub v4: bool,
    /// The MACs that the error goes to and comes from.
    pub macs: [[u8; 6]; 2],
    /// Whose the error is; `None` for the address that the packet was sent to, as the kernel has it for its own addresses.
    pub source: Option<Address>,
}

/// Errors asked for during a burst, written together, and limited in rate.
#[derive(Debug)]
pub struct IcmpErrors {
    wanted: ArrayVec<Wanted, BURST>,
    /// Errors that are written already, and the port that each leaves by.
    ready: ArrayVec<(u16, Mbuf), BURST>,
    /// Errors a second.
    pub limiter: Limiter,
}

impl IcmpErrors {
    /// No errors yet, at most so many a second as the limiter lets pass.
    pub fn new(limiter: Limiter) -> Self {
        Self { wanted: ArrayVec::new(), ready: ArrayVec::new(), limiter }
    }

    /// Asks for an error about the frame in lane `lane`; dropped when the rate is used up.
    pub fn ask(&mut self, lane: usize, cause: Cause) {
        self.ask_from(lane, cause, None);
    }

    /// As [`ask`](Self::ask), for an error of `source`'s.
    pub fn ask_from(&mut self, lane: usize, cause: Cause, source: Option<Address>) {
        if self.limiter.take() {
            // A lane asks at most once, so there is always room.
            let _ = self.wanted.try_push(Wanted { lane, cause, source });
        }
    }

    /// Has `written` make an error that leaves by `port`, unless the rate is used up; whether there is one.
    pub fn send(&mut self, port: u16, written: impl FnOnce() -> Option<Mbuf>) -> bool {
        // At most one for each lane.
        self.limiter.take() && written().is_some_and(|frame| self.ready.try_push((port, frame)).is_ok())
    }

    /// What was asked for, oldest first; empties the list. Cost without any: one comparison.
    pub fn take(&mut self) -> impl Iterator<Item = Wanted> + '_ {
        self.wanted.drain(..)
    }

    /// What is written, oldest first; empties the list. Cost without any: one comparison.
    pub fn take_ready(&mut self) -> impl Iterator<Item = (u16, Mbuf)> + '_ {
        self.ready.drain(..)
    }
}

/// Writes the error about `offending` into a fresh frame that goes back to the MAC it came from, from `source` or the address
/// that the packet was sent to. `None` as for [`write_about`].
pub fn write(pool: &Mempool, offending: &[u8], packet: &Packet, our_mac: [u8; 6], cause: Cause, source: Option<Address>) -> Option<Mbuf> {
    let (ethernet, l3) = EthernetHeader::ref_from_prefix(offending).ok()?;
    let original = l3.get(..usize::from(packet.length).min(l3.len()))?;
    write_about(pool, About { packet: original, v4: packet.v4, macs: [ethernet.source, our_mac], source }, cause)
}

/// Writes an error into a fresh frame.
///
/// `None` when the pool is empty, the packet too short to quote or the source of another family. Sources: RFC 792, RFC 1812
/// section 4.3.2, RFC 4443.
pub fn write_about(pool: &Mempool, about: About<'_>, cause: Cause) -> Option<Mbuf> {
    let (header, most) = if about.v4 { (size_of::<Ipv4Header>(), MAX_V4) } else { (size_of::<Ipv6Header>(), MAX_V6) };
    let quote = about.packet.get(..about.packet.len().min(most - header - ICMP_HEADER))?;
    let mut frame = pool.alloc()?;
    let bytes = frame.append(L3 + header + ICMP_HEADER + quote.len())?;
    let (ether_out, rest) = bytes.split_at_mut(L3);
    let [destination, source] = about.macs;
    let ether_type = if about.v4 { ether_type::IPV4 } else { ether_type::IPV6 }.into();
    EthernetHeader { destination, source, ether_type }.write_to(ether_out).ok()?;
    let (ip_out, icmp_out) = rest.split_at_mut(header);
    icmp_out[ICMP_HEADER..].copy_from_slice(quote);
    if about.v4 {
        v4(ip_out, icmp_out, &about, cause)?;
    } else {
        v6(ip_out, icmp_out, &about, cause)?;
    }
    Some(frame)
}

fn v4(ip_out: &mut [u8], icmp: &mut [u8], about: &About<'_>, cause: Cause) -> Option<()> {
    let (from, _) = Ipv4Header::ref_from_prefix(about.packet).ok()?;
    let source = match about.source {
        Some(source) => source.as_v4()?.to_be_bytes(),
        None => from.destination,
    };
    let (kind, code, mtu) = match cause {
        Cause::PortUnreachable | Cause::Reset => (3, 3, 0),
        Cause::TimeExceeded => (11, 0, 0),
        Cause::TooBig(mtu) => (3, 4, mtu),
        Cause::OfTunnel(kind, code) => (kind, code, 0),
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
    ip_out[12..16].copy_from_slice(&source);
    ip_out[16..20].copy_from_slice(&from.source);
    let sum = checksum::internet(ip_out);
    ip_out[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn v6(ip_out: &mut [u8], icmp: &mut [u8], about: &About<'_>, cause: Cause) -> Option<()> {
    let (from, _) = Ipv6Header::ref_from_prefix(about.packet).ok()?;
    let source = match about.source {
        Some(source) if source.is_v4() => return None,
        Some(source) => source.0.to_be_bytes(),
        None => from.destination,
    };
    let (kind, code, mtu) = match cause {
        Cause::PortUnreachable | Cause::Reset => (1, 4, 0),
        Cause::TimeExceeded => (3, 0, 0),
        Cause::TooBig(mtu) => (2, 0, u32::from(mtu)),
        Cause::OfTunnel(kind, code) => (kind, code, 0),
    };
    icmp[..ICMP_HEADER].fill(0);
    icmp[0] = kind;
    icmp[1] = code;
    icmp[4..8].copy_from_slice(&mtu.to_be_bytes());
    let length = u16::try_from(icmp.len()).ok()?;
    ip_out[..8].copy_from_slice(&[0x60, 0, 0, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], protocol::ICMPV6, 64]);
    ip_out[8..24].copy_from_slice(&source);
    ip_out[24..40].copy_from_slice(&from.source);
    let sum = checksum::segment(checksum::pseudo_v6(&source, &from.source, protocol::ICMPV6, u32::from(length)), icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(())
}
