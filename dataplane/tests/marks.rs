//! Services by mark: which packets are theirs, and how they are listed.
mod common;

use std::sync::Arc;

use common::frame::{ACK, SYN, cut, tcp, udp};
use common::*;
use dataplane::command::Batch;
use dataplane::marks::{MarkRule, Marks, Prefix};
use dataplane::service::{Persistence, Protocol, Protocol::*, SchedulerKind::*};
use dpdk::eal_test;

const CLIENT: &str = "198.51.100.1:1000";
const EVERY_CLIENT: u128 = u128::MAX;

fn rule(mark: u32, destination: &str, bits: u8, protocol: Option<Protocol>, ports: &[u16]) -> MarkRule {
    let ports = ports.iter().map(|port| (*port, *port)).collect();
    MarkRule { destination: Prefix::new(address(destination), bits), source: None, protocol, ports, mark }
}

fn marks(lab: &mut Lab, rules: Vec<MarkRule>) {
    lab.apply(Batch { marks: Some(Arc::new(Marks::new(rules))), ..Batch::default() });
}

/// Protocol, client, virtual and server of every entry, sorted.
fn entries(lab: &mut Lab) -> Vec<(Protocol, String, String, String)> {
    let rows = lab.connections();
    let mut all: Vec<_> =
        rows.iter().map(|r| (r.protocol, r.client.to_string(), r.virtual_address.to_string(), r.server.to_string())).collect();
    all.sort();
    all
}

eal_test! {
    fn ports_under_one_mark_are_one_service(eal) {
        let mut lab = Lab::new(eal);
        marks(&mut lab, vec![rule(7, VIP, 32, Some(Tcp), &[80, 443])]);
        lab.service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21), server(22)]);
        let order = [80, 443, 80, 443].map(|port| lab.forwarded_to(&tcp(&format!("198.51.100.1:{port}"), &format!("{VIP}:{port}")).syn()));
        assert_eq!(order, [22, 21, 22, 21]);
        lab.expect(&tcp(CLIENT, &format!("{VIP}:8080")).syn(), &["exception"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn mark_comes_before_the_service_of_the_vip(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        lab.service(1, Ip, "0.0.0.7", 0, RoundRobin, &[server(22)]);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1", &format!("{VIP}:80")).syn()), 21);
        marks(&mut lab, vec![rule(7, VIP, 32, None, &[])]);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:2", &format!("{VIP}:80")).syn()), 22);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1", &format!("{VIP}:80")).ack()), 21, "a known connection stays");
        marks(&mut lab, vec![rule(8, VIP, 32, None, &[])]);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:3", &format!("{VIP}:80")).syn()), 21, "no service has mark 8");
    }

    fn mark_holds_for_its_own_family(eal) {
        let mut lab = Lab::new(eal);
        marks(&mut lab, vec![rule(7, "0.0.0.0", 0, None, &[]), rule(7, "::", 0, None, &[])]);
        lab.service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21)]);
        lab.expect(&tcp("[2001:db8::1]:1", &format!("[{VIP6}]:80")).syn(), &["exception"]);
        lab.service(1, Ip, "0:7::", 0, RoundRobin, &[server(22)]);
        assert_eq!(lab.forwarded_to(&tcp("[2001:db8::1]:1", &format!("[{VIP6}]:80")).syn()), 22);
        assert_eq!(lab.forwarded_to(&tcp(CLIENT, "10.10.24.99:1").syn()), 21, "an address that nobody has");
    }

    fn directors_own_address_gets_no_mark(eal) {
        let mut lab = Lab::new(eal);
        marks(&mut lab, vec![rule(7, "0.0.0.0", 0, None, &[])]);
        lab.service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21)]);
        lab.expect(&tcp(CLIENT, &format!("{DIP}:22")).syn(), &["exception"]);
        assert_eq!(lab.kernel().len(), 1);
    }

    fn persistence_holds_for_all_ports_and_protocols_of_a_mark(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 300, mask: EVERY_CLIENT });
        marks(&mut lab, vec![rule(7, VIP, 32, None, &[80, 443, 53])]);
        lab.service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21), server(22)]);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1", &format!("{VIP}:80")).syn()), 22);
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:2", &format!("{VIP}:443")).syn()), 22);
        assert_eq!(lab.forwarded_to(&udp("198.51.100.1:3", &format!("{VIP}:53"))), 22);
        assert_eq!(lab.forwarded_to(&udp("198.51.100.2:3", &format!("{VIP}:53"))), 21);
        let row = |protocol, client: &str, virtual_: &str, server: &str| (protocol, client.to_owned(), virtual_.to_owned(), server.to_owned());
        assert_eq!(
            entries(&mut lab),
            [
                row(Ip, "198.51.100.1:0", "0.0.0.7:0", "10.10.24.22:0"),
                row(Ip, "198.51.100.2:0", "0.0.0.7:0", "10.10.24.21:0"),
                row(Tcp, "198.51.100.1:1", "10.10.24.88:80", "10.10.24.22:80"),
                row(Tcp, "198.51.100.1:2", "10.10.24.88:443", "10.10.24.22:443"),
                row(Udp, "198.51.100.1:3", "10.10.24.88:53", "10.10.24.22:53"),
                row(Udp, "198.51.100.2:3", "10.10.24.88:53", "10.10.24.21:53"),
            ]
        );
        // Two handshakes under way; of the templates only the one that TCP made waits for one.
        assert_eq!(lab.control.report().half_open.get(), 3);
        assert_eq!(lab.flush(None), 6);
    }

    fn entries_of_a_mark_are_found_by_it(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 300, mask: EVERY_CLIENT });
        marks(&mut lab, vec![rule(7, VIP, 32, None, &[80])]);
        lab.service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21)]);
        lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21)]);
        lab.send(&tcp(CLIENT, &format!("{VIP}:80")).syn());
        lab.send(&udp(CLIENT, &format!("{VIP}:53")));
        let filter = dataplane::command::ConnectionFilter {
            protocol: Some(Ip),
            virtual_address: Some(address("0.0.0.7")),
            virtual_port: Some(0),
            ..Default::default()
        };
        let flush = dataplane::command::Flush { filter, removed: 0 };
        lab.control.send(dataplane::command::Command::Flush(Box::new(flush))).unwrap();
        let removed = loop {
            lab.worker.turn(lab.now);
            if let Some(dataplane::command::Reply::Flushed(flush)) = lab.control.receive() {
                break flush.removed;
            }
        };
        assert_eq!((removed, lab.connections().len()), (2, 2), "the UDP service's entry and its template stay");
    }

    fn one_packet_scheduling_of_a_mark_is_for_datagrams(eal) {
        let mut lab = Lab::new(eal);
        marks(&mut lab, vec![rule(7, VIP, 32, None, &[])]);
        lab.put_service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21), server(22)], true);
        let datagrams = [22, 21, 22].map(|_| lab.forwarded_to(&udp(CLIENT, &format!("{VIP}:53"))));
        assert_eq!(datagrams, [22, 21, 22]);
        assert!(lab.connections().is_empty());
        let first = lab.forwarded_to(&tcp(CLIENT, &format!("{VIP}:80")).syn());
        assert_eq!(lab.forwarded_to(&tcp(CLIENT, &format!("{VIP}:80")).ack()), first);
        assert_eq!(lab.connections().len(), 1);
    }

    fn mark_without_real_server_is_answered_with_port_unreachable(eal) {
        let mut lab = Lab::new(eal);
        marks(&mut lab, vec![rule(7, VIP, 32, None, &[])]);
        lab.service(0, Ip, "0.0.0.7", 0, RoundRobin, &[server(21).weight(0)]);
        let out = lab.expect(&tcp(CLIENT, &format!("{VIP}:80")).syn(), &["no_real_server", "ICMP"]);
        assert_eq!(out[0][34..36], [3, 3], "destination unreachable, port unreachable");
    }

    fn fragments_of_an_answer_stay_together_when_a_service_by_mark_begins_a_connection_alike(eal) {
        let mut lab = Lab::new(eal);
        marks(&mut lab, vec![rule(7, "198.51.100.1", 32, None, &[])]);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).masquerading(80)]);
        lab.service(1, Ip, "0.0.0.7", 0, RoundRobin, &[server(22)]);
        let (request, answer) = (tcp(CLIENT, &format!("{VIP}:80")), tcp("10.10.24.21:80", CLIENT).payload(&[7; 600]));
        for frame in [request.syn(), answer.segment(SYN | ACK), request.ack(), request.fin(), answer.fin()] {
            lab.expect(&frame, &["forwarded"]);
        }
        let pieces = cut(&answer.ack(), 9, &[424]);
        // The client begins anew in this burst, so that the real server's SYN finds no connection that it could answer.
        let out = lab.burst(&[pieces[0].clone(), request.syn(), answer.syn()]);
        assert_eq!(lab.connections().len(), 2);
        let later = lab.send(&pieces[1]);
        let is_answer = |frame: &&Vec<u8>| frame[..6] == ROUTER_MAC && frame[26..30] == [10, 10, 24, 88];
        assert_eq!((out.iter().filter(is_answer).count(), later.iter().filter(is_answer).count()), (1, 1));
    }
}
