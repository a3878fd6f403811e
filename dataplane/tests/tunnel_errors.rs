//! What a router says of a tunnel's packet is told to the client whose packet was inside, at once.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod common;

use std::sync::Arc;

use common::frame::{icmp_v4, icmpv6, tcp};
use common::several::Several;
use common::*;
use dataplane::command::Batch;
use dataplane::routes::{PortRoutes, Routes};
use dataplane::service::{Encapsulation, Encapsulation::*, Method, NextHop, Protocol::*, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal_test;
use dpdk::net::{checksum, protocol};

const A: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const A6: &str = "[2001:db8::1]:1000";
const WEB6: &str = "[fd00:10::88]:80";
const RIP: &str = "192.0.2.7";
const RIP6: &str = "2001:db8:2::7";
const DIP6: &str = "fd00:10::10";
const ROUTER: [u8; 4] = [203, 0, 113, 1];
const TYPES: [Encapsulation; 5] =
    [IpIp, Gue { port: 6080, checksum: false }, Gue { port: 6080, checksum: true }, Gre { checksum: false }, Gre { checksum: true }];

/// A director whose clients are behind the router.
fn lab(eal: dpdk::eal::Eal) -> Lab {
    let mut lab = Lab::new(eal);
    let gateway = Some(NextHop { port: 0, mac: ROUTER_MAC, mtu: MTU });
    let routes = Routes::new(vec![PortRoutes { gateways: [gateway; 2], mtu: MTU, ..PortRoutes::default() }]);
    lab.apply(Batch { routes: Some(Arc::new(routes)), ..Batch::default() });
    lab
}

fn tunnel_to(lab: &mut Lab, (rip, dip): (&'static str, &'static str), encapsulation: Encapsulation) {
    for (id, vip) in [(0, VIP), (1, VIP6)] {
        lab.service(id, Tcp, vip, 80, RoundRobin, &[server(21).tunnel(rip, dip).encapsulation(encapsulation)]);
    }
    lab.flush(None);
}

/// An error of a router's on the way to the real server, about a frame of ours.
fn error(kind: u8, code: u8, rest: u32, about: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(rest.to_be_bytes());
    icmp.extend(&about[14..]);
    if about[12..14] == [0x86, 0xdd] {
        return icmpv6(OUR_MAC, "2001:db8:3::1", DIP6, 60, icmp);
    }
    let sum = checksum::internet(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp_v4(ROUTER, [10, 10, 24, 10], &icmp)
}

/// What a client finds in an error from the VIP: type, code, the four bytes behind the checksum, and what is quoted.
fn told(frame: &[u8]) -> (u8, u8, u32, &[u8]) {
    assert_eq!((&frame[..6], &frame[6..12]), (&ROUTER_MAC[..], &OUR_MAC[..]));
    let icmp = if frame[12] == 8 {
        assert_eq!((&frame[26..30], &frame[30..34], frame[23]), (&[10, 10, 24, 88][..], &[198, 51, 100, 1][..], protocol::ICMP));
        assert_eq!((checksum::internet(&frame[14..34]), checksum::internet(&frame[34..])), (0, 0));
        &frame[34..]
    } else {
        let [vip, client] = [VIP6, "2001:db8::1"].map(|a| address(a).0.to_be_bytes());
        assert_eq!((&frame[22..38], &frame[38..54], frame[20]), (&vip[..], &client[..], protocol::ICMPV6));
        let pseudo = checksum::pseudo_v6(&vip, &client, protocol::ICMPV6, frame.len() as u32 - 54);
        assert_eq!(checksum::segment(pseudo, &frame[54..]), 0);
        &frame[54..]
    };
    (icmp[0], icmp[1], u32::from_be_bytes(icmp[4..8].try_into().unwrap()), &icmp[8..])
}

/// The packet in the tunnel's frame, as long as `sent`.
fn inside<'a>(wrapped: &'a [u8], sent: &[u8]) -> &'a [u8] {
    &wrapped[wrapped.len() - (sent.len() - 14)..]
}

eal_test! {
    fn the_client_is_told_the_length_that_a_router_said(eal) {
        let mut lab = lab(eal);
        let rips = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
        for (rip, encapsulation) in rips.into_iter().zip(TYPES) {
            // The path is remembered by the RIP: another one each time.
            tunnel_to(&mut lab, (rip, DIP), encapsulation);
            let sent = tcp(A, WEB).payload(&[7; 1300]).syn();
            let wrapped = lab.expect(&sent, &["forwarded"]).remove(0);
            let before = lab.service_traffic(0);
            let out = lab.expect(&error(3, 4, 1300, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
            let (kind, code, mtu, quote) = told(&out);
            assert_eq!((kind, code, mtu), (3, 4, 1300 - 20 - encapsulation.overhead() as u32), "{encapsulation:?}");
            assert_eq!(quote, &inside(&wrapped, &sent)[..576 - 28], "its own packet, as it left");
            let after = lab.service_traffic(0);
            assert_eq!((after.out_packets - before.out_packets, after.out_bytes - before.out_bytes), (1, 1340), "as IPVS counts it");
        }
        lab.assert_no_leak();
    }

    fn no_more_is_told_than_our_own_link_takes(eal) {
        let mut lab = lab(eal);
        tunnel_to(&mut lab, (RIP, DIP), IpIp);
        let wrapped = lab.expect(&tcp(A, WEB).payload(&[7; 1300]).syn(), &["forwarded"]).remove(0);
        let said = |lab: &mut Lab| told(&lab.expect(&error(3, 4, 9000, &wrapped), &["tunnel_error", "ICMP"])[0]).2;
        assert_eq!(said(&mut lab), u32::from(MTU) - 20);
        // A MAC of our own is used for nothing, but the link stays as short as it is.
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).tunnel(RIP, DIP).mac(Some(OUR_MAC))]);
        assert_eq!(said(&mut lab), u32::from(MTU) - 20);
        lab.assert_no_leak();
    }

    fn a_client_that_allows_fragments_is_not_told(eal) {
        let mut lab = lab(eal);
        tunnel_to(&mut lab, (RIP, DIP), IpIp);
        let wrapped = lab.expect(&tcp(A, WEB).may_be_fragmented().payload(&[7; 1300]).syn(), &["forwarded"]).remove(0);
        assert!(lab.expect(&error(3, 4, 1300, &wrapped), &["tunnel_error"]).is_empty());
        let out = lab.expect(&tcp(A, WEB).may_be_fragmented().payload(&[7; 1300]).ack(), &["forwarded", "FRAGMENTS"]);
        assert_eq!(out.len(), 2, "but cut from now on");
        lab.assert_no_leak();
    }

    fn other_errors_about_the_way_are_told_as_they_are(eal) {
        let mut lab = lab(eal);
        tunnel_to(&mut lab, (RIP, DIP), IpIp);
        let sent = tcp(A, WEB).syn();
        let wrapped = lab.expect(&sent, &["forwarded"]).remove(0);
        for (kind, code) in [(3, 0), (3, 1), (3, 13), (11, 0), (4, 0)] {
            let out = lab.expect(&error(kind, code, 0, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
            assert_eq!(told(&out), (kind, code, 0, inside(&wrapped, &sent)));
        }
        lab.expect(&error(12, 0, 0, &wrapped), &["exception"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn ipv6_clients_are_told_in_their_own_family(eal) {
        let mut lab = lab(eal);
        let sent = tcp(A6, WEB6).payload(&[7; 1340]).syn();
        tunnel_to(&mut lab, (RIP6, DIP6), IpIp);
        let wrapped = lab.expect(&sent, &["forwarded"]).remove(0);
        let out = lab.expect(&error(2, 0, 1400, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
        let (kind, code, mtu, quote) = told(&out);
        assert_eq!((kind, code, mtu, quote), (2, 0, 1360, &inside(&wrapped, &sent)[..1280 - 48]));
        for (kind, code) in [(1, 0), (3, 0)] {
            let out = lab.expect(&error(kind, code, 0, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
            assert_eq!((told(&out).0, told(&out).1), (1, 3), "address unreachable (RFC 2473 section 8.2)");
        }
        // What is shorter than any link takes is cut, and nobody is told.
        let short = lab.expect(&tcp("[2001:db8::1]:1001", WEB6).payload(&[7; 1200]).syn(), &["forwarded"]).remove(0);
        assert!(lab.expect(&error(2, 0, 1280, &short), &["tunnel_error"]).is_empty());
        lab.assert_no_leak();
    }

    fn families_are_translated(eal) {
        let mut lab = lab(eal);
        tunnel_to(&mut lab, (RIP, DIP), Gre { checksum: true });
        let wrapped = lab.expect(&tcp(A6, WEB6).syn(), &["forwarded"]).remove(0);
        let out = lab.expect(&error(3, 1, 0, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
        assert_eq!((told(&out).0, told(&out).1), (1, 3), "address unreachable");
        tunnel_to(&mut lab, (RIP6, DIP6), Gue { port: 6080, checksum: false });
        let wrapped = lab.expect(&tcp(A, WEB).payload(&[7; 1350]).syn(), &["forwarded"]).remove(0);
        let out = lab.expect(&error(2, 0, 1400, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
        assert_eq!((told(&out).0, told(&out).1, told(&out).2), (3, 4, 1400 - 40 - 12));
        let out = lab.expect(&error(3, 0, 0, &wrapped), &["tunnel_error", "ICMP"]).remove(0);
        assert_eq!((told(&out).0, told(&out).1), (3, 1), "host unreachable (RFC 2473 section 8.3)");
        lab.assert_no_leak();
    }

    fn clients_are_told_so_often_a_second(eal) {
        let mut lab = lab(eal);
        lab.settings(Settings { icmp_error_rate: 0, ..Settings::default() });
        tunnel_to(&mut lab, (RIP, DIP), IpIp);
        let wrapped = lab.expect(&tcp(A, WEB).payload(&[7; 1300]).syn(), &["forwarded"]).remove(0);
        assert!(lab.expect(&error(3, 4, 1300, &wrapped), &["tunnel_error"]).is_empty());
        lab.expect(&tcp(A, WEB).payload(&[7; 1300]).ack(), &["too_big"]);
        assert_eq!(lab.service_traffic(0).out_packets, 0);
        lab.assert_no_leak();
    }

    fn a_client_without_a_known_mac_is_told_with_its_next_packet(eal) {
        let mut lab = Lab::new(eal);
        tunnel_to(&mut lab, (RIP, DIP), IpIp);
        let wrapped = lab.expect(&tcp(A, WEB).payload(&[7; 1300]).syn(), &["forwarded"]).remove(0);
        assert!(lab.expect(&error(3, 4, 1300, &wrapped), &["tunnel_error"]).is_empty());
        lab.expect(&tcp(A, WEB).payload(&[7; 1300]).ack(), &["too_big", "ICMP"]);
        lab.assert_no_leak();
    }

    fn an_error_that_reaches_another_worker_is_told_by_the_connections_own(eal) {
        let mut several = Several::new(eal, 3);
        let stats = several.services(Settings::default(), &[(Tcp, 80, &[(21, Method::Tunnel, 80)])]);
        let sent = tcp(A, WEB).payload(&[7; 1300]).syn();
        let wrapped = several.send(1, &[sent], 1)[1].remove(0);
        let out = several.send(2, &[error(3, 4, 1300, &wrapped)], 4);
        assert_eq!((told(&out[1][0]).0, told(&out[1][0]).2, stats[0].sum().out_packets), (3, 1280, 1));
        let mut forged = wrapped;
        forged[14 + 20 + 15] ^= 1;
        assert!(several.send(0, &[error(3, 4, 1300, &forged)], 4).concat().is_empty(), "the kernel has it in the end");
        several.flow();
        several.assert_no_leak();
    }
}
