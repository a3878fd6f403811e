//! VLANs: which tags a frame leaves with, and that all else is as without them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod common;

use common::frame::{arp_request, cut, echo_request, tcp, udp_of};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dataplane::verdict::Verdict;
use dataplane::vlan::Tags;
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
/// VLANs 1, 2 and 3 of the tests.
const VLANS: [Tags; 3] = [Tags { outer: None, id: 100 }, Tags { outer: None, id: 200 }, Tags { outer: Some(100), id: 300 }];
const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let words = tags.iter().flat_map(|(kind, tci)| [kind.to_be_bytes(), tci.to_be_bytes()]);
    [&frame[..12], &words.collect::<Vec<_>>().concat(), &frame[12..]].concat()
}

/// The tags of a frame, and the frame without them.
fn tags(frame: &[u8]) -> (Vec<(u16, u16)>, Vec<u8>) {
    let (mut found, mut at) = (Vec::new(), 12);
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    while matches!(word(at), Q | AD) {
        found.push((word(at), word(at + 2)));
        at += 4;
    }
    (found, [&frame[..12], &frame[at..]].concat())
}

fn syn(n: u16) -> Vec<u8> {
    tcp(&format!("198.51.100.1:{n}"), WEB).syn()
}

eal_test! {
    fn a_frame_leaves_with_the_tags_of_its_real_servers_vlan(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        for (n, (way, wanted)) in [(0, vec![]), (1, vec![(Q, 100)]), (2, vec![(Q, 200)]), (3, vec![(AD, 100), (Q, 300)])].into_iter().enumerate() {
            lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).on(way)]);
            for (m, came) in [vec![], vec![(Q, 100)], vec![(Q, 0xe0c8)], vec![(AD, 100), (Q, 300)], vec![(Q, 100), (Q, 300)]].into_iter().enumerate() {
                let plain = syn((1000 + n * 10 + m) as u16);
                let out = lab.expect(&tagged(&plain, &came), &["forwarded"]).remove(0);
                let (with, without) = tags(&out);
                assert_eq!(with, wanted, "came with {came:?}");
                assert_eq!((&without[..6], &without[6..12], &without[12..]), (&server_mac(21)[..], &OUR_MAC[..], &plain[12..]));
                // The second segment takes the short way.
                let (with, _) = tags(&lab.expect(&tagged(&tcp(&format!("198.51.100.1:{}", 1000 + n * 10 + m), WEB).ack(), &came), &["forwarded"])[0]);
                assert_eq!(with, wanted);
            }
        }
        let report = lab.control.report();
        assert_eq!([0, 1, 2, 3].map(|port| report.received[port].get()), [8, 8, 8, 16], "each VLAN counts for itself");
        assert_eq!([0, 1, 2, 3].map(|port| report.verdicts[port].get(Verdict::Forwarded)), [8, 8, 8, 16]);
        lab.assert_no_leak();
    }

    fn answers_leave_with_the_tags_that_the_question_came_with(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        for came in [vec![(Q, 100)], vec![(AD, 100), (Q, 300)], vec![]] {
            for question in [arp_request(ROUTER_MAC, [10, 10, 24, 1], [10, 10, 24, 88]), echo_request([198, 51, 100, 1], [10, 10, 24, 88])] {
                let out = lab.expect(&tagged(&question, &came), &["answered"]).remove(0);
                assert_eq!((tags(&out).0, &out[..6]), (came.clone(), &ROUTER_MAC[..]));
            }
            lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).weight(0)]);
            let out = lab.expect(&tagged(&syn(1), &came), &["no_real_server", "ICMP"]).remove(0);
            assert_eq!((tags(&out).0, tags(&out).1[34]), (came.clone(), 3));
        }
        lab.assert_no_leak();
    }

    fn unknown_tags_are_dropped_and_counted_at_the_port(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        for came in [vec![(Q, 101)], vec![(AD, 200), (Q, 300)], vec![(AD, 300), (Q, 100)], vec![(AD, 100), (Q, 300), (Q, 100)], vec![(Q, 100), (Q, 100)], vec![(Q, 100), (Q, 300), (Q, 1), (Q, 1)]] {
            lab.expect(&tagged(&syn(1), &came), &["unknown_vlan"]);
        }
        for length in 12..18 {
            lab.expect(&tagged(&syn(1), &[(Q, 100)])[..length], &[if (14..16).contains(&length) { "unknown_vlan" } else { "short" }]);
        }
        lab.assert_no_leak();
    }

    fn a_port_without_vlans_takes_no_tags(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        for came in [vec![(Q, 100)], vec![(AD, 100), (Q, 300)], vec![(Q, 0)]] {
            lab.expect(&tagged(&syn(1), &came), &["unknown_vlan"]);
        }
    }

    fn a_priority_tag_is_no_vlans(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        let out = lab.expect(&tagged(&syn(1), &[(Q, 0xa000)]), &["forwarded"]).remove(0);
        assert_eq!(tags(&out).0, []);
        assert_eq!(lab.control.report().received[0].get(), 1);
    }

    fn each_vlan_has_a_kernels_side_of_its_own(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        let ssh = tcp("198.51.100.1:1000", "10.10.24.10:22").syn();
        lab.expect(&tagged(&ssh, &[(Q, 200)]), &["exception"]);
        lab.expect(&tagged(&ssh, &[(AD, 100), (Q, 300)]), &["exception"]);
        let up = |lab: &Lab, n: usize| Lab::take(&lab.sides[n].0);
        assert_eq!((lab.kernel(), up(&lab, 0), up(&lab, 1), up(&lab, 2)), (vec![], vec![], vec![ssh.clone()], vec![ssh.clone()]));
        let answer = tcp("10.10.24.10:22", "198.51.100.1:1000").ack();
        for (n, wanted) in [vec![(Q, 100)], vec![(Q, 200)], vec![(AD, 100), (Q, 300)]].into_iter().enumerate() {
            lab.put(&lab.sides[n].1, &answer);
            let out = lab.burst(&[]).remove(0);
            assert_eq!(tags(&out), (wanted, answer.clone()));
        }
        let all = lab.counters();
        assert_eq!((all["INJECTED"], all["SENT"]), (3, 3));
        lab.assert_no_leak();
    }

    fn a_burst_mixes_vlans_and_each_keeps_its_order(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).on(2)]);
        let came = [vec![], vec![(Q, 100)], vec![(Q, 200)], vec![(AD, 100), (Q, 300)]];
        let sent: Vec<_> = (0..64).map(|n| tagged(&syn(1000 + n), &came[usize::from(n) * 7 % 4])).collect();
        let out = lab.burst(&sent);
        assert!(out.iter().all(|frame| tags(frame).0 == [(Q, 200)]));
        let port = |frame: &Vec<u8>| u16::from_be_bytes([frame[38], frame[39]]);
        let ports: Vec<u16> = out.iter().map(port).collect();
        let of = |way: usize| (0..64).filter(move |n| n * 7 % 4 == way).map(|n| 1000 + n as u16);
        let mut wanted = vec![of(0).collect::<Vec<_>>()];
        wanted.extend([1, 2, 3].map(|way| of(way).collect()));
        for one in wanted {
            assert_eq!(ports.iter().copied().filter(|port| one.contains(port)).collect::<Vec<_>>(), one);
        }
        assert_eq!(ports.len(), 64);
        lab.assert_no_leak();
    }

    fn fragments_and_tunnels_get_tags_too(eal) {
        let mut lab = Lab::trunk(eal, &VLANS);
        lab.service(0, Udp, VIP, 53, RoundRobin, &[server(21).on(3).tunnel("192.0.2.7", DIP)]);
        let pieces = cut(&udp_of("198.51.100.1:1000", "10.10.24.88:53", &[1; 1000]), 7, &[400, 400]);
        assert!(lab.send(&tagged(&pieces[1], &[(Q, 100)])).is_empty());
        let out = lab.burst(&[tagged(&pieces[0], &[(Q, 100)]), tagged(&pieces[2], &[(Q, 100)])]);
        assert_eq!(out.iter().map(|frame| (tags(frame).0, tags(frame).1[23])).collect::<Vec<_>>(), vec![(vec![(AD, 100), (Q, 300)], 4); 3]);
        let long = udp_of("198.51.100.1:1001", "10.10.24.88:53", &[1; 1460]);
        let mut long = long;
        long[20] = 0;
        let out = lab.send(&tagged(&common::frame::mended(long), &[(Q, 100)]));
        assert!(out.len() == 2 && out.iter().all(|frame| tags(frame).0 == [(AD, 100), (Q, 300)]));
        lab.assert_no_leak();
    }
}
