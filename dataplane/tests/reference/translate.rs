//! Masquerading's change to a packet: an address and a port, and every checksum over them (RFC 3022, RFC 5508).
//!
//! A checksum is made from everything under it, before and after; so one that was wrong stays as wrong as it was.

use std::net::{IpAddr, SocketAddr};

use super::wire::{L3, Packet, be16, checksum, checksum_with, ones, ones_sum};

/// Which end of a packet becomes another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Source,
    Destination,
}

impl End {
    fn other(self) -> Self {
        if self == Self::Source { Self::Destination } else { Self::Source }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Where both addresses of an IP header are.
fn addresses(v4: bool) -> std::ops::Range<usize> {
    if v4 { 12..20 } else { 8..40 }
}

/// A checksum after everything under it, `before`, became `after`.
fn mended(sum: u16, before: &[u8], after: &[u8]) -> u16 {
    let negative: Vec<u8> = before.iter().map(|byte| !byte).collect();
    // An odd byte stands for a word as well.
    let odd = u32::from(!before.len().is_multiple_of(2)) * 0xff;
    ones(u32::from(!sum) + ones_sum(&negative) + odd + ones_sum(after))
}

fn set_address(ip: &mut [u8], end: End, address: IpAddr) {
    let range = addresses(address.is_ipv4());
    let half = range.len() / 2;
    let at = range.start + if end == End::Source { 0 } else { half };
    ip[at..at + half].copy_from_slice(&octets(address));
}

fn set_port(transport: &mut [u8], end: End, port: u16) {
    let at = if end == End::Source { 0 } else { 2 };
    transport[at..at + 2].copy_from_slice(&port.to_be_bytes());
}

/// The checksum of an IPv4 header, which was right when the frame came.
fn sum_header(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let sum = checksum(&ip[..header]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// CRC-32C, bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A segment, datagram or SCTP packet, or the first fragment of one.
pub fn packet(frame: &mut [u8], packet: &Packet, end: End, to: SocketAddr) {
    let v4 = packet.is_v4();
    let (transport, end_of_packet) = (packet.l4, L3 + packet.length);
    let old = frame.to_vec();
    set_address(&mut frame[L3..], end, to.ip());
    set_port(&mut frame[transport..], end, to.port());
    if v4 {
        sum_header(&mut frame[L3..]);
    }
    // Everything under the transport's checksum, which stands for itself as 0.
    let all = |frame: &[u8], field: std::ops::Range<usize>, with_addresses: bool| {
        let mut message = frame[transport..end_of_packet].to_vec();
        message[field].fill(0);
        if with_addresses { [&frame[L3..][addresses(v4)], &message].concat() } else { message }
    };
    if packet.protocol == 132 {
        let at = transport + 8;
        let change = crc32c(&all(&old, 8..12, false)) ^ crc32c(&all(frame, 8..12, false));
        let was = u32::from_le_bytes([old[at], old[at + 1], old[at + 2], old[at + 3]]);
        frame[at..at + 4].copy_from_slice(&(was ^ change).to_le_bytes());
        return;
    }
    let field = if packet.protocol == 6 { 16 } else { 6 };
    let was = be16(&old, transport + field);
    if packet.protocol == 17 && was == 0 {
        // A datagram without a checksum gets one, if all of it is there.
        let claimed = usize::from(be16(frame, transport + 4));
        if let Some(datagram) = frame[transport..end_of_packet].get(..claimed) {
            let ends = if end == End::Source { (to.ip(), packet.destination.ip()) } else { (packet.source.ip(), to.ip()) };
            let sum = checksum_with(ends.0, ends.1, 17, datagram);
            frame[transport + 6..transport + 8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        }
        return;
    }
    let sum = mended(was, &all(&old, field..field + 2, true), &all(frame, field..field + 2, true));
    let sum = if packet.protocol == 17 && sum == 0 { 0xffff } else { sum };
    frame[transport + field..transport + field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A later fragment, which has nothing but an address.
pub fn later_fragment(frame: &mut [u8], end: End, to: IpAddr) {
    set_address(&mut frame[L3..], end, to);
    if to.is_ipv4() {
        sum_header(&mut frame[L3..]);
    }
}

/// An ICMP error with a right checksum, and the packet that it quotes: that went the other way. The checksum in the quoted
/// transport header is left alone.
pub fn icmp_error(frame: &mut [u8], packet: &Packet, end: End, to: SocketAddr) {
    let v4 = packet.is_v4();
    set_address(&mut frame[L3..], end, to.ip());
    let quote = packet.l4 + 8;
    let header = if v4 { usize::from(frame[quote] & 15) * 4 } else { 40 };
    let old = frame[quote..quote + header].to_vec();
    set_address(&mut frame[quote..], end.other(), to.ip());
    set_port(&mut frame[quote + header..], end.other(), to.port());
    if v4 {
        sum_header(&mut frame[L3..]);
        let without_sum = |header: &[u8]| [&header[..10], &header[12..]].concat();
        let sum = mended(be16(&old, 10), &without_sum(&old), &without_sum(&frame[quote..quote + header]));
        frame[quote + 10..quote + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let at = packet.l4 + 2;
    frame[at..at + 2].fill(0);
    let message = &frame[packet.l4..L3 + packet.length];
    let (source, destination) = if end == End::Source { (to.ip(), packet.destination.ip()) } else { (packet.source.ip(), to.ip()) };
    let sum = if v4 { checksum(message) } else { checksum_with(source, destination, 58, message) };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
