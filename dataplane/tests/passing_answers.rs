//! Real servers by direct routing or tunnel whose way to clients leads through the director: IPv6 passes and moves the connection's state, IPv4 does not.
mod common;

use std::sync::Arc;

use common::frame::*;
use common::*;
use dataplane::command::Batch;
use dataplane::routes::{PortRoutes, Routes};
use dataplane::service::{NextHop, Protocol::*, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal::Eal;
use dpdk::eal_test;

const CLIENT: &str = "[2001:db8::1]:1000";
const WEB: &str = "[fd00:10::88]:80";
const GATEWAY: NextHop = NextHop { port: 0, mac: ROUTER_MAC, mtu: MTU };

/// A director whose gateway has a MAC, with a service on port 80.
fn lab(eal: Eal, vip: &str) -> Lab {
    let mut lab = Lab::new(eal);
    lab.service(0, Tcp, vip, 80, RoundRobin, &[server(21)]);
    let port = PortRoutes { gateways: [Some(GATEWAY); 2], mtu: MTU, ..PortRoutes::default() };
    lab.apply(Batch { routes: Some(Arc::new(Routes::new(vec![port]))), ..Batch::default() });
    lab
}

eal_test! {
    fn an_answer_passes_and_both_directions_move_the_state(eal) {
        let mut lab = lab(eal, VIP6);
        let (request, answer) = (tcp(CLIENT, WEB), tcp(WEB, CLIENT));
        for (frame, mac, state, left) in [
            (request.syn(), server_mac(21), "SYN_RECV", 60),
            (answer.segment(SYN | ACK), ROUTER_MAC, "SYN_RECV", 60),
            (request.ack(), server_mac(21), "ESTABLISHED", 900),
            (answer.ack(), ROUTER_MAC, "ESTABLISHED", 900),
            (answer.fin(), ROUTER_MAC, "FIN_WAIT", 120),
            (request.fin(), server_mac(21), "TIME_WAIT", 120),
        ] {
            let out = lab.expect(&frame, &["forwarded"]).remove(0);
            assert_eq!((&out[..6], &out[6..12]), (&mac[..], &OUR_MAC[..]));
            assert_eq!(out[22..], frame[22..], "addresses and all that follows");
            let row = lab.connections()[0];
            assert_eq!((row.state, row.expires_in), (state, left * 100));
        }
        let sum = lab.service_traffic(0);
        assert_eq!((sum.in_packets, sum.out_packets, sum.out_bytes), (3, 3, 3 * 60));
        assert_eq!((lab.active(0, 21), lab.inactive(0, 21)), (0, 1));
        lab.assert_no_leak();
    }

    fn an_answer_is_a_routers_packet(eal) {
        let mut lab = lab(eal, VIP6);
        lab.send(&tcp(CLIENT, WEB).syn());
        let out = lab.expect(&tcp(WEB, CLIENT).ttl(9).segment(SYN | ACK), &["forwarded"]).remove(0);
        assert_eq!(out[21], 8, "hop limit");
        lab.expect(&tcp(WEB, CLIENT).ttl(1).ack(), &["exception"]);
        assert_eq!(lab.kernel().len(), 1, "for the kernel to tell the real server");
        assert_eq!(lab.service_traffic(0).out_packets, 1);
    }

    fn packets_that_answer_nothing_stay_own_sources(eal) {
        let mut lab = lab(eal, VIP6);
        lab.send(&tcp(CLIENT, WEB).syn());
        for frame in [
            tcp(WEB, "[2001:db8::1]:1001").ack(),
            tcp("[fd00:10::88]:81", CLIENT).ack(),
            tcp(WEB, WEB).ack(),
            udp(WEB, CLIENT),
        ] {
            lab.expect(&frame, &["own_source"]);
        }
        lab.assert_no_leak();
    }

    fn answers_of_ipv4_are_martians(eal) {
        let mut lab = lab(eal, VIP);
        lab.send(&tcp("198.51.100.1:1000", "10.10.24.88:80").syn());
        lab.expect(&tcp("10.10.24.88:80", "198.51.100.1:1000").segment(SYN | ACK), &["own_source"]);
        assert_eq!(lab.service_traffic(0).out_packets, 0);
    }

    fn a_connection_seen_from_both_sides_is_not_begun_anew_in_fin_wait(eal) {
        let mut lab = lab(eal, VIP6);
        lab.settings(Settings { conn_reuse_mode: 2, ..Settings::default() });
        for (client, answered) in [(CLIENT, false), ("[2001:db8::2]:1000", true)] {
            let (request, answer) = (tcp(client, WEB), tcp(WEB, client));
            lab.send(&request.syn());
            lab.send(&request.ack());
            lab.send(&if answered { answer.fin() } else { request.fin() });
            let before = lab.service_traffic(0).connections;
            lab.send(&request.syn());
            assert_eq!(lab.service_traffic(0).connections - before, u64::from(!answered), "answered: {answered}");
        }
    }
}
