//! What stands between a tunnel's outer IP header and the packet inside: nothing, UDP and GUE, or GRE.

use std::net::{IpAddr, SocketAddr};

use dataplane::service::Encapsulation;

use super::wire::{Packet, checksum, checksum_with};

/// The IP protocol number of what is carried, and its bytes: `inner` with the headers in front of it. `kind` is that of `inner`, 4
/// or 41; `from` and `to` are the tunnel's ends.
pub fn wrap(encapsulation: Encapsulation, packet: &Packet, kind: u8, inner: &[u8], from: IpAddr, to: IpAddr) -> (u8, Vec<u8>) {
    match encapsulation {
        Encapsulation::IpIp => (kind, inner.to_vec()),
        Encapsulation::Gue { port, checksum: wanted } => {
            let length = 8 + 4 + inner.len() as u16;
            let mut datagram = [source_port(packet), port, length, 0].map(u16::to_be_bytes).concat();
            datagram.extend([0, kind, 0, 0]);
            datagram.extend(inner);
            if wanted {
                let sum = checksum_with(from, to, 17, &datagram);
                // 0 would mean that there is none.
                datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
            }
            (17, datagram)
        }
        Encapsulation::Gre { checksum: wanted } => {
            let ether_type = if kind == 4 { [8, 0] } else { [0x86, 0xdd] };
            let mut message = if wanted { vec![0x80, 0] } else { vec![0, 0] };
            message.extend(ether_type);
            if wanted {
                message.extend([0; 4]);
            }
            message.extend(inner);
            if wanted {
                let sum = checksum(&message);
                message[4..6].copy_from_slice(&sum.to_be_bytes());
            }
            (47, message)
        }
    }
}

/// The low 32 bits of an address, those of an IPv6 address with bits 64 to 95 upon them.
fn folded(end: SocketAddr) -> u64 {
    match end.ip() {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => u64::from((v6.to_bits() ^ v6.to_bits() >> 64) as u32),
    }
}

/// Any would do that is the same for all packets of a flow; this is how the packet path makes it, 32768 to 60999.
fn source_port(packet: &Packet) -> u16 {
    let ports = u64::from(packet.source.port()) << 16 | u64::from(packet.destination.port());
    let mixed = (folded(packet.source) << 32 ^ folded(packet.destination) ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    32_768 + (((mixed >> 32) * 28_232) >> 32) as u16
}
