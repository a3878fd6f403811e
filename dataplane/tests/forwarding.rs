//! What a worker does with the frames of connections, byte for byte and counter for counter.
mod common;

use common::frame::{self, tcp, udp};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dataplane::settings::{Settings, Ttl};
use dpdk::eal_test;

const A: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";

fn two_servers(lab: &mut Lab) {
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
}

eal_test! {
    fn direct_routing_changes_twelve_bytes_and_no_other(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let sent = tcp(A, WEB).syn();
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        assert_eq!(out.len(), sent.len());
        assert_eq!(out[12..], sent[12..], "the IP packet is untouched");
        assert_eq!(out[..6], server_mac(22), "the server added last comes first");
        assert_eq!(out[6..12], OUR_MAC);
        lab.assert_no_leak();
    }

    fn whole_bursts_of_open_connections_go_where_their_first_packets_went(eal) {
        let mut lab = Lab::new(eal);
        // Few real servers, and then places beyond those of few.
        for first in [0, 40] {
            lab.service(first, Tcp, VIP, 80, RoundRobin, &[server(21), server(22), server(23)]);
            lab.service(first + 1, Udp, VIP, 53, RoundRobin, &[server(31), server(32)]);
            let kinds: [fn(usize) -> bool; 5] = [|_| true, |_| false, |n| n % 2 == 0, |n| n != 40, |n| n % 9 == 8];
            for (round, is_tcp) in kinds.into_iter().enumerate() {
                let (mut frames, mut went) = (Vec::new(), Vec::new());
                for n in 0..64 {
                    let client = format!("198.51.{}.1:{}", 100 + round, 1000 + n);
                    let frame = if is_tcp(n) {
                        lab.send(&tcp(&client, WEB).syn());
                        tcp(&client, WEB).ack()
                    } else {
                        udp(&client, "10.10.24.88:53")
                    };
                    went.push(lab.forwarded_to(&frame));
                    frames.push(frame);
                }
                assert!(went.iter().collect::<std::collections::HashSet<_>>().len() >= 2);
                let out = lab.burst(&frames);
                assert_eq!(out.iter().map(|frame| frame[5]).collect::<Vec<_>>(), went, "kinds {round}");
                assert!(out.iter().zip(&frames).all(|(out, sent)| out[12..] == sent[12..]), "in the order they came in");
            }
            lab.flush(None);
        }
        lab.assert_no_leak();
    }

    fn decremented_ttl_keeps_a_right_checksum_and_everything_else(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        lab.settings(Settings { ttl: Ttl::Decrement, ..Settings::default() });
        for port in 1001..3000 {
            let sent = tcp(&format!("198.51.100.1:{port}"), WEB).ttl(u8::try_from(port % 254).unwrap_or_default() + 2).syn();
            let out = lab.send(&sent).remove(0);
            assert_eq!(out[22], sent[22] - 1);
            assert_eq!(dpdk::net::checksum::internet(&out[14..34]), 0, "checksum of port {port}");
            assert_eq!((&out[12..22], &out[26..]), (&sent[12..22], &sent[26..]));
            // Room for the next: the connections are not what is tested.
            if port % 200 == 0 { lab.pass_seconds(70); }
        }
    }

    fn time_exceeded_is_told_to_the_client(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        lab.settings(Settings { ttl: Ttl::Decrement, ..Settings::default() });
        let sent = tcp(A, WEB).ttl(1).syn();
        let out = lab.expect(&sent, &["ttl_expired", "ICMP"]).remove(0);
        assert_eq!(out[..6], ROUTER_MAC, "back to the MAC it came from");
        assert_eq!((out[23], out[34], out[35]), (1, 11, 0), "ICMP time exceeded");
        assert_eq!((&out[26..30], &out[30..34]), (&sent[30..34], &sent[26..30]), "from the VIP to the client");
        assert_eq!(out[42..], sent[14..], "quotes the packet as it came");
        assert_eq!((dpdk::net::checksum::internet(&out[14..34]), dpdk::net::checksum::internet(&out[34..])), (0, 0));
        lab.assert_no_leak();
    }

    fn frames_of_a_connection_are_treated_in_the_order_they_came_in(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        lab.settings(Settings { conn_reuse_mode: 3, ..Settings::default() });
        let (flow, other) = (tcp(A, WEB), tcp("198.51.100.1:2000", WEB));
        for frame in [flow.syn(), flow.ack(), other.syn(), other.ack()] {
            lab.send(&frame);
        }
        // The second SYN begins a new connection, on the next real server: what comes behind it in the same burst belongs to that one.
        let out = lab.burst(&[flow.ack(), flow.fin(), other.ack(), flow.syn(), flow.ack(), other.ack(), flow.ack()]);
        assert_eq!(out.iter().map(|frame| frame[5]).collect::<Vec<_>>(), [22, 22, 21, 22, 22, 21, 22]);
        let out = lab.burst(&[flow.fin(), other.ack(), other.rst(), flow.syn(), other.ack(), flow.ack()]);
        assert_eq!(out.iter().map(|frame| frame[5]).collect::<Vec<_>>(), [22, 21, 21, 21, 21, 21]);
        assert_eq!((lab.active(0, 21), lab.inactive(0, 21), lab.active(0, 22)), (1, 1, 0));
        lab.assert_no_leak();
    }

    fn a_connection_keeps_its_real_server_when_weights_change(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB);
        let first = lab.forwarded_to(&flow.syn());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).weight(9), server(22).weight(0)]);
        for _ in 0..10 {
            assert_eq!(lab.forwarded_to(&flow.ack()), first);
        }
    }

    fn quiescent_server_gets_no_new_connection(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).weight(0), server(22)]);
        for port in 1000..1100 {
            assert_eq!(lab.forwarded_to(&tcp(&format!("198.51.100.1:{port}"), WEB).syn()), 22);
        }
    }

    fn source_port_20_is_never_scheduled(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        lab.expect(&tcp("198.51.100.1:20", WEB).syn(), &["exception"]);
        assert_eq!(lab.kernel().len(), 1);
    }

    fn frames_of_one_burst_are_one_connection(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB);
        let out = lab.burst(&[flow.syn(), flow.ack(), flow.segment(frame::ACK | frame::PSH), flow.ack()]);
        assert_eq!(out.len(), 4);
        assert!(out.iter().all(|f| f[..6] == out[0][..6]), "all to one real server");
        let rows = lab.connections();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].state, rows[0].in_packets), ("ESTABLISHED", 4));
        assert_eq!((lab.active(0, 22), lab.inactive(0, 22)), (1, 0));
    }

    fn an_ended_connection_is_scheduled_anew_within_one_burst(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB);
        assert_eq!(lab.forwarded_to(&flow.syn()), 22);
        assert_eq!(lab.forwarded_to(&flow.rst()), 22, "an RST in SYN_RECV does not close");
        lab.forwarded_to(&flow.ack());
        lab.forwarded_to(&flow.rst());
        assert_eq!(lab.connections()[0].state, "CLOSE");
        let out = lab.burst(&[flow.syn(), flow.ack(), flow.ack()]);
        assert!(out.iter().all(|f| f[5] == 21), "the next real server, for all three");
        assert_eq!(lab.connections().len(), 1);
        assert_eq!((lab.active(0, 22), lab.inactive(0, 22), lab.active(0, 21), lab.inactive(0, 21)), (0, 0, 1, 0));
    }

    fn only_a_syn_opens_a_connection_unless_sloppy(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        lab.expect(&tcp(A, WEB).ack(), &["exception"]);
        lab.expect(&tcp(A, WEB).rst(), &["exception"]);
        lab.settings(Settings { sloppy_tcp: true, ..Settings::default() });
        lab.expect(&tcp(A, WEB).rst(), &["exception"]);
        lab.expect(&tcp(A, WEB).ack(), &["forwarded"]);
        assert_eq!(lab.connections()[0].state, "ESTABLISHED");
        assert_eq!(lab.kernel().len(), 3);
    }

    fn no_real_server_is_told_as_port_unreachable_at_a_limited_rate(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, WeightedLeastConnections, &[]);
        let sent = tcp(A, WEB).syn();
        let out = lab.expect(&sent, &["no_real_server", "ICMP"]).remove(0);
        assert_eq!((out[34], out[35]), (3, 3));
        assert_eq!(&out[26..30], [10, 10, 24, 88]);
        lab.settings(Settings { icmp_error_rate: 0, ..Settings::default() });
        lab.expect(&sent, &["no_real_server"]);
        assert!(lab.connections().is_empty());
        lab.assert_no_leak();
    }

    fn removed_server_drops_its_packets_and_takes_them_back_when_added_again(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB);
        assert_eq!(lab.forwarded_to(&flow.syn()), 22);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).removed()]);
        lab.expect(&flow.ack(), &["real_server_removed"]);
        assert_eq!(lab.connections().len(), 1, "the entry stays");
        two_servers(&mut lab);
        assert_eq!(lab.forwarded_to(&flow.ack()), 22);
        lab.settings(Settings { expire_nodest_conn: true, ..Settings::default() });
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).removed()]);
        lab.expect(&flow.ack(), &["exception"]);
        assert!(lab.connections().is_empty(), "ended at once; an ACK opens nothing");
        assert_eq!(lab.forwarded_to(&flow.syn()), 21);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn server_without_mac_is_not_scheduled_and_gets_nothing(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).mac(None)]);
        for port in 1..19 {
            assert_eq!(lab.forwarded_to(&tcp(&format!("198.51.100.2:{port}"), WEB).syn()), 21);
        }
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).mac(None)]);
        lab.expect(&tcp("198.51.100.2:1", WEB).ack(), &["no_next_hop"]);
        lab.expect(&tcp("198.51.100.3:1", WEB).syn(), &["no_real_server", "ICMP"]);
    }

    fn a_frame_never_goes_back_to_our_own_mac(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).mac(Some(OUR_MAC))]);
        assert!(lab.expect(&tcp(A, WEB).syn(), &["would_loop"]).is_empty());
    }

    fn udp_entries_last_five_minutes_and_count_as_inactive(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Udp, VIP, 53, RoundRobin, &[server(21), server(22)]);
        let ask = udp("198.51.100.9:5353", "10.10.24.88:53");
        let first = lab.forwarded_to(&ask);
        assert_eq!(lab.forwarded_to(&ask), first, "remembered");
        assert_eq!((lab.active(0, first), lab.inactive(0, first)), (0, 1));
        let row = lab.connections()[0];
        assert_eq!((row.state, row.expires_in), ("UDP", 300 * 100));
        lab.pass_seconds(299);
        assert_eq!(lab.connections().len(), 1);
        lab.pass_seconds(2);
        assert!(lab.connections().is_empty());
        assert_eq!(lab.inactive(0, first), 0);
        assert_ne!(lab.forwarded_to(&ask), first, "scheduled anew");
    }

    fn one_packet_scheduling_spreads_every_datagram_and_remembers_none(eal) {
        let mut lab = Lab::new(eal);
        lab.put_service(0, Udp, VIP, 53, RoundRobin, &[server(21), server(22)], true);
        let ask = udp("198.51.100.9:5353", "10.10.24.88:53");
        let went: Vec<u8> = (0..6).map(|_| lab.forwarded_to(&ask)).collect();
        assert_eq!(went, [22, 21, 22, 21, 22, 21]);
        assert!(lab.connections().is_empty());
        assert_eq!(lab.server_stats(0, 21).sum().connections, 3);
    }

    fn tcp_states_follow_the_clients_packets_alone(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB);
        for (segment, state, seconds) in [
            (flow.syn(), "SYN_RECV", 60), (flow.ack(), "ESTABLISHED", 900), (flow.fin(), "FIN_WAIT", 120),
            (flow.ack(), "FIN_WAIT", 120), (flow.rst(), "CLOSE", 10),
        ] {
            lab.send(&segment);
            let row = lab.connections()[0];
            assert_eq!((row.state, row.expires_in), (state, seconds * 100));
        }
        lab.pass_seconds(11);
        assert!(lab.connections().is_empty());
        assert_eq!((lab.active(0, 22), lab.inactive(0, 22)), (0, 0));
    }

    fn ipv6_is_forwarded_like_ipv4(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP6, 80, RoundRobin, &[server(21), server(22)]);
        let flow = tcp("[2001:db8::1]:1000", "[fd00:10::88]:80");
        let sent = flow.syn();
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        assert_eq!(out[12..], sent[12..]);
        lab.settings(Settings { ttl: Ttl::Decrement, ..Settings::default() });
        let out = lab.expect(&flow.ack(), &["forwarded"]).remove(0);
        assert_eq!(out[21], 63);
        let out = lab.expect(&flow.clone().ttl(1).ack(), &["ttl_expired", "ICMP"]).remove(0);
        assert_eq!((out[54], out[55]), (3, 0), "hop limit exceeded");
        let pseudo = dpdk::net::checksum::pseudo_v6(out[22..38].try_into().unwrap(), out[38..54].try_into().unwrap(), 58, 68);
        assert_eq!(dpdk::net::checksum::segment(pseudo, &out[54..]), 0);
    }

    fn too_long_for_the_link_is_told_when_it_must_not_be_fragmented(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB);
        lab.forwarded_to(&flow.syn());
        let big = flow.clone().payload(&[7; 1500]);
        let out = lab.expect(&big.ack(), &["too_big", "ICMP"]).remove(0);
        assert_eq!((out[34], out[35], u16::from_be_bytes([out[40], out[41]])), (3, 4, MTU));
        assert_eq!(out.len(), 14 + 576, "an error is at most 576 bytes long");
        lab.expect(&big.may_be_fragmented().ack(), &["too_big"]);
    }

    fn icmp_errors_reach_the_real_server_of_the_connection_they_are_about(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let went = lab.forwarded_to(&tcp(A, WEB).syn());
        let about = tcp(WEB, A).ack();
        let error = frame::fragmentation_needed([203, 0, 113, 9], [10, 10, 24, 88], &about[14..], 1400);
        let out = lab.expect(&error, &["forwarded"]).remove(0);
        assert_eq!(out[5], went);
        assert_eq!(out[12..], error[12..]);
        let forged = tcp(WEB, "198.51.100.7:1000").ack();
        let error = frame::fragmentation_needed([203, 0, 113, 9], [10, 10, 24, 88], &forged[14..], 1400);
        lab.expect(&error, &["unrelated_icmp_error"]);
        assert_eq!(lab.connections()[0].in_packets, 1, "the entry is as it was");
    }

    fn stats_count_connections_packets_and_bytes_of_the_client(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        let flow = tcp(A, WEB).payload(&[0; 60]);
        lab.send(&flow.syn());
        lab.send(&flow.ack());
        let sum = lab.server_stats(0, 22).sum();
        assert_eq!((sum.connections, sum.in_packets, sum.in_bytes, sum.out_packets, sum.out_bytes), (1, 2, 200, 0, 0));
    }

    fn connections_are_listed_and_flushed_by_filter(eal) {
        use dataplane::command::{Command, ConnectionFilter, Flush, Reply};
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21)]);
        for n in 0..200 {
            lab.send(&tcp(&format!("198.51.100.1:{}", 1000 + n), WEB).syn());
        }
        lab.send(&udp("198.51.100.1:999", "10.10.24.88:53"));
        assert_eq!(lab.connections().len(), 201, "over several pages");
        let filter = ConnectionFilter { protocol: Some(Tcp), server: Some(address("10.10.24.21")), ..ConnectionFilter::default() };
        lab.control.send(Command::Flush(Box::new(Flush { filter, removed: 0 }))).unwrap();
        let removed = loop {
            lab.worker.turn(lab.now);
            if let Some(Reply::Flushed(flush)) = lab.control.receive() { break flush.removed; }
        };
        assert_eq!(removed, 100);
        assert_eq!(lab.connections().len(), 101);
        assert_eq!((lab.active(0, 21), lab.active(0, 22)), (0, 100));
    }

    fn kernels_frames_leave_as_they_are(eal) {
        let mut lab = Lab::new(eal);
        lab.from_kernel(&frame::echo_request([10, 10, 24, 10], [10, 10, 24, 1]));
        let out = lab.burst(&[]);
        assert_eq!(out, [frame::echo_request([10, 10, 24, 10], [10, 10, 24, 1])]);
        assert_eq!((lab.counters()["INJECTED"], lab.counters()["SENT"]), (1, 1));
        lab.assert_no_leak();
    }

    fn frames_that_the_port_does_not_take_are_counted_and_freed(eal) {
        let mut lab = Lab::new(eal);
        two_servers(&mut lab);
        // The ring behind the port holds 1024 frames and nobody reads it.
        for round in 0..20 {
            lab.feed(&(0..64).map(|n| tcp(&format!("198.51.{round}.{}:1000", n + 1), WEB).syn()).collect::<Vec<_>>());
        }
        let counters = lab.counters();
        assert_eq!(counters["RECEIVED"], 1280);
        assert_eq!((counters["forwarded"], counters["tx_full"]), (1024, 256));
        lab.assert_no_frame_unaccounted();
    }
}
