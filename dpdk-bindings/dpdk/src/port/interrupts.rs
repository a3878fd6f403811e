//! Waiting for frames in place of asking for them again and again.

use std::ptr;
use std::time::Duration;

use super::{Port, RxQueue};
use crate::error::{DpdkError, check};

/// How a queue's interrupt is made to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// It is enabled before each wait.
    Enabled,
    /// The descriptor becomes readable by itself: `net_tap`.
    Always,
}

/// A driver that promises interrupts and does not tell the device by which vector of MSI-X to send them (IVAR of the 82574), so that none comes.
const MUTE: &str = "net_e1000_em";

/// Whether queue `queue` of port `id` has an interrupt, and how it comes; asked of the driver.
fn kind(id: u16, queue: u16) -> Option<Interrupt> {
    let driver = super::info::info_of(id).driver;
    if driver == MUTE {
        return None;
    }
    // SAFETY: ids that a port and its queue were made with; reads tables of the driver.
    if unsafe { dpdk_sys::rte_eth_dev_rx_intr_ctl_q_get_fd(id, queue) } < 0 {
        return None;
    }
    // SAFETY: as above; the queue's interrupt is enabled, and disabled again below.
    if unsafe { dpdk_sys::rte_eth_dev_rx_intr_enable(id, queue) } != 0 {
        return Some(Interrupt::Always).filter(|_| driver == "net_tap");
    }
    // SAFETY: as above.
    unsafe { dpdk_sys::rte_eth_dev_rx_intr_disable(id, queue) };
    Some(Interrupt::Enabled)
}

impl Port {
    /// Whether the first `queues` receive queues of a started port, configured with `rx_interrupts`, can wake who waits for frames.
    pub fn has_rx_interrupts(&self, queues: u16) -> bool {
        (0..queues).all(|queue| kind(self.inner.id, queue).is_some())
    }
}

impl RxQueue {
    /// From now on, frames of this queue end a [`wait`] of the calling thread; call it on the thread that receives.
    ///
    /// Errors: [`crate::ErrorKind::Unsupported`] when the driver has no receive interrupts, or the port was not configured for them.
    pub fn listen(&mut self) -> Result<(), DpdkError> {
        const CALL: &str = "rte_eth_dev_rx_intr_ctl_q";
        let (id, queue) = (self.port(), self.queue());
        let Some(kind) = kind(id, queue) else { return Err(DpdkError::from_status(CALL, -(nix::errno::Errno::ENOTSUP as i32))) };
        let (thread, add) = (dpdk_sys::BATON_EPOLL_PER_THREAD, dpdk_sys::BATON_INTR_EVENT_ADD);
        // SAFETY: a queue that we hold; no data is attached to its event.
        let status = unsafe { dpdk_sys::rte_eth_dev_rx_intr_ctl_q(id, queue, thread, add, ptr::null_mut()) };
        check(CALL, status)?;
        self.set_interrupt(kind);
        Ok(())
    }

    /// Makes the next frame end a [`wait`]; frames that came before may not, so the queue is to be looked at once more in between.
    ///
    /// Cost: a write to the device, with some drivers a system call.
    pub fn arm(&mut self) {
        if self.interrupt() == Some(Interrupt::Enabled) {
            // SAFETY: a queue that we hold, of a port that has started.
            unsafe { dpdk_sys::rte_eth_dev_rx_intr_enable(self.port(), self.queue()) };
        }
    }

    /// Ends what [`RxQueue::arm`] began: a queue that is polled needs no interrupts.
    pub fn disarm(&mut self) {
        if self.interrupt() == Some(Interrupt::Enabled) {
            // SAFETY: as for `arm`.
            unsafe { dpdk_sys::rte_eth_dev_rx_intr_disable(self.port(), self.queue()) };
        }
    }
}

/// Waits until a queue that listens on this thread has frames, `longest` at most, in whole milliseconds. Cost: a system call.
pub fn wait(longest: Duration) {
    let timeout = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: for this plain C struct, all zero is valid; it is written before it is read.
    let mut event: dpdk_sys::rte_epoll_event = unsafe { std::mem::zeroed() };
    // SAFETY: room for one event; what it says does not matter, since all queues are looked at afterwards.
    unsafe { dpdk_sys::rte_epoll_wait(dpdk_sys::BATON_EPOLL_PER_THREAD, &raw mut event, 1, timeout) };
}
