//! A port as one worker has it: its own pair of queues, and the rings to the kernel beside us.

use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk::burst::{BURST, Burst};
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::port::{RxQueue, TxQueue};
use dpdk::ring::{Ring, RingReceiver, RingSender};

use crate::lanes::each;
use crate::verdict::{Verdict, VerdictCounters};
use crate::vlan::Vlans;

/// What a worker is given of a port.
#[derive(Debug)]
pub struct PortQueues {
    /// Its receive queue; `None` where there are fewer than workers, and another one's hands its frames on.
    pub rx: Option<RxQueue>,
    /// Its way out.
    pub tx: Exit,
    /// Whether frames of the receive queue are to be shared out among all workers, because the device does not.
    pub spread: bool,
    /// What workers without a transmit queue have for this one to send, a ring for each of them.
    pub relays: Vec<RingReceiver>,
    /// The port's MAC.
    pub mac: [u8; 6],
    /// Where fresh mbufs come from.
    pub pool: Mempool,
    /// Frames for the kernel.
    pub to_kernel: Arc<Ring>,
    /// The kernel's frames for the wire: one worker sends them, the others have `None`.
    pub from_kernel: Option<Arc<Ring>>,
}

/// How a worker's frames leave by a port.
#[derive(Debug)]
pub enum Exit {
    /// By a transmit queue of its own.
    Queue(TxQueue),
    /// By one that is used now and then also without frames: the device speaks of its own when it is, as a bond does its LACP.
    Speaking(TxQueue),
    /// By that of another worker, which takes them from this ring.
    Relay(RingSender),
}

impl Exit {
    /// Sends frames from the front of `burst`; how many. The others stay, in order.
    #[inline]
    fn send(&mut self, burst: &mut Burst) -> usize {
        match self {
            Self::Queue(queue) | Self::Speaking(queue) => queue.send(burst),
            Self::Relay(ring) => ring.send_burst(burst),
        }
    }
}

impl From<TxQueue> for Exit {
    fn from(queue: TxQueue) -> Self {
        Self::Queue(queue)
    }
}

/// Verdicts of one burst, in the L1 cache; added to the shared counters once a burst.
#[derive(Debug)]
pub struct Tally {
    counts: [u32; Verdict::COUNT],
    /// A bit for each verdict that was counted.
    counted: u64,
}

const _: () = assert!(Verdict::COUNT <= 64);

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [0; Verdict::COUNT], counted: 0 }
    }
}

impl Tally {
    /// Counts one frame.
    #[inline]
    pub fn count(&mut self, verdict: Verdict) {
        self.add(verdict, 1);
    }

    /// Counts `n` frames, at most a burst.
    #[inline]
    fn add(&mut self, verdict: Verdict, n: usize) {
        // A burst is far shorter than 2^32.
        self.counts[verdict as usize] += u32::try_from(n).unwrap_or_default();
        self.counted |= 1 << verdict as usize;
    }

    /// The frame was counted under `verdict`, but the port did not take it.
    #[inline]
    fn not_sent(&mut self, verdict: Verdict) {
        self.counts[verdict as usize] -= 1;
        self.count(Verdict::TxFull);
    }

    /// Adds what was counted to the shared counters and begins anew.
    #[inline]
    pub fn publish(&mut self, counters: &VerdictCounters) {
        for i in each(std::mem::take(&mut self.counted)) {
            counters.add(Verdict::ALL[i], u64::from(std::mem::take(&mut self.counts[i])));
        }
    }
}

/// Why a frame leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It was received, and is counted under this verdict.
    Received(Verdict),
    /// An ICMP error, which answers a frame that is counted already.
    IcmpError,
    /// A TCP reset, which answers a frame that is counted already.
    Reset,
    /// A second or later fragment of a frame that is counted already.
    Fragment,
}

/// A port's transmit side: frames gather here and leave together.
#[derive(Debug)]
pub struct Outgoing {
    tx: Exit,
    relays: Vec<RingReceiver>,
    /// A frame of theirs that the port had no room for stays until it has: those behind it wait in the ring, and whoever finds that full counts.
    relayed: Burst,
    frames: Burst,
    /// Why each frame leaves.
    origins: ArrayVec<Origin, BURST>,
    /// Frames that the port took.
    pub sent: u64,
    /// ICMP errors among them.
    pub sent_errors: u64,
    /// TCP resets among them.
    pub sent_resets: u64,
    /// Second and later fragments among them.
    pub sent_fragments: u64,
}

impl Outgoing {
    /// Nothing gathered yet.
    pub fn new(tx: Exit, relays: Vec<RingReceiver>) -> Self {
        Self {
            tx,
            relays,
            relayed: Burst::new(),
            frames: Burst::new(),
            origins: ArrayVec::new(),
            sent: 0,
            sent_errors: 0,
            sent_resets: 0,
            sent_fragments: 0,
        }
    }

    /// Whether another worker sends what this one gathers.
    pub fn is_relay(&self) -> bool {
        matches!(self.tx, Exit::Relay(_))
    }

    /// Sends what other workers have for this port, a burst of each at most; how many the port took.
    pub fn send_relayed(&mut self) -> u64 {
        let mut sent = 0;
        for relay in &mut self.relays {
            relay.receive(&mut self.relayed);
            sent += self.tx.send(&mut self.relayed) as u64;
            if !self.relayed.is_empty() {
                break;
            }
        }
        // Each comes first in its turn, or a port that is full would always be the same ones' to use.
        let step = self.relays.len().min(1);
        self.relays.rotate_left(step);
        self.sent += sent;
        sent
    }

    /// Adds a frame; sends what has gathered when there is no more room.
    #[inline]
    pub fn push(&mut self, frame: Mbuf, origin: Origin, tally: &mut Tally) {
        if self.frames.is_full() {
            self.flush(tally);
        }
        if let Origin::Received(verdict) = origin {
            tally.count(verdict);
        }
        // After the flush there is room: a frame that the port did not take has been freed.
        if self.frames.push(frame).is_ok() {
            let _ = self.origins.try_push(origin);
        }
    }

    /// Sends a whole burst, counted under `verdict`; what the port does not take is freed and counted as such.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst, verdict: Verdict, tally: &mut Tally) {
        let sent = self.tx.send(burst);
        self.sent += sent as u64;
        tally.add(verdict, sent);
        tally.add(Verdict::TxFull, burst.len());
        burst.clear();
    }

    /// Sends what has gathered; what the port does not take is freed and counted as such.
    #[inline]
    pub fn flush(&mut self, tally: &mut Tally) {
        if self.frames.is_empty() {
            return;
        }
        let sent = self.tx.send(&mut self.frames);
        self.sent += sent as u64;
        for (i, origin) in self.origins.drain(..).enumerate() {
            match origin {
                Origin::Received(verdict) if i >= sent => tally.not_sent(verdict),
                Origin::IcmpError if i < sent => self.sent_errors += 1,
                Origin::Reset if i < sent => self.sent_resets += 1,
                Origin::Fragment if i < sent => self.sent_fragments += 1,
                _ => {}
            }
        }
        self.frames.clear();
    }

    /// Sends the kernel's frames that wait in `ring`; gives how many the port took.
    pub fn send_from(&mut self, ring: &Ring) -> u64 {
        let mut burst = Burst::new();
        if ring.dequeue_burst(&mut burst) == 0 {
            if let Exit::Speaking(queue) = &mut self.tx {
                queue.keep_alive();
            }
            return 0;
        }
        let sent = self.tx.send(&mut burst) as u64;
        self.sent += sent;
        sent
    }
}

/// Adds a frame to those that leave by `port`, which may be a VLAN; gives it back when there is no such way out. Cost for a
/// port: a comparison.
#[inline]
pub fn push_by(
    outgoing: &mut [Outgoing],
    vlans: &Vlans,
    port: u16,
    mut frame: Mbuf,
    origin: Origin,
    tally: &mut Tally,
) -> Result<(), Mbuf> {
    let own = usize::from(port) < outgoing.len();
    let way = if own { Some(port) } else { vlans.tag(port, &mut frame) };
    match way.and_then(|port| outgoing.get_mut(usize::from(port))) {
        Some(outgoing) => {
            outgoing.push(frame, origin, tally);
            Ok(())
        }
        None => Err(frame),
    }
}

/// Sends the kernel's frames for a VLAN that wait in `ring`; gives how many the port took.
pub fn send_tagged_from(outgoing: &mut [Outgoing], vlans: &Vlans, vlan: u16, ring: &Ring) -> u64 {
    let (mut burst, mut tagged) = (Burst::new(), Burst::new());
    if ring.dequeue_burst(&mut burst) == 0 {
        return 0;
    }
    let mut way = None;
    for mut frame in burst.drain(..) {
        if let Some(port) = vlans.tag(vlan, &mut frame) {
            way = Some(port);
            let _ = tagged.push(frame);
        }
    }
    let Some(outgoing) = way.and_then(|port| outgoing.get_mut(usize::from(port))) else { return 0 };
    let sent = outgoing.tx.send(&mut tagged) as u64;
    outgoing.sent += sent;
    sent
}
