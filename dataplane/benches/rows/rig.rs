//! A whole worker between two rings, with the services that a family asks for, driven a round of frames at a time.

use std::sync::Arc;

use dataplane::address::Address;
use dataplane::command::{Batch, Command, ControlEnd, LocalAddresses, Reply, channel};
use dataplane::connection::Replies;
use dataplane::link::PortQueues;
use dataplane::routes::{PortRoutes, Routes};
use dataplane::schedule::{Buckets, Seat};
use dataplane::service::{
    Drain, Encapsulation, Member, Method, NextHop, NoRealServer, Protocol, RealServer, SchedulerKind, ServerId, ServiceId, ServiceKey,
    Thresholds, Tunnel, VirtualService,
};
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::{BURST, Burst};
use dpdk::clock;
use dpdk::eal::Eal;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::port::{RxQueue, TxQueue};
use dpdk::ring::Ring;

use crate::frames::{End, OUR_MAC, segment};
use crate::wire::Wire;

/// Frames of one round: small enough to stay in the L2 cache, as a NIC's would.
pub const FRAMES: u32 = 1024;
const MTU: u16 = 1500;

/// A virtual service, TCP.
#[derive(Clone, Copy)]
pub struct Served {
    pub vip: End,
    pub method: Method,
    pub scheduler: SchedulerKind,
    /// How many real servers it has: those of service `i` are `i * servers ..`.
    pub servers: u32,
}

/// The RIP of real server `n`, over all services.
pub fn rip(n: u32, v4: bool) -> Address {
    if v4 { Address::v4(0x0a40_0000 + n) } else { Address(0xfd00 << 112 | 1 << 32 | u128::from(n)) }
}

pub struct Rig {
    pub worker: Worker,
    pub control: ControlEnd,
    pub wire: Wire,
    pub now: Tick,
    pub idle: Vec<Burst>,
    swap: (RxQueue, TxQueue),
}

/// Real servers that a worker has room for unless it is told otherwise.
const SERVERS: u32 = 131_072;

impl Rig {
    /// A worker with room for `connections`, all of which may be half open. `name` tells rigs of one process apart.
    pub fn new(eal: &Eal, name: &str, connections: u32, services: &[Served]) -> Self {
        Self::with(eal, name, connections, services, Idle::Poll, FRAMES * 2)
    }

    pub fn with(eal: &Eal, name: &str, connections: u32, services: &[Served], idle: Idle, ring: u32) -> Self {
        let pool = Mempool::new(&format!("{name}-frames"), FRAMES * 2 - 1, 256, DEFAULT_DATA_ROOM, None).expect("pool");
        let wire = Wire::new(name, ring);
        let swap = wire.port(eal, &format!("{name}-s"), &pool);
        let (rx, tx) = wire.port(eal, &format!("{name}-w"), &pool);
        let (control, end) = channel(16, 1);
        let to_kernel = Arc::new(Ring::new(&format!("{name}-up"), FRAMES, None).expect("ring"));
        let most = services.iter().map(|service| service.servers).sum::<u32>();
        let config = WorkerConfig {
            index: 0,
            workers: 1,
            connections,
            half_open: connections,
            services: u32::try_from(services.len()).expect("few") + 1,
            servers: SERVERS.max(most + 1),
            ports: vec![PortQueues {
                rx: Some(rx),
                tx: tx.into(),
                spread: false,
                relays: Vec::new(),
                mac: OUR_MAC,
                pool: pool.clone(),
                to_kernel,
                from_kernel: None,
            }],
            vlans: Vec::new(),
            idle,
            seed: [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d],
            handover: None,
        };
        let worker = Worker::new(config, end).expect("worker");
        let mut bursts = Vec::new();
        for _ in 0..FRAMES as usize / BURST {
            let mut burst = Burst::new();
            assert!(pool.alloc_bulk(&mut burst, BURST), "frames");
            bursts.push(burst);
        }
        let mut rig = Self { worker, control, wire, now: Tick(1), idle: bursts, swap };
        rig.rules(services, connections);
        rig
    }

    fn rules(&mut self, services: &[Served], connections: u32) {
        let mut batch = Batch { version: 1, ..Batch::default() };
        let mut first = 0;
        for (i, served) in (0..).zip(services) {
            put_service(&mut batch, i, served, first);
            first += served.servers;
        }
        let addresses = services.iter().map(|served| served.vip.address);
        batch.locals = Some(Arc::new(LocalAddresses {
            addresses: addresses.clone().map(|address| (address, 1)).collect(),
            vips: addresses.collect(),
            probed: hashbrown::HashSet::new(),
            macs: vec![OUR_MAC],
        }));
        batch.routes = Some(Arc::new(Routes::new(vec![PortRoutes { mtu: MTU, ..PortRoutes::default() }])));
        if services.iter().any(|served| served.method == Method::Masquerading) {
            batch.replies = Some(Replies::new(connections).expect("memory"));
        }
        self.control.send(Command::Apply(Box::new(batch))).expect("room");
        self.worker.turn(self.now);
        assert!(matches!(self.control.receive(), Some(Reply::Applied(_))), "rules in force");
    }

    /// Puts a round's frames into the ring: for each `next` says from whom, to whom and with which TCP flags.
    pub fn load(&mut self, mut next: impl FnMut() -> (End, End, u8)) {
        for burst in &mut self.idle {
            for frame in &mut *burst {
                let (from, to, flags) = next();
                let (bytes, len) = segment(from, to, flags);
                frame.copy_from(&bytes[..len]).expect("room");
            }
            self.wire.rx.enqueue_burst(burst);
        }
    }

    /// Takes a round's frames out of the other ring.
    pub fn unload(&mut self) {
        for burst in &mut self.idle {
            self.wire.tx.dequeue_burst(burst);
            assert_eq!(burst.len(), BURST, "every frame came out again");
        }
    }

    /// Cycles that the worker takes for a loaded round.
    pub fn work(&mut self) -> u64 {
        let start = clock::cycles();
        while self.worker.turn(self.now) {}
        clock::cycles() - start
    }

    /// Cycles that swapping the MACs takes for a loaded round.
    pub fn swap(&mut self) -> u64 {
        let mut burst = Burst::new();
        let start = clock::cycles();
        for _ in 0..FRAMES as usize / BURST {
            self.swap_once(&mut burst);
        }
        clock::cycles() - start
    }

    /// Swaps the MACs of one burst, as macswap does.
    pub fn swap_once(&mut self, burst: &mut Burst) {
        let (rx, tx) = &mut self.swap;
        rx.receive(burst);
        for frame in &mut *burst {
            let (destination, source) = frame.data_mut().split_at_mut(6);
            destination.swap_with_slice(&mut source[..6]);
        }
        tx.send(burst);
    }

    /// Loads, works, unloads; the worker's cycles.
    pub fn round(&mut self, next: impl FnMut() -> (End, End, u8)) -> u64 {
        self.load(next);
        let cycles = self.work();
        self.unload();
        cycles
    }

    /// Opens and establishes connections `0..n`, where `ends` says who speaks to whom in each.
    pub fn open(&mut self, n: u32, ends: impl Fn(u32) -> (End, End)) {
        for first in (0..n).step_by(FRAMES as usize) {
            for flags in [dataplane::tcp::SYN, dataplane::tcp::ACK] {
                let mut next = first;
                self.round(|| {
                    let (from, to) = ends(next.min(n - 1));
                    next += 1;
                    (from, to, flags)
                });
            }
        }
    }

    /// Panics unless every frame so far was forwarded, and the table has `connections`.
    pub fn assert_forwarded(&self, connections: u32) {
        let report = self.control.report();
        assert_eq!(report.verdicts[0].get(Verdict::Forwarded), report.received[0].get(), "every frame was forwarded");
        assert_eq!(report.connections.get(), u64::from(connections), "all connections are there");
    }
}

fn put_service(batch: &mut Batch, id: u32, served: &Served, first: u32) {
    let v4 = served.vip.address.is_v4();
    let mut members = Vec::new();
    let mut seats = Vec::new();
    for n in first..first + served.servers {
        let stats = Arc::new(ServerStats::new(1));
        let [.., b, c, d] = n.to_be_bytes();
        let server = RealServer {
            id: ServerId(n),
            service: ServiceId(id),
            address: rip(n, v4),
            port: served.vip.port,
            protocol: Protocol::Tcp,
            method: served.method,
            tunnel: (served.method == Method::Tunnel)
                .then_some(Tunnel { source: Address::v4(0x0a0a_180a), encapsulation: Encapsulation::IpIp }),
            thresholds: Thresholds::default(),
            available: true,
            drain: Drain::No,
            weight: 1,
            next_hop: Some(NextHop { port: 0, mac: [2, 0, 1, b, c, d], mtu: MTU }),
            stats: Arc::clone(&stats),
        };
        seats.push(Seat { address: server.address, port: server.port, weight: 1, last_weight: 1 });
        batch.servers.push((ServerId(n), Some(Arc::new(server))));
        members.push(Member { server: ServerId(n), weight: 1, reachable: true, limited: false, stats });
    }
    let service = VirtualService {
        id: ServiceId(id),
        key: ServiceKey { protocol: Protocol::Tcp, address: served.vip.address, port: served.vip.port },
        scheduler: served.scheduler,
        one_packet: false,
        persistence: None,
        revision: 1,
        buckets: Buckets::new(served.scheduler, !v4, &seats),
        members,
        no_real_server: NoRealServer::Icmp,
        timeouts: None,
        stats: Arc::new(ServiceStats::new(1)),
    };
    batch.services.push((ServiceId(id), Some(Arc::new(service))));
}

/// Nanoseconds for one of `frames`.
pub fn nanoseconds(cycles: u64, frames: u32) -> f64 {
    cycles as f64 * 1e9 / clock::hz() as f64 / f64::from(frames)
}

/// The least of each group of `size` samples: groups are what is kept, and their least is what the machine's other users left alone.
pub fn least_of_each(samples: &[f64], size: usize) -> Vec<f64> {
    samples.chunks(size.max(1)).map(|group| group.iter().copied().fold(f64::INFINITY, f64::min)).collect()
}
