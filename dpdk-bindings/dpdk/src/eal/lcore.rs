//! Worker threads: DPDK's lcores, used like `std::thread`.

use std::ffi::{c_int, c_uint, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::{Eal, lock};
use crate::error::{DpdkError, ErrorKind};

type Job = Box<dyn FnOnce() + Send>;

/// A function that runs, or ran, on a worker: joinable like a thread. Dropped without join, it runs on.
pub struct Lcore<T> {
    outcome: Arc<Outcome<T>>,
    worker: usize,
}

struct Outcome<T> {
    result: Mutex<Option<thread::Result<T>>>,
    ready: Condvar,
}

impl Eal {
    /// Runs `f` on worker `worker` (from 0), on the CPU that the configuration gave it.
    ///
    /// A panic in `f` ends `f` alone and comes out of [`Lcore::join`].
    ///
    /// Errors: [`ErrorKind::NoSuchWorker`]; [`ErrorKind::WorkerBusy`] while an earlier function runs there.
    pub fn launch<F, T>(&self, worker: usize, f: F) -> Result<Lcore<T>, DpdkError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        const CALL: &str = "rte_eal_remote_launch";
        if worker >= self.workers {
            return Err(DpdkError::refused(CALL, ErrorKind::NoSuchWorker, format!("worker {worker} of {}", self.workers)));
        }
        let outcome = Arc::new(Outcome { result: Mutex::new(None), ready: Condvar::new() });
        let tell = Arc::clone(&outcome);
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(f));
            *lock(&tell.result) = Some(result);
            tell.ready.notify_all();
        });
        let argument: *mut Job = Box::into_raw(Box::new(job));
        // SAFETY: the lcore exists; `run` takes the job, which lives until then and is Send.
        let status = unsafe { dpdk_sys::rte_eal_remote_launch(Some(run), argument.cast::<c_void>(), lcore_of(worker)) };
        if status != 0 {
            // SAFETY: the launch was refused, so `run` was not and will not be called with it.
            drop(unsafe { Box::from_raw(argument) });
            return Err(DpdkError::refused(CALL, ErrorKind::WorkerBusy, format!("worker {worker} still runs an earlier function")));
        }
        Ok(Lcore { outcome, worker })
    }
}

unsafe extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: DPDK calls this once per launch, with the pointer that `launch` made from a box.
    let job = unsafe { Box::from_raw(argument.cast::<Job>()) };
    job();
    0
}

/// The lcore id of a worker; the main thread is lcore 0.
fn lcore_of(worker: usize) -> c_uint {
    c_uint::try_from(worker + 1).unwrap_or(c_uint::MAX)
}

/// Whether a function runs on the worker.
pub(super) fn is_running(worker: usize) -> bool {
    // SAFETY: the id is below RTE_MAX_LCORE, checked at init; reads the state of that lcore.
    let state = unsafe { dpdk_sys::rte_eal_get_lcore_state(lcore_of(worker)) };
    state != dpdk_sys::rte_lcore_state_t::WAIT
}

impl<T> Lcore<T> {
    /// Whether the function has returned or panicked, so that [`Lcore::join`] does not wait.
    pub fn is_finished(&self) -> bool {
        lock(&self.outcome.result).is_some()
    }

    /// Waits for the function and gives its result, or its panic. The worker can be launched again then.
    pub fn join(self) -> thread::Result<T> {
        let mut result = lock(&self.outcome.result);
        let result = loop {
            if let Some(result) = result.take() {
                break result;
            }
            result = self.outcome.ready.wait(result).unwrap_or_else(PoisonError::into_inner);
        };
        // The result is told just before the lcore goes back to waiting.
        while is_running(self.worker) {
            thread::yield_now();
        }
        result
    }
}

impl<T> fmt::Debug for Lcore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lcore").field("worker", &self.worker).field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
