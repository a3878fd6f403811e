//! Counters that one worker writes and the control plane reads.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use crate::tally::Beside;

/// A counter with one writer: a plain load and a plain store, never an atomic read-modify-write.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning worker may call it. Cost: one load, one add, one store.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the value; only the owning worker may call it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value as of some recent moment.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, with one writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Gauge {
    /// Adds one; only the owning worker may call it.
    #[inline]
    pub fn increment(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Takes one away; only the owning worker may call it.
    #[inline]
    pub fn decrement(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// The value as of some recent moment.
    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What passed, as `ipvsadm --stats` shows it. Direct routing leaves `out_*` at 0: the director never sees answers.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Traffic {
    /// Connections scheduled.
    pub connections: Counter,
    /// Packets from clients, but for those in tallies that it has not taken over.
    pub in_packets: Counter,
    /// Bytes from clients, likewise: IP packets without Ethernet header.
    pub in_bytes: Counter,
    /// Packets to clients.
    pub out_packets: Counter,
    /// Bytes to clients.
    pub out_bytes: Counter,
    /// Where those are.
    beside: OnceLock<Beside>,
}

impl Traffic {
    /// Says where tallies are that it takes over, the first time that it is asked: a real server or a service has one place on a worker, and
    /// nobody else has it as long as anybody reads these counters.
    pub fn count_beside(&self, beside: impl FnOnce() -> Beside) {
        self.beside.get_or_init(beside);
    }

    /// Packets and bytes from clients, with those that are still in tallies. Cost for a service: that of its real servers' lines.
    pub fn taken_in(&self) -> [u64; 2] {
        let counters = || [self.in_packets.get(), self.in_bytes.get()];
        self.beside.get().map_or_else(counters, |beside| beside.add_to(counters))
    }

    /// Counts a packet from a client, of this length.
    #[inline(always)]
    pub fn count_in(&self, length: u16) {
        self.in_packets.add(1);
        self.in_bytes.add(u64::from(length));
    }

    /// Counts a packet to a client, of this length.
    #[inline(always)]
    pub fn count_out(&self, length: u16) {
        self.out_packets.add(1);
        self.out_bytes.add(u64::from(length));
    }
}

/// One worker's share of a real server's counters: all that packets write is in one cache line.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ServerShare {
    /// Active connections, as IPVS counts them (`ESTABLISHED`, `SYN_SENT`, `SYN_RECV`, `SYNACK`).
    pub active: Gauge,
    /// All other entries.
    pub inactive: Gauge,
    /// Persistence templates.
    pub persistent: Gauge,
    /// SYNs that clients repeated for want of an answer; wraps.
    pub repeats: Gauge,
    /// Connections that clients reset; wraps.
    pub resets: Gauge,
    /// What passed.
    pub traffic: Traffic,
}

const _: () = assert!(std::mem::offset_of!(ServerShare, traffic) + std::mem::offset_of!(Traffic, beside) == 64);

/// A real server's counters, one line a worker, and whether it is overloaded, which all workers say together.
#[derive(Debug)]
pub struct ServerStats {
    shares: Box<[Arc<CachePadded<ServerShare>>]>,
    overloaded: AtomicBool,
}

/// A virtual service's counters, one line a worker.
#[derive(Debug)]
pub struct ServiceStats(Box<[Arc<CachePadded<Traffic>>]>);

/// A sum over all workers, for listings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficSum {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl TrafficSum {
    fn plus(self, t: &Traffic) -> Self {
        let [in_packets, in_bytes] = t.taken_in();
        Self {
            connections: self.connections + t.connections.get(),
            in_packets: self.in_packets + in_packets,
            in_bytes: self.in_bytes + in_bytes,
            out_packets: self.out_packets + t.out_packets.get(),
            out_bytes: self.out_bytes + t.out_bytes.get(),
        }
    }
}

impl ServerStats {
    /// Counters at zero for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self { shares: (0..workers).map(|_| Arc::default()).collect(), overloaded: AtomicBool::new(false) }
    }

    /// The share that worker `worker` writes.
    #[inline]
    pub fn share(&self, worker: usize) -> &Arc<CachePadded<ServerShare>> {
        &self.shares[worker]
    }

    /// Active connections over all workers. Cost: one load a worker.
    #[inline]
    pub fn active(&self) -> u32 {
        self.shares.iter().map(|s| s.active.get()).sum()
    }

    /// Inactive connections over all workers. Cost: one load a worker.
    #[inline]
    pub fn inactive(&self) -> u32 {
        self.shares.iter().map(|s| s.inactive.get()).sum()
    }

    /// Persistence templates over all workers. Cost: one load a worker.
    pub fn persistent(&self) -> u32 {
        self.shares.iter().map(|s| s.persistent.get()).sum()
    }

    /// SYNs that clients repeated and connections that they reset, over all workers; both wrap. Cost: one line a worker.
    pub fn complaints(&self) -> (u32, u32) {
        self.shares
            .iter()
            .fold((0, 0), |(repeats, resets), share| (share.repeats.get().wrapping_add(repeats), share.resets.get().wrapping_add(resets)))
    }

    /// Active and inactive connections over all workers. Cost: one line a worker.
    #[inline]
    pub fn active_and_inactive(&self) -> (u32, u32) {
        self.shares.iter().fold((0, 0), |(active, inactive), share| (active + share.active.get(), inactive + share.inactive.get()))
    }

    /// Both kinds of connections over all workers. Cost: one line a worker.
    pub fn connections(&self) -> u32 {
        let (active, inactive) = self.active_and_inactive();
        active.saturating_add(inactive)
    }

    /// Whether it is overloaded: it has reached its upper threshold, and has not yet fallen below the lower one.
    #[inline]
    pub fn is_overloaded(&self) -> bool {
        self.overloaded.load(Ordering::Relaxed)
    }

    /// Says whether it is overloaded. The line that all workers read is written only when that changes.
    pub fn set_overloaded(&self, overloaded: bool) {
        if self.is_overloaded() != overloaded {
            self.overloaded.store(overloaded, Ordering::Relaxed);
        }
    }

    /// What passed, over all workers.
    pub fn sum(&self) -> TrafficSum {
        self.shares.iter().fold(TrafficSum::default(), |sum, s| sum.plus(&s.traffic))
    }
}

impl ServiceStats {
    /// Counters at zero for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// The share that worker `worker` writes.
    #[inline]
    pub fn share(&self, worker: usize) -> &Arc<CachePadded<Traffic>> {
        &self.0[worker]
    }

    /// What passed, over all workers.
    pub fn sum(&self) -> TrafficSum {
        self.0.iter().fold(TrafficSum::default(), |sum, t| sum.plus(t))
    }
}
