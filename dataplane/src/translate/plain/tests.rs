use dpdk::net::protocol;
use proptest::prelude::*;

use super::*;
use crate::connection::Key;
use crate::forward::decrement;
use crate::parse::{Kind, L3, Packet};
use crate::plain::{Tcp, Udp};
use crate::translate::packet;

/// What the general stages make of a frame: a hop less, then the translation.
fn in_general(frame: &mut [u8], (v4, protocol, end): (bool, u8, End), address: Address, port: u16) -> Option<()> {
    let key = Key { client: Address(0), virtual_: Address(0), client_port: 0, virtual_port: 0, protocol };
    let l4 = if v4 { 34 } else { 54 };
    let length = u16::try_from(frame.len() - L3).unwrap();
    assert!(decrement(frame, v4));
    packet(frame, &Packet { kind: Kind::Flow, v4, to_us: true, tcp_flags: 0, l4, length, key }, end, address, port)
}

fn in_short<F: Translated, T: Transport>(frame: &mut [u8], end: End, address: Address, port: u16) -> Option<()> {
    let head = F::head_mut(frame)?;
    let words = words(address);
    let done = plain::<F, T>(head, end, words, port_word(port));
    assert!(done.is_none() || F::address(head, end) == words);
    done
}

proptest! {
    #[test]
    fn short_way_makes_the_same_bytes(
        bytes: [[u8; 32]; 3],
        address in prop_oneof![Just(u128::MAX), Just(1 << 64), any::<u128>()],
        (v4, udp, source) in any::<(bool, bool, bool)>(),
        port: u16,
        checksums in prop_oneof![Just(0_u16), Just(u16::MAX), any::<u16>()],
    ) {
        let mut frame = bytes.concat()[..74].to_vec();
        let (l4, hops) = if v4 { (34, 22) } else { (54, 21) };
        frame[hops] = frame[hops].max(2);
        let (checksum_at, protocol) = if udp { (l4 + UDP_CHECKSUM, protocol::UDP) } else { (l4 + TCP_CHECKSUM, protocol::TCP) };
        frame[checksum_at..checksum_at + 2].copy_from_slice(&checksums.to_be_bytes());
        if v4 {
            frame[23] = protocol;
            frame[24..26].copy_from_slice(&checksums.to_be_bytes());
        }
        let address = if v4 { Address::v4(u32::try_from(address >> 96).unwrap().max(1)) } else { Address(address | 1 << 127) };
        let end = if source { End::Source } else { End::Destination };
        let before = frame.clone();
        let done = match (v4, udp) {
            (true, false) => in_short::<V4, Tcp>(&mut frame, end, address, port),
            (true, true) => in_short::<V4, Udp>(&mut frame, end, address, port),
            (false, false) => in_short::<V6, Tcp>(&mut frame, end, address, port),
            (false, true) => in_short::<V6, Udp>(&mut frame, end, address, port),
        };
        prop_assert_eq!(done.is_some(), !udp || checksums != 0);
        let mut expected = before;
        if done.is_some() {
            prop_assert!(in_general(&mut expected, (v4, protocol, end), address, port).is_some());
        }
        prop_assert_eq!(frame, expected);
    }
}
