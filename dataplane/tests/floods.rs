//! Floods of made-up clients: what is established stays, and new clients get through.
mod common;

use common::frame::{tcp, udp};
use common::*;
use dataplane::service::Persistence;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
const DNS: &str = "10.10.24.88:53";

/// The n-th client of a flood.
fn stranger(n: u32) -> String {
    format!("100.{}.{}.{}:{}", n >> 16 & 63, n >> 8 & 255, n & 255, 1024 + n % 60_000)
}

/// A table for 1024 connections, 256 of them half open, with two web servers and `established` connections.
fn lab(eal: dpdk::eal::Eal, established: u16) -> Lab {
    let mut lab = Lab::with_room(eal, 1024, 256);
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
    lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21), server(22)]);
    for n in 0..established {
        let flow = tcp(&regular(n), WEB);
        lab.forwarded_to(&flow.syn());
        lab.forwarded_to(&flow.ack());
    }
    lab
}

fn regular(n: u16) -> String {
    format!("198.51.100.1:{}", 10_000 + n)
}

fn recycled(lab: &Lab) -> u64 {
    lab.control.report().recycled.get()
}

fn without_entry(lab: &Lab) -> u64 {
    lab.control.report().without_entry.get()
}

/// Each established connection is where it was: odd and even ones on the two real servers.
fn assert_established(lab: &mut Lab, established: u16) {
    for n in 0..established {
        assert_eq!(lab.forwarded_to(&tcp(&regular(n), WEB).ack()), if n % 2 == 0 { 22 } else { 21 }, "connection {n}");
    }
}

eal_test! {
    fn syn_flood_takes_no_established_connection_and_keeps_no_new_client_out(eal) {
        let mut lab = lab(eal, 100);
        for n in 0..2560 {
            lab.expect(&tcp(&stranger(n), WEB).syn(), &["forwarded"]);
            if n % 256 == 255 {
                // A new client comes in the midst of it, and answers the real server a hundred of the flood's SYNs later.
                let flow = tcp(&format!("203.0.113.9:{}", 2000 + n), WEB);
                let went = lab.forwarded_to(&flow.syn());
                for m in 0..100 {
                    lab.send(&tcp(&stranger(100_000 + n * 100 + m), WEB).syn());
                }
                assert_eq!(lab.forwarded_to(&flow.ack()), went);
                assert_eq!(lab.forwarded_to(&flow.ack()), went);
            }
        }
        let counters = lab.counters();
        assert_eq!((counters["half_open_limit"], counters["table_full"]), (0, 0));
        assert_eq!(recycled(&lab), 2560 + 10 * 100 + 10 - 10 - 255);
        assert_eq!((lab.control.report().half_open.get(), lab.connections().len()), (255, 110 + 255));
        assert_established(&mut lab, 100);
        lab.pass_seconds(62);
        assert_eq!(lab.connections().len(), 110, "the flood is gone a minute later");
        assert_eq!((lab.active(0, 21) + lab.active(0, 22), lab.inactive(0, 21) + lab.inactive(0, 22)), (110, 0));
        lab.assert_no_leak();
    }

    fn the_oldest_half_open_connection_goes_first(eal) {
        let mut lab = lab(eal, 0);
        for n in 0..257 {
            lab.send(&tcp(&stranger(n), WEB).syn());
        }
        let clients: Vec<String> = lab.connections().iter().map(|row| row.client.to_string()).collect();
        assert!(!clients.contains(&stranger(0)) && clients.contains(&stranger(1)) && clients.contains(&stranger(256)));
        assert_eq!(recycled(&lab), 1);
    }

    fn syn_flood_on_a_persistent_service_leaves_no_templates_behind(eal) {
        let mut lab = Lab::with_room(eal, 1024, 256);
        lab.persistence = Some(Persistence { timeout: 300, mask: u128::MAX });
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
        let flow = tcp("198.51.100.1:1000", WEB);
        let went = lab.forwarded_to(&flow.syn());
        lab.forwarded_to(&flow.ack());
        for n in 0..2560 {
            lab.expect(&tcp(&stranger(n), WEB).syn(), &["forwarded"]);
        }
        assert!(lab.connections().len() <= 2 + 256, "a half-open connection and its template share the same part");
        assert_eq!(lab.control.report().half_open.get(), 256);
        let templates = lab.connections().iter().filter(|row| row.client.port() == 0).count();
        assert_eq!(templates, 129, "none without a connection");
        assert_eq!(lab.forwarded_to(&flow.ack()), went);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1001", WEB).syn()), went, "its template is still there");
        lab.pass_seconds(361);
        assert_eq!(lab.persistent(0, 21) + lab.persistent(0, 22), 1, "that of the established connection");
    }

    fn udp_flood_goes_round_in_what_is_free_and_nobody_established_notices(eal) {
        let mut lab = lab(eal, 100);
        let asks_twice = udp("198.51.100.7:5353", DNS);
        let went = lab.forwarded_to(&asks_twice);
        assert_eq!(lab.forwarded_to(&asks_twice), went);
        for n in 0..5000 {
            lab.expect(&udp(&stranger(n), DNS), &["forwarded"]);
            assert!(lab.control.report().connections.get() <= 1024);
        }
        assert_eq!(lab.control.report().connections.get(), 1024, "every place is used");
        assert_eq!(lab.forwarded_to(&asks_twice), went, "an entry of two packets stays");
        let flow = tcp("203.0.113.9:2000", WEB);
        let went = lab.forwarded_to(&flow.syn());
        assert_eq!(lab.forwarded_to(&flow.ack()), went);
        assert_eq!(lab.connections().iter().filter(|row| row.state == "ESTABLISHED").count(), 101, "a new client has an entry");
        assert_established(&mut lab, 100);
        assert_eq!((lab.counters()["table_full"], without_entry(&lab)), (0, 0));
        lab.pass_seconds(302);
        assert_eq!(lab.inactive(1, 21) + lab.inactive(1, 22), 0);
        lab.assert_no_leak();
    }

    fn table_full_of_connections_in_use_forwards_new_ones_without_an_entry(eal) {
        let mut lab = lab(eal, 1024);
        let mut to = [0; 256];
        for n in 0..200 {
            let flow = tcp(&stranger(n), WEB);
            let went = lab.forwarded_to(&flow.syn());
            to[usize::from(went)] += 1;
            assert_eq!([flow.ack(), flow.fin(), flow.rst()].map(|segment| lab.forwarded_to(&segment)), [went; 3], "all to one real server");
        }
        assert!(to[21] > 50 && to[22] > 50, "{} and {}", to[21], to[22]);
        assert_eq!((without_entry(&lab), lab.connections().len()), (800, 1024));
        let scheduled = lab.server_stats(0, 21).sum().connections + lab.server_stats(0, 22).sum().connections;
        assert_eq!(scheduled, 1024 + 200);
        assert_established(&mut lab, 1024);
        // Places are free again: connections without an entry go on as they are, new ones have entries.
        lab.flush(Some("198.51.100.1"));
        let flow = tcp(&stranger(7), WEB);
        let went = lab.forwarded_to(&flow.ack());
        assert_eq!(lab.forwarded_to(&flow.ack()), went);
        assert!(lab.connections().is_empty());
        lab.forwarded_to(&tcp("203.0.113.9:2000", WEB).syn());
        assert_eq!(lab.connections().len(), 1);
        lab.pass_seconds(901);
        lab.expect(&flow.ack(), &["exception"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn shares_of_connections_without_an_entry_follow_the_weights(eal) {
        let mut lab = lab(eal, 1024);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).weight(3), server(22), server(23).weight(0), server(24).mac(None)]);
        let mut to = [0; 256];
        for n in 0..1000 {
            to[usize::from(lab.forwarded_to(&tcp(&stranger(n), WEB).syn()))] += 1;
        }
        assert!((700..800).contains(&to[21]) && to[21] + to[22] == 1000, "{} and {}", to[21], to[22]);
    }

    fn persistent_clients_stay_together_without_an_entry(eal) {
        let mut lab = lab(eal, 1024);
        lab.persistence = Some(Persistence { timeout: 300, mask: u128::MAX << 8 });
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22), server(23)]);
        for network in 0..20 {
            let went = lab.forwarded_to(&tcp(&format!("203.0.{network}.1:1000"), WEB).syn());
            for client in 2..6 {
                assert_eq!(lab.forwarded_to(&tcp(&format!("203.0.{network}.{client}:{client}"), WEB).syn()), went);
            }
        }
    }
}
