//! Several workers schedule for one service at once: each decides alone, over counts that the others write.
//! `cargo test -p dataplane --test several_workers -- --nocapture` prints the worst that was seen.
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::sync::{Arc, Barrier};
use std::thread;

use dataplane::address::Address;
use dataplane::command::Batch;
use dataplane::connection::Key;
use dataplane::rules::Rules;
use dataplane::schedule::Buckets;
use dataplane::service::*;
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tick::Tick;

const WORKERS: usize = 4;
/// The workers but one: how many connections may be picked while a worker does not yet see what the others do.
const OTHERS: u32 = 3;
const NOW: Tick = Tick(0);

/// A service with real servers of these weights and upper thresholds, as each worker has it.
struct Service {
    stats: Vec<Arc<ServerStats>>,
    rules: Vec<Rules>,
}

impl Service {
    fn new(scheduler: SchedulerKind, servers: &[(u32, u32)]) -> Self {
        let stats: Vec<_> = servers.iter().map(|_| Arc::new(ServerStats::new(WORKERS))).collect();
        let numbered = || (0_u32..).zip(servers).zip(&stats);
        let members = numbered().map(|((n, (weight, upper)), stats)| Member {
            server: ServerId(n),
            weight: *weight,
            reachable: true,
            limited: *upper != 0,
            stats: Arc::clone(stats),
        });
        let service = Arc::new(VirtualService {
            id: ServiceId(0),
            key: ServiceKey { protocol: Protocol::Tcp, address: Address::v4(1), port: 80 },
            scheduler,
            one_packet: false,
            persistence: None,
            revision: 1,
            members: members.collect(),
            no_real_server: NoRealServer::Icmp,
            buckets: Buckets::default(),
            timeouts: None,
            stats: Arc::new(ServiceStats::new(WORKERS)),
        });
        let real_server = |((n, (weight, upper)), stats): ((u32, &(u32, u32)), &Arc<ServerStats>)| RealServer {
            id: ServerId(n),
            service: ServiceId(0),
            address: Address::v4(2 + n),
            port: 80,
            protocol: Protocol::Tcp,
            method: Method::DirectRouting,
            tunnel: None,
            available: true,
            drain: dataplane::service::Drain::No,
            weight: *weight,
            thresholds: Thresholds { upper: *upper, lower: 0 },
            next_hop: Some(NextHop { port: 0, mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }),
            stats: Arc::clone(stats),
        };
        let rules = (0..WORKERS).map(|worker| {
            let mut rules = Rules::new(worker, 1, 16, Vec::new(), [1, 2, 3, worker as u64]).expect("memory");
            rules.apply(&mut Batch {
                services: vec![(ServiceId(0), Some(Arc::clone(&service)))],
                servers: numbered()
                    .map(|server| (server.0.0, real_server(server)))
                    .map(|(n, s)| (ServerId(n), Some(Arc::new(s))))
                    .collect(),
                ..Batch::default()
            });
            rules
        });
        let rules = rules.collect();
        Self { stats, rules }
    }

    /// Lets all workers at once make connections, at most `each` of them, until none is taken any more.
    fn connect(&mut self, each: u32) {
        let begin = Barrier::new(WORKERS);
        thread::scope(|scope| {
            for (worker, rules) in self.rules.iter_mut().enumerate() {
                let begin = &begin;
                scope.spawn(move || {
                    let key = Key {
                        client: Address::v4(9),
                        virtual_: Address::v4(1),
                        client_port: 1,
                        virtual_port: 80,
                        protocol: Protocol::Tcp as u8,
                    };
                    begin.wait();
                    for _ in 0..each {
                        let Some(server) = rules.schedule(ServiceId(0), &key, NOW) else { break };
                        let target = rules.server(server).expect("a server");
                        target.server.stats.share(worker).active.increment();
                        target.connection_came();
                    }
                });
            }
        });
    }

    /// Ends `n` connections of each worker's to each real server.
    fn disconnect(&mut self, n: u32) {
        for (worker, rules) in self.rules.iter().enumerate() {
            for (server, stats) in (0..).zip(&self.stats) {
                let target = rules.server(ServerId(server)).expect("a server");
                for _ in 0..n.min(stats.share(worker).active.get()) {
                    target.share.active.decrement();
                    target.connection_ended();
                }
            }
        }
    }

    fn counts(&self) -> Vec<u32> {
        self.stats.iter().map(|stats| stats.active()).collect()
    }
}

#[test]
fn upper_threshold_is_exceeded_by_one_connection_of_each_other_worker_at_most() {
    for scheduler in [SchedulerKind::RoundRobin, SchedulerKind::WeightedLeastConnections, SchedulerKind::Overflow] {
        let mut service = Service::new(scheduler, &[(1000, 20), (1000, 7)]);
        let mut worst = 0;
        for round in 0..300 {
            service.connect(1000);
            for (count, upper) in service.counts().into_iter().zip([20, 7]) {
                worst = worst.max(count.saturating_sub(upper));
                assert!(count <= upper + OTHERS && (count >= upper || round % 3 != 0), "{count} of {upper}");
            }
            service.disconnect(if round % 3 == 2 { 1000 } else { 2 });
        }
        println!("{scheduler:?}: {WORKERS} workers at once, {worst} connections beyond an upper threshold at most");
    }
}

#[test]
fn least_connections_are_those_of_all_workers() {
    for scheduler in [SchedulerKind::LeastConnections, SchedulerKind::WeightedLeastConnections, SchedulerKind::ShortestExpectedDelay] {
        let mut service = Service::new(scheduler, &[(1, 0); 5]);
        let mut worst = 0;
        for round in 1..=200 {
            service.connect(101);
            let counts = service.counts();
            let (most, least) = (counts.iter().max().expect("some"), counts.iter().min().expect("some"));
            assert_eq!(counts.iter().sum::<u32>(), round * 101 * (OTHERS + 1));
            worst = worst.max(most - least);
            assert!(most - least <= OTHERS + 1, "{scheduler:?}: {counts:?}");
        }
        println!("{scheduler:?}: {WORKERS} workers at once, real servers differ by {worst} connections at most");
    }
}

#[test]
fn idle_servers_of_any_worker_come_first_under_nq() {
    let mut service = Service::new(SchedulerKind::NeverQueue, &[(1, 0), (1, 0), (100, 0)]);
    service.connect(1);
    assert!(service.counts().iter().all(|count| *count > 0) || service.counts()[2] > 1, "{:?}", service.counts());
    let busy = service.counts();
    service.connect(1);
    assert_eq!(service.counts()[2] - busy[2], OTHERS + 1, "none is idle: the heaviest");
}

#[test]
fn round_robin_gives_every_server_the_same_of_each_worker() {
    for scheduler in [SchedulerKind::RoundRobin, SchedulerKind::WeightedRoundRobin] {
        let mut service = Service::new(scheduler, &[(3, 0); 3]);
        service.connect(100);
        for stats in &service.stats {
            for worker in 0..WORKERS {
                assert!((33..=34).contains(&stats.share(worker).active.get()), "{scheduler:?}");
            }
        }
    }
}
