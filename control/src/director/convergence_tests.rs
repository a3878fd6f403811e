//! Whatever is changed, in whatever order, and however late a worker takes it: in the end it runs what the document says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Waker};

use dataplane::address::Address;
use dataplane::command::{WorkerEnd, channel};
use dataplane::schedule::{Buckets, Seat};
use proptest::prelude::*;
use serde_json::json;

use super::scripted::{LIMITS, Tables, links, service, turn};
use super::*;
use crate::model::{RealServerSpec, Scheduler, ServiceSpec};

/// A real server: the end of its address, its weight, whether its MAC is static.
type Choice = (u8, u8, bool);

/// A virtual service's number and its real servers.
type Service = (u8, Vec<Choice>);

#[derive(Clone, Debug)]
enum Step {
    Put { service: u8, scheduler: u8, servers: Vec<Choice> },
    RemoveService { service: u8 },
    Add { service: u8, server: Choice },
    RemoveServer { service: u8, last: u8 },
    Replace { services: Vec<Service> },
    Clear,
    Neighbour { last: u8, known: bool },
    Connect { worker: usize, nth: usize },
    Disconnect,
    Retire,
    Turn { worker: usize },
}

fn server_choice() -> impl Strategy<Value = Choice> {
    (0..3_u8, 0..3_u8, prop::bool::weighted(0.3))
}

fn step() -> impl Strategy<Value = Step> {
    let servers = || prop::collection::vec(server_choice(), 0..5);
    prop_oneof![
        3 => (0..3_u8, 0..3_u8, servers()).prop_map(|(service, scheduler, servers)| Step::Put { service, scheduler, servers }),
        2 => (0..3_u8).prop_map(|service| Step::RemoveService { service }),
        4 => (0..3_u8, server_choice()).prop_map(|(service, server)| Step::Add { service, server }),
        4 => (0..3_u8, 0..3_u8).prop_map(|(service, last)| Step::RemoveServer { service, last }),
        1 => prop::collection::vec((0..3_u8, servers()), 0..4).prop_map(|services| Step::Replace { services }),
        1 => Just(Step::Clear),
        3 => (0..3_u8, any::<bool>()).prop_map(|(last, known)| Step::Neighbour { last, known }),
        3 => (0..2_usize, 0..8_usize).prop_map(|(worker, nth)| Step::Connect { worker, nth }),
        2 => Just(Step::Disconnect),
        3 => Just(Step::Retire),
        5 => (0..2_usize).prop_map(|worker| Step::Turn { worker }),
    ]
}

fn real_server((last, weight, fixed): Choice) -> RealServerSpec {
    let mac = fixed.then(|| format!("02:00:00:00:01:{last:02x}"));
    RealServerSpec {
        address: address(last),
        port: None,
        weight: weight.into(),
        upper_threshold: 0,
        lower_threshold: 0,
        method: crate::model::Method::DirectRouting,
        tunnel: None,
        mac,
        health: None,
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 10, 24, 21 + last])
}

/// The first mention of a real server counts: a service may have each only once.
fn spec(service_number: u8, scheduler: u8, servers: &[Choice]) -> ServiceSpec {
    let mut spec =
        service(json!({"protocol": "tcp", "address": format!("10.10.24.{}", 88 + service_number / 2), "port": 80 + service_number % 2}));
    spec.scheduler = [Scheduler::Rr, Scheduler::Wlc, Scheduler::Sh][usize::from(scheduler)];
    let mut seen = BTreeSet::new();
    spec.real_servers = servers.iter().filter(|s| seen.insert(s.0)).map(|s| real_server(*s)).collect();
    spec
}

struct World {
    runtime: tokio::runtime::Runtime,
    director: Director,
    workers: Vec<(WorkerEnd, Tables)>,
    /// Gauges that were raised: one connection each.
    connections: Vec<(usize, Arc<dataplane::stats::ServerStats>)>,
}

impl World {
    fn new() -> Self {
        let (controls, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| channel(2, 2)).unzip();
        // Few places: they must be handed on, and requests must be refused.
        let limits = Limits { services: 2, real_servers: 7, ..LIMITS };
        let director = Director::new(links(), controls, limits, Settings::default(), None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self {
            runtime,
            director,
            workers: ends.into_iter().enumerate().map(|(worker, end)| (end, Tables { worker, ..Tables::default() })).collect(),
            connections: Vec::new(),
        }
    }

    /// Changes and leaves, as a client does that does not wait; whether it was accepted must not matter.
    fn write(&self, write: impl Future<Output = ()>) {
        let _timers = self.runtime.enter();
        let _ = pin!(write).poll(&mut Context::from_waker(Waker::noop()));
    }

    fn step(&mut self, step: &Step) {
        let director = &self.director;
        match step {
            Step::Put { service, scheduler, servers } => {
                self.write(async { drop(director.put_service(&spec(*service, *scheduler, servers)).await) });
            }
            Step::RemoveService { service } => self.write(async { drop(director.delete_service(spec(*service, 0, &[]).key()).await) }),
            Step::Add { service, server } => {
                self.write(async { drop(director.put_real_server(spec(*service, 0, &[]).key(), &real_server(*server)).await) });
            }
            Step::RemoveServer { service, last } => {
                let key = spec(*service, 0, &[]).key();
                self.write(async { drop(director.delete_real_server(key, (address(*last), key.port).into()).await) });
            }
            Step::Replace { services } => {
                let mut seen = BTreeSet::new();
                let services = services.iter().filter(|s| seen.insert(s.0)).map(|(number, servers)| spec(*number, 0, servers)).collect();
                self.write(async { drop(director.put_document(&Document { services, ..Document::default() }).await) });
            }
            Step::Clear => self.write(async { drop(director.delete_all_services().await) }),
            Step::Neighbour { last, known } => director.set_neighbour(0, address(*last), known.then_some([2, 0, 0, 0, 2, *last])),
            Step::Connect { worker, nth } => {
                let tables = &self.workers[*worker].1;
                let members: Vec<_> = tables.services.values().flat_map(|s| &s.members).collect();
                if let Some(member) = members.get(*nth) {
                    member.stats.share(*worker).active.increment();
                    self.connections.push((*worker, Arc::clone(&member.stats)));
                }
            }
            Step::Disconnect => {
                if let Some((worker, stats)) = self.connections.pop() {
                    stats.share(worker).active.decrement();
                }
            }
            Step::Retire => self.director.retire(),
            Step::Turn { worker } => {
                let (end, tables) = &mut self.workers[*worker];
                turn(end, tables);
                self.director.pump();
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            for (end, tables) in &mut self.workers {
                turn(end, tables);
            }
            self.director.pump();
            self.director.retire();
        }
    }

    fn check(&self) {
        let document = self.director.document();
        let vips: BTreeSet<IpAddr> = document.services.iter().map(|s| s.address).collect();
        let mut wanted = Wanted { taken: vips.clone(), vips, ..Wanted::default() };
        for (end, tables) in &self.workers {
            assert_eq!(end.report().version.get(), document.revision);
            let by_key: BTreeMap<_, _> = tables.services.values().map(|s| ((s.key.address, s.key.port), s)).collect();
            assert_eq!((by_key.len(), tables.services.len()), (document.services.len(), document.services.len()));
            let mut members = 0;
            for spec in &document.services {
                let service = by_key[&(Address::from(spec.address), spec.port)];
                let oldest_first: Vec<_> = service.members.iter().rev().map(|m| (m, &tables.servers[&m.server.0])).collect();
                assert_eq!(oldest_first.len(), spec.real_servers.len());
                let seat = |weight| Seat { address: Address::v4(0), port: 0, weight, last_weight: 0 };
                let seats: Vec<Seat> = service.members.iter().map(|member| seat(member.weight)).collect();
                assert_eq!(service.buckets, Buckets::new(service.scheduler, false, &seats));
                members += oldest_first.len();
                for ((member, server), listed) in oldest_first.iter().zip(&spec.real_servers) {
                    assert!(server.available && server.address == Address::from(listed.address) && server.port == spec.port);
                    assert_eq!((member.weight, server.weight), (listed.weight, listed.weight));
                    assert_eq!(member.reachable, server.next_hop.is_some());
                    assert!(Arc::ptr_eq(&member.stats, &server.stats));
                    if let Some(mac) = &listed.mac {
                        assert_eq!(server.next_hop.map(|h| mac::format(h.mac)).as_ref(), Some(mac));
                    } else {
                        wanted.neighbours.insert((0, listed.address));
                    }
                }
            }
            // Beside the members, a worker knows only removed real servers that connections refer to.
            let removed: Vec<_> = tables.servers.values().filter(|s| !s.available).collect();
            assert!(removed.iter().all(|s| s.stats.active() > 0), "{removed:?}");
            assert_eq!(tables.servers.len(), members + removed.len());
            for (_, stats) in &self.connections {
                assert!(tables.servers.values().any(|s| Arc::ptr_eq(&s.stats, stats)), "a connection refers to it");
            }
            let locals: BTreeSet<Address> = tables.locals.as_ref().unwrap().addresses.keys().copied().collect();
            let own = ["10.10.24.10", "fd00:10::10", "10.20.0.10"].map(|a| a.parse::<IpAddr>().unwrap());
            assert_eq!(locals, wanted.vips.iter().chain(&own).map(|a| Address::from(*a)).collect::<BTreeSet<_>>());
        }
        assert_eq!(*self.director.wanted().borrow(), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn workers_end_up_with_what_the_document_says(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
