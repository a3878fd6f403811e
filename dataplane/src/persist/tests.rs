use std::sync::{Arc, Barrier};
use std::thread;

use super::*;
use crate::affinity::Affinity;
use crate::command::Batch;
use crate::connection::ConnectionTable;
use crate::schedule::Buckets;
use crate::service::{Member, Method, NoRealServer, RealServer, SchedulerKind, ServiceKey, Thresholds, VirtualService};
use crate::stats::{ServerStats, ServiceStats};

const WORKERS: usize = 2;
const CLIENTS: u32 = 400;
const PERSISTENCE: Persistence = Persistence { timeout: 300, mask: u128::MAX };
const NOW: Tick = Tick(1000);

fn key(client: u32) -> Key {
    Key { client: Address::v4(client), virtual_: Address::v4(1), client_port: 1000, virtual_port: 80, protocol: 6 }
}

/// A worker with a persistent service of the real servers that `stats` are for; workers of odd numbers are one turn ahead.
fn worker(index: usize, stats: &[Arc<ServerStats>], affinity: &Arc<Affinity>) -> (Tracker, Rules) {
    let numbered = || (0..).map(ServerId).zip(stats);
    let member = |(server, stats): (ServerId, &Arc<ServerStats>)| Member {
        server,
        weight: 1,
        reachable: true,
        limited: false,
        stats: Arc::clone(stats),
    };
    let service = VirtualService {
        id: ServiceId(0),
        key: ServiceKey { protocol: Protocol::Tcp, address: Address::v4(1), port: 80 },
        scheduler: SchedulerKind::RoundRobin,
        one_packet: false,
        persistence: Some(PERSISTENCE),
        revision: 1,
        members: numbered().map(member).collect(),
        no_real_server: NoRealServer::Icmp,
        buckets: Buckets::default(),
        timeouts: None,
        stats: Arc::new(ServiceStats::new(WORKERS)),
    };
    let server = |(id, stats): (ServerId, &Arc<ServerStats>)| RealServer {
        id,
        service: ServiceId(0),
        address: Address::v4(2 + id.0),
        port: 80,
        protocol: Protocol::Tcp,
        method: Method::DirectRouting,
        tunnel: None,
        available: true,
        drain: crate::service::Drain::No,
        weight: 1,
        thresholds: Thresholds::default(),
        next_hop: None,
        stats: Arc::clone(stats),
    };
    let mut rules = Rules::new(index, 1, 4, Vec::new(), [1, 2, 3, 4]).unwrap();
    rules.apply(&mut Batch {
        services: vec![(ServiceId(0), Some(Arc::new(service)))],
        servers: numbered().map(|n| (n.0, Some(Arc::new(server(n))))).collect(),
        ..Batch::default()
    });
    for _ in 0..index {
        rules.schedule(ServiceId(0), &key(0), NOW);
    }
    let mut connections = ConnectionTable::new(2 * CLIENTS, 2 * CLIENTS, [index as u64, 2, 3, 4]).unwrap();
    connections.agree_with(Arc::clone(affinity));
    (Tracker::new(index, connections, None), rules)
}

#[test]
fn workers_that_meet_a_client_at_once_give_it_one_server() {
    let stats: Vec<_> = (0..3).map(|_| Arc::new(ServerStats::new(WORKERS))).collect();
    let affinity = Arc::new(Affinity::new(4096, [5, 6, 7, 8]));
    let begin = Barrier::new(WORKERS);
    let followed: Vec<Vec<ServerId>> = thread::scope(|scope| {
        let run = |index| {
            let (stats, affinity, begin) = (&stats, &affinity, &begin);
            scope.spawn(move || {
                let (mut tracker, mut rules) = worker(index, stats, affinity);
                let clients = (1..=CLIENTS).map(|client| {
                    begin.wait();
                    let followed = tracker.persistent(&key(client), ServiceId(0), PERSISTENCE, &mut rules, NOW).unwrap();
                    assert_eq!(tracker.connections.entry(followed.template).server(), followed.server);
                    followed.server
                });
                clients.collect()
            })
        };
        let threads: Vec<_> = (0..WORKERS).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(followed[0], followed[1]);
    for (id, stats) in (0..).map(ServerId).zip(&stats) {
        let clients = followed[0].iter().filter(|server| **server == id).count();
        assert!(clients > 0 && stats.persistent() as usize == WORKERS * clients, "templates are counted where they lead");
    }
}
