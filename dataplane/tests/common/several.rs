//! Several workers on queues of one port: tests choose the worker that each frame reaches.

use std::sync::Arc;

use dataplane::command::{Batch, Command, ControlEnd, LocalAddresses, Reply, channel};
use dataplane::connection::Replies;
use dataplane::handover::{self, DEPTH};
use dataplane::link::{Exit, PortQueues};
use dataplane::routes::{PortRoutes, Routes};
use dataplane::schedule::Buckets;
use dataplane::service::*;
use dataplane::settings::Settings;
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::Burst;
use dpdk::eal::Eal;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::port::{Port, PortConfig};
use dpdk::ring::{Ring, ring_port};

use super::{DIP, MTU, OUR_MAC, ROUTER_MAC, VIP, address, server_mac};

/// Connections that each worker has room for.
pub const ROOM: u32 = 1024;

pub struct One {
    pub worker: Worker,
    pub control: ControlEnd,
    pub rx: Ring,
    pub tx: Ring,
}

/// A service as a test names it: protocol, vport, and its real servers by the last byte of their addresses, with method and rport.
pub type Wanted<'a> = (Protocol, u16, &'a [(u8, Method, u16)]);

/// Workers that share a port, without services.
pub struct Several {
    pub workers: Vec<One>,
    pub pool: Mempool,
    to_kernel: Arc<Ring>,
    /// What every turn is told.
    pub now: Tick,
    _port: Port,
    _eal: Eal,
}

impl Several {
    pub fn new(eal: Eal, count: usize) -> Self {
        Self::with_queues(eal, count, count)
    }

    /// Workers of which the first `queues` have queues of the port, and share their frames out where that is not all of them.
    pub fn with_queues(eal: Eal, count: usize, queues: usize) -> Self {
        let pool = Mempool::new("frames", 8191, 256, DEFAULT_DATA_ROOM, None).expect("pool");
        let ring = |name: String| Ring::new(&name, 2 * DEPTH, None).expect("ring");
        let rx: Vec<_> = (0..count).map(|n| ring(format!("rx{n}"))).collect();
        let tx: Vec<_> = (0..count).map(|n| ring(format!("tx{n}"))).collect();
        let to_kernel = Arc::new(ring("up".to_owned()));
        let all = |rings: &[Ring]| rings.to_vec();
        let (rx_rings, tx_rings) = (all(&rx[..queues]), all(&tx[..queues]));
        let mut port = ring_port(&eal, "lab", &rx_rings.iter().collect::<Vec<_>>(), &tx_rings.iter().collect::<Vec<_>>()).expect("port");
        let (spread, queues) = (queues < count, u16::try_from(queues).expect("few"));
        let (rxq, txq) =
            port.configure(&PortConfig { rx_queues: queues, tx_queues: queues, ..PortConfig::default() }, &pool).expect("configured");
        port.start().expect("started");
        let mesh = handover::mesh(count, ROOM, [5, 6, 7, 8]).expect("rings");
        let mut workers = Vec::new();
        let own = rxq.into_iter().zip(txq).map(|(rx, tx)| (Some(rx), Exit::from(tx), Vec::new()));
        let mut ways: Vec<_> = own.collect();
        for worker in ways.len()..count {
            let (exit, relay) = Ring::one_way(&format!("relay{worker}"), DEPTH, None).expect("ring");
            ways[0].2.push(relay);
            ways.push((None, Exit::Relay(exit), Vec::new()));
        }
        for ((index, handover), ((rx_queue, exit, relays), (rx, tx))) in
            mesh.into_iter().enumerate().zip(ways.into_iter().zip(rx.into_iter().zip(tx)))
        {
            let (control, end) = channel(16, 1);
            let port = PortQueues {
                rx: rx_queue,
                tx: exit,
                spread,
                relays,
                mac: OUR_MAC,
                pool: pool.clone(),
                to_kernel: Arc::clone(&to_kernel),
                from_kernel: None,
            };
            let config = WorkerConfig {
                index,
                workers: count,
                connections: ROOM,
                half_open: ROOM,
                services: 8,
                servers: 8,
                ports: vec![port],
                vlans: Vec::new(),
                idle: Idle::Poll,
                seed: [index as u64, 2, 3, 4],
                handover,
            };
            workers.push(One { worker: Worker::new(config, end).expect("worker"), control, rx, tx });
        }
        Self { workers, pool, to_kernel, now: Tick(1000), _port: port, _eal: eal }
    }

    /// Puts services of the VIP in force, scheduled by round robin; gives what each counts. The gateway is the router.
    pub fn services(&mut self, settings: Settings, services: &[Wanted<'_>]) -> Vec<Arc<ServiceStats>> {
        let count = self.workers.len();
        let mut servers = Vec::new();
        let mut snapshots = Vec::new();
        for (id, (protocol, vport, of)) in (0..).zip(services) {
            let first = servers.len();
            for (n, method, port) in *of {
                servers.push(Arc::new(RealServer {
                    id: ServerId(u32::try_from(servers.len()).expect("few")),
                    service: ServiceId(id),
                    address: address(&format!("10.10.24.{n}")),
                    port: *port,
                    protocol: *protocol,
                    method: *method,
                    thresholds: Thresholds::default(),
                    tunnel: Some(Tunnel { source: address(DIP), encapsulation: Encapsulation::IpIp }),
                    available: true,
                    drain: Drain::No,
                    weight: 1,
                    next_hop: Some(NextHop { port: 0, mac: server_mac(*n), mtu: MTU }),
                    stats: Arc::new(ServerStats::new(count)),
                }));
            }
            let member = |of: &Arc<RealServer>| {
                let stats = Arc::clone(&of.stats);
                Member { server: of.id, weight: 1, reachable: true, limited: false, stats }
            };
            snapshots.push(Arc::new(VirtualService {
                id: ServiceId(id),
                key: ServiceKey { protocol: *protocol, address: address(VIP), port: *vport },
                scheduler: SchedulerKind::RoundRobin,
                one_packet: false,
                persistence: None,
                revision: 1,
                members: servers[first..].iter().map(member).collect(),
                buckets: Buckets::default(),
                timeouts: None,
                no_real_server: NoRealServer::Icmp,
                stats: Arc::new(ServiceStats::new(count)),
            }));
        }
        let locals = Arc::new(LocalAddresses {
            addresses: [VIP, DIP].map(|a| (address(a), 1)).into_iter().collect(),
            vips: [VIP].map(address).into_iter().collect(),
            macs: vec![OUR_MAC],
            ..LocalAddresses::default()
        });
        let gateway = NextHop { port: 0, mac: ROUTER_MAC, mtu: MTU };
        let routes = Arc::new(Routes::new(vec![PortRoutes { mtu: MTU, gateways: [Some(gateway), None], ..PortRoutes::default() }]));
        self.apply(|| Batch {
            version: 1,
            services: snapshots.iter().map(|s| (s.id, Some(Arc::clone(s)))).collect(),
            servers: servers.iter().map(|s| (s.id, Some(Arc::clone(s)))).collect(),
            locals: Some(Arc::clone(&locals)),
            routes: Some(Arc::clone(&routes)),
            settings: Some(settings),
            replies: Some(Replies::new(ROOM).expect("memory")),
            ..Batch::default()
        });
        snapshots.iter().map(|service| Arc::clone(&service.stats)).collect()
    }

    /// Puts a batch in force on every worker.
    pub fn apply(&mut self, batch: impl Fn() -> Batch) {
        for one in &mut self.workers {
            one.control.send(Command::Apply(Box::new(batch()))).expect("room");
            one.worker.turn(self.now);
            assert!(matches!(one.control.receive(), Some(Reply::Applied(_))));
        }
    }

    /// Gives a frame to worker `to` and lets all turn in order, `rounds` times; what each sent.
    pub fn send(&mut self, to: usize, frames: &[Vec<u8>], rounds: usize) -> Vec<Vec<Vec<u8>>> {
        for frame in frames {
            let mut mbuf = self.pool.alloc().expect("an mbuf");
            mbuf.copy_from(frame).expect("room");
            self.workers[to].rx.enqueue(mbuf).expect("room in the ring");
        }
        for _ in 0..rounds {
            for one in &mut self.workers {
                one.worker.turn(self.now);
            }
        }
        self.workers.iter().map(|one| take(&one.tx)).collect()
    }

    pub fn verdict(&self, worker: usize, verdict: Verdict) -> u64 {
        self.workers[worker].control.report().verdicts[0].get(verdict)
    }

    /// (received, taken over, handed over) of each worker, which must add up with their verdicts.
    pub fn flow(&self) -> Vec<(u64, u64, u64)> {
        let flow = |one: &One| {
            let report = one.control.report();
            let (received, taken, handed) = (report.received[0].get(), report.taken_over.get(), report.handed_over.get());
            assert_eq!(received + taken, report.verdicts[0].total() + handed, "every frame has one verdict, or another worker");
            (received, taken, handed)
        };
        self.workers.iter().map(flow).collect()
    }

    pub fn assert_no_leak(&self) {
        take(&self.to_kernel);
        assert_eq!(self.pool.in_use(), 0, "mbufs leaked");
    }
}

pub fn take(ring: &Ring) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    while ring.dequeue_burst(&mut burst) != 0 {
        frames.extend(burst.drain(..).map(|m| m.data().to_vec()));
    }
    frames
}
