//! Persistence over two workers: wherever a client's connections arrive, they go to one real server.
#![allow(clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::frame::tcp;
use common::several::Several;
use common::*;
use dataplane::command::{Batch, Command, ConnectionFilter, Flush, LocalAddresses, Reply};
use dataplane::schedule::Buckets;
use dataplane::service::{Protocol::*, SchedulerKind::*, *};
use dataplane::settings::Settings;
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tick::Tick;
use dpdk::eal::Eal;
use dpdk::eal_test;

const WEB: &str = "10.10.24.88:80";
const ALL: u128 = u128::MAX;
const NETWORK_24: u128 = u128::MAX << 8;
const TIMEOUT: u32 = 120;
const CLIENT: &str = "198.51.100.1";

/// A persistent service of this port with these real servers (last byte of the address, weight) on both workers.
struct Lab {
    several: Several,
    port: u16,
    mask: u128,
    version: u64,
    stats: [(u8, Arc<ServerStats>); 3],
}

impl Lab {
    fn new(eal: Eal, mask: u128, port: u16) -> Self {
        let stats = [21, 22, 23].map(|n| (n, Arc::new(ServerStats::new(2))));
        let mut lab = Self { several: Several::new(eal, 2), port, mask, version: 0, stats };
        lab.servers(&[(21, 1), (22, 1), (23, 1)], Settings::default());
        // Both begin with the same real server in turn, and are to differ.
        lab.connect(0, "192.0.2.2", 1, 80);
        lab
    }

    /// The service has these real servers from now on, and no others; each keeps the place that its address gives it.
    fn servers(&mut self, servers: &[(u8, u32)], settings: Settings) {
        self.version += 1;
        let (id, key) = (ServiceId(0), ServiceKey { protocol: Tcp, address: address(VIP), port: self.port });
        let place = |n: u8| ServerId(u32::from(n % 8));
        let all = self.stats.clone();
        let weight = |n: u8| servers.iter().find(|server| server.0 == n).map(|server| server.1);
        let members = servers.iter().filter_map(|(n, weight)| {
            let stats = &all.iter().find(|known| known.0 == *n)?.1;
            Some(Member { server: place(*n), weight: *weight, reachable: true, limited: false, stats: Arc::clone(stats) })
        });
        let service = Arc::new(VirtualService {
            id,
            key,
            scheduler: RoundRobin,
            one_packet: false,
            persistence: Some(Persistence { timeout: TIMEOUT, mask: self.mask }),
            revision: self.version,
            members: members.collect(),
            buckets: Buckets::default(),
            timeouts: None,
            no_real_server: NoRealServer::Icmp,
            stats: Arc::new(ServiceStats::new(2)),
        });
        let server = |(n, stats): &(u8, Arc<ServerStats>)| {
            let server = RealServer {
                id: place(*n),
                service: ServiceId(0),
                address: address(&format!("10.10.24.{n}")),
                port: self.port,
                protocol: Tcp,
                method: Method::DirectRouting,
                thresholds: Thresholds::default(),
                tunnel: None,
                available: weight(*n).is_some(),
                drain: dataplane::service::Drain::No,
                weight: weight(*n).unwrap_or(0),
                next_hop: Some(NextHop { port: 0, mac: server_mac(*n), mtu: MTU }),
                stats: Arc::clone(stats),
            };
            (place(*n), Some(Arc::new(server)))
        };
        let locals = Arc::new(LocalAddresses {
            addresses: [VIP, DIP].map(|a| (address(a), 1)).into_iter().collect(),
            vips: [VIP].map(address).into_iter().collect(),
            macs: vec![OUR_MAC],
            ..LocalAddresses::default()
        });
        let version = self.version;
        self.several.apply(|| Batch {
            version,
            services: vec![(id, Some(Arc::clone(&service)))],
            servers: all.iter().map(server).collect(),
            locals: Some(Arc::clone(&locals)),
            settings: Some(settings),
            ..Batch::default()
        });
    }

    /// The real server of a new connection that reaches `worker`.
    fn connect(&mut self, worker: usize, client: &str, cport: u16, vport: u16) -> u8 {
        let syn = tcp(&format!("{client}:{cport}"), &format!("{VIP}:{vport}")).syn();
        let sent = self.several.send(worker, &[syn], 1);
        assert_eq!(sent[worker].len(), 1, "forwarded by the worker that it reached");
        sent[worker][0][5]
    }

    /// As [`connect`](Self::connect) for the client, when it was `server`'s turn on this worker just before.
    fn connect_behind(&mut self, server: u8, worker: usize, cport: u16) -> u8 {
        assert!((1..=3).any(|n| self.connect(worker, &format!("203.0.113.{n}"), 1, 80) == server), "in turn");
        self.connect(worker, CLIENT, cport, 80)
    }

    /// Flushes both workers; how many entries ended.
    fn flush(&mut self) -> u64 {
        let now = self.several.now;
        let end = |one: &mut common::several::One| {
            one.control.send(Command::Flush(Box::new(Flush { filter: ConnectionFilter::default(), removed: 0 }))).expect("room");
            loop {
                one.worker.turn(now);
                if let Some(Reply::Flushed(flush)) = one.control.receive() {
                    return flush.removed;
                }
            }
        };
        self.several.workers.iter_mut().map(end).sum()
    }

    fn pass_seconds(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.several.now = Tick(self.several.now.0 + Tick::PER_SECOND);
            self.several.send(0, &[], 1);
        }
    }
}

eal_test! {
    fn a_clients_connections_go_to_one_server_over_both_workers(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        for client in 1..50 {
            let client = format!("198.51.100.{client}");
            let first = lab.connect(usize::from(client.ends_with('1')), &client, 1000, 80);
            for cport in 1001..1005 {
                assert_eq!(lab.connect(usize::from(cport % 2), &client, cport, 80), first);
            }
        }
        lab.several.flow();
        lab.several.assert_no_leak();
    }

    fn without_an_agreement_the_workers_would_differ(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        assert_ne!(lab.connect(0, CLIENT, 1000, 80), lab.connect(1, "198.51.100.2", 1000, 80), "else these tests prove nothing");
    }

    fn a_network_under_a_mask_is_one_client_to_both_workers(eal) {
        let mut lab = Lab::new(eal, NETWORK_24, 80);
        let first = lab.connect(0, CLIENT, 1000, 80);
        assert!((2..20).all(|n| lab.connect(n % 2, &format!("198.51.100.{n}"), 1000, 80) == first));
    }

    fn a_service_of_every_port_keeps_a_client_across_ports_and_workers(eal) {
        let mut lab = Lab::new(eal, ALL, 0);
        let first = lab.connect(0, CLIENT, 1000, 80);
        assert_eq!([443, 22].map(|vport| lab.connect(1, CLIENT, 1000, vport)), [first; 2]);
    }

    fn an_agreement_lasts_from_the_last_new_connection_on_any_worker(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        let first = lab.connect(0, CLIENT, 1000, 80);
        lab.pass_seconds(TIMEOUT - 20);
        assert_eq!(lab.connect(1, CLIENT, 1001, 80), first);
        lab.pass_seconds(TIMEOUT - 20);
        assert_eq!(lab.connect(0, CLIENT, 1002, 80), first, "worker 0's own template may be gone");
        lab.pass_seconds(TIMEOUT + 120);
        assert_ne!(lab.connect_behind(first, 1, 1003), first, "scheduled anew");
    }

    fn an_agreement_lives_on_while_connections_of_the_template_do(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        let first = lab.connect(0, CLIENT, 1000, 80);
        lab.several.send(0, &[tcp(&format!("{CLIENT}:1000"), WEB).ack()], 1);
        lab.pass_seconds(3 * TIMEOUT);
        assert_eq!(lab.connect(1, CLIENT, 1001, 80), first, "a connection of 900 seconds is left on worker 0");
    }

    fn clients_of_a_removed_server_meet_at_another_one(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        let first = lab.connect(0, CLIENT, 1000, 80);
        assert_eq!(lab.connect(1, CLIENT, 1001, 80), first);
        let left: Vec<_> = [21, 22, 23].into_iter().filter(|n| *n != first).map(|n| (n, 1)).collect();
        lab.servers(&left, Settings::default());
        let next = lab.connect(1, CLIENT, 1002, 80);
        assert_ne!(next, first);
        assert!((1003..1010).all(|cport| lab.connect(usize::from(cport % 2), CLIENT, cport, 80) == next));
    }

    fn a_quiescent_server_keeps_its_clients_on_both_workers_unless_told_otherwise(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        let first = lab.connect(0, CLIENT, 1000, 80);
        let weights: Vec<_> = [21, 22, 23].into_iter().map(|n| (n, u32::from(n != first))).collect();
        lab.servers(&weights, Settings::default());
        assert_eq!(lab.connect(1, CLIENT, 1001, 80), first);
        lab.servers(&weights, Settings { expire_quiescent_template: true, ..Settings::default() });
        let next = lab.connect(1, CLIENT, 1002, 80);
        assert_ne!(next, first);
        assert_eq!(lab.connect(0, CLIENT, 1003, 80), next);
    }

    fn a_flush_of_both_workers_ends_what_they_agreed_on(eal) {
        let mut lab = Lab::new(eal, ALL, 80);
        let first = lab.connect(0, CLIENT, 1000, 80);
        assert_eq!(lab.connect(1, CLIENT, 1001, 80), first);
        assert_eq!(lab.flush(), 6, "a connection and its template, of two clients on one worker and of one on the other");
        assert_ne!(lab.connect_behind(first, 1, 1002), first, "scheduled anew");
    }
}
