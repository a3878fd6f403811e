//! A whole worker between two rings: tests put frames in, let it turn, and look at every frame and every counter that comes out.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, clippy::wrong_self_convention, missing_docs)]

pub mod frame;
pub mod several;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::address::Address;
use dataplane::command::{Batch, Command, ControlEnd, LocalAddresses, Reply, channel};
use dataplane::connection::Replies;
use dataplane::link::PortQueues;
use dataplane::routes::{PortRoutes, Routes};
use dataplane::schedule::{Buckets, Seat};
use dataplane::service::*;
use dataplane::settings::{Settings, Timeouts};
use dataplane::stats::{ServerStats, ServiceStats, TrafficSum};
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::vlan::{Tags, VlanQueues};
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::Burst;
use dpdk::eal::Eal;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::port::{Port, PortConfig};
use dpdk::ring::{Ring, ring_port};

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0xd0, 0];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const VIP: &str = "10.10.24.88";
pub const VIP6: &str = "fd00:10::88";
pub const DIP: &str = "10.10.24.10";
pub const MTU: u16 = 1500;

pub fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

/// MAC of the real server whose address ends in `n`.
pub const fn server_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

/// A real server as a test names it: last byte of its address and weight.
#[derive(Clone, Copy)]
pub struct Server {
    pub n: u8,
    pub weight: u32,
    pub mac: Option<[u8; 6]>,
    pub available: bool,
    pub drain: Drain,
    pub thresholds: Thresholds,
    /// For a tunnel: the RIP, and the DIP that it is reached from.
    pub tunnel: Option<(&'static str, &'static str)>,
    /// For masquerading: the rport, 0 for that of each packet.
    pub masquerading: Option<u16>,
    pub encapsulation: Encapsulation,
    pub port: u16,
}

pub const fn server(n: u8) -> Server {
    Server {
        n,
        weight: 1,
        mac: Some(server_mac(n)),
        available: true,
        drain: Drain::No,
        thresholds: Thresholds { upper: 0, lower: 0 },
        tunnel: None,
        masquerading: None,
        encapsulation: Encapsulation::IpIp,
        port: 0,
    }
}

impl Server {
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
    pub const fn mac(mut self, mac: Option<[u8; 6]>) -> Self {
        self.mac = mac;
        self
    }
    pub const fn thresholds(mut self, upper: u32, lower: u32) -> Self {
        self.thresholds = Thresholds { upper, lower };
        self
    }
    pub const fn tunnel(mut self, rip: &'static str, dip: &'static str) -> Self {
        self.tunnel = Some((rip, dip));
        self
    }
    pub const fn masquerading(mut self, port: u16) -> Self {
        self.masquerading = Some(port);
        self
    }
    pub const fn encapsulation(mut self, encapsulation: Encapsulation) -> Self {
        self.encapsulation = encapsulation;
        self
    }
    /// The port or VLAN that it is on.
    pub const fn on(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
    /// Drained; one whose connections are to end is out of its service.
    pub const fn drained(mut self, drain: Drain) -> Self {
        self.weight = 0;
        self.available = !drain.ends_connections();
        self.drain = drain;
        self
    }
    pub const fn removed(mut self) -> Self {
        self.available = false;
        self
    }
}

pub struct Lab {
    pub worker: Worker,
    pub control: ControlEnd,
    pub now: Tick,
    /// What services have that are put from now on.
    pub persistence: Option<Persistence>,
    pub no_real_server: NoRealServer,
    pub timeouts: Option<Timeouts>,
    pub pool: Mempool,
    room: u32,
    rx: Ring,
    tx: Ring,
    to_kernel: Arc<Ring>,
    from_kernel: Arc<Ring>,
    /// The kernel's sides of VLANs.
    pub sides: Vec<(Arc<Ring>, Arc<Ring>)>,
    stats: BTreeMap<u32, Arc<ServerStats>>,
    last_weights: BTreeMap<u32, u32>,
    service_stats: BTreeMap<u32, Arc<ServiceStats>>,
    revision: u64,
    version: u64,
    _port: Port,
    _eal: Eal,
}

impl Lab {
    /// A worker with room for 1024 connections, a quarter of them half open, that knows DIP, VIP and nothing else.
    pub fn new(eal: Eal) -> Self {
        Self::with_room(eal, 1024, 256)
    }

    pub fn with_room(eal: Eal, connections: u32, half_open: u32) -> Self {
        Self::with(eal, connections, half_open, &[])
    }

    /// A worker whose port has these VLANs, each with a kernel's side of its own.
    pub fn trunk(eal: Eal, tags: &[Tags]) -> Self {
        Self::with(eal, 1024, 256, tags)
    }

    fn with(eal: Eal, connections: u32, half_open: u32, tags: &[Tags]) -> Self {
        let pool = Mempool::new("frames", 4095, 256, DEFAULT_DATA_ROOM, None).expect("pool");
        let ring = |name: &str| Ring::new(name, 1024, None).expect("ring");
        let (rx, tx) = (ring("rx"), ring("tx"));
        let (to_kernel, from_kernel) = (Arc::new(ring("up")), Arc::new(ring("down")));
        let mut port = ring_port(&eal, "lab", &[&rx], &[&tx]).expect("port");
        let (mut rxq, mut txq) =
            port.configure(&PortConfig { rx_queues: 1, tx_queues: 1, ..PortConfig::default() }, &pool).expect("configured");
        port.start().expect("started");
        let (control, end) = channel(16, 1 + tags.len());
        let queues = PortQueues {
            rx: Some(rxq.remove(0)),
            tx: txq.remove(0).into(),
            spread: false,
            relays: Vec::new(),
            mac: OUR_MAC,
            pool: pool.clone(),
            to_kernel: Arc::clone(&to_kernel),
            from_kernel: Some(Arc::clone(&from_kernel)),
        };
        let sides: Vec<(Arc<Ring>, Arc<Ring>)> =
            (0..tags.len()).map(|n| (Arc::new(ring(&format!("up{n}"))), Arc::new(ring(&format!("down{n}"))))).collect();
        let vlans = tags.iter().zip(&sides).map(|(tags, (up, down))| VlanQueues {
            port: 0,
            tags: *tags,
            to_kernel: Arc::clone(up),
            from_kernel: Some(Arc::clone(down)),
        });
        let config = WorkerConfig {
            index: 0,
            workers: 1,
            connections,
            half_open,
            services: 64,
            servers: 4096,
            ports: vec![queues],
            vlans: vlans.collect(),
            idle: Idle::Poll,
            seed: [1, 2, 3, 4],
            handover: None,
        };
        let worker = Worker::new(config, end).expect("worker");
        let mut lab = Self {
            worker,
            control,
            now: Tick(1000),
            persistence: None,
            no_real_server: NoRealServer::Icmp,
            timeouts: None,
            pool,
            room: connections,
            rx,
            tx,
            to_kernel,
            from_kernel,
            sides,
            stats: BTreeMap::new(),
            last_weights: BTreeMap::new(),
            service_stats: BTreeMap::new(),
            revision: 0,
            version: 0,
            _port: port,
            _eal: eal,
        };
        let locals = LocalAddresses {
            addresses: [VIP, VIP6, DIP, "fd00:10::10"].map(|a| (address(a), u64::MAX)).into_iter().collect(),
            vips: [VIP, VIP6].map(address).into_iter().collect(),
            probed: [VIP6].map(address).into_iter().collect(),
            macs: vec![OUR_MAC],
        };
        let routes = Routes::new(vec![PortRoutes { mtu: MTU, ..PortRoutes::default() }]);
        lab.apply(Batch { locals: Some(Arc::new(locals)), routes: Some(Arc::new(routes)), ..Batch::default() });
        lab
    }

    pub fn apply(&mut self, mut batch: Batch) {
        self.version += 1;
        batch.version = self.version;
        self.control.send(Command::Apply(Box::new(batch))).expect("room in the ring");
        self.worker.turn(self.now);
        match self.control.receive() {
            Some(Reply::Applied(batch)) => assert_eq!(batch.version, self.version),
            other => panic!("no answer to the batch: {other:?}"),
        }
        assert_eq!(self.control.report().version.get(), self.version);
    }

    pub fn settings(&mut self, settings: Settings) {
        self.apply(Batch { settings: Some(settings), ..Batch::default() });
    }

    /// Puts a service with these members, newest last as a user adds them; real servers left out are removed.
    pub fn service(&mut self, id: u32, protocol: Protocol, vip: &str, port: u16, scheduler: SchedulerKind, servers: &[Server]) {
        self.put_service(id, protocol, vip, port, scheduler, servers, false);
    }

    #[expect(clippy::too_many_arguments, reason = "a test's whole world")]
    pub fn put_service(
        &mut self,
        id: u32,
        protocol: Protocol,
        vip: &str,
        port: u16,
        scheduler: SchedulerKind,
        servers: &[Server],
        one_packet: bool,
    ) {
        let v6 = vip.contains(':');
        let mut batch = Batch::default();
        let mut members = Vec::new();
        let mut seats = Vec::new();
        for s in servers {
            let server_id = ServerId(id * 64 + u32::from(s.n));
            let stats = Arc::clone(self.stats.entry(server_id.0).or_insert_with(|| Arc::new(ServerStats::new(1))));
            let next_hop = s.mac.map(|mac| NextHop { port: s.port, mac, mtu: MTU });
            let rip = if let Some((rip, _)) = s.tunnel {
                rip.to_owned()
            } else if v6 {
                format!("fd00:10::{}", s.n)
            } else {
                format!("10.10.24.{}", s.n)
            };
            let real_address = address(&rip);
            let dip = if v6 { "fd00:10::10" } else { DIP };
            let real = RealServer {
                id: server_id,
                service: ServiceId(id),
                address: real_address,
                port: s.masquerading.unwrap_or(port),
                protocol,
                method: match s {
                    Server { tunnel: Some(_), .. } => Method::Tunnel,
                    Server { masquerading: Some(_), .. } => Method::Masquerading,
                    _ => Method::DirectRouting,
                },
                thresholds: s.thresholds,
                tunnel: Some(Tunnel { source: address(s.tunnel.map_or(dip, |(_, dip)| dip)), encapsulation: s.encapsulation }),
                available: s.available,
                drain: s.drain,
                weight: s.weight,
                next_hop,
                stats: Arc::clone(&stats),
            };
            if s.masquerading.is_some() {
                batch.replies = Some(Replies::new(self.room).expect("memory"));
            }
            batch.servers.push((server_id, Some(Arc::new(real))));
            if s.available {
                let last_weight = self.last_weights.entry(server_id.0).or_default();
                if s.weight != 0 {
                    *last_weight = s.weight;
                }
                seats.insert(0, Seat { address: real_address, port, weight: s.weight, last_weight: *last_weight });
                members.insert(
                    0,
                    Member { server: server_id, weight: s.weight, reachable: next_hop.is_some(), limited: s.thresholds.upper != 0, stats },
                );
            }
        }
        self.revision += 1;
        let service = VirtualService {
            id: ServiceId(id),
            key: ServiceKey { protocol, address: address(vip), port },
            scheduler,
            one_packet,
            persistence: self.persistence,
            revision: self.revision,
            members,
            no_real_server: self.no_real_server,
            buckets: Buckets::new(scheduler, v6, &seats),
            timeouts: self.timeouts,
            stats: Arc::clone(self.service_stats.entry(id).or_insert_with(|| Arc::new(ServiceStats::new(1)))),
        };
        batch.services.push((ServiceId(id), Some(Arc::new(service))));
        self.apply(batch);
    }

    pub fn active(&self, id: u32, n: u8) -> u32 {
        self.stats[&(id * 64 + u32::from(n))].active()
    }

    pub fn persistent(&self, id: u32, n: u8) -> u32 {
        self.stats[&(id * 64 + u32::from(n))].persistent()
    }

    pub fn inactive(&self, id: u32, n: u8) -> u32 {
        self.stats[&(id * 64 + u32::from(n))].inactive()
    }

    pub fn service_traffic(&self, id: u32) -> TrafficSum {
        self.service_stats[&id].sum()
    }

    pub fn server_stats(&self, id: u32, n: u8) -> &ServerStats {
        &self.stats[&(id * 64 + u32::from(n))]
    }

    pub fn put(&self, ring: &Ring, frame: &[u8]) {
        let mut mbuf = self.pool.alloc().expect("an mbuf");
        mbuf.copy_from(frame).expect("room");
        ring.enqueue(mbuf).expect("room in the ring");
    }

    pub fn take(ring: &Ring) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        let mut frames = Vec::new();
        while ring.dequeue_burst(&mut burst) != 0 {
            frames.extend(burst.drain(..).map(|m| m.data().to_vec()));
        }
        frames
    }

    /// Lets the worker have these frames as one burst and gives what it sent.
    pub fn burst(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for frame in frames {
            self.put(&self.rx, frame);
        }
        self.worker.turn(self.now);
        Self::take(&self.tx)
    }

    /// Lets the worker have these frames and leaves what it sends where it is.
    pub fn feed(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.put(&self.rx, frame);
        }
        self.worker.turn(self.now);
    }

    /// Every mbuf is either home or waits in the ring behind the port.
    pub fn assert_no_frame_unaccounted(&self) {
        assert_eq!(self.pool.in_use() as usize, self.tx.len());
        Self::take(&self.tx);
        self.kernel();
        assert_eq!(self.pool.in_use(), 0, "mbufs leaked");
    }

    /// Lets the worker have one frame; gives what it sent.
    pub fn send(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.burst(&[frame.to_vec()])
    }

    /// Sends one frame that must be forwarded; gives the last byte of the MAC that it went to.
    pub fn forwarded_to(&mut self, frame: &[u8]) -> u8 {
        let out = self.send(frame);
        assert_eq!(out.len(), 1, "one frame in, one frame out");
        assert_eq!(out[0][..5], [2, 0, 0, 0, 0], "to a real server");
        assert_eq!(out[0][6..12], OUR_MAC, "from us");
        out[0][5]
    }

    /// What the worker handed to the kernel.
    pub fn kernel(&self) -> Vec<Vec<u8>> {
        Self::take(&self.to_kernel)
    }

    /// A frame of the kernel's for the wire.
    pub fn from_kernel(&self, frame: &[u8]) {
        self.put(&self.from_kernel, frame);
    }

    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let report = self.control.report();
        let mut all: BTreeMap<_, _> =
            Verdict::ALL.iter().map(|v| (v.label(), report.verdicts.iter().map(|port| port.get(*v)).sum())).collect();
        all.insert("RECEIVED", report.received.iter().map(dataplane::stats::Counter::get).sum());
        all.insert("SENT", report.sent.iter().map(dataplane::stats::Counter::get).sum());
        all.insert("FRAGMENTS", report.fragments.get());
        all.insert("ICMP", report.icmp_errors.get());
        all.insert("RESETS", report.resets.get());
        all.insert("INJECTED", report.injected.get());
        all
    }

    /// Sends a frame and asserts that exactly these counters moved, each by one, and that the counters add up.
    pub fn expect(&mut self, frame: &[u8], moved: &[&str]) -> Vec<Vec<u8>> {
        let before = self.counters();
        let out = self.send(frame);
        let after = self.counters();
        let mut expected = before.clone();
        *expected.get_mut("RECEIVED").expect("known") += 1;
        *expected.get_mut("SENT").expect("known") += out.len() as u64;
        for name in moved {
            *expected.get_mut(name).unwrap_or_else(|| panic!("no counter {name}")) += 1;
        }
        assert_eq!(after, expected, "counters after {moved:?}");
        let verdicts: u64 = self.control.report().verdicts.iter().map(dataplane::verdict::VerdictCounters::total).sum();
        assert_eq!(after["RECEIVED"], verdicts, "every frame has one verdict");
        out
    }

    /// All mbufs are home: nothing leaked.
    pub fn assert_no_leak(&self) {
        assert!(Self::take(&self.tx).is_empty() && self.kernel().is_empty());
        assert_eq!(self.pool.in_use(), 0, "mbufs leaked");
    }

    pub fn pass_seconds(&mut self, seconds: u32) {
        for _ in 0..seconds * 4 {
            self.now = Tick(self.now.0.wrapping_add(Tick::PER_SECOND / 4));
            for _ in 0..8 {
                self.worker.turn(self.now);
            }
        }
    }

    /// Ends every connection of the client, or all.
    pub fn flush(&mut self, client: Option<&str>) -> u64 {
        let filter = dataplane::command::ConnectionFilter { client: client.map(address), ..Default::default() };
        self.control.send(Command::Flush(Box::new(dataplane::command::Flush { filter, removed: 0 }))).expect("room");
        loop {
            self.worker.turn(self.now);
            if let Some(Reply::Flushed(flush)) = self.control.receive() {
                return flush.removed;
            }
        }
    }

    pub fn connections(&mut self) -> Vec<dataplane::command::ConnectionRow> {
        let mut rows = Vec::new();
        let mut page = Box::new(dataplane::command::ConnectionPage { rows: Vec::with_capacity(64), ..Default::default() });
        loop {
            self.control.send(Command::Connections(page)).expect("room");
            page = loop {
                self.worker.turn(self.now);
                if let Some(Reply::Connections(page)) = self.control.receive() {
                    break page;
                }
            };
            rows.append(&mut page.rows);
            page.rows.reserve_exact(64);
            match page.next {
                Some(next) => page.cursor = next,
                None => return rows,
            }
        }
    }
}
