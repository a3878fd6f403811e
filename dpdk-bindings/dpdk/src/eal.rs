//! The environment abstraction layer: DPDK itself, once per process.

mod config;
mod lcore;

use std::collections::BTreeSet;
use std::ffi::{CString, c_char};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

pub use config::{BondMode, EalConfig, bond, free_hugepages_mb};
pub use lcore::Lcore;

use crate::error::{DpdkError, ErrorKind, c_string};

/// What this process has done with DPDK so far.
enum State {
    Never,
    Running(Weak<EalInner>),
    /// Initialisation failed or has been undone; DPDK does not promise a second one.
    Over,
}

static STATE: Mutex<State> = Mutex::new(State::Never);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running EAL, for whatever must keep it alive.
pub(crate) fn running(call: &'static str) -> Result<Arc<EalInner>, DpdkError> {
    let eal = match &*lock(&STATE) {
        State::Running(eal) => eal.upgrade(),
        State::Never | State::Over => None,
    };
    eal.ok_or_else(|| DpdkError::refused(call, ErrorKind::NotInitialised, "the EAL does not run in this process"))
}

/// NUMA node for DPDK; `SOCKET_ID_ANY` for none.
pub(crate) fn socket_id(socket: Option<u32>) -> i32 {
    socket.and_then(|socket| i32::try_from(socket).ok()).unwrap_or(-1)
}

/// DPDK, running in this process; at most one, once.
///
/// Dropping it cleans DPDK up as soon as nothing uses it any more: handles of mempools, rings, ports and queues keep it
/// alive, and with a frame or a worker still out it is left to the end of the process.
#[derive(Debug)]
pub struct Eal {
    inner: Arc<EalInner>,
    workers: usize,
}

/// What mempools, rings, ports and queues hold to keep the EAL from being cleaned up.
#[derive(Debug)]
pub(crate) struct EalInner {
    mempools: Mutex<Vec<KnownMempool>>,
    ports: Mutex<BTreeSet<u16>>,
    workers: usize,
}

#[derive(Debug)]
struct KnownMempool {
    raw: NonNull<dpdk_sys::rte_mempool>,
    size: u32,
}

// SAFETY: a mempool may be counted from any thread; see `Mempool`.
unsafe impl Send for KnownMempool {}

impl Eal {
    /// Starts DPDK, and gives the calling thread back the CPU affinity that this takes away.
    ///
    /// Takes some 150 ms; loads the drivers of Debian's plugin folder; starts one waiting thread per worker.
    ///
    /// Errors: [`ErrorKind::AlreadyInitialised`], [`ErrorKind::CoreNotAllowed`], [`ErrorKind::NoHugepages`],
    /// [`ErrorKind::OtherProcess`] (same file prefix), [`ErrorKind::InvalidArgument`], and others. After an error other
    /// than a refused core or argument, DPDK cannot be tried again in this process.
    pub fn init(config: &EalConfig) -> Result<Self, DpdkError> {
        const CALL: &str = "rte_eal_init";
        let mut state = lock(&STATE);
        if !matches!(*state, State::Never) {
            return Err(DpdkError::refused(CALL, ErrorKind::AlreadyInitialised, "DPDK starts once per process"));
        }
        let this_thread = Pid::from_raw(0);
        let affinity = sched_getaffinity(this_thread).map_err(|errno| DpdkError::from_errno("sched_getaffinity", errno as i32))?;
        config.check(&affinity)?;
        let arguments: Vec<CString> = config.arguments().iter().map(|argument| c_string(CALL, argument)).collect::<Result<_, _>>()?;

        *state = State::Over;
        let result = init_raw(arguments);
        let restored = sched_setaffinity(this_thread, &affinity);
        result.map_err(|error| config.explain(error))?;

        let inner = Arc::new(EalInner { mempools: Mutex::default(), ports: Mutex::default(), workers: config.worker_cores.len() });
        *state = State::Running(Arc::downgrade(&inner));
        drop(state);
        restored.map_err(|errno| DpdkError::from_errno("sched_setaffinity", errno as i32))?;
        Ok(Self { workers: config.worker_cores.len(), inner })
    }

    /// Workers that were configured.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Probes a device that was not named at start, such as `net_tap0,iface=lan`, so that its port can be opened by name.
    pub fn attach(&self, device: &str) -> Result<(), DpdkError> {
        const CALL: &str = "rte_dev_probe";
        let name = c_string(CALL, device)?;
        // SAFETY: the EAL runs; the string is NUL-terminated and copied by the callee.
        let status = unsafe { dpdk_sys::rte_dev_probe(name.as_ptr()) };
        crate::error::check(CALL, status)
            .map(drop)
            .map_err(|error| error.with_kind(ErrorKind::PortNotFound).with_hint(format!("device {device}")))
    }

    pub(crate) fn inner(&self) -> &Arc<EalInner> {
        &self.inner
    }
}

/// Calls `rte_eal_init`. The arguments are leaked: DPDK permutes the array and may keep pointers into it.
fn init_raw(arguments: Vec<CString>) -> Result<(), DpdkError> {
    let mut pointers: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let count = i32::try_from(pointers.len()).unwrap_or(i32::MAX);
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak();
    // SAFETY: `count` NUL-terminated strings and a final null, alive for ever; the caller makes sure of one call only.
    let status = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    if status < 0 { Err(DpdkError::last("rte_eal_init")) } else { Ok(()) }
}

impl EalInner {
    pub(crate) fn remember_mempool(&self, raw: NonNull<dpdk_sys::rte_mempool>, size: u32) {
        lock(&self.mempools).push(KnownMempool { raw, size });
    }

    /// Marks a port as held; `false` when it is already.
    pub(crate) fn claim_port(&self, port: u16) -> bool {
        lock(&self.ports).insert(port)
    }

    pub(crate) fn release_port(&self, port: u16) {
        lock(&self.ports).remove(&port);
    }

    /// Whether no frame is out and no worker runs, so that memory may go away.
    fn is_idle(&self) -> bool {
        let all_home = lock(&self.mempools).iter().all(|mempool| {
            // SAFETY: mempools are not freed before the EAL is cleaned up, which only our drop does.
            let available = unsafe { dpdk_sys::rte_mempool_avail_count(mempool.raw.as_ptr()) };
            available == mempool.size
        });
        all_home && (0..self.workers).all(|worker| !lcore::is_running(worker))
    }
}

impl Drop for EalInner {
    fn drop(&mut self) {
        *lock(&STATE) = State::Over;
        if self.is_idle() {
            // SAFETY: nothing of DPDK is in use: this was the last handle, no frame is out, no worker runs.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

#[cfg(test)]
mod tests;
