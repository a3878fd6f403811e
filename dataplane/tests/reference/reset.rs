//! What a client is told whose connection no real server takes (RFC 9293 section 3.10.7.1 for resets).

use dataplane::service::NoRealServer;

use super::Director;
use super::forward::{Cause, v4_header, v6_header, with_ethernet};
use super::tcp::{ACK, FIN, RST, SYN};
use super::wire::{L3, Packet, be16, checksum_with};

impl Director {
    /// What its service has a client told.
    pub(super) fn refusal(&self, packet: &Packet) -> Option<Cause> {
        let (_, service) = self.service_of(packet)?;
        match service.no_real_server {
            NoRealServer::Drop => None,
            NoRealServer::Reset if packet.protocol == 6 => Some(Cause::Reset),
            NoRealServer::Icmp | NoRealServer::Reset => Some(Cause::PortUnreachable),
        }
    }
}

/// The reset that answers a segment.
pub fn write(frame: &[u8], packet: &Packet, our_mac: [u8; 6]) -> Vec<u8> {
    let tcp = &frame[packet.l4..L3 + packet.length];
    let number = |at: usize| u32::from(be16(tcp, at)) << 16 | u32::from(be16(tcp, at + 2));
    let flags = tcp[13];
    let data = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    let occupied = data as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let (sequence, acknowledged, ours) =
        if flags & ACK != 0 { (number(8), 0, RST) } else { (0, number(4).wrapping_add(occupied), RST | ACK) };
    let mut reset = [&tcp[2..4], &tcp[..2], &sequence.to_be_bytes(), &acknowledged.to_be_bytes()].concat();
    reset.extend([0x50, ours, 0, 0, 0, 0, 0, 0]);
    let (from, to) = (packet.destination.ip(), packet.source.ip());
    let sum = checksum_with(from, to, 6, &reset);
    reset[16..18].copy_from_slice(&sum.to_be_bytes());
    let ip = if packet.is_v4() { v4_header(0, 40, 0, 0x4000, 64, 6, from, to) } else { v6_header(0, 20, 6, 64, from, to) };
    let sender = [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]];
    with_ethernet(sender, our_mac, packet.is_v4(), &[&ip, &reset])
}
