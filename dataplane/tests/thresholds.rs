//! Thresholds: when a real server gets no new connections because it has enough, and when it gets them again.
mod common;

use common::frame::{tcp, udp};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";

fn syn(lab: &mut Lab, port: u16) -> u8 {
    lab.forwarded_to(&tcp(&format!("198.51.100.1:{port}"), WEB).syn())
}

fn reset(lab: &mut Lab, port: u16) {
    let flow = tcp(&format!("198.51.100.1:{port}"), WEB);
    lab.send(&flow.ack());
    lab.send(&flow.rst());
}

fn limited(lab: &mut Lab, upper: u32, lower: u32) {
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22).thresholds(upper, lower)]);
}

eal_test! {
    fn a_server_at_its_upper_threshold_gets_no_new_connection(eal) {
        let mut lab = Lab::new(eal);
        limited(&mut lab, 3, 1);
        for port in 1000..1020 {
            syn(&mut lab, port);
        }
        assert_eq!((lab.active(0, 22), lab.active(0, 21)), (3, 17));
        assert!(lab.server_stats(0, 22).is_overloaded() && !lab.server_stats(0, 21).is_overloaded());
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1000", WEB).ack()), 22, "what it has it keeps");
    }

    fn it_gets_new_ones_again_below_the_lower_threshold(eal) {
        let mut lab = Lab::new(eal);
        limited(&mut lab, 3, 2);
        let ports: Vec<u16> = (1000..1010).filter(|port| syn(&mut lab, *port) == 22).collect();
        assert_eq!(ports.len(), 3);
        reset(&mut lab, ports[0]);
        lab.pass_seconds(11);
        assert!(lab.server_stats(0, 22).is_overloaded(), "two are left, which is not below two");
        reset(&mut lab, ports[1]);
        lab.pass_seconds(11);
        assert!(!lab.server_stats(0, 22).is_overloaded());
        assert!([2000, 2001].map(|port| syn(&mut lab, port)).contains(&22));
    }

    fn without_a_lower_threshold_three_quarters_relieve(eal) {
        let mut lab = Lab::new(eal);
        limited(&mut lab, 4, 0);
        let ports: Vec<u16> = (1000..1010).filter(|port| syn(&mut lab, *port) == 22).collect();
        for (ended, overloaded) in [(0, true), (1, false)] {
            reset(&mut lab, ports[ended]);
            lab.pass_seconds(11);
            assert_eq!(lab.server_stats(0, 22).is_overloaded(), overloaded, "{} of 4 left", 3 - ended);
        }
    }

    fn inactive_connections_count_too(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Udp, VIP, 53, WeightedLeastConnections, &[server(21).thresholds(2, 0)]);
        let question = |n: u8| udp(&format!("198.51.100.{n}:1000"), "10.10.24.88:53");
        for n in [1, 2] {
            lab.expect(&question(n), &["forwarded"]);
        }
        lab.expect(&question(3), &["no_real_server", "ICMP"]);
        lab.expect(&question(2), &["forwarded"]);
    }

    fn a_flag_from_before_means_nothing_without_thresholds(eal) {
        let mut lab = Lab::new(eal);
        limited(&mut lab, 1, 0);
        for port in 1000..1004 {
            syn(&mut lab, port);
        }
        assert_eq!(lab.active(0, 22), 1);
        limited(&mut lab, 0, 0);
        assert!([2000, 2001].map(|port| syn(&mut lab, port)).contains(&22));
    }
}
