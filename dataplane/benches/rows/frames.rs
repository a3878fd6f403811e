//! The frames that are measured with: TCP segments without data, as short as Ethernet allows.

use dataplane::address::Address;
use dpdk::net::checksum;

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0xd0, 0];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Clients of one address before the next address is used.
const PORTS: u32 = 60_000;

/// A small fast generator (xorshift64*), so that drawing flows costs nothing worth mention.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(n)) >> 32).unwrap_or_default()
    }
}

/// An address and a port.
#[derive(Clone, Copy)]
pub struct End {
    pub address: Address,
    pub port: u16,
}

/// The client of connection `n`, of one family or the other.
pub fn client(n: u32, v4: bool) -> End {
    let address = if v4 { Address::v4(0x0b00_0000 + n / PORTS) } else { Address(0x2001_0db8 << 96 | u128::from(n / PORTS)) };
    End { address, port: u16::try_from(1024 + n % PORTS).unwrap_or_default() }
}

/// A segment's frame as it stands on the wire, and how many of the bytes count: 60, or 74 for IPv6.
pub fn segment(from: End, to: End, flags: u8) -> ([u8; 74], usize) {
    let mut frame = [0; 74];
    frame[..6].copy_from_slice(&OUR_MAC);
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    let (tcp, len) = if let (Some(source), Some(destination)) = (from.address.as_v4(), to.address.as_v4()) {
        frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        frame[30..34].copy_from_slice(&destination.to_be_bytes());
        let sum = checksum::internet(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        (34, 60)
    } else {
        frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        frame[22..38].copy_from_slice(&from.address.0.to_be_bytes());
        frame[38..54].copy_from_slice(&to.address.0.to_be_bytes());
        (54, 74)
    };
    frame[tcp..tcp + 2].copy_from_slice(&from.port.to_be_bytes());
    frame[tcp + 2..tcp + 4].copy_from_slice(&to.port.to_be_bytes());
    frame[tcp + 4..tcp + 20].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    (frame, len)
}
