//! A port with fewer queues than workers: all work, each flow on one worker, and every frame is counted once.
#![allow(clippy::expect_used)]

mod common;

use common::frame::*;
use common::several::{Several, take};
use dataplane::handover::DEPTH;
use dataplane::service::{Method::*, Protocol::*};
use dataplane::settings::Settings;
use dataplane::verdict::Verdict;
use dpdk::eal::Eal;
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
const DNS: &str = "10.10.24.88:53";

fn on_one_queue(eal: Eal, count: usize) -> Several {
    let mut several = Several::with_queues(eal, count, 1);
    several.services(Settings::default(), &[(Tcp, 80, &[(21, DirectRouting, 80)][..]), (Udp, 53, &[(21, Masquerading, 5353)])]);
    several
}

fn syns(count: u16) -> Vec<Vec<u8>> {
    (0..count).map(|n| tcp(&format!("198.51.100.1:{}", 1000 + n), WEB).syn()).collect()
}

/// Frames that each worker counted as sent by others, and as sent for them.
fn relayed(several: &Several) -> Vec<(u64, u64)> {
    let of = |one: &common::several::One| (one.control.report().sent_by_others.get(), one.control.report().sent_for_others.get());
    several.workers.iter().map(of).collect()
}

eal_test! {
    fn flows_of_one_queue_are_shared_out_and_leave_by_it(eal) {
        let mut several = on_one_queue(eal, 3);
        let out = several.send(0, &syns(60), 3);
        assert_eq!((out[0].len(), out[1].len(), out[2].len()), (60, 0, 0), "there is one way out");
        let flow = several.flow();
        assert_eq!(flow[0].0, 60);
        assert_eq!(flow[0].2, flow[1].1 + flow[2].1);
        let shares: Vec<u64> = (0..3).map(|worker| several.verdict(worker, Verdict::Forwarded)).collect();
        assert!(shares.iter().all(|share| *share > 5) && shares.iter().sum::<u64>() == 60, "{shares:?}");
        assert_eq!(relayed(&several), [(0, shares[1] + shares[2]), (shares[1], 0), (shares[2], 0)]);
        several.assert_no_leak();
    }

    fn packet_of_a_connection_comes_to_the_worker_that_began_it(eal) {
        let mut several = on_one_queue(eal, 3);
        several.send(0, &syns(30), 3);
        let connections = |several: &Several| several.workers.iter().map(|one| one.control.report().connections.get()).collect::<Vec<_>>();
        let before = connections(&several);
        let acks: Vec<Vec<u8>> = (0..30).map(|n| tcp(&format!("198.51.100.1:{}", 1000 + n), WEB).ack()).collect();
        assert_eq!(several.send(0, &acks, 3)[0].len(), 30);
        assert_eq!((connections(&several), before.iter().sum::<u64>()), (before, 30));
        several.flow();
        several.assert_no_leak();
    }

    fn masqueraded_answer_finds_its_connection_after_it_was_shared_out(eal) {
        let mut several = on_one_queue(eal, 3);
        for n in 0..20 {
            let client = format!("198.51.100.1:{}", 2000 + n);
            assert_eq!(several.send(0, &[udp_of(&client, DNS, &[7; 10])], 4)[0].len(), 1);
            let answer = several.send(0, &[udp_of("10.10.24.21:5353", &client, &[7; 10])], 6).remove(0);
            assert_eq!((answer.len(), &answer[0][26..30]), (1, &[10, 10, 24, 88][..]));
        }
        several.flow();
        several.assert_no_leak();
    }

    fn fragments_meet_their_first_one_on_the_worker_of_their_addresses(eal) {
        let mut several = on_one_queue(eal, 3);
        for n in 1..20_u8 {
            let mut pieces = cut(&udp_of(&format!("198.51.100.{n}:1000"), DNS, &[7; 1000]), n.into(), &[400, 400]);
            pieces.reverse();
            assert_eq!(several.send(0, &pieces, 8)[0].len(), 3, "client {n}");
        }
        several.flow();
        several.assert_no_leak();
    }

    fn what_no_ring_has_room_for_is_dropped_and_counted(eal) {
        let mut several = on_one_queue(eal, 2);
        // Worker 1 stands still.
        let depth = u64::from(DEPTH);
        for round in 0..40 {
            for frame in (0..64).map(|n| tcp(&format!("198.51.100.1:{}", 1000 + round * 64 + n), WEB).syn()) {
                let mut mbuf = several.pool.alloc().expect("an mbuf");
                mbuf.copy_from(&frame).expect("room");
                several.workers[0].rx.enqueue(mbuf).expect("room in the ring");
            }
            several.workers[0].worker.turn(several.now);
            take(&several.workers[0].tx);
        }
        let lost = several.verdict(0, Verdict::HandOverFull);
        assert_eq!(several.flow()[0], (40 * 64, 0, depth));
        assert!(lost > 100, "{lost}");
        for _ in 0..40 {
            several.workers.iter_mut().for_each(|one| _ = one.worker.turn(several.now));
            take(&several.workers[0].tx);
        }
        assert_eq!(several.flow()[1], (0, depth, 0));
        several.assert_no_leak();
    }
}
