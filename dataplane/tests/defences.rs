//! `drop_entry`, `drop_packet`, `secure_tcp` and `expire_nodest_conn`, and what clients are told whom no real server takes.
mod common;

use common::frame::{self, tcp, udp};
use common::*;
use dataplane::service::{NoRealServer, Persistence};
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dataplane::settings::{Mode, Settings, Timeouts};
use dpdk::eal_test;
use dpdk::net::checksum;

const WEB: &str = "10.10.24.88:80";
const DNS: &str = "10.10.24.88:53";

fn lab(eal: dpdk::eal::Eal) -> Lab {
    let mut lab = Lab::new(eal);
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
    lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21)]);
    lab
}

fn client(n: usize) -> String {
    format!("198.51.100.{}:{}", n % 250 + 1, 1000 + n)
}

/// Seconds pass in which the worker turns often enough for whatever it has to look at.
fn pass(lab: &mut Lab, seconds: u32) {
    for _ in 0..seconds {
        lab.pass_seconds(1);
        (0..100).for_each(|_| {
            lab.worker.turn(lab.now);
        });
    }
}

eal_test! {
    fn drop_packet_gives_up_every_tenth_new_connection_and_no_known_one(eal) {
        let mut lab = lab(eal);
        let known = tcp("203.0.113.1:1", WEB);
        lab.forwarded_to(&known.syn());
        lab.settings(Settings { drop_packet: Mode::Always, ..Settings::default() });
        let dropped: Vec<usize> = (0..30).filter(|n| lab.send(&tcp(&client(*n), WEB).syn()).is_empty()).collect();
        assert_eq!(dropped, [0, 10, 20]);
        assert_eq!(lab.counters()["drop_packet"], 3);
        for _ in 0..30 {
            lab.expect(&known.ack(), &["forwarded"]);
        }
        lab.settings(Settings { drop_packet: Mode::Always, am_droprate: 2, ..Settings::default() });
        let dropped = (0..10).filter(|n| lab.send(&udp(&client(*n), DNS)).is_empty()).count();
        assert_eq!(dropped, 5, "UDP as well");
        lab.settings(Settings::default());
        for n in 100..120 {
            lab.expect(&tcp(&client(n), WEB).syn(), &["forwarded"]);
        }
        assert_eq!(lab.control.report().defences.get(), 0);
    }

    fn automatic_drop_packet_waits_for_a_table_nine_tenths_full(eal) {
        let mut lab = lab(eal);
        lab.settings(Settings { drop_packet: Mode::Automatic, ..Settings::default() });
        for n in 0..900 {
            let flow = tcp(&client(n), WEB);
            lab.forwarded_to(&flow.syn());
            lab.forwarded_to(&flow.ack());
        }
        pass(&mut lab, 2);
        assert_eq!(lab.control.report().defences.get(), 0, "124 of 1024 places are free, wanted are 102");
        for n in 900..973 {
            let flow = tcp(&client(n), WEB);
            lab.send(&flow.syn());
            lab.send(&flow.ack());
        }
        pass(&mut lab, 1);
        assert_eq!(lab.control.report().defences.get(), 2);
        // 51 free, 51 of 102 missing: every second one.
        let dropped = (0..10).filter(|n| lab.send(&tcp(&format!("203.0.113.1:{}", 1 + n), WEB).syn()).is_empty()).count();
        assert_eq!(dropped, 5);
        lab.flush(Some("198.51.100.1"));
        lab.flush(None);
        pass(&mut lab, 1);
        assert_eq!(lab.control.report().defences.get(), 0);
    }

    fn drop_entry_ends_half_open_and_idle_entries_and_spares_busy_ones(eal) {
        let mut lab = lab(eal);
        let busy = tcp("203.0.113.1:1", WEB);
        lab.forwarded_to(&busy.syn());
        (0..20).for_each(|_| { lab.forwarded_to(&busy.ack()); });
        let ended = tcp("203.0.113.2:1", WEB);
        for segment in [ended.syn(), ended.ack(), ended.fin()] {
            lab.forwarded_to(&segment);
        }
        for n in 0..200 {
            lab.forwarded_to(&tcp(&client(n), WEB).syn());
        }
        lab.settings(Settings { drop_entry: Mode::Always, ..Settings::default() });
        assert_eq!(lab.control.report().defences.get(), 1);
        pass(&mut lab, 5);
        let left = lab.connections().len() - 2;
        assert!((130..195).contains(&left), "a thirty-second part a second of 200, for 5 s: {left}");
        assert_eq!(lab.control.report().dropped_entries.get(), 200 - left as u64);
        assert_eq!(lab.active(0, 21) + lab.active(0, 22), u32::try_from(left).unwrap() + 1);
        let states: Vec<_> = lab.connections().iter().filter(|row| row.client.port() == 1).map(|row| row.state).collect();
        assert!(states.contains(&"ESTABLISHED") && states.contains(&"FIN_WAIT"), "{states:?}");
        lab.assert_no_leak();
    }

    fn drop_entry_ends_datagrams_idle_for_a_minute(eal) {
        let mut lab = lab(eal);
        for n in 0..100 {
            lab.forwarded_to(&udp(&client(n), DNS));
        }
        lab.settings(Settings { drop_entry: Mode::Always, ..Settings::default() });
        pass(&mut lab, 58);
        assert_eq!(lab.connections().len(), 100, "a packet within the last minute");
        pass(&mut lab, 60);
        let left = lab.connections().len();
        assert!(left < 60, "{left} left");
    }

    fn drop_entry_ends_unassured_templates_without_connections(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 10_000, mask: u128::MAX });
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        for n in 0..100 {
            lab.forwarded_to(&tcp(&client(n), WEB).syn());
        }
        let flow = tcp("203.0.113.1:1", WEB);
        for segment in [flow.syn(), flow.ack()] {
            lab.forwarded_to(&segment);
        }
        assert_eq!(lab.persistent(0, 21), 101);
        lab.settings(Settings { drop_entry: Mode::Always, ..Settings::default() });
        pass(&mut lab, 300);
        assert_eq!(lab.persistent(0, 21), 1, "that of the established connection");
    }

    fn secure_tcp_waits_in_synack_and_follows_its_own_table(eal) {
        let mut lab = lab(eal);
        lab.settings(Settings { secure_tcp: Mode::Always, ..Settings::default() });
        let flow = tcp("198.51.100.1:1000", WEB);
        let steps = [
            (flow.syn(), "SYNACK", 120), (flow.syn(), "SYNACK", 120), (flow.ack(), "ESTABLISHED", 900), (flow.fin(), "FIN_WAIT", 120),
            (flow.rst(), "CLOSE", 10),
        ];
        for (segment, state, seconds) in steps {
            lab.send(&segment);
            let row = lab.connections()[0];
            assert_eq!((row.state, row.expires_in), (state, seconds * 100));
        }
        assert_eq!(lab.control.report().defences.get(), 4);
        lab.settings(Settings::default());
        let other = tcp("198.51.100.2:1000", WEB);
        lab.send(&other.syn());
        assert!(lab.connections().iter().any(|row| row.state == "SYN_RECV"));
    }

    fn automatic_secure_tcp_comes_and_goes_with_the_free_places(eal) {
        let mut lab = lab(eal);
        lab.settings(Settings { secure_tcp: Mode::Automatic, amemthresh: 100, ..Settings::default() });
        lab.forwarded_to(&tcp(&client(0), WEB).syn());
        assert_eq!(lab.connections()[0].state, "SYN_RECV", "the table was empty");
        pass(&mut lab, 1);
        lab.forwarded_to(&tcp(&client(1), WEB).syn());
        assert_eq!(lab.connections().iter().filter(|row| row.state == "SYNACK").count(), 1, "one of 1024 places is taken");
        pass(&mut lab, 121);
        lab.forwarded_to(&tcp(&client(2), WEB).syn());
        assert_eq!(lab.connections().iter().map(|row| row.state).collect::<Vec<_>>(), ["SYN_RECV"]);
    }

    fn expire_nodest_conn_ends_the_connections_of_a_removed_server_at_once(eal) {
        let mut lab = lab(eal);
        for n in 0..250 {
            lab.forwarded_to(&tcp(&client(n), WEB).syn());
        }
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).removed()]);
        pass(&mut lab, 1);
        assert_eq!(lab.connections().len(), 250, "kept for its return");
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
        lab.settings(Settings { expire_nodest_conn: true, ..Settings::default() });
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).removed()]);
        pass(&mut lab, 1);
        assert_eq!((lab.connections().len(), lab.active(0, 21), lab.active(0, 22)), (125, 125, 0));
    }

    fn expire_nodest_conn_ends_templates_of_a_removed_server_too(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 300, mask: u128::MAX });
        lab.settings(Settings { expire_nodest_conn: true, ..Settings::default() });
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
        for n in 0..20 {
            lab.forwarded_to(&tcp(&client(n), WEB).syn());
        }
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).removed()]);
        pass(&mut lab, 1);
        assert_eq!((lab.persistent(0, 21), lab.persistent(0, 22), lab.active(0, 22)), (10, 0, 0));
    }

    fn expire_nodest_conn_takes_a_syn_from_a_quiescent_server_whatever_the_reuse_mode(eal) {
        let mut lab = lab(eal);
        for (mode, port) in [(0, 1000), (1, 1001)] {
            lab.settings(Settings { expire_nodest_conn: true, conn_reuse_mode: mode, ..Settings::default() });
            lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
            let flow = tcp(&format!("198.51.100.1:{port}"), WEB);
            let first = lab.forwarded_to(&flow.syn());
            let other = if first == 21 { 22 } else { 21 };
            lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(first).weight(0), server(other)]);
            assert_eq!(lab.forwarded_to(&flow.ack()), first, "known connections go on");
            assert_eq!(lab.forwarded_to(&flow.syn()), other);
        }
    }

    fn conn_reuse_mode_says_when_a_syn_is_scheduled_anew(eal) {
        let mut lab = lab(eal);
        // Mode, what the client sent before its second SYN, whether that goes to another real server.
        let mut port = 1000;
        for (mode, ends, anew) in [(0, "rst", false), (1, "rst", true), (1, "fin", false), (2, "fin", true), (3, "fin", true), (2, "rst", true), (0, "fin", false)] {
            lab.settings(Settings { conn_reuse_mode: mode, ..Settings::default() });
            port += 1;
            let flow = tcp(&format!("198.51.100.1:{port}"), WEB);
            let first = lab.forwarded_to(&flow.syn());
            lab.forwarded_to(&flow.ack());
            lab.forwarded_to(&if ends == "rst" { flow.rst() } else { flow.fin() });
            assert_eq!(lab.forwarded_to(&flow.syn()) != first, anew, "conn_reuse_mode {mode}, SYN after {ends}");
        }
    }

    fn a_services_own_timeouts_count_for_its_connections_alone(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        lab.timeouts = Some(Timeouts { tcp: 5, tcp_fin: 3, udp: 2 });
        lab.service(1, Tcp, VIP, 443, RoundRobin, &[server(22)]);
        lab.service(2, Udp, VIP, 53, RoundRobin, &[server(23)]);
        let left = |lab: &mut Lab, server: &str| {
            let row = lab.connections().into_iter().find(|row| row.server.ip().to_string() == server);
            row.map_or(0, |row| row.expires_in.div_ceil(100))
        };
        let (common, own, datagram) = (tcp("198.51.100.1:1", WEB), tcp("198.51.100.1:1", "10.10.24.88:443"), udp("198.51.100.1:1", DNS));
        for segments in [[common.syn(), own.syn()], [common.ack(), own.ack()], [common.ack(), own.ack()]] {
            for segment in segments {
                lab.forwarded_to(&segment);
            }
        }
        assert_eq!([left(&mut lab, "10.10.24.21"), left(&mut lab, "10.10.24.22")], [900, 5]);
        for _ in 0..3 {
            lab.forwarded_to(&datagram);
        }
        assert_eq!(left(&mut lab, "10.10.24.23"), 2);
        lab.forwarded_to(&common.fin());
        lab.forwarded_to(&own.fin());
        assert_eq!([left(&mut lab, "10.10.24.21"), left(&mut lab, "10.10.24.22")], [120, 3]);
        // Other settings change those of the service without its own.
        lab.settings(Settings { timeouts: Timeouts { tcp: 60, tcp_fin: 50, udp: 40 }, ..Settings::default() });
        lab.forwarded_to(&common.ack());
        lab.forwarded_to(&own.ack());
        assert_eq!([left(&mut lab, "10.10.24.21"), left(&mut lab, "10.10.24.22")], [50, 3]);
        lab.pass_seconds(4);
        assert_eq!(lab.connections().len(), 1);
    }

    fn a_removed_server_takes_its_connections_back_whatever_changed_about_it(eal) {
        let mut lab = lab(eal);
        let flow = tcp("198.51.100.1:1000", WEB);
        assert_eq!(lab.forwarded_to(&flow.syn()), 22);
        lab.forwarded_to(&flow.ack());
        let others = [server(21), server(22).removed()];
        for returned in [server(22).weight(0), server(22).weight(7), server(22).thresholds(1, 0), server(22)] {
            lab.service(0, Tcp, VIP, 80, RoundRobin, &others);
            lab.expect(&flow.ack(), &["real_server_removed"]);
            assert_eq!(lab.connections()[0].expires_in, 90_000, "a dropped packet prolongs nothing");
            lab.service(0, Tcp, VIP, 80, WeightedLeastConnections, &[server(21), returned]);
            assert_eq!(lab.forwarded_to(&flow.ack()), 22);
        }
        // With another method its connections keep theirs.
        lab.service(0, Tcp, VIP, 80, RoundRobin, &others);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).tunnel("10.10.24.22", DIP)]);
        let out = lab.expect(&flow.ack(), &["forwarded"]).remove(0);
        assert_eq!((out[5], out[23]), (22, 6), "not IP-in-IP");
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        assert_eq!((lab.active(0, 21), lab.active(0, 22)), (0, 1));
    }

    fn no_real_server_is_told_as_the_service_says(eal) {
        let mut lab = Lab::new(eal);
        let sent = tcp("198.51.100.1:1000", WEB).payload(b"hello").syn();
        lab.no_real_server = NoRealServer::Drop;
        lab.service(0, Tcp, VIP, 80, WeightedLeastConnections, &[]);
        assert!(lab.expect(&sent, &["no_real_server"]).is_empty());
        lab.no_real_server = NoRealServer::Icmp;
        lab.service(0, Tcp, VIP, 80, WeightedLeastConnections, &[server(21).weight(0)]);
        assert_eq!(lab.expect(&sent, &["no_real_server", "ICMP"])[0][23], 1);
        lab.no_real_server = NoRealServer::Reset;
        lab.service(0, Tcp, VIP, 80, WeightedLeastConnections, &[]);
        let out = lab.expect(&sent, &["no_real_server", "RESETS"]).remove(0);
        assert_eq!((&out[..6], &out[6..12]), (&ROUTER_MAC[..], &OUR_MAC[..]));
        assert_eq!((&out[26..30], &out[30..34]), (&sent[30..34], &sent[26..30]), "from the VIP to the client");
        assert_eq!((&out[34..36], &out[36..38]), (&sent[36..38], &sent[34..36]), "ports changed about");
        assert_eq!(out[38..42], [0; 4], "sequence number 0");
        assert_eq!(u32::from_be_bytes(out[42..46].try_into().unwrap()), 1 + 5 + 1, "SYN and five bytes acknowledged");
        assert_eq!((out[46], out[47]), (0x50, frame::RST | frame::ACK));
        assert_eq!(checksum::internet(&out[14..34]), 0);
        let pseudo = checksum::pseudo_v4(out[26..30].try_into().unwrap(), out[30..34].try_into().unwrap(), 6, 20);
        assert_eq!(checksum::segment(pseudo, &out[34..]), 0);
        lab.settings(Settings { sloppy_tcp: true, ..Settings::default() });
        let mut acknowledges = tcp("198.51.100.1:1000", WEB).ack();
        acknowledges[42..46].copy_from_slice(&[1, 2, 3, 4]);
        let out = lab.expect(&acknowledges, &["no_real_server", "RESETS"]).remove(0);
        assert_eq!((&out[38..46], out[47]), (&[1, 2, 3, 4, 0, 0, 0, 0][..], frame::RST), "in the sequence that was acknowledged");
        lab.expect(&tcp("198.51.100.1:1000", WEB).rst(), &["exception"]);
        lab.settings(Settings { icmp_error_rate: 0, ..Settings::default() });
        lab.expect(&sent, &["no_real_server"]);
        lab.kernel();
        lab.assert_no_leak();
    }

    fn ipv6_clients_are_reset_too(eal) {
        let mut lab = Lab::new(eal);
        lab.no_real_server = NoRealServer::Reset;
        lab.service(0, Tcp, VIP6, 80, RoundRobin, &[]);
        let sent = tcp("[2001:db8::1]:1000", "[fd00:10::88]:80").syn();
        let out = lab.expect(&sent, &["no_real_server", "RESETS"]).remove(0);
        assert_eq!((out.len(), &out[22..38], &out[38..54]), (74, &sent[38..54], &sent[22..38]));
        assert_eq!((out[20], out[21], out[67]), (6, 64, frame::RST | frame::ACK));
        let pseudo = checksum::pseudo_v6(out[22..38].try_into().unwrap(), out[38..54].try_into().unwrap(), 6, 20);
        assert_eq!(checksum::segment(pseudo, &out[54..]), 0);
        lab.assert_no_leak();
    }
}
