use proptest::prelude::*;

use super::*;

const US: [u8; 6] = [2, 0, 0, 0, 0xd0, 0];

/// A right frame of 60 bytes to change.
fn frame() -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(US);
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 10, 10, 24, 88]);
    frame.extend([0x27, 0x10, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0]);
    frame.resize(60, 0);
    mend(&mut frame);
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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// What the short way accepts, the long way accepts and reads alike; and it accepts every plain segment without fault.
    #[test]
    fn the_short_way_never_differs_from_the_long_one(
        changes in prop::collection::vec((0_usize..54, any::<u8>()), 0..5), length in 0_usize..80, mended in any::<bool>(), bad in any::<bool>(),
    ) {
        let mut bytes = frame();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if mended {
            mend(&mut bytes);
        }
        bytes.resize(length, 0);
        let plain = short(&bytes, bad);
        let whole = parse(&bytes, bytes.len(), US, bad);
        match (&plain, &whole) {
            (Some(plain), Ok(whole)) => prop_assert!(same(plain, whole), "{plain:?} {whole:?}"),
            (Some(plain), Err(verdict)) => prop_assert!(false, "{plain:?} but {verdict:?}"),
            (None, Ok(whole)) => {
                let plain_segment = whole.kind == Kind::Flow && whole.v4 && whole.key.protocol == protocol::TCP && whole.l4 == 34;
                prop_assert!(!plain_segment, "the short way is to take {whole:?}");
            }
            (None, Err(_)) => {}
        }
    }
}
