use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::*;

/// Any bytes give a view of the type, and the view gives the same bytes back; too few bytes give none.
fn round_trip<T>(bytes: &[u8], len: usize)
where
    T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy + PartialEq + std::fmt::Debug,
{
    assert_eq!((size_of::<T>(), align_of::<T>()), (len, 1));
    match T::ref_from_prefix(bytes) {
        Ok((view, rest)) => {
            assert_eq!(view.as_bytes(), &bytes[..len]);
            assert_eq!(rest.len(), bytes.len() - len);
            let copy = *view;
            assert_eq!(T::read_from_bytes(copy.as_bytes()).unwrap(), copy);
        }
        Err(_) => assert!(bytes.len() < len),
    }
}

/// RFC 1071 word by word, as the text describes it.
fn plain_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_header_is_a_view_of_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        round_trip::<EthernetHeader>(&bytes, 14);
        round_trip::<VlanTag>(&bytes, 4);
        round_trip::<ArpPacket>(&bytes, 28);
        round_trip::<Ipv4Header>(&bytes, 20);
        round_trip::<Ipv6Header>(&bytes, 40);
        round_trip::<Ipv6FragmentHeader>(&bytes, 8);
        round_trip::<TcpHeader>(&bytes, 20);
        round_trip::<UdpHeader>(&bytes, 8);
        round_trip::<Icmpv4Header>(&bytes, 8);
        round_trip::<Icmpv6Header>(&bytes, 8);
        round_trip::<NeighbourSolicitation>(&bytes, 24);
        round_trip::<NeighbourAdvertisement>(&bytes, 24);
        round_trip::<LinkAddressOption>(&bytes, 8);
    }

    #[test]
    fn accessors_stay_in_range_for_any_bytes(bytes in any::<[u8; 40]>()) {
        let v4 = Ipv4Header::ref_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!(v4.version() << 4 | v4.ihl(), bytes[0]);
        prop_assert!(v4.header_len() <= 60 && v4.fragment_offset() <= 65_528);
        prop_assert_eq!(v4.is_fragment(), v4.fragment_offset() != 0 || bytes[6] & 0x20 != 0);
        let v6 = Ipv6Header::ref_from_prefix(&bytes).unwrap().0;
        let word = u32::from(v6.version()) << 28 | u32::from(v6.traffic_class()) << 20 | v6.flow_label();
        prop_assert_eq!(&word.to_be_bytes(), &bytes[..4]);
        prop_assert!(TcpHeader::ref_from_prefix(&bytes).unwrap().0.data_offset() <= 60);
        let fragment = Ipv6FragmentHeader::ref_from_prefix(&bytes).unwrap().0;
        prop_assert!(fragment.fragment_offset() % 8 == 0);
    }

    #[test]
    fn checksum_equals_the_word_by_word_one(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(checksum::internet(&bytes), plain_checksum(&bytes));
    }

    #[test]
    fn sums_add_up_at_even_places(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
        let cut = (cut * 2).min(bytes.len() & !1);
        let parts = checksum::sum(&bytes[..cut]) + checksum::sum(&bytes[cut..]);
        prop_assert_eq!(checksum::finish(parts), plain_checksum(&bytes));
    }

    #[test]
    fn mended_checksum_verifies_like_a_new_one(
        mut bytes in proptest::collection::vec(any::<u8>(), 4..100),
        at in 0usize..48,
        new in any::<[u8; 4]>(),
    ) {
        bytes.truncate(bytes.len() & !3);
        let at = (at * 2) % (bytes.len() - 2);
        let old = checksum::internet(&bytes);
        let word = |bytes: &[u8]| u16::from_be_bytes([bytes[at], bytes[at + 1]]);

        let mut one = bytes.clone();
        one[at..at + 2].copy_from_slice(&new[..2]);
        let mended = checksum::update(old, word(&bytes), word(&one));
        prop_assert_eq!(checksum::finish(checksum::sum(&one) + u64::from(mended)), 0);

        let mut four = bytes.clone();
        let end = (at + 4).min(bytes.len());
        four[at..end].copy_from_slice(&new[..end - at]);
        let mended = checksum::update_bytes(old, &bytes[at..end], &four[at..end]);
        prop_assert_eq!(checksum::finish(checksum::sum(&four) + u64::from(mended)), 0);
    }

    #[test]
    fn decremented_ttl_keeps_a_right_checksum_right(bytes in any::<[u8; 20]>()) {
        let mut header = Ipv4Header::read_from_bytes(&bytes).unwrap();
        header.checksum = U16::new(header.expected_checksum());
        prop_assert_eq!(checksum::internet(header.as_bytes()), 0);
        let ttl = header.ttl;
        prop_assert_eq!(header.decrement_ttl(), ttl > 0);
        prop_assert_eq!(header.ttl, ttl.saturating_sub(1));
        prop_assert_eq!(checksum::internet(header.as_bytes()), 0);
    }
}

#[test]
fn decremented_ttl_mends_every_checksum_as_rfc_1624_says() {
    for before in 0..=u16::MAX {
        let mut header = Ipv4Header { ttl: 64, protocol: protocol::TCP, checksum: U16::new(before), ..Ipv4Header::new_zeroed() };
        assert!(header.decrement_ttl());
        assert_eq!(header.checksum.get(), checksum::update(before, 0x4006, 0x3f06));
    }
}

#[test]
fn header_of_a_real_packet_reads_right() {
    // A SYN from 192.0.2.1:49152 to 10.10.24.88:80, as tcpdump shows it.
    let bytes: [u8; 40] = [
        0x45, 0x00, 0x00, 0x28, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0x7a, 0x19, 192, 0, 2, 1, 10, 10, 24, 88, 0xc0, 0x00, 0x00, 0x50, 0, 0,
        0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x72, 0x10, 0, 0, 0, 0,
    ];
    let (ip, rest) = Ipv4Header::ref_from_prefix(&bytes).unwrap();
    assert_eq!((ip.version(), ip.header_len(), ip.total_length.get()), (4, 20, 40));
    assert_eq!((ip.source(), ip.destination()), (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 10, 24, 88)));
    assert!(!ip.is_fragment() && ip.is_first_fragment());
    assert_eq!(ip.flags_fragment.get(), Ipv4Header::DONT_FRAGMENT);
    assert_eq!(ip.protocol, protocol::TCP);
    let (tcp, _) = TcpHeader::ref_from_prefix(rest).unwrap();
    assert_eq!((tcp.source_port.get(), tcp.destination_port.get(), tcp.data_offset()), (49152, 80, 20));
    assert!(tcp.has(tcp_flags::SYN) && !tcp.has(tcp_flags::SYN | tcp_flags::ACK));
}

#[test]
fn checksums_of_known_packets() {
    // The header that RFC 1071's readers know best: 20 bytes, checksum 0xb861.
    let header = [0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7];
    assert_eq!(checksum::internet(&header), 0xb861);
    // RFC 1624 section 4: 0x5555 becomes 0x3285 under a checksum of 0xdd2f, which becomes 0x0000 and not 0xffff.
    assert_eq!(checksum::update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn pseudo_headers_count_addresses_protocol_and_length() {
    let (source, destination) = (Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets());
    let mut plain = [source, destination].concat();
    plain.extend([0, 0, 0, 8, 0, 0, 0, protocol::UDP]);
    let udp = [0x00, 0x35, 0x00, 0x35, 0x00, 0x08, 0x00, 0x00];
    let pseudo = checksum::pseudo_v6(&source, &destination, protocol::UDP, 8);
    assert_eq!(checksum::segment(pseudo, &udp), plain_checksum(&[plain.as_slice(), &udp].concat()));

    let pseudo = checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], protocol::UDP, 8);
    let plain = [&[10, 0, 0, 1, 10, 0, 0, 2, 0, protocol::UDP, 0, 8], udp.as_slice()].concat();
    assert_eq!(checksum::segment(pseudo, &udp), plain_checksum(&plain));
}

#[test]
fn udp_checksum_is_never_zero() {
    assert_eq!(checksum::segment(0xffff, &[]), 0);
    assert_eq!(checksum::udp_segment(0xffff, &[]), 0xffff);
}

#[test]
fn arp_packet_is_the_one_of_rfc_826() {
    let mac = [2, 0, 0, 0, 0, 1];
    let packet = ArpPacket::new(arp_operation::REQUEST, mac, Ipv4Addr::new(10, 0, 0, 1), [0; 6], Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(packet.as_bytes()[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
    assert_eq!(packet.as_bytes()[8..18], [2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    assert!(packet.is_ipv4_over_ethernet());
    assert!(!ArpPacket { hardware_len: 8, ..packet }.is_ipv4_over_ethernet());
    assert!(!ArpPacket { protocol_type: U16::new(ether_type::IPV6), ..packet }.is_ipv4_over_ethernet());
}

#[test]
fn vlan_id_leaves_out_the_priority() {
    let tag = VlanTag { tci: U16::new(0xe064), ether_type: U16::new(ether_type::IPV4) };
    assert_eq!(tag.id(), 100);
    let frame = EthernetHeader { destination: [0x33, 0x33, 0, 0, 0, 1], source: [2; 6], ether_type: U16::new(ether_type::VLAN) };
    assert!(frame.is_multicast());
    assert!(!EthernetHeader { destination: [2; 6], ..frame }.is_multicast());
}
