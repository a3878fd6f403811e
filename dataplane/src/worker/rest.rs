//! What a worker does when no frame has come for a while.

use std::time::Duration;

use dpdk::port;

use super::{Idle, Worker};

/// The longest sleep: a receive queue of 1024 holds what comes at 2 million frames a second.
const LONGEST_SLEEP: Duration = Duration::from_micros(500);
/// The longest wait for an interrupt: commands, the kernel's frames and entries whose time is up wait for its end.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// The same where other workers may hand frames over, which interrupt nobody.
const LONGEST_WAIT_AMONG_OTHERS: Duration = Duration::from_millis(1);

impl Worker {
    /// Makes the interrupts of all receive queues this thread's; without them the worker sleeps.
    pub(super) fn listen(&mut self) {
        if self.idle == Idle::Interrupt && !self.receivers.iter_mut().flatten().all(|queue| queue.listen().is_ok()) {
            self.idle = Idle::Adaptive;
        }
    }

    /// Rests after `empty` turns too many without work; whether interrupts are armed now, as they were if `armed`.
    ///
    /// A wait takes two calls: between arming and waiting the queues are looked at once more, since a frame in between would wake nobody.
    pub(super) fn rest(&mut self, empty: u32, armed: bool) -> bool {
        if self.idle == Idle::Adaptive {
            std::thread::sleep(Duration::from_micros(empty.into()).min(LONGEST_SLEEP));
            return false;
        }
        if !armed {
            self.receivers.iter_mut().flatten().for_each(port::RxQueue::arm);
            return true;
        }
        port::wait(if self.handover.is_some() { LONGEST_WAIT_AMONG_OTHERS } else { LONGEST_WAIT });
        self.wake()
    }

    /// Goes on to ask for frames; gives that no interrupt is armed.
    pub(super) fn wake(&mut self) -> bool {
        self.receivers.iter_mut().flatten().for_each(port::RxQueue::disarm);
        false
    }
}
