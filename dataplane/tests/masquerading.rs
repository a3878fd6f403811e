//! Masquerading: what the real server sees, what the client sees, and what is counted.
mod common;

use std::sync::Arc;

use common::frame::*;
use common::*;
use dataplane::address::Address;
use dataplane::command::Batch;
use dataplane::routes::{Network, PortRoutes, Routes};
use dataplane::service::{NextHop, Protocol::*, SchedulerKind::*};
use dpdk::eal_test;
use dpdk::net::checksum;

const CLIENT: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const RS: &str = "10.10.24.21:8080";
const CLIENT6: &str = "[2001:db8::1]:1000";
const WEB6: &str = "[fd00:10::88]:80";
const RS6: &str = "[fd00:10::21]:8080";
const ROUTER: [u8; 4] = [203, 0, 113, 9];

fn web(lab: &mut Lab) {
    for (id, vip) in [(0, VIP), (1, VIP6)] {
        lab.service(id, Tcp, vip, 80, RoundRobin, &[server(21).masquerading(8080)]);
        lab.service(id + 2, Udp, vip, 53, RoundRobin, &[server(21).masquerading(0)]);
    }
}

/// Types of SCTP chunks (RFC 9260 section 3.2).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// The frame as it leaves us for `mac`.
fn to(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame[6..12].copy_from_slice(&OUR_MAC);
    frame
}

/// The frame of an IPv4 packet that allows to be fragmented.
fn may_be_cut(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] &= !0x40;
    mended(frame)
}

/// The frame one router later.
fn one_hop_on(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12] == 8 {
        frame[22] -= 1;
        return mended(frame);
    }
    frame[21] -= 1;
    frame
}

/// Fragments from the real server that answer no connection, the first one last.
fn pieces_of_nothing() -> Vec<Vec<u8>> {
    let mut pieces = cut(&from_server(udp_of("10.10.24.21:99", CLIENT, &[1; 1000])), 77, &[400, 400]);
    pieces.reverse();
    pieces
}

/// The frame as a real server sends it.
fn from_server(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&server_mac(21));
    frame
}

eal_test! {
    fn the_real_server_is_spoken_to_and_the_vip_answers(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        for (client, web, rs, id) in [(CLIENT, WEB, RS, 0), (CLIENT6, WEB6, RS6, 1)] {
            let out = lab.expect(&tcp(client, web).payload(b"odd").syn(), &["forwarded"]);
            assert_eq!(out, [to(server_mac(21), tcp(client, rs).payload(b"odd").ttl(63).syn())]);
            let out = lab.expect(&from_server(tcp(rs, client).payload(b"answer").segment(SYN | ACK)), &["forwarded"]);
            assert_eq!(out, [to(ROUTER_MAC, tcp(web, client).payload(b"answer").ttl(63).segment(SYN | ACK))]);
            let sum = lab.service_traffic(id);
            let header = if id == 0 { 20 } else { 40 };
            assert_eq!((sum.connections, sum.in_packets, sum.out_packets), (1, 1, 1));
            assert_eq!((sum.in_bytes, sum.out_bytes), (header + 23, header + 26));
            assert_eq!(lab.server_stats(id, 21).sum(), sum);
        }
        lab.assert_no_leak();
    }

    fn datagrams_keep_their_port_where_the_real_server_has_none_of_its_own(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        for (client, dns, rs) in [(CLIENT, "10.10.24.88:53", "10.10.24.21:53"), (CLIENT6, "[fd00:10::88]:53", "[fd00:10::21]:53")] {
            assert_eq!(lab.send(&udp(client, dns)), [to(server_mac(21), one_hop_on(udp(client, rs)))]);
            assert_eq!(lab.send(&from_server(udp(rs, client))), [to(ROUTER_MAC, one_hop_on(udp(dns, client)))]);
        }
    }

    fn both_sides_move_the_state(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let (request, reply) = (tcp(CLIENT, WEB), tcp(RS, CLIENT));
        for (frame, state, left) in [
            (request.syn(), "SYN_RECV", 60),
            (reply.segment(SYN | ACK), "SYN_RECV", 60),
            (request.ack(), "ESTABLISHED", 900),
            (request.fin(), "CLOSE_WAIT", 60),
            (reply.ack(), "CLOSE_WAIT", 60),
            (reply.fin(), "TIME_WAIT", 120),
            (request.ack(), "TIME_WAIT", 120),
        ] {
            lab.expect(&frame, &["forwarded"]);
            let row = lab.connections()[0];
            assert_eq!((row.state, row.expires_in), (state, left * 100));
            assert_eq!((row.server.to_string(), row.virtual_address.to_string()), (RS.to_owned(), WEB.to_owned()));
        }
        assert_eq!((lab.active(0, 21), lab.inactive(0, 21)), (0, 1));
        lab.pass_seconds(121);
        assert_eq!((lab.connections().len(), lab.inactive(0, 21)), (0, 0));
        lab.expect(&reply.fin(), &["exception"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn both_sides_move_an_associations_state(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Sctp, VIP, 3868, RoundRobin, &[server(21).masquerading(3869)]);
        let (vip, rs) = ("10.10.24.88:3868", "10.10.24.21:3869");
        for (chunk, comes, state) in
            [(INIT, true, "INIT1"), (INIT_ACK, false, "C-SENT"), (COOKIE_ECHO, true, "C-REPLIED"), (COOKIE_ACK, false, "ESTABLISHED")]
        {
            let (sent, wanted) = if comes {
                (sctp(CLIENT, vip, chunk), sctp(CLIENT, rs, chunk))
            } else {
                (sctp(rs, CLIENT, chunk), sctp(vip, CLIENT, chunk))
            };
            let out = lab.expect(&sent, &["forwarded"]).remove(0);
            assert_eq!((&out[26..38], out[22]), (&wanted[26..38], sent[22] - 1), "addresses, ports and TTL");
            assert_ne!(out[42..46], sent[42..46], "the checksum follows the ports");
            assert_eq!(lab.connections()[0].state, state);
        }
        assert_eq!((lab.active(0, 21), lab.inactive(0, 21)), (1, 0));
    }

    fn what_answers_no_connection_is_the_kernels(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT, WEB).syn());
        for frame in [
            tcp("10.10.24.21:8081", CLIENT).ack(),
            tcp("10.10.24.22:8080", CLIENT).ack(),
            tcp(RS, "198.51.100.1:1001").ack(),
            tcp(RS, "198.51.100.2:1000").ack(),
            udp(RS, CLIENT),
        ] {
            lab.expect(&frame, &["exception"]);
            assert_eq!(lab.kernel(), [frame], "untouched");
        }
    }

    fn a_reply_that_cannot_go_on_is_the_kernels_to_tell_of(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT, WEB).syn());
        for frame in [tcp(RS, CLIENT).ttl(1).ack(), tcp(RS, CLIENT).payload(&[0; 1461]).ack()] {
            lab.expect(&frame, &["exception"]);
            assert_eq!(lab.kernel(), [frame], "untouched");
        }
        assert_eq!(lab.service_traffic(0).out_packets, 0);
    }

    fn what_may_be_fragmented_is_cut_to_the_link_both_ways(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let data: Vec<u8> = (0..251).cycle().take(1800).collect();
        let (dns, rs) = ("10.10.24.88:53", "10.10.24.21:53");
        let ways = [
            (may_be_cut(udp_of(CLIENT, dns, &data)), to(server_mac(21), one_hop_on(udp_of(CLIENT, rs, &data)))),
            (from_server(may_be_cut(udp_of(rs, CLIENT, &data))), to(ROUTER_MAC, one_hop_on(udp_of(dns, CLIENT, &data)))),
        ];
        for (sent, wanted) in ways {
            assert_eq!(lab.expect(&sent, &["forwarded", "FRAGMENTS"]), cut(&wanted, 0x1234, &[1480]));
            // A fragment itself is cut with the offset and the flag that it has.
            lab.send(&piece(&sent, 7, 0, true, &sent[34..434]));
            let out = lab.expect(&piece(&sent, 7, 400, true, &sent[34..1834]), &["forwarded", "FRAGMENTS"]);
            let pieces = [piece(&wanted, 7, 400, true, &sent[34..1514]), piece(&wanted, 7, 1880, true, &sent[1514..1834])];
            assert_eq!(out, pieces);
        }
        assert_eq!(lab.service_traffic(2).in_packets, 2, "pieces of our own are not counted");
        lab.assert_no_leak();
    }

    fn only_what_options_ask_for_is_in_later_pieces(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let plain = may_be_cut(udp_of(CLIENT, "10.10.24.88:53", &[7; 1800]));
        // Record route, and a router alert, which is for every fragment.
        let mut frame = [&plain[..34], &[7, 4, 4, 0, 148, 4, 0, 0], &plain[34..]].concat();
        frame[14] = 0x47;
        frame[16..18].copy_from_slice(&(28_u16 + 1808).to_be_bytes());
        let out = lab.expect(&mended(frame), &["forwarded", "FRAGMENTS"]);
        assert_eq!([&out[0][34..42], &out[1][34..42]], [[7, 4, 4, 0, 148, 4, 0, 0], [1, 1, 1, 1, 148, 4, 0, 0]]);
        assert!(out.iter().all(|f| checksum::internet(&f[14..42]) == 0 && f.len() <= 14 + 1500));
        assert_eq!(out[0].len() + out[1].len(), 2 * 42 + 1808);
        lab.assert_no_leak();
    }

    fn a_request_that_cannot_go_on_is_answered(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let out = lab.expect(&tcp(CLIENT, WEB).ttl(1).syn(), &["ttl_expired", "ICMP"]).remove(0);
        assert_eq!((&out[..6], &out[26..30], out[34], out[35]), (&ROUTER_MAC[..], &[10, 10, 24, 88][..], 11, 0));
        let out = lab.expect(&tcp(CLIENT, WEB).payload(&[0; 1461]).ack(), &["too_big", "ICMP"]).remove(0);
        assert_eq!((out[34], out[35], &out[40..42]), (3, 4, &MTU.to_be_bytes()[..]));
        assert_eq!(out[58..62], [10, 10, 24, 88], "what is quoted is what was sent");
    }

    fn replies_leave_by_the_gateway_and_to_clients_near_by_at_once(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let gateway = NextHop { port: 0, mac: [2, 0, 0, 0, 0, 77], mtu: MTU };
        let lan = Network { prefix: address("10.10.24.0"), mask: u128::MAX << 8, own: address(DIP) };
        let routes = Routes::new(vec![PortRoutes { networks: vec![lan], gateways: [Some(gateway), None], mtu: MTU }]);
        lab.apply(Batch { routes: Some(Arc::new(routes)), ..Batch::default() });
        for (client, mac) in [(CLIENT, gateway.mac), ("10.10.24.200:1000", ROUTER_MAC)] {
            lab.send(&tcp(client, WEB).syn());
            assert_eq!(lab.send(&from_server(tcp(RS, client).ack()))[0][..6], mac);
        }
        // Without a gateway for it, an IPv6 client is answered by whoever brings its packets, who may change.
        lab.send(&tcp(CLIENT6, WEB6).syn());
        let mut ack = tcp(CLIENT6, WEB6).ack();
        ack[11] = 99;
        lab.send(&ack);
        assert_eq!(lab.send(&from_server(tcp(RS6, CLIENT6).ack()))[0][..6], [2, 0, 0, 0, 0, 99]);
    }

    fn errors_about_replies_reach_the_real_server_with_its_own_addresses(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT, WEB).syn());
        let about = tcp(WEB, CLIENT).ack();
        let out = lab.expect(&fragmentation_needed(ROUTER, [10, 10, 24, 88], &about[14..], 1400), &["forwarded"]);
        // Inside, the address is the real server's, and the checksum of the quoted segment that of the VIP's.
        let mut inside = tcp(RS, CLIENT).ack();
        inside[50..52].copy_from_slice(&about[50..52]);
        let mut wanted = fragmentation_needed(ROUTER, [10, 10, 24, 21], &inside[14..], 1400);
        wanted[22] -= 1;
        assert_eq!(out, [to(server_mac(21), mended(wanted))]);
        assert_eq!(lab.service_traffic(0).in_packets, 2);
        let row = lab.connections()[0];
        assert_eq!((row.state, row.in_packets), ("SYN_RECV", 1), "an error moves nothing");
        let mut damaged = fragmentation_needed(ROUTER, [10, 10, 24, 88], &about[14..], 1400);
        damaged[36] ^= 1;
        lab.expect(&damaged, &["bad_checksum"]);
    }

    fn errors_about_requests_reach_the_client_as_the_vips(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT, WEB).syn());
        let about = tcp(CLIENT, RS).syn();
        let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
        error.extend(&about[14..42]);
        let sum = checksum::internet(&error);
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        // From the real server or from a router before it: the client knows neither.
        for sender in [[10, 10, 24, 21], ROUTER] {
            let out = lab.expect(&icmp_v4(sender, [198, 51, 100, 1], &error), &["forwarded"]).remove(0);
            assert_eq!((&out[..6], &out[26..34]), (&ROUTER_MAC[..], &[10, 10, 24, 88, 198, 51, 100, 1][..]));
            assert_eq!((checksum::internet(&out[14..34]), checksum::internet(&out[34..])), (0, 0));
            assert_eq!((&out[54..62], &out[62..66]), (&[198, 51, 100, 1, 10, 10, 24, 88][..], &tcp(CLIENT, WEB).syn()[34..38]));
            assert_eq!(checksum::internet(&out[42..62]), 0, "the quoted header's checksum");
        }
        assert_eq!(lab.service_traffic(0).out_packets, 2);
    }

    fn errors_are_translated_in_ipv6_too(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT6, WEB6).syn());
        let too_big = |quoted: &[u8]| [&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[14..62]].concat();
        let about = tcp(WEB6, CLIENT6).ack();
        let out = lab.expect(&icmpv6(OUR_MAC, "2001:db8:f::1", VIP6, 50, too_big(&about)), &["forwarded"]);
        let wanted = icmpv6(server_mac(21), "2001:db8:f::1", "fd00:10::21", 49, too_big(&tcp(RS6, CLIENT6).ack()));
        assert_eq!(out, [to(server_mac(21), wanted)]);
        let about = tcp(CLIENT6, RS6).ack();
        let out = lab.expect(&icmpv6(OUR_MAC, "fd00:10::21", "2001:db8::1", 64, too_big(&about)), &["forwarded"]);
        let wanted = icmpv6(ROUTER_MAC, VIP6, "2001:db8::1", 63, too_big(&tcp(CLIENT6, WEB6).ack()));
        assert_eq!(out, [to(ROUTER_MAC, wanted)]);
    }

    fn an_error_about_no_connection_changes_nothing(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT, WEB).syn());
        let of = |quoted: Vec<u8>, to| fragmentation_needed(ROUTER, to, &quoted[14..], 1400);
        let vip = [10, 10, 24, 88];
        lab.expect(&of(tcp(WEB, "198.51.100.1:1001").ack(), vip), &["unrelated_icmp_error"]);
        lab.expect(&of(tcp("10.10.24.88:22", CLIENT).ack(), vip), &["exception"]);
        lab.expect(&of(tcp("198.51.100.1:1001", RS).ack(), [198, 51, 100, 1]), &["exception"]);
        // Who did not send the quoted packet is not told about it.
        lab.expect(&of(tcp(WEB, CLIENT).ack(), [10, 10, 24, 10]), &["exception"]);
        assert_eq!((lab.connections().len(), lab.service_traffic(0).in_packets), (1, 1));
    }

    fn replies_of_a_removed_real_server_are_translated_but_not_counted(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        lab.send(&tcp(CLIENT, WEB).syn());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).masquerading(8080).removed()]);
        lab.expect(&tcp(CLIENT, WEB).ack(), &["real_server_removed"]);
        let out = lab.expect(&from_server(tcp(RS, CLIENT).ack()), &["forwarded"]);
        assert_eq!(out, [to(ROUTER_MAC, tcp(WEB, CLIENT).ttl(63).ack())]);
        assert_eq!(lab.service_traffic(0).out_packets, 0);
    }

    fn a_udp_datagram_without_a_checksum_gets_one(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let without = |from, to| {
            let mut frame = udp(from, to);
            frame[40..42].fill(0);
            frame
        };
        let (dns, rs) = ("10.10.24.88:53", "10.10.24.21:53");
        assert_eq!(lab.send(&without(CLIENT, dns)), [to(server_mac(21), one_hop_on(udp(CLIENT, rs)))]);
        assert_eq!(lab.send(&from_server(without(rs, CLIENT))), [to(ROUTER_MAC, one_hop_on(udp(dns, CLIENT)))]);
    }

    fn every_fragment_of_a_request_reaches_the_real_server(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let whole = udp_of(CLIENT, "10.10.24.88:53", &[7; 56]);
        let piece = |flags: [u8; 2], data: &[u8]| {
            let mut frame = [&whole[..34], data].concat();
            frame[16..18].copy_from_slice(&52_u16.to_be_bytes());
            frame[20..22].copy_from_slice(&flags);
            mended(frame)
        };
        let (first, later) = (piece([0x20, 0], &whole[34..66]), piece([0, 4], &whole[66..]));
        let out = [lab.expect(&first, &["forwarded"]), lab.expect(&later, &["forwarded"])].concat();
        assert!(out.iter().all(|f| f[..6] == server_mac(21) && f[30..34] == [10, 10, 24, 21] && checksum::internet(&f[14..34]) == 0));
        let datagram = [&out[0][34..], &out[1][34..]].concat();
        let pseudo = checksum::pseudo_v4([198, 51, 100, 1], [10, 10, 24, 21], 17, 64);
        assert_eq!(checksum::segment(pseudo, &datagram), 0, "put together, the datagram is right");
    }

    fn every_fragment_of_an_answer_comes_from_the_vip_in_any_order(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let pairs = [(CLIENT, "10.10.24.88:53", "10.10.24.21:53", 2), (CLIENT6, "[fd00:10::88]:53", "[fd00:10::21]:53", 3)];
        for (client, dns, rs, id) in pairs {
            lab.send(&udp(client, dns));
            let data: Vec<u8> = (0..251).cycle().take(1000).collect();
            let (sent, wanted) = (from_server(udp_of(rs, client, &data)), udp_of(dns, client, &data));
            for (ident, order) in (0..).zip([[0, 1, 2], [2, 0, 1], [1, 2, 0]]) {
                let pieces = cut(&sent, ident, &[400, 400]);
                let mut out: Vec<_> = order.iter().flat_map(|i| lab.send(&pieces[*i])).collect();
                let mut wanted: Vec<_> = cut(&wanted, ident, &[400, 400]).into_iter().map(|f| to(ROUTER_MAC, one_hop_on(f))).collect();
                out.sort();
                wanted.sort();
                assert_eq!(out, wanted);
            }
            let sum = lab.service_traffic(id);
            assert_eq!((sum.out_packets, lab.server_stats(id, 21).sum()), (3, sum));
        }
        let mut stray = pieces_of_nothing();
        for frame in &stray {
            assert!(lab.send(frame).is_empty());
        }
        let mut got = lab.kernel();
        got.sort();
        stray.sort();
        assert_eq!(got, stray, "what answers no connection is the kernel's, untouched");
        lab.assert_no_leak();
    }

    fn fragments_of_others_are_the_kernels_at_once(eal) {
        let mut lab = Lab::new(eal);
        web(&mut lab);
        let pieces = cut(&udp_of("10.10.24.99:53", CLIENT, &[1; 1000]), 1, &[400, 400]);
        lab.expect(&pieces[2], &["exception"]);
        lab.expect(&pieces[0], &["exception"]);
    }

    fn methods_are_mixed_in_one_service(eal) {
        let mut lab = Lab::new(eal);
        let servers = [server(21).masquerading(8080), server(22), server(23).tunnel("192.0.2.7", DIP)];
        lab.service(0, Tcp, VIP, 80, RoundRobin, &servers);
        let mut kinds: Vec<_> = (1..=3).map(|n| lab.send(&tcp(&format!("198.51.100.{n}:1000"), WEB).syn()).remove(0)).collect();
        kinds.sort_by_key(|frame| frame[5]);
        let destinations: Vec<Address> =
            kinds.iter().map(|f| Address::v4(u32::from_be_bytes(*f[30..].first_chunk().unwrap()))).collect();
        assert_eq!(destinations, ["10.10.24.21", VIP, "192.0.2.7"].map(address));
    }
}
