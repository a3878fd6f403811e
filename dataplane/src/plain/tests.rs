use dpdk::net::{checksum, protocol};
use proptest::prelude::*;

use super::*;
use crate::parse::parse;

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

/// What the short way reads of a packet: key, TCP's flags, length, and whether it is IPv4.
type Read = (Key, u8, u16, bool);

fn read<F: Family, T: Transport>(frame: &[u8], doubted: bool) -> Option<Read> {
    let head = F::head(frame)?;
    let flags = if T::PROTOCOL == Protocol::Tcp { F::transport(head)[13] } else { 0 };
    let (key, hasher) = (Key::of(F::addresses(head), F::ports(head), T::PROTOCOL as u8), Hasher::new([1, 2, 3, 4]));
    assert_eq!(hasher.mix(F::word(head, &hasher), F::ports(head), T::PROTOCOL as u8), hasher.hash(&key));
    if !F::is_plain::<T>(head, frame.len(), doubted, &Ethernet::to(US)) {
        return None;
    }
    match (F::read::<T>(head), parse(frame, frame.len(), US, false)) {
        (Ok(short), Ok(long)) => assert_eq!(format!("{short:?}"), format!("{long:?}")),
        (short, long) => assert_eq!(short.err(), long.err()),
    }
    Some((key, flags, F::length(head), F::V4))
}

fn short(frame: &[u8], doubted: bool) -> Option<Read> {
    let kinds = [read::<V4, Tcp>, read::<V4, Udp>, read::<V6, Tcp>, read::<V6, Udp>];
    let all: Vec<Read> = kinds.iter().filter_map(|read| read(frame, doubted)).collect();
    assert!(all.len() <= 1);
    all.first().copied()
}

fn long(packet: &Packet) -> Read {
    (packet.key, packet.tcp_flags, packet.length, packet.v4)
}

#[test]
fn a_plain_segment_is_read_by_both_alike() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let frame = frame_of(v6, udp);
        let whole = parse(&frame, frame.len(), US, false).expect("a right frame");
        assert_eq!(short(&frame, false), Some(long(&whole)));
        assert!(whole.v4 != v6 && whole.kind == Kind::Flow);
    }
    let (key, flags, length, _) = short(&frame(), false).expect("a plain segment");
    assert_eq!((length, flags), (40, 2));
    assert_eq!((key.client.to_string(), key.client_port), ("198.51.100.1".into(), 10_000));
    assert_eq!((key.virtual_.to_string(), key.virtual_port), ("10.10.24.88".into(), 80));
}

#[test]
fn ordinary_segments_and_datagrams_continue_a_connection() {
    let mut segment = TCP;
    for (flags, continues) in
        [(0x10, true), (0x18, true), (0x30, true), (0x02, false), (0x11, false), (0x14, false), (0x12, false), (8, false)]
    {
        segment[13] = flags;
        assert_eq!(Tcp::continues(&segment), continues, "{flags:#x}");
    }
    assert!(Udp::continues(&UDP));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// What the short way accepts, the long way accepts and reads alike, but for addresses; and it accepts every plain segment
    /// without fault.
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
        match (plain, parse(&bytes, bytes.len(), US, bad)) {
            (Some(plain), Ok(whole)) => {
                prop_assert_eq!(plain, long(&whole));
                prop_assert_eq!(whole.kind, Kind::Flow);
            }
            (Some(_), Err(verdict)) => prop_assert!(matches!(verdict, Verdict::MartianSource | Verdict::MartianDestination), "{verdict:?}"),
            (None, Ok(whole)) => {
                let headers = if whole.v4 { (34, 54) } else { (54, 74) };
                let alike = bytes[8..12] == US[2..];
                let tcp_or_udp = matches!(whole.key.protocol, protocol::TCP | protocol::UDP);
                let plain = whole.kind == Kind::Flow && tcp_or_udp && whole.l4 == headers.0 && bytes.len() >= headers.1 && !alike;
                prop_assert!(!plain, "the short way is to take {whole:?}");
            }
            (None, Err(_)) => {}
        }
    }

    /// A checksum is right for the short way when it is right for the whole of the header, whatever that holds.
    #[test]
    fn checksums_are_taken_as_the_standard_has_them(rest in prop::collection::vec(any::<u8>(), 19), change in 0_u8..3) {
        let mut bytes = frame();
        bytes[15..34].copy_from_slice(&rest);
        bytes[20] &= 0xc0;
        bytes[21] = 0;
        mend(&mut bytes);
        bytes[25] = bytes[25].wrapping_add(change);
        let head = V4::head(&bytes).expect("long enough");
        prop_assert_eq!(V4::is_right_sum(head), checksum::internet(&bytes[14..34]) == 0);
    }
}
