//! The two ends of a port that workers hold.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::PortInner;
use super::interrupts::Interrupt;
use crate::burst::Burst;

/// What both kinds of queue are: a number, and the port kept open.
struct Queue {
    port: Arc<PortInner>,
    id: u16,
    number: u16,
    /// Whether the port was seen started. It cannot stop again while this queue exists.
    live: bool,
}

impl Queue {
    fn new(port: &Arc<PortInner>, queue: u16) -> Self {
        Self { id: port.id, port: Arc::clone(port), number: queue, live: false }
    }

    /// Whether the device may be touched: one load of our own memory once the port has started.
    #[inline(always)]
    fn is_live(&mut self) -> bool {
        if !self.live {
            self.live = self.port.started.load(Ordering::Acquire);
        }
        self.live
    }
}

/// A receive queue: one worker's source of frames. Not clonable, may move to its worker's thread.
pub struct RxQueue(Queue, Option<Interrupt>);

impl RxQueue {
    pub(super) fn new(port: &Arc<PortInner>, queue: u16) -> Self {
        Self(Queue::new(port, queue), None)
    }

    pub(super) fn interrupt(&self) -> Option<Interrupt> {
        self.1
    }

    pub(super) fn set_interrupt(&mut self, kind: Interrupt) {
        self.1 = Some(kind);
    }

    /// Appends received frames to `burst`, as far as it has room; how many. Nothing before the port has started.
    ///
    /// Cost: one call of the driver. With a polling driver no system call (`net_tap` makes one per frame, `net_af_packet` none).
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        if !self.0.is_live() || burst.is_full() {
            return 0;
        }
        burst.fill(|free, room| {
            // SAFETY: the port has started and cannot stop while we exist; the queue was set up and is ours alone; `free`
            // has room for `room` pointers.
            usize::from(unsafe { dpdk_sys::rte_eth_rx_burst(self.0.id, self.0.number, free, room) })
        })
    }

    /// DPDK's number of the port.
    pub fn port(&self) -> u16 {
        self.0.id
    }

    /// Number of the queue on its port.
    pub fn queue(&self) -> u16 {
        self.0.number
    }
}

/// A transmit queue: one worker's way out. Not clonable, may move to its worker's thread.
pub struct TxQueue(Queue);

impl TxQueue {
    pub(super) fn new(port: &Arc<PortInner>, queue: u16) -> Self {
        Self(Queue::new(port, queue))
    }

    /// Sends frames from the front of `burst`; how many. Those that the device has no room for stay, in order; all stay
    /// before the port has started.
    ///
    /// The device frees sent frames in its own time: the mempool needs as many frames as there are descriptors.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        if burst.is_empty() || !self.0.is_live() {
            return 0;
        }
        burst.release_front(|frames, len| {
            // SAFETY: the port has started and cannot stop while we exist; the queue was set up and is ours alone; `len`
            // frames of ours are at `frames`, and release_front forgets those that the device took.
            usize::from(unsafe { dpdk_sys::rte_eth_tx_burst(self.0.id, self.0.number, frames, len) })
        })
    }

    /// Lets the device say what it has to say of its own, such as a bond's LACP, which it does when frames are sent; cost: a call of the driver.
    #[inline]
    pub fn keep_alive(&mut self) {
        if self.0.is_live() {
            // SAFETY: as for `send`; no frame is read from an empty list.
            unsafe { dpdk_sys::rte_eth_tx_burst(self.0.id, self.0.number, std::ptr::NonNull::dangling().as_ptr(), 0) };
        }
    }

    /// DPDK's number of the port.
    pub fn port(&self) -> u16 {
        self.0.id
    }

    /// Number of the queue on its port.
    pub fn queue(&self) -> u16 {
        self.0.number
    }
}

impl fmt::Debug for RxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxQueue").field("port", &self.0.id).field("queue", &self.0.number).field("interrupt", &self.1).finish()
    }
}

impl fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxQueue").field("port", &self.0.id).field("queue", &self.0.number).finish()
    }
}
