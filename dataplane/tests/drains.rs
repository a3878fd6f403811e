//! Drained real servers: who still gets there, and what becomes of connections that are to end.
mod common;

use common::frame::{tcp, udp};
use common::*;
use dataplane::command::{Command, ConnectionFilter, Flush, Reply};
use dataplane::service::{Drain, Persistence, Protocol::*, SchedulerKind::*, ServerId};
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
const DNS: &str = "10.10.24.88:53";
const A: &str = "198.51.100.1:1000";
const RST: u8 = 4;

/// A service with 22 drained so.
fn drained(lab: &mut Lab, how: Drain) {
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).drained(how)]);
}

/// A connection to 22.
fn connected(lab: &mut Lab) {
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(22)]);
    assert_eq!(lab.forwarded_to(&tcp(A, WEB).syn()), 22);
    assert_eq!(lab.forwarded_to(&tcp(A, WEB).ack()), 22);
}

eal_test! {
    fn drained_real_server_keeps_its_connections_and_gets_no_new_ones(eal) {
        let mut lab = Lab::new(eal);
        connected(&mut lab);
        drained(&mut lab, Drain::Wait);
        assert_eq!(lab.forwarded_to(&tcp(A, WEB).ack()), 22);
        for port in 1001..1005 {
            assert_eq!(lab.forwarded_to(&tcp(&format!("198.51.100.1:{port}"), WEB).syn()), 21);
        }
        lab.assert_no_leak();
    }

    fn persistence_brings_no_new_connections_to_a_drained_real_server(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 300, mask: u128::MAX });
        connected(&mut lab);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).weight(0)]);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1001", WEB).syn()), 22, "of weight 0 alone it does");
        drained(&mut lab, Drain::Wait);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1002", WEB).syn()), 21);
        assert_eq!(lab.forwarded_to(&tcp(A, WEB).ack()), 22, "the old connection stays");
        drained(&mut lab, Drain::No);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1003", WEB).syn()), 21, "and the client stays where it went");
        lab.assert_no_leak();
    }

    fn next_packet_of_a_connection_that_is_to_be_reset_is_answered_with_a_reset(eal) {
        let mut lab = Lab::new(eal);
        connected(&mut lab);
        drained(&mut lab, Drain::Reset);
        let out = lab.expect(&tcp(A, WEB).ack(), &["no_real_server", "RESETS"]).remove(0);
        assert_eq!((&out[..6], out[47] & RST), (&ROUTER_MAC[..], RST));
        assert!(lab.connections().is_empty() && lab.active(0, 22) == 0 && lab.inactive(0, 22) == 0);
        lab.expect(&tcp(A, WEB).ack(), &["exception"]);
        assert_eq!(lab.forwarded_to(&tcp(A, WEB).syn()), 21, "a new one is served");
        lab.kernel();
        lab.assert_no_leak();
    }

    fn client_that_begins_or_ends_a_connection_itself_is_not_reset(eal) {
        let mut lab = Lab::new(eal);
        connected(&mut lab);
        drained(&mut lab, Drain::Reset);
        assert_eq!(lab.forwarded_to(&tcp(A, WEB).syn()), 21);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(22)]);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.9:9", WEB).syn()), 22);
        drained(&mut lab, Drain::Reset);
        lab.expect(&tcp("198.51.100.9:9", WEB).rst(), &["exception"]);
        assert_eq!(lab.connections().len(), 1, "the one that was ended is gone");
        lab.kernel();
        lab.assert_no_leak();
    }

    fn next_packet_of_a_connection_that_is_to_be_scheduled_anew_goes_to_another(eal) {
        let mut lab = Lab::new(eal);
        connected(&mut lab);
        drained(&mut lab, Drain::Reschedule);
        assert_eq!(lab.forwarded_to(&tcp(A, WEB).ack()), 21, "although it is no first packet");
        assert_eq!(lab.forwarded_to(&tcp(A, WEB).ack()), 21);
        assert_eq!((lab.active(0, 22) + lab.inactive(0, 22), lab.connections().len()), (0, 1));
        lab.expect(&tcp("198.51.100.1:1001", WEB).ack(), &["exception"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn datagrams_are_refused_or_scheduled_anew(eal) {
        let mut lab = Lab::new(eal);
        for (how, moved) in [(Drain::Reset, &["no_real_server", "ICMP"][..]), (Drain::Reschedule, &["forwarded"])] {
            lab.service(1, Udp, VIP, 53, RoundRobin, &[server(22)]);
            assert_eq!(lab.forwarded_to(&udp(A, DNS)), 22);
            lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21), server(22).drained(how)]);
            lab.expect(&udp(A, DNS), moved);
            assert_eq!(lab.inactive(1, 22), 0);
        }
        lab.assert_no_leak();
    }

    fn what_is_left_of_one_real_server_is_flushed_by_its_place(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
        for port in 1..=200 {
            lab.send(&tcp(&format!("198.51.100.1:{}", 1000 + port), WEB).syn());
        }
        let filter = ConnectionFilter { server_id: Some(ServerId(22)), ..ConnectionFilter::default() };
        lab.control.send(Command::Flush(Box::new(Flush { filter, removed: 0 }))).unwrap();
        let removed = loop {
            lab.worker.turn(lab.now);
            if let Some(Reply::Flushed(flush)) = lab.control.receive() { break flush.removed; }
        };
        assert_eq!((removed, lab.active(0, 22) + lab.inactive(0, 22)), (100, 0));
        assert_eq!(lab.active(0, 21) + lab.inactive(0, 21), 100);
        lab.assert_no_leak();
    }
}
