//! Fragments that reach another worker than the one that has their flow.
#![allow(clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::frame::*;
use common::several::Several;
use common::*;
use dataplane::handover::DEPTH;
use dataplane::service::{Method::*, Protocol::*};
use dataplane::settings::Settings;
use dataplane::stats::ServiceStats;
use dataplane::verdict::Verdict;
use dpdk::eal::Eal;
use dpdk::eal_test;

const CLIENT: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const RS: &str = "10.10.24.21:8080";
const DNS: &str = "10.10.24.88:53";
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// What the services count.
struct Stats {
    web: Arc<ServiceStats>,
    dns: Arc<ServiceStats>,
}

/// Workers with a masquerading service on TCP port 80, and one of two real servers by direct routing on UDP port 53.
fn two_services(eal: Eal, workers: usize) -> (Several, Stats) {
    let mut several = Several::new(eal, workers);
    let services = [(Tcp, 80, &[(21, Masquerading, 8080)][..]), (Udp, 53, &[(22, DirectRouting, 53), (23, DirectRouting, 53)])];
    let mut stats = several.services(Settings::default(), &services);
    let [dns, web] = [stats.remove(1), stats.remove(0)];
    (several, Stats { web, dns })
}

/// The fragments of a question from this port of the client's.
fn three(port: u16) -> Vec<Vec<u8>> {
    cut(&udp_of(&format!("198.51.100.1:{port}"), DNS, &[7; 1000]), port.into(), &[400, 400])
}

eal_test! {
    fn fragments_in_any_order_reach_the_real_server_that_another_worker_chose(eal) {
        let (mut several, stats) = two_services(eal, 2);
        for (port, order) in (2000..).zip(ORDERS.into_iter().cycle().take(24)) {
            let small = udp_of(&format!("198.51.100.1:{port}"), DNS, &[7; 10]);
            let chosen = several.send(0, &[small], 1)[0][0][..6].to_vec();
            let pieces = order.map(|i| three(port)[i].clone());
            let out = if port < 2012 {
                several.send(1, &pieces, 4).concat()
            } else {
                pieces.into_iter().flat_map(|piece| several.send(1, &[piece], 4).concat()).collect()
            };
            assert_eq!(out.iter().map(|frame| frame[..6].to_vec()).collect::<Vec<_>>(), vec![chosen; 3], "{order:?}");
        }
        assert_eq!(several.flow(), [(24, 72, 0), (72, 0, 72)]);
        let sum = stats.dns.sum();
        assert_eq!((sum.connections, sum.in_packets, sum.in_bytes), (24, 48, 24 * (38 + 1028)));
        several.assert_no_leak();
    }

    fn the_next_datagram_of_a_flow_goes_to_its_worker_at_once(eal) {
        let (mut several, stats) = two_services(eal, 3);
        several.send(1, &[udp_of(CLIENT, DNS, &[7; 10])], 1);
        assert_eq!(several.send(2, &three(1000), 5).concat().len(), 3);
        assert_eq!(several.flow(), [(0, 3, 3), (1, 3, 0), (3, 0, 3)], "one after the other is asked, and all fragments go the same way");
        let next = cut(&udp_of(CLIENT, DNS, &[7; 1000]), 9, &[400, 400]);
        assert_eq!(several.send(2, &next, 5).concat().len(), 3);
        assert_eq!(several.flow(), [(0, 3, 3), (1, 6, 0), (6, 0, 6)]);
        assert_eq!(stats.dns.sum().connections, 1);
        several.assert_no_leak();
    }

    fn a_datagram_of_no_connection_is_scheduled_once(eal) {
        let (mut several, stats) = two_services(eal, 3);
        for (port, order) in (2000..).zip(ORDERS) {
            let out = several.send(1, &order.map(|i| three(port)[i].clone()), 5).concat();
            assert!(out.len() == 3 && out.iter().all(|frame| frame[..6] == out[0][..6]), "{order:?}");
        }
        several.flow();
        let sum = stats.dns.sum();
        assert_eq!((sum.connections, sum.in_packets), (6, 6));
        several.assert_no_leak();
    }

    fn fragments_that_wait_at_two_workers_are_counted_once(eal) {
        let (mut several, _) = two_services(eal, 2);
        several.send(0, &[udp_of(CLIENT, DNS, &[7; 10])], 1);
        // The first fragment is lost between the workers: its ring is full.
        let filler = vec![tcp(RS, CLIENT).ack(); DEPTH as usize];
        several.send(0, &[tcp(CLIENT, WEB).syn()], 1);
        for frame in filler.iter().chain(&three(1000)[..1]) {
            let mut mbuf = several.pool.alloc().expect("an mbuf");
            mbuf.copy_from(frame).expect("room");
            several.workers[1].rx.enqueue(mbuf).expect("room in the ring");
        }
        for _ in 0..=DEPTH / 64 {
            several.workers[1].worker.turn(several.now);
        }
        assert_eq!(several.verdict(1, Verdict::HandOverFull), 1);
        several.send(1, &[], 1 + DEPTH as usize / 64);
        several.send(1, &three(1000)[1..], 3);
        let now = several.now;
        for seconds in [1, 4] {
            for one in &mut several.workers {
                one.worker.turn(now.after_seconds(seconds));
            }
        }
        several.flow();
        assert_eq!(several.verdict(0, Verdict::FragmentLost) + several.verdict(1, Verdict::Fragment), 2);
        several.assert_no_leak();
    }

    fn fragments_of_an_answer_find_their_connection_on_another_worker(eal) {
        let (mut several, stats) = two_services(eal, 2);
        several.send(0, &[tcp(CLIENT, WEB).syn()], 1);
        for (id, order) in (1..).zip(ORDERS) {
            let pieces = cut(&tcp(RS, CLIENT).payload(&[5; 900]).ack(), id, &[400, 400]);
            let out = several.send(1, &order.map(|i| pieces[i].clone()), 4);
            assert_eq!((out[0].len(), out[1].len()), (3, 0));
            assert!(out[0].iter().all(|frame| frame[..6] == ROUTER_MAC && frame[26..30] == [10, 10, 24, 88]));
        }
        assert_eq!(several.flow(), [(1, 18, 0), (18, 0, 18)]);
        assert_eq!((stats.web.sum().out_packets, stats.web.sum().out_bytes), (6, 6 * 940));
        several.assert_no_leak();
    }

    fn whole_packets_follow_the_fragment_that_began_their_flow_on_another_worker(eal) {
        let (mut several, _) = two_services(eal, 3);
        for port in 2000..2012 {
            let fragments = several.send(0, &three(port), 5).concat();
            assert!(fragments.len() == 3 && fragments.iter().all(|frame| frame[..6] == fragments[0][..6]));
            // RSS brings a flow's whole packets to one worker, but which one only the device knows.
            let whole = udp_of(&format!("198.51.100.1:{port}"), DNS, &[7; 10]);
            let to = usize::from(port) % 3;
            for _ in 0..3 {
                assert_eq!(several.send(to, std::slice::from_ref(&whole), 1).concat()[0][..6], fragments[0][..6], "{port}");
            }
            let more = cut(&udp_of(&format!("198.51.100.1:{port}"), DNS, &[7; 1000]), 9, &[400, 400]);
            assert!(several.send(0, &more, 5).concat().iter().all(|frame| frame[..6] == fragments[0][..6]));
        }
        several.flow();
        several.assert_no_leak();
    }

    fn what_a_fragment_began_is_agreed_on_for_as_long_as_its_fragments_come(eal) {
        let (mut several, _) = two_services(eal, 2);
        let chosen = several.send(0, &three(2000), 5).concat()[0][..6].to_vec();
        for n in 1..6 {
            several.now = several.now.after_seconds(200);
            let more = cut(&udp_of("198.51.100.1:2000", DNS, &[7; 1000]), n, &[400, 400]);
            assert!(several.send(0, &more, 5).concat().iter().all(|frame| frame[..6] == chosen));
        }
        let whole = udp_of("198.51.100.1:2000", DNS, &[7; 10]);
        assert_eq!(several.send(1, &[whole], 1).concat()[0][..6], chosen);
        several.assert_no_leak();
    }
}
