//! Two workers: frames that reach the wrong one find their connection, and every frame is counted once.
#![allow(clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::frame::*;
use common::*;
use dataplane::command::{Batch, Command, ControlEnd, LocalAddresses, Reply, channel};
use dataplane::connection::Replies;
use dataplane::handover::{self, DEPTH};
use dataplane::link::PortQueues;
use dataplane::routes::{PortRoutes, Routes};
use dataplane::schedule::Buckets;
use dataplane::service::{Protocol::*, SchedulerKind::*, *};
use dataplane::stats::{ServerStats, ServiceStats};
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::Burst;
use dpdk::eal::Eal;
use dpdk::eal_test;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::port::{Port, PortConfig};
use dpdk::ring::{Ring, ring_port};

const ROOM: u32 = 1024;
const CLIENT: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const DIRECT: &str = "10.10.24.88:81";
const RS: &str = "10.10.24.21:8080";

struct One {
    worker: Worker,
    control: ControlEnd,
    rx: Ring,
    tx: Ring,
}

/// Workers that share a port, with a masquerading service on port 80 and one by direct routing on port 81.
struct Several {
    workers: Vec<One>,
    pool: Mempool,
    to_kernel: Arc<Ring>,
    service: Arc<ServiceStats>,
    _port: Port,
    _eal: Eal,
}

impl Several {
    fn new(eal: Eal, count: usize) -> Self {
        let pool = Mempool::new("frames", 8191, 256, DEFAULT_DATA_ROOM, None).expect("pool");
        let ring = |name: String| Ring::new(&name, 2 * DEPTH, None).expect("ring");
        let rx: Vec<_> = (0..count).map(|n| ring(format!("rx{n}"))).collect();
        let tx: Vec<_> = (0..count).map(|n| ring(format!("tx{n}"))).collect();
        let to_kernel = Arc::new(ring("up".to_owned()));
        let all = |rings: &[Ring]| rings.to_vec();
        let (rx_rings, tx_rings) = (all(&rx), all(&tx));
        let mut port = ring_port(&eal, "lab", &rx_rings.iter().collect::<Vec<_>>(), &tx_rings.iter().collect::<Vec<_>>()).expect("port");
        let queues = u16::try_from(count).expect("few");
        let (rxq, txq) =
            port.configure(&PortConfig { rx_queues: queues, tx_queues: queues, ..PortConfig::default() }, &pool).expect("configured");
        port.start().expect("started");
        let mesh = handover::mesh(count, ROOM, [5, 6, 7, 8]).expect("rings");
        let mut workers = Vec::new();
        for ((index, handover), ((rx_queue, tx_queue), (rx, tx))) in
            mesh.into_iter().enumerate().zip(rxq.into_iter().zip(txq).zip(rx.into_iter().zip(tx)))
        {
            let (control, end) = channel(16, 1);
            let port = PortQueues {
                rx: rx_queue,
                tx: tx_queue,
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
        let service = Arc::new(ServiceStats::new(count));
        let mut several = Self { workers, pool, to_kernel, service, _port: port, _eal: eal };
        several.configure();
        several
    }

    fn configure(&mut self) {
        let server = |id, method, port| {
            let next_hop = Some(NextHop { port: 0, mac: server_mac(21), mtu: MTU });
            Arc::new(RealServer {
                id: ServerId(id),
                address: address("10.10.24.21"),
                port,
                method,
                thresholds: Thresholds::default(),
                tunnel: None,
                available: true,
                weight: 1,
                next_hop,
                stats: Arc::new(ServerStats::new(self.workers.len())),
            })
        };
        let servers = [server(0, Method::Masquerading, 8080), server(1, Method::DirectRouting, 81)];
        let service = |id: u32, port, stats: &Arc<ServiceStats>| {
            let of = &servers[id as usize];
            let member = Member { server: of.id, weight: 1, reachable: true, limited: false, stats: Arc::clone(&of.stats) };
            Arc::new(VirtualService {
                id: ServiceId(id),
                key: ServiceKey { protocol: Tcp, address: address(VIP), port },
                scheduler: RoundRobin,
                one_packet: false,
                persistence: None,
                revision: 1,
                members: vec![member],
                buckets: Buckets::default(),
                timeouts: None,
                no_real_server: NoRealServer::Icmp,
                stats: Arc::clone(stats),
            })
        };
        let services = [service(0, 80, &self.service), service(1, 81, &Arc::new(ServiceStats::new(self.workers.len())))];
        let locals = Arc::new(LocalAddresses {
            addresses: [VIP, DIP].map(|a| (address(a), 1)).into_iter().collect(),
            vips: [VIP].map(address).into_iter().collect(),
            macs: vec![OUR_MAC],
        });
        let routes = Arc::new(Routes { ports: vec![PortRoutes { mtu: MTU, ..PortRoutes::default() }] });
        for one in &mut self.workers {
            let batch = Batch {
                version: 1,
                services: services.iter().map(|s| (s.id, Some(Arc::clone(s)))).collect(),
                servers: servers.iter().map(|s| (s.id, Some(Arc::clone(s)))).collect(),
                locals: Some(Arc::clone(&locals)),
                routes: Some(Arc::clone(&routes)),
                replies: Some(Replies::new(ROOM).expect("memory")),
                ..Batch::default()
            };
            one.control.send(Command::Apply(Box::new(batch))).expect("room");
            one.worker.turn(Tick(1000));
            assert!(matches!(one.control.receive(), Some(Reply::Applied(_))));
        }
    }

    /// Gives a frame to worker `to` and lets all turn in order, `rounds` times; what each sent.
    fn send(&mut self, to: usize, frames: &[Vec<u8>], rounds: usize) -> Vec<Vec<Vec<u8>>> {
        for frame in frames {
            let mut mbuf = self.pool.alloc().expect("an mbuf");
            mbuf.copy_from(frame).expect("room");
            self.workers[to].rx.enqueue(mbuf).expect("room in the ring");
        }
        for _ in 0..rounds {
            for one in &mut self.workers {
                one.worker.turn(Tick(1000));
            }
        }
        self.workers.iter().map(|one| take(&one.tx)).collect()
    }

    fn verdict(&self, worker: usize, verdict: Verdict) -> u64 {
        self.workers[worker].control.report().verdicts[0].get(verdict)
    }

    /// (received, taken over, handed over) of each worker, which must add up with their verdicts.
    fn flow(&self) -> Vec<(u64, u64, u64)> {
        let flow = |one: &One| {
            let report = one.control.report();
            let (received, taken, handed) = (report.received[0].get(), report.taken_over.get(), report.handed_over.get());
            assert_eq!(received + taken, report.verdicts[0].total() + handed, "every frame has one verdict, or another worker");
            (received, taken, handed)
        };
        self.workers.iter().map(flow).collect()
    }

    fn assert_no_leak(&self) {
        take(&self.to_kernel);
        assert_eq!(self.pool.in_use(), 0, "mbufs leaked");
    }
}

fn take(ring: &Ring) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    while ring.dequeue_burst(&mut burst) != 0 {
        frames.extend(burst.drain(..).map(|m| m.data().to_vec()));
    }
    frames
}

eal_test! {
    fn a_reply_finds_its_connection_on_another_worker(eal) {
        let mut several = Several::new(eal, 2);
        assert_eq!(several.send(0, &[tcp(CLIENT, WEB).syn()], 1)[0].len(), 1);
        let out = several.send(1, &[tcp(RS, CLIENT).segment(SYN | ACK)], 2);
        assert!(out[1].is_empty(), "its owner sends it");
        assert_eq!((&out[0][0][26..30], &out[0][0][34..36]), (&[10, 10, 24, 88][..], &80_u16.to_be_bytes()[..]));
        assert_eq!(several.flow(), [(1, 1, 0), (1, 0, 1)]);
        assert_eq!((several.verdict(0, Verdict::Forwarded), several.service.sum().out_packets), (2, 1));
        several.assert_no_leak();
    }

    fn a_packet_of_no_connection_is_left_where_it_came(eal) {
        let mut several = Several::new(eal, 2);
        several.send(1, &[tcp(RS, CLIENT).ack()], 2);
        assert_eq!(several.flow(), [(0, 0, 0), (1, 0, 0)], "nobody ever had such a connection");
        assert_eq!(several.verdict(1, Verdict::Exception), 1);
        several.assert_no_leak();
    }

    fn errors_find_their_connection_on_whichever_worker_has_it(eal) {
        let mut several = Several::new(eal, 3);
        several.send(1, &[tcp(CLIENT, DIRECT).syn(), tcp(CLIENT, WEB).syn()], 1);
        let vip = [10, 10, 24, 88];
        for (about, rip) in [(tcp(DIRECT, CLIENT).ack(), vip), (tcp(WEB, CLIENT).ack(), [10, 10, 24, 21])] {
            let out = several.send(2, &[fragmentation_needed([203, 0, 113, 9], vip, &about[14..], 1400)], 3);
            assert_eq!((&out[1][0][..6], &out[1][0][30..34]), (&server_mac(21)[..], &rip[..]));
        }
        // From the real server's side, about a request.
        let about = tcp(CLIENT, RS).ack();
        let out = several.send(0, &[fragmentation_needed([10, 10, 24, 21], [198, 51, 100, 1], &about[14..], 1400)], 3);
        assert_eq!((&out[1][0][..6], &out[1][0][26..30]), (&ROUTER_MAC[..], &vip[..]));
        several.flow();
        several.assert_no_leak();
    }

    fn a_forged_error_is_seen_by_every_worker_and_changes_nothing(eal) {
        let mut several = Several::new(eal, 3);
        several.send(1, &[tcp(CLIENT, DIRECT).syn()], 1);
        let forged = tcp(DIRECT, "198.51.100.1:1001").ack();
        let out = several.send(1, &[fragmentation_needed([203, 0, 113, 9], [10, 10, 24, 88], &forged[14..], 1400)], 4);
        assert!(out.iter().all(Vec::is_empty));
        assert_eq!(several.flow(), [(0, 1, 0), (2, 0, 1), (0, 1, 1)]);
        assert_eq!(several.verdict(0, Verdict::UnrelatedError), 1);
        several.assert_no_leak();
    }

    fn what_a_full_ring_refuses_is_counted(eal) {
        let mut several = Several::new(eal, 2);
        several.send(0, &[tcp(CLIENT, WEB).syn()], 1);
        let replies = vec![tcp(RS, CLIENT).ack(); DEPTH as usize + 64];
        let mut mine = Vec::new();
        for frame in &replies {
            let mut mbuf = several.pool.alloc().expect("an mbuf");
            mbuf.copy_from(frame).expect("room");
            several.workers[1].rx.enqueue(mbuf).expect("room in the ring");
        }
        for _ in 0..=replies.len() / 64 {
            several.workers[1].worker.turn(Tick(1000));
        }
        assert_eq!(several.verdict(1, Verdict::HandOverFull), 64);
        for _ in 0..=replies.len() / 64 {
            several.workers[0].worker.turn(Tick(1000));
            mine.extend(take(&several.workers[0].tx));
        }
        assert_eq!(mine.len(), DEPTH as usize, "one ring of the bell is heard until the ring is empty");
        assert_eq!(several.flow(), [(1, u64::from(DEPTH), 0), (u64::from(DEPTH) + 64, 0, u64::from(DEPTH))]);
        several.assert_no_leak();
    }
}
