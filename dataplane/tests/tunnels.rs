//! Tunnels: what stands around a packet on its way to the real server, and what its sender is told.
mod common;

use common::frame::{fragmentation_needed, mended, tcp};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dpdk::eal_test;
use dpdk::net::checksum;

const A: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const A6: &str = "[2001:db8::1]:1000";
const WEB6: &str = "[fd00:10::88]:80";
const RIP: &str = "192.0.2.7";
const RIP6: &str = "2001:db8:2::7";
const DIP6: &str = "fd00:10::10";

const DONT_FRAGMENT: u8 = 0x40;

fn tunnel_to(lab: &mut Lab, rip: &'static str, dip: &'static str) {
    for (id, vip) in [(0, VIP), (1, VIP6)] {
        lab.service(id, Tcp, vip, 80, RoundRobin, &[server(21).tunnel(rip, dip)]);
    }
}

/// The packet as the real server finds it inside: one hop later.
fn one_hop_later(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[12] == 8 {
        frame[22] -= 1;
        frame = mended(frame);
    } else {
        frame[21] -= 1;
    }
    frame.split_off(14)
}

/// Destination MAC, and the IPv4 packet with its header checked.
fn v4(frame: &[u8]) -> &[u8] {
    assert_eq!((&frame[..6], &frame[6..12], &frame[12..14]), (&server_mac(21)[..], &OUR_MAC[..], &[8, 0][..]));
    assert_eq!(checksum::internet(&frame[14..34]), 0, "header checksum");
    assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14, "total length");
    &frame[14..]
}

fn with_tos(mut frame: Vec<u8>, tos: u8) -> Vec<u8> {
    frame[15] = tos;
    mended(frame)
}

eal_test! {
    fn ipv4_is_carried_in_ipv4(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        let sent = with_tos(tcp(A, WEB).ttl(33).syn(), 0xb9);
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        let outer = v4(&out);
        assert_eq!((outer[0], outer[1], outer[8], outer[9]), (0x45, 0xb9, 32, 4), "version, TOS, TTL, protocol");
        assert_eq!((&outer[4..6], outer[6]), (&[0, 0][..], DONT_FRAGMENT), "as the packet inside, which needs no id");
        assert_eq!((&outer[12..16], &outer[16..20]), (&[10, 10, 24, 10][..], &[192, 0, 2, 7][..]));
        assert_eq!(outer[20..], one_hop_later(&sent)[..]);
        lab.assert_no_leak();
    }

    fn ipv6_is_carried_in_ipv6(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP6, DIP6);
        let mut sent = tcp(A6, WEB6).syn();
        (sent[14], sent[15]) = (0x6b, 0x8f);
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        assert_eq!(out[12..14], [0x86, 0xdd]);
        let outer = &out[14..];
        assert_eq!((outer[0], outer[1], &outer[2..4]), (0x6b, 0x80, &[0, 0][..]), "traffic class, and no flow label");
        assert_eq!((u16::from_be_bytes([outer[4], outer[5]]), outer[6], outer[7]), (60, 41, 63), "length, next header, hop limit");
        assert_eq!(outer[8..24], address(DIP6).0.to_be_bytes());
        assert_eq!(outer[24..40], address(RIP6).0.to_be_bytes());
        assert_eq!(outer[40..], one_hop_later(&sent)[..]);
        lab.assert_no_leak();
    }

    fn families_can_be_mixed(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        let sent = tcp(A6, WEB6).syn();
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        let outer = v4(&out);
        assert_eq!((outer[6], outer[8], outer[9]), (0, 63, 41), "IPv6 says nothing about fragments of its tunnel");
        assert_eq!(outer[20..], one_hop_later(&sent)[..]);
        tunnel_to(&mut lab, RIP6, DIP6);
        let sent = tcp("198.51.100.2:1000", WEB).syn();
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        assert_eq!((&out[12..14], out[20], out[21]), (&[0x86, 0xdd][..], 4, 63));
        assert_eq!(out[54..], one_hop_later(&sent)[..]);
        lab.assert_no_leak();
    }

    fn a_mark_of_congestion_stays_inside(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        for (inside, outside) in [(0, 0), (1, 1), (2, 2), (3, 2)] {
            let out = lab.send(&with_tos(tcp(A, WEB).syn(), inside)).remove(0);
            assert_eq!((out[15], out[35]), (outside, inside));
        }
    }

    fn padding_is_not_carried(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        let sent = tcp(A, WEB).syn();
        let mut padded = sent.clone();
        padded.resize(60, 0xee);
        let out = lab.send(&padded).remove(0);
        assert_eq!(v4(&out)[20..], one_hop_later(&sent)[..]);
    }

    fn the_last_hop_is_told(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        let sent = tcp(A, WEB).ttl(1).syn();
        let out = lab.expect(&sent, &["ttl_expired", "ICMP"]).remove(0);
        assert_eq!((out[34], out[35], &out[42..]), (11, 0, &sent[14..]));
        lab.assert_no_leak();
    }

    fn what_fits_only_without_the_tunnel_is_told_the_length_that_fits(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        let whole = vec![7; usize::from(MTU) - 20 - 40];
        assert_eq!(lab.expect(&tcp(A, WEB).payload(&whole).syn(), &["forwarded"])[0].len(), 14 + usize::from(MTU));
        let longer = vec![7; whole.len() + 1];
        let out = lab.expect(&tcp(A, WEB).payload(&longer).syn(), &["too_big", "ICMP"]).remove(0);
        assert_eq!((out[34], out[35], &out[40..42]), (3, 4, &(MTU - 20).to_be_bytes()[..]));
        let out = lab.expect(&tcp(A6, WEB6).payload(&longer).syn(), &["too_big", "ICMP"]).remove(0);
        assert_eq!((out[54], &out[58..62]), (2, &u32::from(MTU - 20).to_be_bytes()[..]));
        tunnel_to(&mut lab, RIP6, DIP6);
        let out = lab.expect(&tcp("198.51.100.2:1000", WEB).payload(&longer).syn(), &["too_big", "ICMP"]).remove(0);
        assert_eq!(out[40..42], (MTU - 40).to_be_bytes());
        lab.assert_no_leak();
    }

    fn what_may_be_fragmented_is_cut_on_the_outside(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        for extra in [1, 8, 20] {
            let payload: Vec<u8> = (0..251).cycle().take(usize::from(MTU) - 60 + extra).collect();
            let sent = tcp(A, WEB).may_be_fragmented().payload(&payload).syn();
            let out = lab.expect(&sent, &["forwarded", "FRAGMENTS"]);
            assert_eq!(out.len(), 2);
            let (first, second) = (v4(&out[0]), v4(&out[1]));
            assert_eq!((first.len(), second.len()), (usize::from(MTU), 20 + extra));
            assert_eq!(first[4..6], second[4..6], "one id");
            assert_eq!((&first[6..8], &second[6..8]), (&[0x20, 0][..], &[0, 185][..]), "more to come; 185 times 8 bytes in");
            assert_eq!((first[9], second[9], &first[12..20]), (4, 4, &second[12..20]));
            assert_eq!([&first[20..], &second[20..]].concat(), one_hop_later(&sent));
        }
        lab.assert_no_leak();
    }

    fn packets_that_may_be_fragmented_have_ids_of_their_own(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        let ids: std::collections::HashSet<[u8; 2]> = (0..100)
            .map(|n| lab.send(&tcp(&format!("198.51.100.1:{}", 1000 + n), WEB).may_be_fragmented().syn()).remove(0))
            .map(|out| [out[18], out[19]])
            .collect();
        assert_eq!(ids.len(), 100);
    }

    fn a_burst_mixes_tunnels_and_direct_routing(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).tunnel(RIP, DIP), server(22)]);
        let sent: Vec<Vec<u8>> = (0..64).map(|n| tcp(&format!("198.51.100.1:{}", 1000 + n), WEB).syn()).collect();
        let out = lab.burst(&sent);
        let tunnelled = out.iter().filter(|frame| frame[23] == 4).count();
        assert_eq!((out.len(), tunnelled), (64, 32));
        assert!(out.iter().all(|frame| frame[5] == if frame[23] == 4 { 21 } else { 22 }));
        lab.assert_no_leak();
    }

    fn an_error_about_a_connection_goes_through_its_tunnel(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        lab.send(&tcp(A, WEB).syn());
        let answer = tcp(WEB, A).ack();
        let error = fragmentation_needed([203, 0, 113, 1], [10, 10, 24, 88], &answer[14..], 1400);
        let out = lab.expect(&error, &["forwarded"]).remove(0);
        assert_eq!(v4(&out)[20..], one_hop_later(&error)[..]);
        lab.assert_no_leak();
    }

    fn a_tunnel_without_a_next_hop_sends_nothing(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, RIP, DIP);
        lab.send(&tcp(A, WEB).syn());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).tunnel(RIP, DIP).mac(None)]);
        assert!(lab.expect(&tcp(A, WEB).ack(), &["no_next_hop"]).is_empty());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).tunnel(RIP, DIP).mac(Some(OUR_MAC))]);
        assert!(lab.expect(&tcp(A, WEB).ack(), &["would_loop"]).is_empty());
        lab.assert_no_leak();
    }
}
