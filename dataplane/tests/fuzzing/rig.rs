//! The real workers between rings, on two ports; made anew for every case.

use std::sync::Arc;

use dataplane::command::{Batch, Command, ConnectionFilter, ConnectionPage, ControlEnd, Flush, Reply, WorkerReport, channel};
use dataplane::connection::Replies;
use dataplane::handover;
use dataplane::link::PortQueues;
use dataplane::stats::Counter;
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::vlan::{Tags, VlanQueues};
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::Burst;
use dpdk::eal::Eal;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::port::{Port, PortConfig};
use dpdk::ring::{Ring, ring_port};

use crate::reference::connections::Row;
use crate::reference::turn::{Arrivals, Frames, Room};
use crate::reference::vlans::Vlan;

pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0xd0, 0], [2, 0, 0, 0, 0xd0, 1]];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Frames that wait behind a port, and on the way to the kernel: few, so that they overflow.
const PORT_ROOM: u32 = 150;
const KERNEL_ROOM: u32 = 24;

/// Workers and VLANs, at most.
pub const MOST_WORKERS: usize = 3;
const MOST_VLANS: usize = 3;
/// As many as wait for first fragments at all workers, and all rings take.
const BUFFERS: u32 = 4095;
/// The secret that workers share.
pub const SHARED: [u64; 4] = [5, 6, 7, 8];

/// Ports and buffers, which DPDK gives once a process.
pub struct Rig {
    pub pool: Mempool,
    ports: Vec<Port>,
    /// By port and worker.
    rx: Vec<Vec<Ring>>,
    tx: Vec<Vec<Ring>>,
    /// By port and VLAN.
    to_kernel: Vec<Arc<Ring>>,
    from_kernel: Vec<Arc<Ring>>,
    _eal: Eal,
}

/// What a case makes workers from.
pub struct Plan<'a> {
    pub workers: usize,
    pub vlans: &'a [Vlan],
    pub connections: u32,
    pub half_open: u32,
    pub start: Tick,
}

impl Plan<'_> {
    /// Each worker's secret.
    pub fn seeds(&self) -> Vec<[u64; 4]> {
        (0..self.workers as u64).map(|index| [u64::from(self.start.0), 2, index, u64::from(self.connections)]).collect()
    }
}

/// A worker with its end.
pub struct One {
    worker: Worker,
    pub control: ControlEnd,
    replies: Option<Replies>,
}

/// Workers with their ends.
pub struct Bench<'a> {
    pub rig: &'a Rig,
    pub workers: Vec<One>,
    pub now: Tick,
    sides: usize,
    /// Buffers that somebody else has.
    held: Vec<Mbuf>,
}

/// All counters of the workers together, to compare.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub received: u64,
    /// By port.
    pub sent: Vec<u64>,
    /// In the order of [`Verdict::ALL`].
    pub verdicts: Vec<u64>,
    pub icmp_errors: u64,
    pub resets: u64,
    pub fragments: u64,
    pub injected: u64,
    pub handed_over: u64,
    pub taken_over: u64,
}

impl Rig {
    pub fn new(eal: Eal) -> Self {
        let pool = Mempool::new("frames", BUFFERS, 64, DEFAULT_DATA_ROOM, None).expect("a mempool");
        let rings = |name: &str, count: usize, size| -> Vec<Ring> {
            (0..count).map(|n| Ring::new(&format!("{name}{n}"), size, None).expect("a ring")).collect()
        };
        let queues = |name: &str, size| -> Vec<Vec<Ring>> {
            (0..MACS.len()).map(|port| rings(&format!("{name}{port}-"), MOST_WORKERS, size)).collect()
        };
        let (rx, tx) = (queues("rx", 512), queues("tx", PORT_ROOM));
        let to_kernel = rings("up", MACS.len() + MOST_VLANS, KERNEL_ROOM).into_iter().map(Arc::new).collect();
        let from_kernel = rings("down", MACS.len() + MOST_VLANS, 64).into_iter().map(Arc::new).collect();
        let port = |n: usize| {
            let (rx, tx): (Vec<&Ring>, Vec<&Ring>) = (rx[n].iter().collect(), tx[n].iter().collect());
            ring_port(&eal, &format!("fuzz{n}"), &rx, &tx).expect("a port")
        };
        let ports = (0..MACS.len()).map(port).collect();
        Self { pool, ports, rx, tx, to_kernel, from_kernel, _eal: eal }
    }

    /// New workers; those before must be gone.
    pub fn bench(&mut self, plan: &Plan<'_>) -> Bench<'_> {
        let sides = MACS.len() + plan.vlans.len();
        let mut queues: Vec<Vec<PortQueues>> = (0..plan.workers).map(|_| Vec::new()).collect();
        for (n, port) in self.ports.iter_mut().enumerate() {
            port.stop().expect("stopped");
            let count = MOST_WORKERS as u16;
            let (rx, tx) = port
                .configure(&PortConfig { rx_queues: count, tx_queues: count, ..PortConfig::default() }, &self.pool)
                .expect("configured");
            port.start().expect("started");
            for (index, ((rx, tx), of_worker)) in rx.into_iter().zip(tx).zip(&mut queues).enumerate() {
                of_worker.push(PortQueues {
                    rx: Some(rx),
                    tx: tx.into(),
                    spread: false,
                    relays: Vec::new(),
                    mac: MACS[n],
                    pool: self.pool.clone(),
                    to_kernel: Arc::clone(&self.to_kernel[n]),
                    from_kernel: (index == 0).then(|| Arc::clone(&self.from_kernel[n])),
                });
            }
        }
        let mesh = handover::mesh(plan.workers, plan.connections, SHARED).expect("rings");
        let mut workers = Vec::new();
        for (((index, handover), ports), seed) in mesh.into_iter().enumerate().zip(queues).zip(plan.seeds()) {
            let vlan = |(n, vlan): (usize, &Vlan)| VlanQueues {
                port: vlan.port as u16,
                tags: Tags { outer: (vlan.tags.len() == 2).then(|| vlan.tags[0]), id: vlan.tags[vlan.tags.len() - 1] },
                to_kernel: Arc::clone(&self.to_kernel[MACS.len() + n]),
                from_kernel: (index == 0).then(|| Arc::clone(&self.from_kernel[MACS.len() + n])),
            };
            let config = WorkerConfig {
                index,
                workers: plan.workers,
                connections: plan.connections,
                half_open: plan.half_open,
                services: 64,
                servers: 64,
                ports,
                vlans: plan.vlans.iter().enumerate().map(vlan).collect(),
                idle: Idle::Poll,
                seed,
                handover,
            };
            let (control, end) = channel(16, sides);
            let worker = Worker::new(config, end).expect("a worker");
            workers.push(One { worker, control, replies: Some(Replies::new(plan.connections).expect("memory")) });
        }
        let mut bench = Bench { rig: self, workers, now: Tick(0), sides, held: Vec::new() };
        // The clock begins at 0 and is never more than half its range ahead.
        for now in [plan.start.0 / 3, plan.start.0 / 3 * 2, plan.start.0] {
            bench.now = Tick(now);
            (0..plan.workers).for_each(|worker| bench.turn(worker));
        }
        bench
    }
}

impl Bench<'_> {
    /// Tells a worker of a change, of which it hears in its next turn.
    pub fn tell(&mut self, worker: usize, batch: &Batch) {
        let One { control, replies, .. } = &mut self.workers[worker];
        let batch = Batch {
            version: batch.version,
            services: batch.services.clone(),
            servers: batch.servers.clone(),
            locals: batch.locals.clone(),
            marks: batch.marks.clone(),
            settings: batch.settings,
            routes: batch.routes.clone(),
            replies: replies.take(),
        };
        control.send(Command::Apply(Box::new(batch))).expect("room in the ring");
    }

    /// The worker has answered; what was replaced is freed here.
    pub fn hear(&mut self, worker: usize) {
        assert!(matches!(self.workers[worker].control.receive(), Some(Reply::Applied(_))), "no answer to a batch");
    }

    /// Lets somebody else have all buffers but `left`, or gives all of them back.
    pub fn hold_all_but(&mut self, left: Option<usize>) {
        self.held.clear();
        if let Some(left) = left {
            for _ in left..self.rig.pool.available() as usize {
                self.held.push(self.rig.pool.alloc().expect("available"));
            }
        }
    }

    fn put(&self, ring: &Ring, frames: &[Vec<u8>]) {
        for frame in frames {
            let mut mbuf = self.rig.pool.alloc().expect("a buffer");
            mbuf.copy_from(frame).expect("room in the buffer");
            ring.enqueue(mbuf).expect("room in the ring");
        }
    }

    /// Puts frames on the wire, to the queue of `worker`, and the kernel's into its rings; gives the room that the worker then has.
    pub fn feed(&mut self, worker: usize, arrivals: &Arrivals, starve: Option<usize>) -> Room {
        for (side, frames) in arrivals.injected.iter().enumerate() {
            self.put(&self.rig.from_kernel[side], frames);
        }
        self.put(&self.rig.rx[arrivals.port][worker], &arrivals.frames);
        self.hold_all_but(starve);
        Room {
            buffers: self.rig.pool.available() as usize,
            ports: self.rig.tx.iter().map(|tx| PORT_ROOM as usize - tx[worker].len()).collect(),
            kernel: self.rig.to_kernel[..self.sides].iter().map(|ring| KERNEL_ROOM as usize - ring.len()).collect(),
        }
    }

    pub fn turn(&mut self, worker: usize) {
        self.workers[worker].worker.turn(self.now);
    }

    /// Everything that a worker sent, by port, and what is on the way to the kernel, by port and VLAN.
    pub fn collect(&mut self, worker: usize) -> (Vec<Frames>, Vec<Frames>) {
        let sent = self.rig.tx.iter().map(|tx| take(&tx[worker])).collect();
        (sent, self.rig.to_kernel[..self.sides].iter().map(|ring| take(ring)).collect())
    }

    /// How many entries a worker says that it has.
    pub fn entries(&self, worker: usize) -> u64 {
        self.workers[worker].control.report().connections.get()
    }

    /// Lets connections of removed real servers end, some a turn.
    pub fn settle(&mut self, worker: usize) {
        for _ in 0..self.entries(worker) / 256 + 3 {
            self.turn(worker);
        }
    }

    /// Everything that wants to end by now has ended after so many turns.
    pub fn catch_up(&mut self, worker: usize, ticks: u32) {
        let entries = self.entries(worker) as usize;
        // A turn looks at 64 slots of 0.32 s and entries; an entry is looked at once in 4096 slots, and when it was renewed.
        let slots = ticks as usize / 32;
        for _ in 0..(slots + entries * (slots / 4000 + 2)) / 64 + 2 {
            self.turn(worker);
        }
    }

    pub fn counters(&self) -> Counters {
        let sum = |of: &dyn Fn(&WorkerReport) -> u64| self.workers.iter().map(|one| of(one.control.report())).sum::<u64>();
        let all = |of: fn(&WorkerReport) -> &Vec<Counter>| sum(&|report| of(report).iter().map(Counter::get).sum());
        let verdict = |verdict: &Verdict| sum(&|report| report.verdicts.iter().map(|v| v.get(*verdict)).sum());
        Counters {
            received: all(|report| &report.received),
            sent: (0..MACS.len()).map(|port| sum(&|report| report.sent[port].get())).collect(),
            verdicts: Verdict::ALL.iter().map(verdict).collect(),
            icmp_errors: sum(&|report| report.icmp_errors.get()),
            resets: sum(&|report| report.resets.get()),
            fragments: sum(&|report| report.fragments.get()),
            injected: sum(&|report| report.injected.get()),
            handed_over: sum(&|report| report.handed_over.get()),
            taken_over: sum(&|report| report.taken_over.get()),
        }
    }

    pub fn rows(&mut self, worker: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut page = Box::new(ConnectionPage { rows: Vec::with_capacity(128), ..ConnectionPage::default() });
        loop {
            self.workers[worker].control.send(Command::Connections(page)).expect("room in the ring");
            page = loop {
                self.turn(worker);
                if let Some(Reply::Connections(page)) = self.workers[worker].control.receive() {
                    break page;
                }
            };
            rows.extend(page.rows.drain(..).map(|row| Row {
                protocol: row.protocol as u8,
                client: row.client,
                virtual_: row.virtual_address,
                server: row.server,
                state: row.state,
                expires_in: row.expires_in,
                packets: row.in_packets,
            }));
            match page.next {
                Some(next) => page.cursor = next,
                None => break,
            }
        }
        rows.sort();
        rows
    }

    pub fn flush(&mut self, worker: usize, filter: ConnectionFilter) -> u64 {
        let order = Command::Flush(Box::new(Flush { filter, removed: 0 }));
        self.workers[worker].control.send(order).expect("room in the ring");
        loop {
            self.turn(worker);
            if let Some(Reply::Flushed(flush)) = self.workers[worker].control.receive() {
                return flush.removed;
            }
        }
    }
}

fn take(ring: &Ring) -> Frames {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    while ring.dequeue_burst(&mut burst) != 0 {
        frames.extend(burst.drain(..).map(|frame| frame.data().to_vec()));
    }
    frames
}
