//! Translation: an address and a port are written over, and every checksum over them is mended (RFC 1624, RFC 3022).
//!
//! What was wrong before stays wrong: checksums are mended (that of SCTP, too), not made anew, so that the receiver still finds damage.
//! Only a UDP datagram that has none gets one, as in the kernel.

use dpdk::net::{checksum, protocol};

use crate::address::Address;
use crate::parse::{L3, Packet};

mod crc32c;
pub mod plain;

/// Where a TCP header has its checksum (RFC 9293 section 3.1).
const TCP_CHECKSUM: usize = 16;
/// Where a UDP header has it (RFC 768).
const UDP_CHECKSUM: usize = 6;
/// Where an SCTP header has it (RFC 9260 section 3.1).
const SCTP_CHECKSUM: usize = 8;

/// Which end of a packet is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The source: its address and port become others.
    Source,
    /// The destination.
    Destination,
}

/// Bytes of an address of either family.
#[derive(Clone, Copy)]
struct Bytes {
    bytes: [u8; 16],
    len: usize,
}

impl Bytes {
    fn of(address: Address, v4: bool) -> Option<Self> {
        let mut bytes = [0; 16];
        if v4 {
            bytes[..4].copy_from_slice(&address.as_v4()?.to_be_bytes());
            return Some(Self { bytes, len: 4 });
        }
        (!address.is_v4()).then_some(Self { bytes: address.0.to_be_bytes(), len: 16 })
    }

    fn read(from: &[u8], v4: bool) -> Option<Self> {
        let len = if v4 { 4 } else { 16 };
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(from.get(..len)?);
        Some(Self { bytes, len })
    }

    fn get(&self) -> &[u8] {
        // An even number of bytes that are there.
        &self.bytes[..self.len]
    }
}

/// What changed under a checksum.
#[derive(Clone, Copy)]
struct Change {
    old: Bytes,
    new: Bytes,
}

impl Change {
    fn mend(&self, checksum: u16) -> u16 {
        checksum::update_bytes(checksum, self.old.get(), self.new.get())
    }
}

/// Where in an IP header an address lies.
const fn address_at(end: End, v4: bool) -> usize {
    match (end, v4) {
        (End::Source, true) => 12,
        (End::Destination, true) => 16,
        (End::Source, false) => 8,
        (End::Destination, false) => 24,
    }
}

/// Writes `address` into the IP header that `ip` begins with and mends its header checksum, if it has one.
fn set_address(ip: &mut [u8], v4: bool, end: End, address: Address) -> Option<Change> {
    let at = address_at(end, v4);
    let change = Change { old: Bytes::read(ip.get(at..)?, v4)?, new: Bytes::of(address, v4)? };
    if v4 {
        let sum = change.mend(u16::from_be_bytes(*ip.get(10..)?.first_chunk()?));
        ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    }
    ip.get_mut(at..at + change.new.len)?.copy_from_slice(change.new.get());
    Some(change)
}

/// Writes `port` over that of `end`; both ports begin the transport header. Gives the old one.
fn set_port(l4: &mut [u8], end: End, port: u16) -> Option<u16> {
    let at = if end == End::Source { 0 } else { 2 };
    let place = l4.get_mut(at..at + 2)?;
    let old = u16::from_be_bytes(*place.first_chunk()?);
    place.copy_from_slice(&port.to_be_bytes());
    Some(old)
}

/// What a port of a transport header changed from and to, in the four bytes of both ports.
fn difference(end: End, old: u16, new: u16) -> [u8; 4] {
    let [high, low] = (old ^ new).to_be_bytes();
    if end == End::Source { [high, low, 0, 0] } else { [0, 0, high, low] }
}

/// Translates one end of the TCP segment, UDP datagram or SCTP packet in `frame`.
///
/// A UDP datagram without a checksum gets one, as IPVS gives it; in the first fragment of one, which has not all that it covers, it
/// stays 0 (RFC 768, RFC 6935). Another never becomes 0. That of SCTP does not cover addresses. `None`, with nothing of use in the
/// frame, when the headers are not all there, the address is of the other family or the protocol none of these. Cost: two
/// checksums mended, and a read of the datagram that has none.
pub fn packet(frame: &mut [u8], packet: &Packet, end: End, address: Address, port: u16) -> Option<()> {
    let l4 = usize::from(packet.l4);
    let (ip, segment) = frame.split_at_mut_checked(l4)?;
    let change = set_address(ip.get_mut(L3..)?, packet.v4, end, address)?;
    let old_port = set_port(segment, end, port)?;
    let sixteen = |segment: &[u8], at: usize| Some(u16::from_be_bytes(*segment.get(at..)?.first_chunk()?));
    let mend = |old: u16| checksum::update(change.mend(old), old_port, port);
    match packet.key.protocol {
        protocol::TCP => {
            let sum = mend(sixteen(segment, TCP_CHECKSUM)?);
            segment.get_mut(TCP_CHECKSUM..TCP_CHECKSUM + 2)?.copy_from_slice(&sum.to_be_bytes());
        }
        protocol::UDP => {
            let sum = match sixteen(segment, UDP_CHECKSUM)? {
                0 => udp_checksum(ip.get(L3..)?, within(segment, packet), packet.v4)?,
                old => match mend(old) {
                    0 => u16::MAX,
                    sum => sum,
                },
            };
            segment.get_mut(UDP_CHECKSUM..UDP_CHECKSUM + 2)?.copy_from_slice(&sum.to_be_bytes());
        }
        protocol::SCTP => {
            let len = packet.length.checked_sub(u16::try_from(l4 - L3).ok()?)?;
            let place: &mut [u8; 4] = segment.get_mut(SCTP_CHECKSUM..)?.first_chunk_mut()?;
            *place = crc32c::mend(*place, difference(end, old_port, port), len);
        }
        _ => return None,
    }
    Some(())
}

/// What of `segment`, the frame from its transport header on, belongs to the packet: a short frame is filled up behind it.
fn within<'a>(segment: &'a [u8], packet: &Packet) -> &'a [u8] {
    let length = (L3 + usize::from(packet.length)).saturating_sub(packet.l4.into());
    segment.get(..length).unwrap_or(segment)
}

/// The checksum of the UDP datagram that `segment` begins with, which holds none yet; 0 when not all of it is there.
fn udp_checksum(ip: &[u8], segment: &[u8], v4: bool) -> Option<u16> {
    let claimed = u16::from_be_bytes(*segment.get(4..)?.first_chunk()?);
    let Some(datagram) = segment.get(..usize::from(claimed)) else { return Some(0) };
    let address = |end| Bytes::read(ip.get(address_at(end, v4)..)?, v4);
    let addresses = checksum::sum(address(End::Source)?.get()) + checksum::sum(address(End::Destination)?.get());
    Some(checksum::udp_segment(addresses + u64::from(protocol::UDP) + u64::from(claimed), datagram))
}

/// Translates one end of a later fragment, which has an address and nothing else to translate: the checksum that covers it is in
/// the first one. `None` as for [`packet`].
pub fn later_fragment(frame: &mut [u8], packet: &Packet, end: End, address: Address) -> Option<()> {
    set_address(frame.get_mut(L3..)?, packet.v4, end, address).map(|_| ())
}

/// Translates an ICMP error and the packet that it quotes (RFC 5508 section 4.2): outside, the `end` of the error; inside the
/// other end of the quote, for that went the other way.
///
/// `icmp` is where the ICMP message begins in `frame`, `quoted_l4` where the quoted transport header does; the message ends at
/// `length` bytes of frame. The checksum in the quoted transport header is left as it is, as IPVS does: it covers more than is
/// quoted. `None` as for [`packet`].
pub fn icmp_error(frame: &mut [u8], v4: bool, icmp: usize, quoted_l4: usize, end: End, address: Address, port: u16) -> Option<()> {
    const ICMP_HEADER: usize = 8;
    let inside = if end == End::Source { End::Destination } else { End::Source };
    let (ip, message) = frame.split_at_mut_checked(icmp)?;
    let outer = set_address(ip.get_mut(L3..)?, v4, end, address)?;
    let before = u16::from_be_bytes(*message.get(2..)?.first_chunk()?);
    let (head, quote) = message.split_at_mut_checked(ICMP_HEADER)?;
    let (quoted_ip, quoted_segment) = quote.split_at_mut_checked(quoted_l4.checked_sub(icmp + ICMP_HEADER)?)?;
    let old_sum = [*quoted_ip.get(10)?, *quoted_ip.get(11)?];
    let inner = set_address(quoted_ip, v4, inside, address)?;
    let old_port = set_port(quoted_segment, inside, port)?;
    let mut sum = checksum::update(inner.mend(before), old_port, port);
    if v4 {
        sum = checksum::update_bytes(sum, &old_sum, quoted_ip.get(10..12)?);
    } else {
        // Only the checksum of ICMPv6 covers the addresses outside (RFC 4443 section 2.3).
        sum = outer.mend(sum);
    }
    head.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests;
