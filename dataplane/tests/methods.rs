//! A real server's method is changed: its connections keep the one that they were made with.
#![allow(clippy::panic)]

mod common;

use common::frame::*;
use common::*;
use dataplane::command::Batch;
use dataplane::service::{Protocol::*, SchedulerKind::*, ServerId};
use dpdk::eal_test;

const A: &str = "198.51.100.1:1000";
const B: &str = "198.51.100.2:1000";
const WEB: &str = "10.10.24.88:80";
const RS: &str = "10.10.24.21:80";
const RIP: &str = "10.10.24.21";

/// How a frame reached the real server.
fn method_of(frame: &[u8]) -> &'static str {
    assert_eq!(frame[..6], server_mac(21));
    match (frame[23], &frame[30..34]) {
        (4, [10, 10, 24, 21]) => "tunnel",
        (6, [10, 10, 24, 88]) => "direct routing",
        (6, [10, 10, 24, 21]) => "masquerading",
        other => panic!("{other:?}"),
    }
}

fn to(lab: &mut Lab, frame: &[u8]) -> &'static str {
    method_of(&lab.expect(frame, &["forwarded"]).remove(0))
}

const METHODS: [(&str, Server); 3] =
    [("direct routing", server(21)), ("tunnel", server(21).tunnel(RIP, DIP)), ("masquerading", server(21).masquerading(80))];

eal_test! {
    fn connections_keep_the_method_that_they_were_made_with(eal) {
        let mut lab = Lab::new(eal);
        for (port, (old, before)) in (1000..).step_by(10).zip(METHODS) {
            for (n, (new, after)) in (port..).zip(METHODS) {
                let client = |host: u8| format!("198.51.100.{host}:{n}");
                lab.service(0, Tcp, VIP, 80, RoundRobin, &[before]);
                assert_eq!(to(&mut lab, &tcp(&client(1), WEB).syn()), old);
                assert_eq!(to(&mut lab, &tcp(&client(1), WEB).ack()), old);
                lab.service(0, Tcp, VIP, 80, RoundRobin, &[after]);
                assert_eq!(to(&mut lab, &tcp(&client(1), WEB).ack()), old, "{old}, then {new}");
                assert_eq!(to(&mut lab, &tcp(&client(2), WEB).syn()), new);
                assert_eq!(to(&mut lab, &tcp(&client(2), WEB).ack()), new);
                assert_eq!(to(&mut lab, &tcp(&client(1), WEB).ack()), old);
            }
        }
        lab.assert_no_leak();
    }

    fn answers_to_masqueraded_connections_are_translated_to_their_end(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).masquerading(80)]);
        lab.send(&tcp(A, WEB).syn());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        let out = lab.expect(&tcp(RS, A).segment(SYN | ACK), &["forwarded"]).remove(0);
        assert_eq!((&out[26..30], &out[34..36]), (&[10, 10, 24, 88][..], &[0, 80][..]));
        for piece in cut(&tcp(RS, A).payload(&[5; 900]).ack(), 7, &[400, 400]) {
            assert_eq!(lab.expect(&piece, &["forwarded"])[0][26..30], [10, 10, 24, 88]);
        }
        assert!(lab.expect(&tcp(RS, B).ack(), &["exception"]).is_empty(), "no connection of ours");
        lab.kernel();
        lab.assert_no_leak();
    }

    fn errors_and_fragments_go_the_connections_way(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).tunnel(RIP, DIP)]);
        lab.send(&tcp(A, WEB).syn());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        let error = fragmentation_needed([203, 0, 113, 1], [10, 10, 24, 88], &tcp(WEB, A).ack()[14..], 1400);
        assert_eq!(lab.expect(&error, &["forwarded"])[0][23], 4);
        for piece in cut(&tcp(A, WEB).payload(&[5; 900]).ack(), 7, &[400, 400]) {
            assert_eq!(lab.expect(&piece, &["forwarded"])[0][23], 4);
        }
        lab.assert_no_leak();
    }

    fn a_real_server_that_is_forgotten_masquerades_no_more(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).masquerading(80)]);
        lab.send(&tcp(A, WEB).syn());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        lab.flush(None);
        lab.apply(Batch { servers: vec![(ServerId(21), None)], ..Batch::default() });
        assert!(lab.expect(&cut(&tcp(RS, A).payload(&[5; 900]).ack(), 7, &[400, 400])[1], &["exception"]).is_empty(), "not placed");
        lab.kernel();
        lab.assert_no_leak();
    }
}
