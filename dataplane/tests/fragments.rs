//! Fragments to VIPs: where they go, in whatever order they come, and what is not let through.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod common;

use common::frame::{cut, icmp_v4, piece, tcp, udp_of};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dpdk::eal_test;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const DNS: &str = "10.10.24.88:53";
const DNS6: &str = "[fd00:10::88]:53";

fn serve(lab: &mut Lab) {
    for (id, vip) in [(0, VIP), (1, VIP6)] {
        lab.service(id, Udp, vip, 53, RoundRobin, &[server(21), server(22)]);
    }
    lab.service(2, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
    lab.service(3, Tcp, VIP6, 80, RoundRobin, &[server(21), server(22)]);
}

/// A question of 1000 bytes from another port each time.
fn question(n: u16, v6: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..251).cycle().take(1000).collect();
    if v6 { udp_of(&format!("[2001:db8::1]:{n}"), DNS6, &payload) } else { udp_of(&format!("198.51.100.1:{n}"), DNS, &payload) }
}

fn three(n: u16, v6: bool) -> Vec<Vec<u8>> {
    cut(&question(n, v6), u32::from(n), &[400, 400])
}

fn server_of(frame: &[u8]) -> u8 {
    assert_eq!((&frame[..5], &frame[6..12]), (&[2, 0, 0, 0, 0][..], &OUR_MAC[..]));
    frame[5]
}

/// Drops that were counted, by name.
fn drops(lab: &Lab) -> Vec<(&'static str, u64)> {
    let known = ["forwarded", "exception", "RECEIVED", "SENT", "ICMP", "INJECTED", "FRAGMENTS", "RESETS", "answered"];
    let all = lab.counters();
    let passed: u64 = ["forwarded", "exception", "answered"].iter().map(|name| all[name]).sum();
    let drops: Vec<_> = all.iter().filter(|(name, n)| **n > 0 && !known.contains(name)).map(|(name, n)| (*name, *n)).collect();
    assert_eq!(all["RECEIVED"], passed + drops.iter().map(|drop| drop.1).sum::<u64>(), "every frame has one verdict");
    drops
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

eal_test! {
    fn all_of_a_datagram_goes_where_its_first_fragment_goes_in_any_order(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        for (n, order) in ORDERS.into_iter().cycle().take(24).enumerate() {
            let (port, v6, at_once) = (1000 + n as u16, n % 2 == 1, n >= 12);
            let sent: Vec<_> = order.map(|i| three(port, v6)[i].clone()).into();
            let mut out = if at_once { lab.burst(&sent) } else { sent.iter().flat_map(|frame| lab.send(frame)).collect() };
            assert_eq!(out.iter().map(|frame| server_of(frame)).collect::<Vec<_>>(), [server_of(&out[0]); 3]);
            let (mut out, mut sent): (Vec<_>, Vec<_>) = (out.drain(..).map(|f| f[12..].to_vec()).collect(), sent.iter().map(|f| f[12..].to_vec()).collect());
            out.sort();
            sent.sort();
            assert_eq!(out, sent, "nothing but the MACs is touched");
        }
        assert_eq!(drops(&lab), []);
        assert_eq!([lab.inactive(0, 21), lab.inactive(0, 22), lab.inactive(1, 21), lab.inactive(1, 22)], [6; 4], "one scheduling each");
        lab.assert_no_leak();
    }

    fn fragments_of_a_connection_follow_it(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        for n in 0..8 {
            let (source, destination) = if n % 2 == 0 { ("198.51.100.1", "10.10.24.88:80") } else { ("[2001:db8::1]", "[fd00:10::88]:80") };
            let flow = tcp(&format!("{source}:{}", 2000 + n), destination);
            let to = lab.forwarded_to(&flow.syn());
            let long = flow.payload(&[5; 900]).ack();
            for fragment in cut(&long, 7 + n, &[24 + 8, 800]) {
                assert_eq!(lab.forwarded_to(&fragment), to);
            }
        }
        assert_eq!(drops(&lab), []);
    }

    fn a_datagram_counts_as_one_packet_with_all_its_bytes(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let whole = question(1000, false);
        let out: Vec<_> = cut(&whole, 1, &[400, 400]).iter().flat_map(|frame| lab.send(frame)).collect();
        let sum = lab.server_stats(0, server_of(&out[0])).sum();
        assert_eq!((sum.connections, sum.in_packets, sum.in_bytes), (1, 1, whole.len() as u64 - 14));
    }

    fn what_waits_in_vain_is_dropped_after_two_seconds(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        for n in 0..40 {
            assert!(lab.send(&three(1000 + n, n % 2 == 0)[1]).is_empty());
        }
        assert_eq!((lab.pool.in_use(), lab.counters()["RECEIVED"]), (40, 0), "they count once they are decided about");
        lab.pass_seconds(1);
        assert_eq!(lab.pool.in_use(), 40);
        lab.pass_seconds(2);
        assert_eq!(drops(&lab), [("fragment_lost", 40)]);
        lab.assert_no_leak();
    }

    fn a_flood_of_later_fragments_holds_no_more_than_its_share(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let to = lab.forwarded_to(&question(900, false));
        for n in 0..2000 {
            lab.send(&three(1000 + n, false)[1 + usize::from(n % 2)]);
            assert!(lab.pool.in_use() <= 512);
        }
        assert_eq!(drops(&lab), [("fragment_lost", 2000 - 512)]);
        assert_eq!(lab.forwarded_to(&question(900, false)), to);
        // The newest still find their first one, the oldest made way.
        assert_eq!([lab.send(&three(2999, false)[0]).len(), lab.send(&three(1000, false)[0]).len()], [2, 1]);
        lab.pass_seconds(3);
        lab.assert_no_leak();
    }

    fn one_datagram_holds_no_more_than_its_share(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let whole = question(1000, false);
        for n in 0..100 {
            lab.send(&piece(&whole, 9, 400 + n * 8, true, &[0; 8]));
        }
        assert_eq!((lab.pool.in_use(), drops(&lab)), (64, vec![("fragment_lost", 36)]));
    }

    fn a_flood_of_first_fragments_costs_honest_datagrams_nothing(eal) {
        let mut lab = Lab::with_room(eal, 16_384, 256);
        serve(&mut lab);
        for n in 0..10_000 {
            lab.send(&piece(&question(1000 + n % 1000, false), 10_000 + u32::from(n), 0, true, &question(1000 + n % 1000, false)[34..434]));
            if n % 100 == 0 {
                let out: Vec<_> = three(n + 20_000, n % 200 == 0).iter().rev().flat_map(|frame| lab.send(frame)).collect();
                assert!(out.len() == 3 && out.iter().all(|frame| frame[5] == out[0][5]));
            }
        }
        assert_eq!(drops(&lab), []);
        lab.assert_no_leak();
    }

    fn tiny_first_fragments_are_dropped(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let segment = tcp("198.51.100.1:1000", "10.10.24.88:80").payload(&[5; 100]).syn();
        lab.expect(&cut(&segment, 1, &[16])[0], &["fragment_tiny"]);
        let segment6 = tcp("[2001:db8::1]:1000", "[fd00:10::88]:80").payload(&[5; 100]).syn();
        lab.expect(&cut(&segment6, 1, &[16])[0], &["fragment_tiny"]);
        // Options that are not in it.
        let mut options = segment.clone();
        options[46] = 0xf0;
        lab.expect(&cut(&options, 2, &[56])[0], &["fragment_tiny"]);
        // What follows a dropped first fragment goes nowhere; those above were not remembered.
        assert_eq!(lab.connections().len(), 0);
    }

    fn a_later_fragment_in_the_transport_header_is_dropped(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let segment = tcp("198.51.100.1:1000", "10.10.24.88:80").payload(&[5; 100]).syn();
        lab.expect(&cut(&segment, 1, &[40])[0], &["forwarded"]);
        for offset in [8, 16] {
            lab.expect(&piece(&segment, 1, offset, true, &[0; 8]), &["fragment_tiny"]);
        }
        // One that came first is judged when its first one is there.
        lab.send(&piece(&segment, 2, 8, true, &[0; 8]));
        let out = lab.send(&cut(&segment, 2, &[40])[0]);
        assert_eq!((out.len(), drops(&lab)), (1, vec![("fragment_tiny", 3)]));
        lab.assert_no_leak();
    }

    fn a_second_header_in_the_place_of_the_first_is_dropped(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        lab.expect(&three(1000, false)[0], &["forwarded"]);
        lab.expect(&cut(&question(1001, false), 1000, &[400, 400])[0], &["fragment_overlap"]);
        lab.expect(&three(1000, false)[0], &["forwarded"]);
        lab.expect(&three(1000, false)[1], &["forwarded"]);
        lab.expect(&three(1000, false)[2], &["forwarded"]);
        // All of it has come: the id may be used again.
        lab.expect(&cut(&question(1001, false), 1000, &[400, 400])[0], &["forwarded"]);
    }

    fn ipv6_fragments_that_overlap_end_their_datagram(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let whole = question(1000, true);
        lab.expect(&three(1000, true)[0], &["forwarded"]);
        lab.expect(&three(1000, true)[0], &["fragment_overlap"]);
        lab.expect(&three(1000, true)[1], &["forwarded"]);
        lab.expect(&three(1000, true)[1], &["fragment_overlap"]);
        lab.expect(&piece(&whole, 1000, 792, true, &[0; 16]), &["fragment_overlap"]);
        lab.expect(&three(1000, true)[2], &["fragment_overlap"]);
        lab.pass_seconds(3);
        for (n, fragment) in three(1000, true).iter().enumerate() {
            assert_eq!(lab.send(fragment).len(), 1, "two seconds later, fragment {n}");
        }
    }

    fn fragments_that_break_their_own_rules_are_dropped(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        for v6 in [false, true] {
            let whole = question(1000, v6);
            lab.expect(&piece(&whole, 1, 0, true, &[0; 44]), &["fragment_bad"]);
            lab.expect(&piece(&whole, 1, 65_528, false, &[0; 8]), &["fragment_bad"]);
            lab.expect(&piece(&whole, 1, 400, true, &[]), &["fragment_bad"]);
        }
        let mut short = three(1000, true)[1].clone();
        short.truncate(58);
        short[18..20].copy_from_slice(&[0, 4]);
        lab.expect(&short, &["short"]);
        lab.assert_no_leak();
    }

    fn an_ipv6_packet_in_one_fragment_is_a_whole_packet(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let whole = question(1000, true);
        let to = lab.forwarded_to(&piece(&whole, 1, 0, false, &whole[54..]));
        assert_eq!(lab.forwarded_to(&whole), to);
        assert_eq!(lab.forwarded_to(&piece(&whole, 1, 0, false, &whole[54..])), to, "with the same id");
        assert_eq!((lab.connections().len(), drops(&lab)), (1, vec![]));
    }

    fn an_ipv6_first_fragment_may_have_options_before_its_transport_header(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let whole = question(1000, true);
        let mut options = whole[..54].to_vec();
        options[20] = 60;
        let mut bytes = vec![17, 0, 1, 4, 0, 0, 0, 0];
        bytes.extend(&whole[54..]);
        options.extend(&bytes);
        options[18..20].copy_from_slice(&(bytes.len() as u16).to_be_bytes());
        let pieces = cut(&options, 5, &[800]);
        let to = lab.forwarded_to(&pieces[0]);
        assert_eq!([lab.forwarded_to(&pieces[1]), lab.forwarded_to(&whole)], [to; 2]);
        // Options without the header behind them.
        lab.expect(&piece(&options, 6, 0, true, &bytes[..8]), &["fragment_tiny"]);
    }

    fn what_no_service_claims_goes_to_the_kernel_as_it_came(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let payload = [7; 1000];
        for (n, whole) in [
            udp_of("198.51.100.1:1000", "10.10.24.88:54", &payload),
            udp_of("198.51.100.1:1000", "10.10.24.10:53", &payload),
            icmp_v4([198, 51, 100, 1], [10, 10, 24, 88], &[8; 1000]),
        ]
        .iter()
        .enumerate()
        {
            let pieces = cut(whole, n as u32, &[400, 400]);
            for at in [1, 0, 2] {
                assert!(lab.send(&pieces[at]).is_empty());
            }
            let mut sent = pieces.clone();
            let mut got = lab.kernel();
            sent.sort();
            got.sort();
            assert_eq!(got, sent);
        }
        assert_eq!((lab.counters()["exception"], drops(&lab)), (9, vec![]));
    }

    fn what_follows_a_dropped_first_fragment_is_dropped(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Udp, VIP, 53, RoundRobin, &[server(21).weight(0)]);
        let pieces = three(1000, false);
        lab.expect(&pieces[0], &["no_real_server", "ICMP"]);
        lab.expect(&pieces[1], &["fragment"]);
        lab.expect(&pieces[2], &["fragment"]);
    }

    fn a_tunnel_carries_each_fragment(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Udp, VIP, 53, RoundRobin, &[server(21).tunnel("192.0.2.7", DIP)]);
        let pieces = three(1000, false);
        for at in [1, 0, 2] {
            lab.send(&pieces[at]);
        }
        let pieces = three(1001, false);
        for fragment in &pieces {
            let out = lab.expect(fragment, &["forwarded"]).remove(0);
            assert_eq!((out[23], &out[34..42], &out[54..]), (4, &fragment[14..22], &fragment[34..]));
        }
        lab.assert_no_leak();
    }

    fn any_soup_of_fragments_has_one_verdict_each_and_leaks_nothing(eal) {
        let mut lab = Lab::new(eal);
        serve(&mut lab);
        let fragments = prop::collection::vec((any::<bool>(), 0_u16..4, 0_usize..12, 1_usize..6, any::<bool>(), 0_u32..3), 1..64);
        let lab = std::cell::RefCell::new(lab);
        let mut runner = TestRunner::new(ProptestConfig { cases: 500, ..ProptestConfig::default() });
        runner.run(&prop::collection::vec(fragments, 1..4), |bursts| {
            let mut lab = lab.borrow_mut();
            let before = lab.counters();
            let (mut out, mut sent) = (0, 0);
            for burst in &bursts {
                let frames: Vec<_> = burst
                    .iter()
                    .map(|(v6, n, at, units, more, id)| piece(&question(1000 + n, *v6), *id, at * 8, *more, &question(1000 + n, *v6)[54..54 + units * 8]))
                    .collect();
                sent += frames.len() as u64;
                out += lab.burst(&frames).len() as u64;
            }
            lab.pass_seconds(3);
            let kernel = lab.kernel().len() as u64;
            let after = lab.counters();
            let moved = |name| after[name] - before[name];
            prop_assert_eq!((moved("RECEIVED"), moved("SENT"), moved("exception")), (sent, out, kernel));
            prop_assert_eq!((moved("forwarded"), lab.pool.in_use()), (out, 0));
            drops(&lab);
            Ok(())
        })
        .unwrap();
    }
}
