//! Two workers: frames that reach the wrong one find their connection, and every frame is counted once.
#![allow(clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::frame::*;
use common::several::{Several, take};
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
const DIRECT: &str = "10.10.24.88:81";
const RS: &str = "10.10.24.21:8080";

/// A masquerading service on port 80, whose counters are the answer, and one by direct routing on port 81.
fn configure(several: &mut Several) -> Arc<ServiceStats> {
    let services = [(Tcp, 80, &[(21, Masquerading, 8080)][..]), (Tcp, 81, &[(21, DirectRouting, 81)])];
    several.services(Settings::default(), &services).remove(0)
}

fn masquerading(eal: Eal, count: usize) -> Several {
    let mut several = Several::new(eal, count);
    configure(&mut several);
    several
}

eal_test! {
    fn a_reply_finds_its_connection_on_another_worker(eal) {
        let mut several = Several::new(eal, 2);
        let service = configure(&mut several);
        assert_eq!(several.send(0, &[tcp(CLIENT, WEB).syn()], 1)[0].len(), 1);
        let out = several.send(1, &[tcp(RS, CLIENT).segment(SYN | ACK)], 2);
        assert!(out[1].is_empty(), "its owner sends it");
        assert_eq!((&out[0][0][26..30], &out[0][0][34..36]), (&[10, 10, 24, 88][..], &80_u16.to_be_bytes()[..]));
        assert_eq!(several.flow(), [(1, 1, 0), (1, 0, 1)]);
        assert_eq!((several.verdict(0, Verdict::Forwarded), service.sum().out_packets), (2, 1));
        several.assert_no_leak();
    }

    fn a_packet_of_no_connection_is_left_where_it_came(eal) {
        let mut several = masquerading(eal, 2);
        several.send(1, &[tcp(RS, CLIENT).ack()], 2);
        assert_eq!(several.flow(), [(0, 0, 0), (1, 0, 0)], "nobody ever had such a connection");
        assert_eq!(several.verdict(1, Verdict::Exception), 1);
        several.assert_no_leak();
    }

    fn errors_find_their_connection_on_whichever_worker_has_it(eal) {
        let mut several = masquerading(eal, 3);
        several.send(1, &[tcp(CLIENT, DIRECT).syn(), tcp(CLIENT, WEB).syn()], 1);
        let vip = [10, 10, 24, 88];
        for (about, rip) in [(tcp(DIRECT, CLIENT).ack(), vip), (tcp(WEB, CLIENT).ack(), [10, 10, 24, 21])] {
            let out = several.send(2, &[fragmentation_needed([203, 0, 113, 9], vip, &about[14..], 1400)], 3);
            assert_eq!((&out[1][0][..6], &out[1][0][30..34]), (&server_mac(21)[..], &rip[..]));
        }
        // From the real server's side, about a request.
        let about = tcp(CLIENT, RS).ack();
        let out = several.send(0, &[fragmentation_needed([10, 10, 24, 21], [198, 51, 100, 1], &about[14..], 1400)], 3);
        assert_eq!((&out[1][0][..6], &out[1][0][26..30]), (&ROUTER_MAC[..], &vip[..]));
        several.flow();
        several.assert_no_leak();
    }

    fn a_forged_error_is_seen_by_every_worker_and_changes_nothing(eal) {
        let mut several = masquerading(eal, 3);
        several.send(1, &[tcp(CLIENT, DIRECT).syn()], 1);
        let forged = tcp(DIRECT, "198.51.100.1:1001").ack();
        let out = several.send(1, &[fragmentation_needed([203, 0, 113, 9], [10, 10, 24, 88], &forged[14..], 1400)], 4);
        assert!(out.iter().all(Vec::is_empty));
        assert_eq!(several.flow(), [(0, 1, 0), (2, 0, 1), (0, 1, 1)]);
        assert_eq!(several.verdict(0, Verdict::UnrelatedError), 1);
        several.assert_no_leak();
    }

    fn what_a_full_ring_refuses_is_counted(eal) {
        let mut several = masquerading(eal, 2);
        several.send(0, &[tcp(CLIENT, WEB).syn()], 1);
        let replies = vec![tcp(RS, CLIENT).ack(); DEPTH as usize + 64];
        let mut mine = Vec::new();
        let now = several.now;
        for frame in &replies {
            let mut mbuf = several.pool.alloc().expect("an mbuf");
            mbuf.copy_from(frame).expect("room");
            several.workers[1].rx.enqueue(mbuf).expect("room in the ring");
        }
        for _ in 0..=replies.len() / 64 {
            several.workers[1].worker.turn(now);
        }
        assert_eq!(several.verdict(1, Verdict::HandOverFull), 64);
        for _ in 0..=replies.len() / 64 {
            several.workers[0].worker.turn(now);
            mine.extend(take(&several.workers[0].tx));
        }
        assert_eq!(mine.len(), DEPTH as usize, "one ring of the bell is heard until the ring is empty");
        assert_eq!(several.flow(), [(1, u64::from(DEPTH), 0), (u64::from(DEPTH) + 64, 0, u64::from(DEPTH))]);
        several.assert_no_leak();
    }
}
