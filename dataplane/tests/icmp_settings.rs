//! `schedule_icmp` and `nat_icmp_send`: ICMP errors that begin connections, and what a real server is told whose packet nobody waits for.
#![allow(clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::frame::*;
use common::several::Several;
use common::*;
use dataplane::command::Batch;
use dataplane::routes::{Network, PortRoutes, Routes};
use dataplane::service::{Method, NextHop, Protocol, Protocol::*, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal::Eal;
use dpdk::eal_test;
use dpdk::net::checksum;

const A: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const VIP_OCTETS: [u8; 4] = [10, 10, 24, 88];
const ROUTER: [u8; 4] = [203, 0, 113, 9];
const SCHEDULES: fn() -> Settings = || Settings { schedule_icmp: true, ..Settings::default() };

fn about(answer: &[u8]) -> Vec<u8> {
    fragmentation_needed(ROUTER, VIP_OCTETS, &answer[14..], 1400)
}

fn scheduling(eal: Eal, servers: &[Server]) -> Lab {
    let mut lab = Lab::new(eal);
    lab.settings(SCHEDULES());
    lab.service(0, Tcp, VIP, 80, RoundRobin, servers);
    lab
}

/// A masquerading real server for ports 80 of TCP and 53 of UDP, which is told.
fn telling(eal: Eal) -> Lab {
    let mut lab = Lab::new(eal);
    lab.settings(Settings { nat_icmp_send: true, ..Settings::default() });
    let networks = [("10.10.24.0", 8, DIP), ("fd00:10::", 64, "fd00:10::10")];
    let networks = networks.map(|(prefix, host, own)| Network { prefix: address(prefix), mask: u128::MAX << host, own: address(own) });
    let gateways = [Some(NextHop { port: 0, mac: ROUTER_MAC, mtu: MTU }); 2];
    let routes = Routes::new(vec![PortRoutes { networks: networks.to_vec(), gateways, mtu: MTU }]);
    lab.apply(Batch { routes: Some(Arc::new(routes)), ..Batch::default() });
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).masquerading(8080)]);
    lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21).masquerading(5353)]);
    lab.service(2, Tcp, VIP6, 80, RoundRobin, &[server(21).masquerading(8080)]);
    lab
}

fn from_server(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&server_mac(21));
    frame
}

eal_test! {
    fn an_error_begins_a_connection_that_the_clients_packets_follow(eal) {
        let mut lab = scheduling(eal, &[]);
        for method in [server(21), server(21).tunnel("10.10.24.21", DIP), server(21).masquerading(80)] {
            lab.flush(None);
            lab.service(0, Tcp, VIP, 80, RoundRobin, &[]);
            lab.service(0, Tcp, VIP, 80, RoundRobin, &[method, server(22)]);
            let before = lab.service_traffic(0);
            lab.send(&tcp("198.51.100.9:9", WEB).syn());
            let error = about(&tcp(WEB, A).ack());
            let out = lab.expect(&error, &["forwarded"]).remove(0);
            assert_eq!(out[..6], server_mac(21));
            let row = *lab.connections().iter().find(|row| row.client.port() == 1000).expect("an entry");
            assert_eq!((row.state, row.expires_in), ("NONE", 300), "as a fresh entry of IPVS");
            assert_eq!((lab.active(0, 21), lab.inactive(0, 21)), (0, 1));
            let traffic = lab.service_traffic(0);
            assert_eq!((traffic.connections - before.connections, traffic.in_packets - before.in_packets), (2, 2));
            assert_eq!(lab.send(&tcp(A, WEB).syn())[0][..6], server_mac(21), "not the next one");
            assert_eq!((lab.active(0, 21), lab.inactive(0, 21)), (1, 0));
        }
        lab.assert_no_leak();
    }

    fn one_that_nothing_follows_ends_after_three_seconds(eal) {
        let mut lab = scheduling(eal, &[server(21)]);
        lab.expect(&about(&tcp(WEB, A).ack()), &["forwarded"]);
        lab.pass_seconds(4);
        assert!(lab.connections().is_empty());
        assert_eq!(lab.inactive(0, 21), 0);
    }

    fn errors_that_begin_nothing_are_dropped(eal) {
        let mut lab = scheduling(eal, &[server(21).weight(0)]);
        assert!(lab.expect(&about(&tcp(WEB, A).ack()), &["no_real_server"]).is_empty(), "and the client is told nothing");
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        let mut damaged = about(&tcp(WEB, A).ack());
        damaged[37] ^= 1;
        lab.expect(&damaged, &["unrelated_icmp_error"]);
        lab.expect(&about(&tcp(WEB, "10.10.24.10:1000").ack()), &["unrelated_icmp_error"]);
        lab.expect(&about(&tcp("10.10.24.88:81", A).ack()), &["exception"]);
        lab.settings(Settings::default());
        lab.expect(&about(&tcp(WEB, A).ack()), &["unrelated_icmp_error"]);
        assert!(lab.connections().is_empty());
        lab.kernel();
        lab.assert_no_leak();
    }

    fn a_flood_of_errors_goes_round_in_its_own_entries(eal) {
        let mut lab = Lab::with_room(eal, 64, 16);
        lab.settings(SCHEDULES());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        for n in 0..40 {
            let flow = tcp(&format!("198.51.100.7:{}", 2000 + n), WEB);
            lab.send(&flow.syn());
            lab.send(&flow.ack());
        }
        for n in 0..200 {
            lab.expect(&about(&tcp(WEB, &format!("198.51.100.8:{}", 2000 + n)).ack()), &["forwarded"]);
        }
        let rows = lab.connections();
        assert_eq!(rows.iter().filter(|row| row.state == "ESTABLISHED").count(), 40);
        assert_eq!(rows.len(), 56);
    }

    fn workers_agree_on_what_an_error_began(eal) {
        let mut several = Several::new(eal, 2);
        let servers = [(21, Method::DirectRouting, 80), (22, Method::DirectRouting, 80), (23, Method::DirectRouting, 80)];
        several.services(SCHEDULES(), &[(Tcp, 80, &servers)]);
        for port in 2000..2010_usize {
            let client = format!("198.51.100.1:{port}");
            let chosen = several.send(0, &[about(&tcp(WEB, &client).ack())], 3).concat()[0][..6].to_vec();
            assert_eq!(several.send(port % 2, &[tcp(&client, WEB).syn()], 1).concat()[0][..6], chosen);
        }
        several.flow();
        several.assert_no_leak();
    }

    fn a_real_server_is_told_that_nobody_waits_for_its_packet(eal) {
        let mut lab = telling(eal);
        let sent = from_server(tcp("10.10.24.21:8080", A).ack());
        let out = lab.expect(&sent, &["no_connection", "ICMP"]).remove(0);
        assert_eq!((&out[..6], &out[6..12]), (&server_mac(21)[..], &OUR_MAC[..]));
        assert_eq!((&out[26..30], &out[30..34]), (&[10, 10, 24, 10][..], &[10, 10, 24, 21][..]), "from the DIP");
        assert_eq!((out[34], out[35], &out[42..]), (3, 3, &sent[14..]));
        assert_eq!((checksum::internet(&out[14..34]), checksum::internet(&out[34..])), (0, 0));
        lab.expect(&from_server(udp("10.10.24.21:5353", A)), &["no_connection", "ICMP"]);
        let out = lab.expect(&from_server(tcp("[fd00:10::21]:8080", "[2001:db8::1]:1000").ack()), &["no_connection", "ICMP"]).remove(0);
        assert_eq!((&out[22..38], out[54], out[55]), (&address("fd00:10::10").0.to_be_bytes()[..], 1, 4));
        lab.assert_no_leak();
    }

    fn nothing_else_of_a_real_servers_is_answered(eal) {
        let mut lab = telling(eal);
        let others = [
            tcp("10.10.24.21:8080", A).rst(),
            tcp("10.10.24.21:8081", A).ack(),
            tcp("10.10.24.22:8080", A).ack(),
            udp("10.10.24.21:8080", A),
            tcp("10.10.24.21:5353", A).ack(),
            tcp("10.10.24.21:8080", "10.10.24.10:1000").ack(),
        ];
        for (n, frame) in others.into_iter().enumerate() {
            let out = lab.send(&from_server(frame));
            assert!(out.is_empty() && lab.counters()["no_connection"] == 0, "{n}");
        }
        lab.send(&tcp(A, WEB).syn());
        lab.expect(&from_server(tcp("10.10.24.21:8080", A).segment(SYN | ACK)), &["forwarded"]);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        lab.expect(&from_server(tcp("10.10.24.21:8080", "198.51.100.1:1001").ack()), &["exception"]);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).masquerading(8080)]);
        lab.settings(Settings::default());
        lab.expect(&from_server(tcp("10.10.24.21:8080", "198.51.100.1:1001").ack()), &["exception"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn a_service_by_mark_masquerades_every_protocol(eal) {
        let mut lab = telling(eal);
        lab.service(3, Protocol::Ip, "0.0.0.7", 0, RoundRobin, &[server(23).masquerading(7000)]);
        for frame in [tcp("10.10.24.23:7000", A).ack(), udp("10.10.24.23:7000", A)] {
            lab.expect(&from_server(frame), &["no_connection", "ICMP"]);
        }
        lab.assert_no_leak();
    }
}
