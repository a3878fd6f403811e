//! The real worker between rings, on two ports; made anew for every case.

use std::sync::Arc;

use dataplane::command::{Batch, Command, ConnectionFilter, ConnectionPage, ControlEnd, Flush, Reply, channel};
use dataplane::link::PortQueues;
use dataplane::stats::Counter;
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::burst::Burst;
use dpdk::eal::Eal;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::port::{Port, PortConfig};
use dpdk::ring::{Ring, ring_port};

use crate::reference::Room;
use crate::reference::connections::Row;

pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0xd0, 0], [2, 0, 0, 0, 0xd0, 1]];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Frames that wait behind a port, and on the way to the kernel: few, so that they overflow.
const PORT_ROOM: u32 = 48;
const KERNEL_ROOM: u32 = 24;

/// Ports and buffers, which DPDK gives once a process.
pub struct Rig {
    pub pool: Mempool,
    ports: Vec<Port>,
    rx: Vec<Ring>,
    tx: Vec<Ring>,
    to_kernel: Vec<Arc<Ring>>,
    from_kernel: Vec<Arc<Ring>>,
    _eal: Eal,
}

/// A worker with its ends.
pub struct Bench<'a> {
    pub rig: &'a Rig,
    pub worker: Worker,
    pub control: ControlEnd,
    pub now: Tick,
    /// Buffers that somebody else has.
    held: Vec<Mbuf>,
}

/// All counters of a worker, to compare.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub received: Vec<u64>,
    pub sent: Vec<u64>,
    pub verdicts: Vec<Vec<u64>>,
    pub icmp_errors: u64,
    pub resets: u64,
    pub fragments: u64,
    pub injected: u64,
}

impl Rig {
    pub fn new(eal: Eal) -> Self {
        let pool = Mempool::new("frames", 1023, 64, DEFAULT_DATA_ROOM, None).expect("a mempool");
        let rings = |name: &str, size| (0..2).map(|n| Ring::new(&format!("{name}{n}"), size, None).expect("a ring")).collect::<Vec<_>>();
        let (rx, tx) = (rings("rx", 128), rings("tx", PORT_ROOM));
        let to_kernel = rings("up", KERNEL_ROOM).into_iter().map(Arc::new).collect();
        let from_kernel = rings("down", 64).into_iter().map(Arc::new).collect();
        let ports = (0..2).map(|n| ring_port(&eal, &format!("fuzz{n}"), &[&rx[n]], &[&tx[n]]).expect("a port")).collect();
        Self { pool, ports, rx, tx, to_kernel, from_kernel, _eal: eal }
    }

    /// A new worker; the one before must be gone.
    pub fn bench(&mut self, connections: u32, half_open: u32, start: Tick) -> Bench<'_> {
        let (control, end) = channel(16, self.ports.len());
        let mut queues = Vec::new();
        for (n, port) in self.ports.iter_mut().enumerate() {
            port.stop().expect("stopped");
            let config = PortConfig { rx_queues: 1, tx_queues: 1, ..PortConfig::default() };
            let (mut rx, mut tx) = port.configure(&config, &self.pool).expect("configured");
            port.start().expect("started");
            queues.push(PortQueues {
                rx: rx.remove(0),
                tx: tx.remove(0),
                mac: MACS[n],
                pool: self.pool.clone(),
                to_kernel: Arc::clone(&self.to_kernel[n]),
                from_kernel: Some(Arc::clone(&self.from_kernel[n])),
            });
        }
        let config = WorkerConfig {
            index: 0,
            workers: 1,
            connections,
            half_open,
            services: 64,
            servers: 64,
            ports: queues,
            vlans: Vec::new(),
            idle: Idle::Poll,
            seed: [u64::from(start.0), 2, 3, u64::from(connections)],
            handover: None,
        };
        let worker = Worker::new(config, end).expect("a worker");
        let mut bench = Bench { rig: self, worker, control, now: Tick(0), held: Vec::new() };
        // The clock begins at 0 and is never more than half its range ahead.
        for now in [start.0 / 3, start.0 / 3 * 2, start.0] {
            bench.now = Tick(now);
            bench.worker.turn(bench.now);
        }
        bench
    }
}

impl Bench<'_> {
    /// Applies a change; what it replaced is freed here.
    pub fn apply(&mut self, batch: Batch) {
        self.control.send(Command::Apply(Box::new(batch))).expect("room in the ring");
        self.worker.turn(self.now);
        assert!(matches!(self.control.receive(), Some(Reply::Applied(_))), "no answer to a batch");
    }

    /// Lets somebody else have all buffers but `left`, or gives all of them back.
    pub fn hold_all_but(&mut self, left: Option<usize>) {
        self.held.clear();
        if let Some(left) = left {
            while self.rig.pool.available() as usize > left {
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

    /// What can be taken by everything that a burst may need.
    pub fn room(&self) -> Room {
        Room {
            buffers: self.rig.pool.available() as usize,
            ports: self.rig.tx.iter().map(|ring| PORT_ROOM as usize - ring.len()).collect(),
            kernel: 0,
        }
    }

    /// Puts frames on the wire of `port`, and the kernel's into its ring; gives the room that the worker then has.
    pub fn feed(&mut self, port: usize, injected: &[Vec<u8>], frames: &[Vec<u8>], starve: Option<usize>) -> Room {
        self.put(&self.rig.from_kernel[port], injected);
        self.put(&self.rig.rx[port], frames);
        self.hold_all_but(starve);
        Room { kernel: KERNEL_ROOM as usize - self.rig.to_kernel[port].len(), ..self.room() }
    }

    pub fn turn(&mut self) {
        self.worker.turn(self.now);
    }

    /// Everything that lies behind the ports, and on the way to the kernel.
    pub fn collect(&mut self) -> (Vec<Vec<Vec<u8>>>, Vec<Vec<u8>>) {
        let sent = self.rig.tx.iter().map(take).collect();
        (sent, self.rig.to_kernel.iter().flat_map(|ring| take(ring)).collect())
    }

    /// Lets connections of removed real servers end, some a turn.
    pub fn settle(&mut self) {
        for _ in 0..self.control.report().connections.get() / 256 + 3 {
            self.worker.turn(self.now);
        }
    }

    /// Everything that wants to end by now has ended after so many turns.
    pub fn catch_up(&mut self, ticks: u32) {
        let entries = self.control.report().connections.get() as usize;
        // A turn looks at 64 slots of 0.32 s and entries; an entry is looked at once in 4096 slots, and when it was renewed.
        let slots = ticks as usize / 32;
        for _ in 0..(slots + entries * (slots / 4000 + 2)) / 64 + 2 {
            self.worker.turn(self.now);
        }
    }

    pub fn counters(&self) -> Counters {
        let report = self.control.report();
        Counters {
            received: report.received.iter().map(Counter::get).collect(),
            sent: report.sent.iter().map(Counter::get).collect(),
            verdicts: report.verdicts.iter().map(|v| Verdict::ALL.iter().map(|verdict| v.get(*verdict)).collect()).collect(),
            icmp_errors: report.icmp_errors.get(),
            resets: report.resets.get(),
            fragments: report.fragments.get(),
            injected: report.injected.get(),
        }
    }

    pub fn rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut page = Box::new(ConnectionPage { rows: Vec::with_capacity(128), ..ConnectionPage::default() });
        loop {
            self.control.send(Command::Connections(page)).expect("room in the ring");
            page = loop {
                self.worker.turn(self.now);
                if let Some(Reply::Connections(page)) = self.control.receive() {
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

    pub fn flush(&mut self, filter: ConnectionFilter) -> u64 {
        self.control.send(Command::Flush(Box::new(Flush { filter, removed: 0 }))).expect("room in the ring");
        loop {
            self.worker.turn(self.now);
            if let Some(Reply::Flushed(flush)) = self.control.receive() {
                return flush.removed;
            }
        }
    }
}

fn take(ring: &Ring) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    while ring.dequeue_burst(&mut burst) != 0 {
        frames.extend(burst.drain(..).map(|frame| frame.data().to_vec()));
    }
    frames
}
