//! The time stamp counter: cheap time for the packet path.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time stamp counter, in cycles of [`hz`]; monotonic per core and, on every CPU with an invariant counter, across cores.
///
/// Costs some 20 cycles (more in a virtual machine): read it once a turn and pass it down.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub fn cycles() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 CPU and is not disabled for user space by Linux.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Time stamp counter, in cycles of [`hz`].
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub fn cycles() -> u64 {
    // SAFETY: reads the counter register; no preconditions.
    unsafe { dpdk_sys::rte_rdtsc() }
}

/// Cycles per second of [`cycles`]: measured by the EAL, or, before it runs, here once over 20 ms.
///
/// Not for the packet path: read it at start.
pub fn hz() -> u64 {
    static OWN: OnceLock<u64> = OnceLock::new();
    // SAFETY: reads an integer that is zero until the EAL has set it; no preconditions.
    let measured = unsafe { dpdk_sys::rte_get_tsc_hz() };
    if measured != 0 {
        return measured;
    }
    *OWN.get_or_init(|| {
        let (start, from) = (Instant::now(), cycles());
        std::thread::sleep(Duration::from_millis(20));
        let (elapsed, spent) = (start.elapsed().as_nanos().max(1), cycles().saturating_sub(from));
        u64::try_from(u128::from(spent) * 1_000_000_000 / elapsed).unwrap_or(u64::MAX).max(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_advances_and_has_a_rate() {
        let before = cycles();
        std::thread::sleep(Duration::from_millis(1));
        assert!(cycles() > before);
        assert!(hz() > 1_000_000, "{} Hz", hz());
    }
}
