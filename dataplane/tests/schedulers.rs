//! Schedulers through the whole worker: what clients notice of them.
mod common;

use common::frame::{tcp, udp};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
const MH: SchedulerKind = Maglev { port: false, fallback: false };

fn three(lab: &mut Lab, scheduler: SchedulerKind, weights: [u32; 3]) {
    let [a, b, c] = weights;
    lab.service(0, Tcp, VIP, 80, scheduler, &[server(21).weight(a), server(22).weight(b), server(23).weight(c)]);
}

fn client(n: u16) -> String {
    format!("198.51.{}.{}:1000", n / 200, 1 + n % 200)
}

eal_test! {
    fn clients_of_a_quiescent_server_are_refused_under_mh_and_go_elsewhere_with_fallback(eal) {
        let mut lab = Lab::new(eal);
        three(&mut lab, MH, [1, 1, 1]);
        let theirs: Vec<u16> = (0..60).filter(|n| lab.forwarded_to(&tcp(&client(*n), WEB).syn()) == 22).collect();
        assert!((10..30).contains(&theirs.len()));
        lab.flush(None);
        three(&mut lab, MH, [1, 0, 1]);
        lab.expect(&tcp(&client(theirs[0]), WEB).syn(), &["no_real_server", "ICMP"]);
        three(&mut lab, Maglev { port: false, fallback: true }, [1, 0, 1]);
        assert!(theirs.iter().all(|n| lab.forwarded_to(&tcp(&client(*n), WEB).syn()) != 22));
    }

    fn clients_keep_their_server_when_another_one_leaves(eal) {
        let mut lab = Lab::new(eal);
        three(&mut lab, MH, [1, 1, 1]);
        let before: Vec<u8> = (0..100).map(|n| lab.forwarded_to(&tcp(&client(n), WEB).syn())).collect();
        lab.flush(None);
        lab.service(0, Tcp, VIP, 80, MH, &[server(21), server(23)]);
        let after: Vec<u8> = (0..100).map(|n| lab.forwarded_to(&tcp(&client(n), WEB).syn())).collect();
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != 22 && before != after).count();
        assert!(moved < 15, "{moved} of about 67");
    }

    fn destination_hash_sends_a_whole_vip_to_one_server(eal) {
        let mut lab = Lab::new(eal);
        three(&mut lab, DestinationHash, [1, 5, 9]);
        let first = lab.forwarded_to(&tcp(&client(0), WEB).syn());
        assert!((1..50).all(|n| lab.forwarded_to(&tcp(&client(n), WEB).syn()) == first));
    }

    fn overflow_goes_on_when_active_connections_exceed_the_weight_but_udp_is_never_active(eal) {
        let mut lab = Lab::new(eal);
        three(&mut lab, Overflow, [1, 2, 3]);
        let got: Vec<u8> = (0..9).map(|n| lab.forwarded_to(&tcp(&client(n), WEB).syn())).collect();
        assert_eq!(got, [23, 23, 23, 23, 22, 22, 22, 21, 21]);
    }

    fn a_udp_service_under_overflow_stays_with_its_heaviest_server(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Udp, VIP, 53, Overflow, &[server(21).weight(1), server(22).weight(2)]);
        assert!((0..20).all(|n| lab.forwarded_to(&udp(&client(n), "10.10.24.88:53")) == 22));
        assert_eq!((lab.active(0, 22), lab.inactive(0, 22)), (0, 20));
    }

    fn locality_is_forgotten_when_it_was_not_used_for_its_time(eal) {
        let mut lab = Lab::new(eal);
        for (scheduler, seconds) in [(LocalityLeastConnections, 1), (LocalityReplicated, 1), (LocalityReplicated, 86_400)] {
            lab.settings(Settings { lblc_expiration: seconds, lblcr_expiration: seconds, ..Settings::default() });
            three(&mut lab, scheduler, [9, 9, 9]);
            let flow = tcp(&client(0), WEB);
            let first = lab.forwarded_to(&flow.syn());
            assert_eq!(lab.forwarded_to(&tcp(&client(1), WEB).syn()), first, "though the others are idle");
            for _ in 0..3 {
                lab.send(&flow.ack());
                lab.pass_seconds(700);
            }
            assert_eq!(lab.active(0, first), 1);
            let next = lab.forwarded_to(&tcp(&client(2), WEB).syn());
            assert_eq!(next == first, seconds > 1, "a search every half hour, and then the least busy of all");
            lab.flush(None);
            three(&mut lab, RoundRobin, [9, 9, 9]);
        }
    }

    fn two_choices_reach_every_server_and_leave_out_the_quiescent(eal) {
        let mut lab = Lab::new(eal);
        three(&mut lab, TwoChoices, [1, 0, 4]);
        for n in 0..100 {
            lab.send(&tcp(&client(n), WEB).syn());
        }
        let [light, none, heavy] = [21, 22, 23].map(|n| lab.active(0, n));
        assert!(none == 0 && light + heavy == 100 && (10..35).contains(&light), "{light} and {heavy}");
    }
}
