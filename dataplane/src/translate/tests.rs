use dpdk::net::checksum;
use proptest::prelude::*;

use super::crc32c::tests::plain;
use super::*;
use crate::connection::Key;
use crate::parse::Kind;

/// Where the checksum lies.
fn checksum_at(transport: u8) -> usize {
    match transport {
        protocol::TCP => TCP_CHECKSUM,
        protocol::UDP => UDP_CHECKSUM,
        _ => SCTP_CHECKSUM,
    }
}

/// What parse would say of the frame.
fn seen(frame: &[u8], v4: bool, transport: u8, l4: usize) -> Packet {
    let key = Key { client: Address(0), virtual_: Address(0), client_port: 0, virtual_port: 0, protocol: transport };
    let length = u16::try_from(frame.len().saturating_sub(L3)).unwrap();
    Packet { kind: Kind::Flow, v4, to_us: true, tcp_flags: 0, l4: u16::try_from(l4).unwrap(), length, key }
}

/// A frame with right checksums: IPv4 or IPv6, TCP, UDP or SCTP.
fn frame(v4: bool, transport: u8, ends: ([u8; 16], [u8; 16]), ports: (u16, u16), payload: &[u8]) -> (Vec<u8>, usize) {
    let header = match transport {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => 12,
    };
    let mut segment = vec![0; header];
    segment[..2].copy_from_slice(&ports.0.to_be_bytes());
    segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
    if transport == protocol::UDP {
        segment[4..6].copy_from_slice(&u16::try_from(header + payload.len()).unwrap().to_be_bytes());
    }
    segment.extend(payload);
    let at = checksum_at(transport);
    if transport == protocol::SCTP {
        let sum = plain(&segment);
        segment[at..at + 4].copy_from_slice(&sum);
    } else {
        let sum = checksum::segment(pseudo(v4, transport, ends, segment.len()), &segment);
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = vec![0; L3];
    frame.extend(ip(v4, transport, ends, segment.len()));
    let l4 = frame.len();
    frame.extend(segment);
    (frame, l4)
}

fn ip(v4: bool, transport: u8, (source, destination): ([u8; 16], [u8; 16]), length: usize) -> Vec<u8> {
    if v4 {
        let mut ip = vec![0x45, 0];
        ip.extend(u16::try_from(20 + length).unwrap().to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, transport, 0, 0]);
        ip.extend(&source[12..]);
        ip.extend(&destination[12..]);
        let sum = checksum::internet(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        return ip;
    }
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(u16::try_from(length).unwrap().to_be_bytes());
    ip.extend([transport, 64]);
    ip.extend(source);
    ip.extend(destination);
    ip
}

fn pseudo(v4: bool, transport: u8, (source, destination): ([u8; 16], [u8; 16]), length: usize) -> u64 {
    let length = u16::try_from(length).unwrap();
    if v4 {
        let four = |a: [u8; 16]| *a[12..].first_chunk().unwrap();
        return checksum::pseudo_v4(four(source), four(destination), transport, length);
    }
    checksum::pseudo_v6(&source, &destination, transport, length.into())
}

fn address(v4: bool, bytes: [u8; 16]) -> Address {
    if v4 { Address::v4(u32::from_be_bytes(*bytes[12..].first_chunk().unwrap())) } else { Address(u128::from_be_bytes(bytes)) }
}

/// An ICMP error to `ends.1` that quotes `quoted`.
fn error_about(v4: bool, ends: ([u8; 16], [u8; 16]), quoted: &[u8]) -> (Vec<u8>, usize) {
    let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
    icmp.extend(quoted);
    let transport = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let outside = if v4 { 0 } else { pseudo(false, transport, ends, icmp.len()) };
    let sum = checksum::segment(outside, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0; L3];
    frame.extend(ip(v4, transport, ends, icmp.len()));
    let at = frame.len();
    frame.extend(icmp);
    (frame, at)
}

/// Addresses that are IPv6's own: no mapped ones.
fn any_address() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_map(|mut bytes| {
        bytes[0] = 0x20;
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_translated_packet_is_one_that_was_sent_so(
        v4: bool, transport in proptest::sample::select(vec![protocol::TCP, protocol::UDP, protocol::SCTP]), source: bool,
        one in any_address(), other in any_address(), new in any_address(),
        ports: (u16, u16), new_port: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (mut sent, l4) = frame(v4, transport, (one, other), ports, &payload);
        let end = if source { End::Source } else { End::Destination };
        let wanted = if source {
            frame(v4, transport, (new, other), (new_port, ports.1), &payload)
        } else {
            frame(v4, transport, (one, new), (ports.0, new_port), &payload)
        };
        let what = seen(&sent, v4, transport, l4);
        prop_assert_eq!(packet(&mut sent, &what, end, address(v4, new), new_port), Some(()));
        // A mended checksum may be the other zero of ones' complement; both are right.
        let at = l4 + checksum_at(transport);
        let zero = |frame: &[u8]| matches!(frame[at..at + 2], [0, 0] | [0xff, 0xff]);
        if zero(&sent) && zero(&wanted.0) {
            sent[at..at + 2].copy_from_slice(&wanted.0[at..at + 2]);
        }
        prop_assert_eq!(sent, wanted.0);
    }

    #[test]
    fn a_translated_error_quotes_what_its_receiver_knows(
        v4: bool, source: bool,
        router in any_address(), one in any_address(), other in any_address(), new in any_address(),
        ports: (u16, u16), new_port: u16,
    ) {
        // The quote went from `one` to `other`, the error comes back to `one`.
        let quoted = frame(v4, protocol::TCP, (one, other), ports, &[]).0.split_off(L3);
        let (mut sent, icmp) = error_about(v4, (router, one), &quoted);
        let header = if v4 { 20 } else { 40 };
        let end = if source { End::Source } else { End::Destination };
        let inside = if source { ((one, new), (ports.0, new_port)) } else { ((new, other), (new_port, ports.1)) };
        let outside = if source { (new, one) } else { (router, new) };
        let mut quote = frame(v4, protocol::TCP, inside.0, inside.1, &[]).0.split_off(L3);
        let sum = header + 16;
        quote[sum..sum + 2].copy_from_slice(&quoted[sum..sum + 2]);
        let (mut wanted, _) = error_about(v4, outside, &quote);
        prop_assert_eq!(icmp_error(&mut sent, v4, icmp, icmp + 8 + header, end, address(v4, new), new_port), Some(()));
        let zero = |frame: &[u8]| matches!(frame[icmp + 2..icmp + 4], [0, 0] | [0xff, 0xff]);
        if zero(&sent) && zero(&wanted) {
            wanted[icmp + 2..icmp + 4].copy_from_slice(&sent[icmp + 2..icmp + 4]);
        }
        prop_assert_eq!(sent, wanted);
    }

    #[test]
    fn any_bytes_are_translated_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120), v4: bool, l4 in 0_usize..130, inner in 0_usize..130) {
        let new = if v4 { Address::v4(1) } else { Address(1) };
        for end in [End::Source, End::Destination] {
            let mut frame = bytes.clone();
            for transport in [protocol::TCP, protocol::UDP, protocol::SCTP, 47] {
                let what = seen(&frame, v4, transport, l4);
                let _ = packet(&mut frame, &what, end, new, 1);
            }
            let mut frame = bytes.clone();
            let _ = icmp_error(&mut frame, v4, l4, inner, end, new, 1);
        }
    }
}

#[test]
fn a_udp_datagram_without_a_checksum_gets_one_where_all_of_it_is_there_and_none_becomes_none() {
    let ends = ([0x20; 16], [0x21; 16]);
    for (v4, new) in [(true, Address::v4(7)), (false, Address(7))] {
        let (mut sent, l4) = frame(v4, protocol::UDP, ends, (1, 2), b"odd");
        sent[l4 + 6..l4 + 8].fill(0);
        let mut first_fragment = sent[..l4 + 8].to_vec();
        let what = seen(&sent, v4, protocol::UDP, l4);
        assert_eq!(packet(&mut sent, &what, End::Source, new, 9), Some(()));
        let source = if v4 { [0, 0, 0, 7].repeat(4).try_into().unwrap() } else { 7_u128.to_be_bytes() };
        assert_ne!(sent[l4 + 6..l4 + 8], [0, 0]);
        assert_eq!(checksum::segment(pseudo(v4, protocol::UDP, (source, ends.1), 11), &sent[l4..]), 0);
        let of_fragment = seen(&first_fragment, v4, protocol::UDP, l4);
        // A frame that is filled up to the least length of frames holds no more of the datagram.
        first_fragment.resize(l4 + 30, 0xee);
        assert_eq!(packet(&mut first_fragment, &of_fragment, End::Source, new, 9), Some(()));
        assert_eq!(first_fragment[l4 + 6..l4 + 8], [0, 0]);
    }
    for port in 0..=u16::MAX {
        let (mut sent, l4) = frame(true, protocol::UDP, ends, (1, 2), b"x");
        let what = seen(&sent, true, protocol::UDP, l4);
        packet(&mut sent, &what, End::Source, Address::v4(7), port).unwrap();
        assert_ne!(sent[l4 + 6..l4 + 8], [0, 0], "port {port}");
    }
}
