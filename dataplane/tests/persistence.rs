//! Persistence: whose connections go where, for how long, and what is listed of it.
mod common;

use common::frame::{tcp, udp};
use common::*;
use dataplane::service::Persistence;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
const ALL: u128 = u128::MAX;
/// 255.255.255.0 for IPv4, in the form that both families share.
const NETWORK_24: u128 = u128::MAX << 8;

fn persistent(lab: &mut Lab, timeout: u32, mask: u128) {
    lab.persistence = Some(Persistence { timeout, mask });
    lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22), server(23)]);
}

fn syn(lab: &mut Lab, client: &str) -> u8 {
    lab.forwarded_to(&tcp(client, WEB).syn())
}

/// Client, state and seconds left of every template, as a listing has them.
fn templates(lab: &mut Lab) -> Vec<(String, &'static str, u32)> {
    let rows = lab.connections().into_iter().filter(|row| row.client.port() == 0);
    rows.map(|row| (row.client.ip().to_string(), row.state, row.expires_in.div_ceil(100))).collect()
}

eal_test! {
    fn a_clients_connections_go_where_its_first_one_went(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, ALL);
        let first = syn(&mut lab, "198.51.100.1:1000");
        for port in 1001..1010 {
            assert_eq!(syn(&mut lab, &format!("198.51.100.1:{port}")), first);
        }
        assert_ne!(syn(&mut lab, "198.51.100.2:1000"), first, "another client is scheduled on its own");
        assert_eq!((lab.active(0, first), lab.persistent(0, first), lab.inactive(0, first)), (10, 1, 0));
        lab.assert_no_leak();
    }

    fn clients_of_one_network_are_one_under_a_mask(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, NETWORK_24);
        let first = syn(&mut lab, "198.51.100.1:1000");
        for last in 2..20 {
            assert_eq!(syn(&mut lab, &format!("198.51.100.{last}:1000")), first);
        }
        assert_ne!(syn(&mut lab, "198.51.101.1:1000"), first);
        assert_eq!(templates(&mut lab)[0].0, "198.51.100.0");
    }

    fn template_is_assured_by_an_established_connection(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, ALL);
        syn(&mut lab, "198.51.100.1:1000");
        assert_eq!(templates(&mut lab), [("198.51.100.1".to_owned(), "NONE", 300)]);
        lab.send(&tcp("198.51.100.1:1000", WEB).ack());
        assert_eq!(templates(&mut lab)[0].1, "ASSURED");
    }

    fn template_ends_after_its_time_and_lives_on_while_connections_do(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 100, ALL);
        let first = syn(&mut lab, "198.51.100.1:1000");
        lab.pass_seconds(50);
        assert_eq!(syn(&mut lab, "198.51.100.1:1001"), first);
        assert_eq!(templates(&mut lab)[0].2, 100, "a new connection restarts the time");
        lab.send(&tcp("198.51.100.1:1001", WEB).ack());
        lab.pass_seconds(140);
        assert_eq!(syn(&mut lab, "198.51.100.1:1002"), first, "a connection of 900 seconds is left");
        lab.pass_seconds(1000);
        assert_eq!((lab.connections().len(), lab.persistent(0, first)), (0, 0));
    }

    fn a_quiescent_server_keeps_its_known_clients_unless_told_otherwise(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, ALL);
        assert_eq!(syn(&mut lab, "198.51.100.1:1000"), 23);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22), server(23).weight(0)]);
        assert_eq!(syn(&mut lab, "198.51.100.1:1001"), 23);
        lab.settings(Settings { expire_quiescent_template: true, ..Settings::default() });
        let next = syn(&mut lab, "198.51.100.1:1002");
        assert_ne!(next, 23);
        assert_eq!(syn(&mut lab, "198.51.100.1:1003"), next, "the template says so from then on");
        assert_eq!((lab.persistent(0, 23), lab.persistent(0, next)), (1, 1));
    }

    fn clients_of_a_removed_server_are_scheduled_anew(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, ALL);
        assert_eq!(syn(&mut lab, "198.51.100.1:1000"), 23);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22), server(23).removed()]);
        let next = syn(&mut lab, "198.51.100.1:1001");
        assert_ne!(next, 23);
        assert_eq!((lab.persistent(0, 23), lab.persistent(0, next), lab.active(0, 23)), (1, 1, 1));
        assert_eq!(syn(&mut lab, "198.51.100.1:1002"), next);
        let aside: Vec<_> = lab.connections().into_iter().filter(|row| row.virtual_address.port() == 65535).collect();
        assert_eq!(aside.iter().map(|row| (row.server.port(), row.client.port())).collect::<Vec<_>>(), [(65535, 0)], "as IPVS lists it");
        assert_eq!(lab.expect(&tcp("198.51.100.1:1000", WEB).ack(), &["real_server_removed"]).len(), 0);
    }

    fn a_connection_made_through_a_template_is_never_rescheduled_by_a_syn(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, ALL);
        let flow = tcp("198.51.100.1:1000", WEB);
        assert_eq!(lab.forwarded_to(&flow.syn()), 23);
        lab.send(&flow.ack());
        lab.send(&flow.rst());
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22), server(23).weight(0)]);
        lab.settings(Settings { expire_quiescent_template: true, ..Settings::default() });
        assert_eq!(lab.forwarded_to(&flow.syn()), 23, "conn_reuse_mode does not apply");
        assert_eq!(lab.connections().iter().filter(|row| row.client.port() != 0).count(), 1);
    }

    fn a_packet_from_port_0_is_no_template(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, ALL);
        let first = syn(&mut lab, "198.51.100.1:1000");
        assert_eq!(syn(&mut lab, "198.51.100.1:0"), first);
        assert_eq!(lab.connections().len(), 3);
        assert_eq!(lab.active(0, first), 2);
    }

    fn a_service_of_every_port_keeps_a_client_across_ports(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 120, mask: ALL });
        lab.service(0, Tcp, VIP, 0, RoundRobin, &[server(21), server(22)]);
        lab.persistence = None;
        lab.service(1, Tcp, VIP, 8080, RoundRobin, &[server(24)]);
        let first = lab.forwarded_to(&tcp("198.51.100.1:1000", "10.10.24.88:80").syn());
        for port in [443, 22, 9000] {
            assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1000", &format!("10.10.24.88:{port}")).syn()), first);
        }
        assert_eq!(lab.forwarded_to(&tcp("198.51.100.1:1000", "10.10.24.88:8080").syn()), 24, "a service of its own comes first");
        let rows = lab.connections();
        let shown = |port| rows.iter().any(|row| row.virtual_address.port() == port && row.server.port() == port);
        assert!(shown(0) && shown(443) && shown(9000), "{rows:?}");
        lab.expect(&udp("198.51.100.1:1000", "10.10.24.88:80"), &["exception"]);
        assert_eq!(lab.kernel().len(), 1);
    }

    fn flushing_ends_connections_before_their_template(eal) {
        let mut lab = Lab::new(eal);
        persistent(&mut lab, 300, NETWORK_24);
        for last in 1..=3 {
            syn(&mut lab, &format!("198.51.100.{last}:1000"));
        }
        assert_eq!(lab.flush(Some("198.51.100.2")), 1, "the template still serves the others");
        assert_eq!(lab.connections().len(), 3);
        assert_eq!(lab.flush(None), 3);
        assert_eq!((lab.connections().len(), lab.persistent(0, 23), lab.active(0, 23)), (0, 0, 0));
    }

    fn one_packet_scheduling_follows_templates_and_keeps_no_entry(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 300, mask: ALL });
        lab.put_service(0, Udp, VIP, 53, RoundRobin, &[server(21), server(22)], true);
        let send = |lab: &mut Lab, port: u16| lab.forwarded_to(&udp(&format!("198.51.100.1:{port}"), "10.10.24.88:53"));
        let first = send(&mut lab, 1000);
        assert!((1001..1010).all(|port| send(&mut lab, port) == first));
        assert_eq!(templates(&mut lab), [("198.51.100.1".to_owned(), "NONE", 300)]);
        assert_eq!(lab.connections().len(), 1);
    }
}
