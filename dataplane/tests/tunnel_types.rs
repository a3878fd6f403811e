//! GUE and GRE: what stands between the outer header and the packet, and what routers say about the way.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod common;

use common::frame::{fragmentation_needed, icmp_v4, icmpv6, tcp};
use common::*;
use dataplane::service::{Encapsulation, Encapsulation::*, Protocol::*, SchedulerKind::*};
use dpdk::eal_test;
use dpdk::net::checksum;

const A: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const A6: &str = "[2001:db8::1]:1000";
const WEB6: &str = "[fd00:10::88]:80";
const ENDS: [(&str, &str); 2] = [("192.0.2.7", DIP), ("2001:db8:2::7", "fd00:10::10")];
const TYPES: [Encapsulation; 5] =
    [IpIp, Gue { port: 6080, checksum: false }, Gue { port: 6080, checksum: true }, Gre { checksum: false }, Gre { checksum: true }];

fn tunnel_to(lab: &mut Lab, (rip, dip): (&'static str, &'static str), encapsulation: Encapsulation) {
    for (id, vip) in [(0, VIP), (1, VIP6)] {
        lab.service(id, Tcp, vip, 80, RoundRobin, &[server(21).tunnel(rip, dip).encapsulation(encapsulation)]);
    }
}

/// What the outer header carries: its protocol, and the bytes behind it. The header itself must be right.
fn carried(frame: &[u8]) -> (u8, &[u8]) {
    let l3 = &frame[14..];
    if frame[12..14] == [8, 0] {
        assert_eq!((l3[0], checksum::internet(&l3[..20])), (0x45, 0));
        assert_eq!(usize::from(u16::from_be_bytes([l3[2], l3[3]])), l3.len(), "total length");
        (l3[9], &l3[20..])
    } else {
        assert_eq!((&frame[12..14], l3[0] >> 4), (&[0x86, 0xdd][..], 6));
        assert_eq!(usize::from(u16::from_be_bytes([l3[4], l3[5]])), l3.len() - 40, "payload length");
        (l3[6], &l3[40..])
    }
}

/// Sum over the pseudo-header of what the outer packet carries.
fn pseudo(frame: &[u8], protocol: u8, length: usize) -> u64 {
    let l3 = &frame[14..];
    if frame[12..14] == [8, 0] {
        checksum::pseudo_v4(l3[12..16].try_into().unwrap(), l3[16..20].try_into().unwrap(), protocol, length as u16)
    } else {
        checksum::pseudo_v6(l3[8..24].try_into().unwrap(), l3[24..40].try_into().unwrap(), protocol, length as u32)
    }
}

/// A fragment's offset, whether more follow, its id, and its bytes.
fn fragment(frame: &[u8]) -> (usize, bool, u32, &[u8]) {
    let (next, rest) = carried(frame);
    if frame[12..14] == [8, 0] {
        let flags = u16::from_be_bytes([frame[20], frame[21]]);
        return (usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0, u16::from_be_bytes([frame[18], frame[19]]).into(), rest);
    }
    assert_eq!(next, 44, "a fragment header");
    let flags = u16::from_be_bytes([rest[2], rest[3]]);
    (usize::from(flags & !7), flags & 1 != 0, u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]), &rest[8..])
}

eal_test! {
    fn every_type_carries_both_families_over_both(eal) {
        let mut lab = Lab::new(eal);
        for ends in ENDS {
            for encapsulation in TYPES {
                tunnel_to(&mut lab, ends, encapsulation);
                lab.flush(None);
                // An odd length: the last byte is summed up as a high one.
                for (sent, ipv4) in [(tcp(A, WEB).payload(b"odd").syn(), true), (tcp(A6, WEB6).payload(b"odd").syn(), false)] {
                    let frame = lab.expect(&sent, &["forwarded"]).remove(0);
                    let (protocol, rest) = carried(&frame);
                    let number = if ipv4 { 4 } else { 41 };
                    let inside = match encapsulation {
                        IpIp => {
                            assert_eq!(protocol, number);
                            rest
                        }
                        Gue { checksum, .. } => {
                            assert_eq!((protocol, &rest[2..4]), (17, &6080_u16.to_be_bytes()[..]), "to the port");
                            assert!((32_768..61_000).contains(&u16::from_be_bytes([rest[0], rest[1]])), "from one that spreads flows");
                            assert_eq!(usize::from(u16::from_be_bytes([rest[4], rest[5]])), rest.len());
                            assert_eq!(rest[6..8] != [0, 0], checksum);
                            if checksum {
                                assert_eq!(checksum::segment(pseudo(&frame, 17, rest.len()), rest), 0);
                            }
                            assert_eq!(rest[8..12], [0, number, 0, 0]);
                            &rest[12..]
                        }
                        Gre { checksum } => {
                            let kind = if ipv4 { [8, 0] } else { [0x86, 0xdd] };
                            assert_eq!((protocol, rest[0], rest[1], &rest[2..4]), (47, if checksum { 0x80 } else { 0 }, 0, &kind[..]));
                            if checksum {
                                assert_eq!((checksum::internet(rest), &rest[6..8]), (0, &[0, 0][..]));
                            }
                            &rest[if checksum { 8 } else { 4 }..]
                        }
                    };
                    let ports = if ipv4 { 20..24 } else { 40..44 };
                    assert_eq!((inside.len(), &inside[ports.clone()]), (sent.len() - 14, &sent[14..][ports]));
                }
            }
        }
        lab.assert_no_leak();
    }

    fn a_flow_keeps_its_source_port_and_flows_have_different_ones(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, ENDS[0], TYPES[1]);
        let mut port = |cport: u16| {
            let out = lab.send(&tcp(&format!("198.51.100.1:{cport}"), WEB).syn()).remove(0);
            u16::from_be_bytes([out[34], out[35]])
        };
        assert_eq!(port(1000), port(1000));
        let ports: std::collections::HashSet<u16> = (1000..1100).map(port).collect();
        assert!(ports.len() > 90, "{} of 100", ports.len());
    }

    fn clients_are_told_the_length_that_fits_behind_all_headers(eal) {
        let mut lab = Lab::new(eal);
        let all = ENDS.iter().flat_map(|ends| TYPES.map(|kind| (*ends, kind)));
        for (n, (ends, encapsulation)) in all.enumerate() {
            tunnel_to(&mut lab, ends, encapsulation);
            let room = MTU - if ends.0.contains(':') { 40 } else { 20 } - encapsulation.overhead() as u16;
            let (a, a6) = (format!("198.51.100.1:{}", 1000 + n), format!("[2001:db8::1]:{}", 1000 + n));
            let (v4, v6) = (usize::from(room) - 40, usize::from(room) - 60);
            assert_eq!(lab.expect(&tcp(&a, WEB).payload(&vec![7; v4]).syn(), &["forwarded"])[0].len(), 14 + usize::from(MTU));
            assert_eq!(lab.expect(&tcp(&a6, WEB6).payload(&vec![7; v6]).syn(), &["forwarded"])[0].len(), 14 + usize::from(MTU));
            let out = lab.expect(&tcp(&a, WEB).payload(&vec![7; v4 + 1]).syn(), &["too_big", "ICMP"]).remove(0);
            assert_eq!((out[34], out[35], &out[40..42]), (3, 4, &room.to_be_bytes()[..]));
            let out = lab.expect(&tcp(&a6, WEB6).payload(&vec![7; v6 + 1]).syn(), &["too_big", "ICMP"]).remove(0);
            assert_eq!((out[54], &out[58..62]), (2, &u32::from(room).to_be_bytes()[..]));
        }
        lab.assert_no_leak();
    }

    fn both_outer_families_are_cut_where_the_packet_allows_it(eal) {
        let mut lab = Lab::new(eal);
        for ends in ENDS {
            for encapsulation in TYPES {
                tunnel_to(&mut lab, ends, encapsulation);
                lab.flush(None);
                let payload: Vec<u8> = (0..251).cycle().take(usize::from(MTU)).collect();
                let sent = tcp(A, WEB).may_be_fragmented().payload(&payload).syn();
                let out = lab.expect(&sent, &["forwarded", "FRAGMENTS"]);
                let (first, second) = (fragment(&out[0]), fragment(&out[1]));
                assert_eq!((first.0, first.1, second.0, second.1), (0, true, first.3.len(), false));
                assert!(first.2 == second.2 && first.3.len() % 8 == 0 && out.iter().all(|frame| frame.len() <= 14 + usize::from(MTU)));
                let whole = [first.3, second.3].concat();
                assert_eq!(whole[encapsulation.overhead() + 20..], sent[34..]);
            }
        }
        lab.assert_no_leak();
    }

    fn a_router_on_the_way_shortens_what_clients_may_send(eal) {
        let mut lab = Lab::new(eal);
        for (rip, encapsulation) in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"].into_iter().zip(TYPES) {
            // The path is remembered by the RIP: another one each time.
            tunnel_to(&mut lab, (rip, DIP), encapsulation);
            lab.flush(None);
            let segment = tcp(A, WEB).payload(&[7; 1400]);
            let wrapped = lab.expect(&tcp(A, WEB).syn(), &["forwarded"]).remove(0);
            let mut icmp = vec![3, 4, 0, 0, 0, 0];
            icmp.extend(1300_u16.to_be_bytes());
            icmp.extend(&wrapped[14..]);
            let wrong = icmp_v4([203, 0, 113, 1], [10, 10, 24, 10], &icmp);
            lab.expect(&wrong, &["bad_checksum"]);
            let sum = checksum::internet(&icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            lab.expect(&icmp_v4([203, 0, 113, 1], [10, 10, 24, 10], &icmp), &["tunnel_error"]);
            let out = lab.expect(&segment.ack(), &["too_big", "ICMP"]).remove(0);
            assert_eq!(out[40..42], (1300 - 20 - encapsulation.overhead() as u16).to_be_bytes());
            let out = lab.expect(&segment.may_be_fragmented().ack(), &["forwarded", "FRAGMENTS"]);
            assert!(out.iter().all(|frame| frame.len() <= 14 + 1300));
            lab.kernel();
        }
    }

    fn a_router_on_an_ipv6_way_does_too(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, ENDS[1], TYPES[2]);
        let wrapped = lab.expect(&tcp(A6, WEB6).syn(), &["forwarded"]).remove(0);
        let told = |mtu: u32| {
            let mut message = vec![2, 0, 0, 0];
            message.extend(mtu.to_be_bytes());
            message.extend(&wrapped[14..]);
            icmpv6(OUR_MAC, "2001:db8:3::1", "fd00:10::10", 60, message)
        };
        lab.expect(&told(1279), &["exception"]);
        lab.expect(&tcp(A6, WEB6).payload(&[7; 1380]).ack(), &["forwarded"]);
        lab.expect(&told(1400), &["tunnel_error"]);
        let out = lab.expect(&tcp(A6, WEB6).payload(&[7; 1380]).ack(), &["too_big", "ICMP"]).remove(0);
        assert_eq!(out[58..62], (1400_u32 - 52).to_be_bytes());
    }

    fn an_error_about_a_tunnel_must_quote_what_we_sent(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, ENDS[0], IpIp);
        let wrapped = lab.expect(&tcp(A, WEB).syn(), &["forwarded"]).remove(0)[14..].to_vec();
        // Another source outside, another real server, another client port.
        for (at, byte) in [(15, 11), (19, 8), (41, 1)] {
            let mut forged = wrapped.clone();
            forged[at] ^= byte;
            let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 20];
            icmp.extend(forged);
            let sum = checksum::internet(&icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            lab.expect(&icmp_v4([203, 0, 113, 1], [10, 10, 24, 10], &icmp), &["exception"]);
        }
        lab.expect(&fragmentation_needed([203, 0, 113, 1], [10, 10, 24, 10], &wrapped[..28], 1300), &["exception"]);
        lab.expect(&tcp(A, WEB).payload(&[7; 1400]).ack(), &["forwarded"]);
    }
}
