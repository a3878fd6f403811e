use proptest::prelude::*;

use super::*;

const US: [u8; 6] = [2, 0, 0, 0, 0xd0, 0];

/// A right frame of 60 bytes to change.
fn frame() -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(US);
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 10, 10, 24, 88]);
    frame.extend(TCP);
    frame.resize(60, 0);
    mend(&mut frame);
    frame
}

const TCP: [u8; 20] = [0x27, 0x10, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0];
const UDP: [u8; 20] = [0x27, 0x10, 0, 53, 0, 20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// The same frame with another protocol, or over IPv6.
fn frame_of(v6: bool, udp: bool) -> Vec<u8> {
    let (number, transport) = if udp { (17, UDP) } else { (6, TCP) };
    if !v6 {
        let mut frame = frame();
        frame[23] = number;
        frame[34..54].copy_from_slice(&transport);
        mend(&mut frame);
        return frame;
    }
    let mut frame = frame()[..12].to_vec();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, number, 64]);
    let address = |first: u8, last: u8| std::iter::once(first).chain([0; 14]).chain([last]);
    frame.extend(address(0x20, 1).chain(address(0xfd, 0x88)));
    frame.extend(transport);
    frame
}

fn mend(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum::internet(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn short(frame: &[u8], checksum_bad: bool) -> Option<Packet> {
    let mut packet = Packet::NONE;
    parse_plain(frame, frame.len(), US, checksum_bad, &mut packet).then_some(packet)
}

fn same(a: &Packet, b: &Packet) -> bool {
    (a.kind, a.v4, a.to_us, a.tcp_flags, a.l4, a.length, a.key) == (b.kind, b.v4, b.to_us, b.tcp_flags, b.l4, b.length, b.key)
}

#[test]
fn a_plain_segment_is_read_by_both_alike() {
    let frame = frame();
    let plain = short(&frame, false).expect("a plain segment");
    let whole = parse(&frame, frame.len(), US, false).expect("a right frame");
    assert!(same(&plain, &whole), "{plain:?} {whole:?}");
    assert_eq!((plain.length, plain.l4, plain.tcp_flags), (40, 34, 2));
    assert_eq!((plain.key.client.to_string(), plain.key.client_port), ("198.51.100.1".into(), 10_000));
    assert_eq!((plain.key.virtual_.to_string(), plain.key.virtual_port), ("10.10.24.88".into(), 80));
    for (v6, udp) in [(false, true), (true, false), (true, true)] {
        let frame = frame_of(v6, udp);
        let plain = short(&frame, false).expect("a plain packet");
        let whole = parse(&frame, frame.len(), US, false).expect("a right frame");
        assert!(same(&plain, &whole) && plain.v4 != v6, "{plain:?} {whole:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// What the short way accepts, the long way accepts and reads alike; and it accepts every plain segment without fault.
    #[test]
    fn the_short_way_never_differs_from_the_long_one(
        v6 in any::<bool>(), udp in any::<bool>(),
        changes in prop::collection::vec((0_usize..74, any::<u8>()), 0..5), length in 40_usize..100, mended in any::<bool>(), bad in any::<bool>(),
    ) {
        let mut bytes = frame_of(v6, udp);
        bytes.resize(length.max(74), 0);
        for (at, value) in changes {
            bytes[at] = value;
        }
        if mended && !v6 {
            mend(&mut bytes);
        }
        bytes.truncate(length);
        let plain = short(&bytes, bad);
        let whole = parse(&bytes, bytes.len(), US, bad);
        match (&plain, &whole) {
            (Some(plain), Ok(whole)) => prop_assert!(same(plain, whole), "{plain:?} {whole:?}"),
            (Some(plain), Err(verdict)) => prop_assert!(false, "{plain:?} but {verdict:?}"),
            (None, Ok(whole)) => {
                let headers = if whole.v4 { (34, 54) } else { (54, 74) };
                let alike = bytes[8..12] == US[2..];
                let group = !whole.v4 && (whole.key.virtual_.0 >> 120 == 0xff);
                let tcp_or_udp = matches!(whole.key.protocol, protocol::TCP | protocol::UDP);
                let plain = whole.kind == Kind::Flow && tcp_or_udp && whole.l4 == headers.0 && bytes.len() >= headers.1 && !alike && !group;
                prop_assert!(!plain, "the short way is to take {whole:?}");
            }
            (None, Err(_)) => {}
        }
    }
}
