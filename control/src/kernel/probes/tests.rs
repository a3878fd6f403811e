use super::packet::{ICMP, ICMPV6, TCP, UDP};
use super::*;

const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 0x15];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(vip: &str, last: u8) -> Path {
    Path { link: 0, neighbour: IpAddr::from([10, 10, 24, last]), fixed: None, tunnel: None, vip: ip(vip) }
}

fn probes(ways: &[(Path, Option<[u8; 6]>)]) -> Probes {
    let probes = Probes::new(Networks::default());
    probes.put(&ways.iter().copied().collect());
    probes
}

/// The sum over `bytes` as RFC 1071 has it: 0xffff when a checksum among them is right.
fn sum(bytes: &[u8]) -> u16 {
    let mut all: u32 = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)]))).sum();
    while all > 0xffff {
        all = (all & 0xffff) + (all >> 16);
    }
    u16::try_from(all).unwrap()
}

/// A TCP segment or UDP datagram with right checksums, after Ethernet addresses.
fn frame(destination: [u8; 6], protocol: u8, from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
    let mut l4: Vec<u8> = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let field = if protocol == TCP { 16 } else { 6 };
    l4.resize(if protocol == TCP { 20 } else { 8 }, 0);
    l4.extend(b"odd");
    if protocol == UDP {
        l4[5] = 11;
    }
    let length = u16::try_from(l4.len()).unwrap();
    let mut frame = [destination, ROUTER].concat();
    let pseudo = match (ip(from.0), ip(to.0)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 7, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend([from.octets(), to.octets()].concat());
            let header = !sum(&frame[14..]);
            frame[24..26].copy_from_slice(&header.to_be_bytes());
            [from.octets(), to.octets()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend([from.octets(), to.octets()].concat());
            [from.octets(), to.octets()].concat()
        }
        _ => unreachable!(),
    };
    let covered = [pseudo, vec![0, protocol], length.to_be_bytes().to_vec(), l4.clone()].concat();
    l4[field..field + 2].copy_from_slice(&(!sum(&covered)).to_be_bytes());
    frame.extend(l4);
    frame
}

/// What the pump makes of a frame of the kernel's.
fn sent(probes: &Probes, frame: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0xee; 64];
    buffer.extend(frame);
    let range = 64..buffer.len();
    probes.go_out(&mut buffer, range).map(|range| buffer[range].to_vec())
}

#[test]
fn question_leaves_for_the_vip_and_its_answer_comes_back_with_right_checksums() {
    for (vip, dip, last) in [("10.10.24.88", "10.10.24.10", 21), ("fd00:10::88", "fd00:10::10", 22)] {
        for protocol in [TCP, UDP] {
            let way = path(vip, last);
            let probes = probes(&[(way, Some(SERVER))]);
            let (probe, true) = probes.address(&way).unwrap() else { panic!("it has a MAC") };
            let asked = frame(MAC, protocol, (dip, 40_000), (&probe.to_string(), 80));
            assert_eq!(sent(&probes, &asked).unwrap(), frame(SERVER, protocol, (dip, 40_000), (vip, 80)));

            let mut answer = frame(ROUTER, protocol, (vip, 80), (dip, 40_000));
            assert!(probes.come_back(&mut answer));
            assert_eq!(answer, frame(ROUTER, protocol, (&probe.to_string(), 80), (dip, 40_000)));
        }
    }
}

#[test]
fn two_real_servers_with_one_vip_are_told_apart_by_our_port() {
    let ways = [path("10.10.24.88", 21), path("10.10.24.88", 22)];
    let probes = probes(&[(ways[0], Some(SERVER)), (ways[1], Some(SERVER))]);
    let addresses = ways.map(|way| probes.address(&way).unwrap().0);
    assert_ne!(addresses[0], addresses[1]);
    for (port, address) in [(40_000, addresses[0]), (40_001, addresses[1])] {
        sent(&probes, &frame(MAC, TCP, ("10.10.24.10", port), (&address.to_string(), 80))).unwrap();
    }
    for (port, address) in [(40_001, addresses[1]), (40_000, addresses[0])] {
        let mut answer = frame(ROUTER, TCP, ("10.10.24.88", 80), ("10.10.24.10", port));
        assert!(probes.come_back(&mut answer));
        assert_eq!(answer, frame(ROUTER, TCP, (&address.to_string(), 80), ("10.10.24.10", port)));
    }
}

#[test]
fn frames_from_a_vip_that_answer_no_check_go_nowhere() {
    let probes = probes(&[(path("10.10.24.88", 21), Some(SERVER))]);
    let mut forged = frame(ROUTER, TCP, ("10.10.24.88", 80), ("10.10.24.10", 22));
    assert!(!probes.come_back(&mut forged));
    let mut another = frame(ROUTER, TCP, ("10.10.24.1", 80), ("10.10.24.10", 22));
    let before = another.clone();
    assert!(probes.come_back(&mut another) && another == before, "what is not from a VIP passes as it is");
    let probe = probes.address(&path("10.10.24.88", 21)).unwrap().0.to_string();
    sent(&probes, &frame(MAC, TCP, ("10.10.24.10", 40_000), (&probe, 80))).unwrap();
    let mut other_port = frame(ROUTER, TCP, ("10.10.24.88", 81), ("10.10.24.10", 40_000));
    assert!(!probes.come_back(&mut other_port));
}

#[test]
fn frames_that_are_no_probes_are_not_touched() {
    let probes = probes(&[]);
    let plain = frame(ROUTER, TCP, ("10.10.24.10", 22), ("10.10.24.1", 5_000));
    assert_eq!(sent(&probes, &plain).unwrap(), plain);
    let unknown = frame(MAC, TCP, ("10.10.24.10", 40_000), ("240.0.0.9", 80));
    assert_eq!(sent(&probes, &unknown), None);
}

#[test]
fn probe_without_a_mac_waits() {
    let way = path("10.10.24.88", 21);
    let probes = probes(&[(way, None)]);
    let (probe, known) = probes.address(&way).unwrap();
    assert!(!known);
    assert_eq!(sent(&probes, &frame(MAC, TCP, ("10.10.24.10", 40_000), (&probe.to_string(), 80))), None);
}

#[test]
fn tunnels_have_their_outer_headers() {
    let kinds = [
        (Encapsulation::IpIp, 0),
        (Encapsulation::Gre { checksum: false }, 4),
        (Encapsulation::Gre { checksum: true }, 8),
        (Encapsulation::Gue { port: 6080, checksum: true }, 12),
    ];
    for (from, to) in [("10.10.24.10", "192.0.2.7"), ("fd00:10::10", "2001:db8::7")] {
        for (vip, dip, inner) in [("10.10.24.88", "10.10.24.10", 4), ("fd00:10::88", "fd00:10::10", 41)] {
            for (kind, between) in kinds {
                let way = Path { tunnel: Some((ip(from), ip(to), kind)), ..path(vip, 21) };
                let probes = probes(&[(way, Some(SERVER))]);
                let probe = probes.address(&way).unwrap().0.to_string();
                let out = sent(&probes, &frame(MAC, TCP, (dip, 40_000), (&probe, 80))).unwrap();
                let plain = frame(SERVER, TCP, (dip, 40_000), (vip, 80));
                let outer = if from.contains(':') { 40 } else { 20 };
                assert_eq!(out.len(), plain.len() + outer + between);
                assert_eq!(out[..12], plain[..12]);
                assert_eq!(out[14 + outer + between..], plain[14..]);
                let protocol = match between {
                    0 => inner,
                    12 => UDP,
                    _ => 47,
                };
                if outer == 20 {
                    assert_eq!((&out[12..14], sum(&out[14..34]), out[23]), (&[8, 0][..], 0xffff, protocol));
                    assert_eq!(out[26..34], [[10, 10, 24, 10], [192, 0, 2, 7]].concat());
                } else {
                    assert_eq!((&out[12..14], out[14] >> 4, out[20]), (&[0x86, 0xdd][..], 6, protocol));
                }
            }
        }
    }
}

#[test]
fn addresses_are_given_back_and_stay_while_their_way_is_wanted() {
    let ways = [path("10.10.24.88", 21), path("10.10.24.88", 22), path("10.10.24.88", 23)];
    let probes = probes(&[(ways[0], None), (ways[1], None)]);
    let kept = probes.address(&ways[1]).unwrap().0;
    let freed = probes.address(&ways[0]).unwrap().0;
    probes.put(&HashMap::from([(ways[1], Some(SERVER)), (ways[2], None)]));
    assert_eq!(probes.address(&ways[1]), Some((kept, true)));
    assert_eq!(probes.address(&ways[2]), Some((freed, false)));
    assert_eq!(probes.address(&ways[0]), None);
}

#[test]
fn every_port_has_a_part_of_the_networks() {
    let networks = Networks::default();
    assert_eq!(networks.of_port(3, false).to_string(), "240.3.0.0/16");
    assert_eq!(networks.of_port(3, true).to_string(), "fd62:6174:6f6e:3::/64");
    assert_eq!(networks.address(3, false, 65_534), Some(ip("240.3.255.254")));
    assert_eq!(networks.address(3, false, 65_535), None);
    assert_eq!(networks.address(3, true, 2), Some(ip("fd62:6174:6f6e:3::2")));
}

/// An ICMP message with right checksums, after Ethernet addresses.
fn icmp_frame(destination: [u8; 6], from: &str, to: &str, mut message: Vec<u8>) -> Vec<u8> {
    let ipv4 = from.parse::<Ipv4Addr>().is_ok();
    let protocol = if ipv4 { ICMP } else { ICMPV6 };
    message[2..4].fill(0);
    let mut frame = frame(destination, protocol, (from, 0), (to, 0));
    let l4 = if ipv4 { 34 } else { 54 };
    frame.truncate(l4);
    let length = u16::try_from(message.len()).unwrap();
    if ipv4 {
        frame[16..18].copy_from_slice(&(length + 20).to_be_bytes());
        frame[24..26].fill(0);
        let header = !sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&header.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&length.to_be_bytes());
    }
    let pseudo = if ipv4 { Vec::new() } else { [&frame[22..54], &[0, 0], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat() };
    let checksum = !sum(&[pseudo, message.clone()].concat());
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    [frame, message].concat()
}

fn echo(kind: u8, id: u16) -> Vec<u8> {
    [&[kind, 0, 0, 0], &id.to_be_bytes()[..], &[0, 1], b"token"].concat()
}

#[test]
fn echo_of_a_vip_is_told_apart_by_its_identifier() {
    for (vip, dip, request, reply) in [("10.10.24.88", "10.10.24.10", 8, 0), ("fd00:10::88", "fd00:10::10", 128, 129)] {
        let way = path(vip, 21);
        let probes = probes(&[(way, Some(SERVER))]);
        let probe = probes.address(&way).unwrap().0.to_string();
        let asked = icmp_frame(MAC, dip, &probe, echo(request, 7));
        assert_eq!(sent(&probes, &asked).unwrap(), icmp_frame(SERVER, dip, vip, echo(request, 7)));
        let mut answer = icmp_frame(ROUTER, vip, dip, echo(reply, 7));
        assert!(probes.come_back(&mut answer));
        assert_eq!(answer, icmp_frame(ROUTER, &probe, dip, echo(reply, 7)));
        assert!(!probes.come_back(&mut icmp_frame(ROUTER, vip, dip, echo(reply, 8))), "nobody asked for it");
    }
}

#[test]
fn icmp_error_about_a_check_reaches_the_socket_that_asked() {
    for (vip, dip, router, error) in
        [("10.10.24.88", "10.10.24.10", "10.10.24.1", [3, 3]), ("fd00:10::88", "fd00:10::10", "fd00:10::1", [1, 4])]
    {
        let way = path(vip, 21);
        let probes = probes(&[(way, Some(SERVER))]);
        let probe = probes.address(&way).unwrap().0.to_string();
        let about = |address: &str, port: u16| {
            let quoted = frame(MAC, UDP, (dip, port), (address, 53))[14..].to_vec();
            [&error[..], &[0; 6], &quoted].concat()
        };
        sent(&probes, &frame(MAC, UDP, (dip, 40_000), (&probe, 53))).unwrap();
        for from in [vip, router] {
            let mut told = icmp_frame(ROUTER, from, dip, about(vip, 40_000));
            assert!(probes.come_back(&mut told));
            let as_from = if from == vip { probe.as_str() } else { from };
            // The quoted datagram's own checksum stays: it is still about the VIP.
            let mut quote = about(&probe, 40_000);
            let at = if dip.contains(':') { 8 + 40 + 6 } else { 8 + 20 + 6 };
            quote[at..at + 2].copy_from_slice(&about(vip, 40_000)[at..at + 2]);
            assert_eq!(told, icmp_frame(ROUTER, as_from, dip, quote), "{from}");
        }
        assert!(!probes.come_back(&mut icmp_frame(ROUTER, vip, dip, about(vip, 40_001))), "nobody asked for it");
        let cut: Vec<u8> = about(vip, 40_000).into_iter().take(20).collect();
        assert!(!probes.come_back(&mut icmp_frame(ROUTER, vip, dip, cut)));
    }
}
