//! What the packet path calls allocates nothing once it is set up.

use std::sync::Arc;

use dataplane::address::Address;
use dataplane::connection::{ConnectionTable, Key, NewEntry};
use dataplane::schedule::{Buckets, Memory, Pick, Scheduler, Seat};
use dataplane::service::{Member, Protocol, SchedulerKind, ServerId, ServiceId, ServiceKey, VirtualService};
use dataplane::settings::Settings;
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tcp::State;
use dataplane::tick::Tick;
use dpdk::test_support::allocations::{CountingAllocator, count};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn key(n: u32) -> Key {
    Key { client: Address::v4(n), virtual_: Address::v4(1), client_port: 2, virtual_port: 80, protocol: 6 }
}

fn service(scheduler: SchedulerKind, weights: &[u32], revision: u64) -> VirtualService {
    let stats = || Arc::new(ServerStats::new(1));
    let seat = |(n, weight): (u32, &u32)| Seat { address: Address::v4(n), port: 80, weight: *weight, last_weight: *weight };
    let seats: Vec<Seat> = (0u32..).zip(weights).map(seat).collect();
    let members = (0u32..).zip(weights).map(|(n, weight)| Member {
        server: ServerId(n),
        weight: *weight,
        reachable: true,
        limited: false,
        stats: stats(),
    });
    VirtualService {
        id: ServiceId(0),
        key: ServiceKey { protocol: Protocol::Tcp, address: Address::v4(1), port: 80 },
        scheduler,
        one_packet: false,
        persistence: None,
        revision,
        members: members.collect(),
        no_real_server: dataplane::service::NoRealServer::Icmp,
        buckets: Buckets::new(scheduler, false, &seats),
        timeouts: None,
        stats: Arc::new(ServiceStats::new(1)),
    }
}

#[test]
fn allocator_counts() {
    assert_eq!(count(|| drop(Box::new(1))), 2);
}

#[test]
fn life_of_connections_in_a_full_table_allocates_nothing() {
    const CAPACITY: u32 = 3_000;
    let mut table = ConnectionTable::new(CAPACITY, CAPACITY, [1, 2, 3, 4]).expect("memory");
    let new = NewEntry {
        server: ServerId(0),
        service: ServiceId(0),
        state: State::SynRecv as u8,
        flags: 0,
        timeout_ticks: 60 * Tick::PER_SECOND,
    };
    let mut ended = 0;
    let allocations = count(|| {
        for n in 0..10 * CAPACITY {
            let now = Tick(n * 10);
            let key = key(n);
            let hash = table.hash(&key);
            table.prefetch_bucket(hash);
            let _ = table.prefetch_entry(hash);
            assert_eq!(table.find(hash, &key), None);
            if let Ok(id) = table.insert(hash, &key, new, now) {
                table.set_state(id, State::Established, now, new.timeout_ticks);
                table.touch(id, now, new.timeout_ticks);
                if n % 5 == 0 {
                    table.remove(id);
                }
            }
            table.expire(now, 8, &mut |_, _| ended += 1);
        }
        assert_eq!(table.scan(0, CAPACITY).count(), table.len() as usize);
    });
    assert_eq!(allocations, 0);
    assert!(ended > CAPACITY, "{ended}");
}

#[test]
fn picking_and_following_a_change_of_members_allocates_nothing() {
    let kinds = [
        SchedulerKind::RoundRobin,
        SchedulerKind::WeightedRoundRobin,
        SchedulerKind::LeastConnections,
        SchedulerKind::WeightedLeastConnections,
        SchedulerKind::ShortestExpectedDelay,
        SchedulerKind::NeverQueue,
        SchedulerKind::LocalityLeastConnections,
        SchedulerKind::LocalityReplicated,
        SchedulerKind::Failover,
        SchedulerKind::Overflow,
        SchedulerKind::TwoChoices,
        SchedulerKind::SourceHash { port: true, fallback: true },
        SchedulerKind::Maglev { port: true, fallback: true },
    ];
    let mut memory = Memory::new([1, 2, 3, 4], &Settings::default());
    for kind in kinds {
        let (old, new) = (service(kind, &[1, 2, 0], 0), service(kind, &[1, 0, 7, 3], 1));
        let mut scheduler = Scheduler::new(&old, &mut memory);
        let mut picked = 0;
        let allocations = count(|| {
            for service in [&old, &new] {
                for n in 0..50 {
                    let now = Tick(n * 100_000);
                    picked += usize::from(scheduler.pick(&Pick::new(service, &key(n), now), &mut memory).is_some());
                    memory.sweep(now);
                }
                scheduler.service_changed(&old, &new, &mut memory);
            }
            scheduler = Scheduler::new(&new, &mut memory);
        });
        assert_eq!((allocations, picked), (0, 100), "{kind:?}");
    }
}
