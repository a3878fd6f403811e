//! What the pipeline costs a packet: nanoseconds added to a plain MAC swap over the same frames, in one process and on one core.
//!
//! `cargo bench -p dataplane --bench pipeline -- [--connections 65536,1000000] [--rounds 30] [--json]`
//!
//! Both sides take frames from the same ring and put them into the same ring; rounds alternate, and the best of each side
//! counts, as the machine's other users only ever add. The flows of a round are drawn at random from all connections, so that
//! with many of them nearly every lookup misses the caches.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::cast_precision_loss, clippy::explicit_iter_loop)]

use std::sync::Arc;

use dataplane::address::Address;
use dataplane::command::{Batch, Command, ControlEnd, LocalAddresses, channel};
use dataplane::link::PortQueues;
use dataplane::service::{
    Member, Method, NextHop, Protocol, RealServer, SchedulerKind, ServerId, ServiceId, ServiceKey, Thresholds, VirtualService,
};
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::Burst;
use dpdk::clock;
use dpdk::eal::{Eal, EalConfig};
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::net::checksum;
use dpdk::port::{PortConfig, RxQueue, TxQueue};
use dpdk::ring::{Ring, ring_port};

const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0xd0, 0];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VIP: u32 = 0x0a0a_1858;
const SERVERS: u32 = 4;
/// Frames of one round: small enough to stay in the L2 cache, as a NIC's would.
const FRAMES: u32 = 1024;

/// A small fast generator (xorshift64*), so that drawing flows costs nothing worth mention.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(n)) >> 32).unwrap_or_default()
    }
}

/// A 64-byte frame (60 without FCS) of connection `n` with these TCP flags.
fn write_frame(frame: &mut [u8], n: u32, flags: u8) {
    frame[..6].copy_from_slice(&OUR_MAC);
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    // 2^16 clients of up to 2^16 - 1024 ports each.
    frame[26..30].copy_from_slice(&(0x0b00_0000 + n / 60_000).to_be_bytes());
    frame[30..34].copy_from_slice(&VIP.to_be_bytes());
    let port = u16::try_from(1024 + n % 60_000).unwrap_or_default();
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
    frame[38..54].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let sum = checksum::internet(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

struct Bench {
    worker: Worker,
    control: ControlEnd,
    swap_rx: RxQueue,
    swap_tx: TxQueue,
    rx: Ring,
    tx: Ring,
    idle: Vec<Burst>,
    now: Tick,
}

impl Bench {
    fn new(eal: &Eal, connections: u32) -> Self {
        let pool = Mempool::new("frames", FRAMES * 2 - 1, 256, DEFAULT_DATA_ROOM, None).expect("pool");
        let ring = |name: &str| Ring::new(name, FRAMES * 2, None).expect("ring");
        let (rx, tx) = (ring("rx"), ring("tx"));
        let open = |name: &str| {
            let mut port = ring_port(eal, name, &[&rx], &[&tx]).expect("port");
            let config = PortConfig { rx_queues: 1, tx_queues: 1, ..PortConfig::default() };
            let (mut rxq, mut txq) = port.configure(&config, &pool).expect("configured");
            port.start().expect("started");
            let queues = (rxq.remove(0), txq.remove(0));
            std::mem::forget(port);
            queues
        };
        let (swap_rx, swap_tx) = open("swap");
        let (work_rx, work_tx) = open("work");
        let (control, end) = channel(16, 1);
        let queues = PortQueues {
            rx: Some(work_rx),
            tx: work_tx.into(),
            spread: false,
            relays: Vec::new(),
            mac: OUR_MAC,
            pool: pool.clone(),
            to_kernel: Arc::new(ring("up")),
            from_kernel: None,
        };
        let capacity = connections.max(1024) / 8 * 9;
        let config = WorkerConfig {
            index: 0,
            workers: 1,
            connections: capacity,
            half_open: capacity,
            services: 16,
            servers: 64,
            ports: vec![queues],
            vlans: Vec::new(),
            idle: Idle::Poll,
            seed: [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d],
            handover: None,
        };
        let worker = Worker::new(config, end).expect("worker");
        let mut idle = Vec::new();
        for _ in 0..FRAMES / 64 {
            let mut burst = Burst::new();
            assert!(pool.alloc_bulk(&mut burst, 64), "frames");
            for frame in &mut burst {
                frame.append(60).expect("room");
            }
            idle.push(burst);
        }
        let mut bench = Self { worker, control, swap_rx, swap_tx, rx, tx, idle, now: Tick(1) };
        bench.rules();
        bench
    }

    fn rules(&mut self) {
        let mut batch = Batch { version: 1, ..Batch::default() };
        let address = Address::v4(VIP);
        let mut members = Vec::new();
        for n in 0..SERVERS {
            let stats = Arc::new(ServerStats::new(1));
            let mac = [2, 0, 0, 0, 0, 21 + u8::try_from(n).unwrap_or_default()];
            let server = RealServer {
                id: ServerId(n),
                address: Address::v4(0x0a0a_1815 + n),
                port: 80,
                protocol: Protocol::Tcp,
                method: Method::DirectRouting,
                tunnel: None,
                thresholds: Thresholds::default(),
                available: true,
                drain: dataplane::service::Drain::No,
                weight: 1,
                next_hop: Some(NextHop { port: 0, mac, mtu: 1500 }),
                stats: Arc::clone(&stats),
            };
            batch.servers.push((ServerId(n), Some(Arc::new(server))));
            members.push(Member { server: ServerId(n), weight: 1, reachable: true, limited: false, stats });
        }
        let service = VirtualService {
            id: ServiceId(0),
            key: ServiceKey { protocol: Protocol::Tcp, address, port: 80 },
            scheduler: SchedulerKind::RoundRobin,
            one_packet: false,
            persistence: None,
            revision: 1,
            buckets: dataplane::schedule::Buckets::default(),
            members,
            no_real_server: dataplane::service::NoRealServer::Icmp,
            timeouts: None,
            stats: Arc::new(ServiceStats::new(1)),
        };
        batch.services.push((ServiceId(0), Some(Arc::new(service))));
        let locals = LocalAddresses {
            addresses: std::iter::once((address, 1)).collect(),
            vips: std::iter::once(address).collect(),
            probed: hashbrown::HashSet::new(),
            macs: vec![OUR_MAC],
        };
        batch.locals = Some(Arc::new(locals));
        self.control.send(Command::Apply(Box::new(batch))).expect("room");
        self.worker.turn(self.now);
        assert!(self.control.receive().is_some(), "rules in force");
    }

    /// Puts a round's frames into the ring, each as `write` has it.
    fn load(&mut self, mut write: impl FnMut(&mut [u8])) {
        for burst in &mut self.idle {
            for frame in burst.iter_mut() {
                write(frame.data_mut());
            }
            self.rx.enqueue_burst(burst);
        }
    }

    fn unload(&mut self) {
        for burst in &mut self.idle {
            self.tx.dequeue_burst(burst);
            assert_eq!(burst.len(), 64, "every frame came out again");
        }
    }

    /// Cycles that the worker takes for a loaded round.
    fn work(&mut self) -> u64 {
        let start = clock::cycles();
        for _ in 0..FRAMES / 64 {
            self.worker.turn(self.now);
        }
        clock::cycles() - start
    }

    /// Cycles that swapping the MACs takes for a loaded round.
    fn swap(&mut self) -> u64 {
        let mut burst = Burst::new();
        let start = clock::cycles();
        for _ in 0..FRAMES / 64 {
            self.swap_rx.receive(&mut burst);
            for frame in &mut burst {
                let macs = frame.data_mut();
                let (destination, source) = macs.split_at_mut(6);
                destination.swap_with_slice(&mut source[..6]);
            }
            self.swap_tx.send(&mut burst);
        }
        clock::cycles() - start
    }

    /// Opens and establishes connections `0..n`; gives cycles a connection for the SYN and for the ACK.
    fn open(&mut self, n: u32) -> (u64, u64) {
        let mut total = (0, 0);
        for first in (0..n).step_by(FRAMES as usize) {
            for (flags, sum) in [(2, &mut total.0), (16, &mut total.1)] {
                let mut next = first;
                self.load(|frame| {
                    write_frame(frame, next.min(n - 1), flags);
                    next += 1;
                });
                *sum += self.work();
                self.unload();
            }
        }
        (total.0 / u64::from(n), total.1 / u64::from(n))
    }
}

struct Row {
    connections: u32,
    swap: f64,
    pipeline: f64,
    first: f64,
}

fn measure(eal: &Eal, connections: u32, rounds: u32) -> Row {
    let ns = 1e9 / clock::hz() as f64;
    let mut bench = Bench::new(eal, connections);
    let (first, _) = bench.open(connections);
    let report = bench.control.report();
    assert_eq!(report.connections.get(), u64::from(connections), "all connections are there");
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut swap, mut work) = (u64::MAX, u64::MAX);
    for _ in 0..rounds * 8 {
        bench.load(|frame| write_frame(frame, random.below(connections), 16));
        swap = swap.min(bench.swap());
        bench.unload();
        bench.load(|frame| write_frame(frame, random.below(connections), 16));
        work = work.min(bench.work());
        bench.unload();
    }
    let report = bench.control.report();
    assert_eq!(report.verdicts[0].get(Verdict::Forwarded), report.received[0].get(), "every frame was forwarded");
    let per_packet = |cycles: u64| cycles as f64 * ns / f64::from(FRAMES);
    Row { connections, swap: per_packet(swap), pipeline: per_packet(work), first: first as f64 * ns }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)).cloned();
    let sizes: Vec<u32> =
        value("--connections").unwrap_or_else(|| "65536,1000000".into()).split(',').filter_map(|n| n.parse().ok()).collect();
    let rounds = value("--rounds").and_then(|n| n.parse().ok()).unwrap_or(30);
    let json = arguments.iter().any(|a| a == "--json");
    // A process has one EAL and its names, so every size gets a process of its own.
    if sizes.len() > 1 {
        let program = std::env::current_exe().expect("own path");
        for (i, size) in sizes.iter().enumerate() {
            let mut child = std::process::Command::new(&program);
            child.args(["--connections", &size.to_string(), "--rounds", &rounds.to_string()]);
            if json {
                child.arg("--json");
            } else if i > 0 {
                child.arg("--no-header");
            }
            assert!(child.status().expect("started").success(), "size {size}");
        }
        return;
    }
    let core = dpdk::test_support::allowed_cpus().last().copied().unwrap_or(0);
    let config = EalConfig {
        program: "pipeline".into(),
        main_core: 0,
        worker_cores: vec![core],
        no_huge: true,
        memory_mb: Some(64),
        file_prefix: format!("baton-bench-{}", std::process::id()),
        log_level: Some("error".into()),
        extra: vec!["--no-shconf".into()],
        ..EalConfig::default()
    };
    let eal = Arc::new(Eal::init(&config).expect("EAL"));
    let size = sizes.first().copied().unwrap_or(65_536);
    let on_core = Arc::clone(&eal);
    let row = eal.launch(0, move || measure(&on_core, size, rounds)).expect("launched").join().expect("measured");
    if json {
        println!(
            r#"{{"connections": {}, "mac_swap_ns": {:.2}, "pipeline_ns": {:.2}, "added_ns": {:.2}, "new_connection_ns": {:.1}}}"#,
            row.connections,
            row.swap,
            row.pipeline,
            row.pipeline - row.swap,
            row.first
        );
        return;
    }
    if !arguments.iter().any(|a| a == "--no-header") {
        println!("{:>12} {:>14} {:>14} {:>12} {:>20}", "connections", "MAC swap ns", "pipeline ns", "added ns", "new connection ns");
    }
    println!("{:>12} {:>14.1} {:>14.1} {:>12.1} {:>20.1}", row.connections, row.swap, row.pipeline, row.pipeline - row.swap, row.first);
}
