//! Fixed stores of frames, allocated at start.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::burst::{BURST, Burst};
use crate::eal::{self, EalInner};
use crate::error::{DpdkError, ErrorKind, c_string};
use crate::mbuf::Mbuf;

/// Bytes in front of a received frame that [`Mbuf::prepend`] can use.
pub const HEADROOM: u16 = 128;
/// Room of a frame buffer that suits an MTU of up to 1,900 bytes: headroom and 2,048 bytes of frame.
pub const DEFAULT_DATA_ROOM: u16 = HEADROOM + 2048;

const _: () = assert!(HEADROOM as u32 == dpdk_sys::RTE_PKTMBUF_HEADROOM);

/// A fixed number of equal frame buffers, with a cache per worker; clones are handles of the same mempool.
///
/// The memory is never freed while the EAL runs, so that a frame needs no counted reference to its mempool.
#[derive(Clone)]
pub struct Mempool {
    raw: NonNull<dpdk_sys::rte_mempool>,
    size: u32,
    _eal: Arc<EalInner>,
}

// SAFETY: rte_mempool is made for use by many threads: its common part is an MPMC ring, its caches belong to one lcore
// each, and threads that are no lcore use no cache. The pointer stays valid as long as `_eal`.
unsafe impl Send for Mempool {}
// SAFETY: as for Send; every method takes `&self` down to thread-safe calls.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a mempool of `mbufs` buffers of `data_room` bytes each ([`HEADROOM`] included), of which every worker may
    /// keep `cache` (at most 512; at least four times a burst keeps the common part out of the path).
    ///
    /// `mbufs` one less than a power of two wastes no memory. `socket` is the NUMA node, `None` for any.
    ///
    /// Errors: the EAL does not run; name longer than 25 bytes or taken; cache over 512 or over two thirds of `mbufs`;
    /// not enough memory.
    pub fn new(name: &str, mbufs: u32, cache: u32, data_room: u16, socket: Option<u32>) -> Result<Self, DpdkError> {
        const CALL: &str = "rte_pktmbuf_pool_create";
        let eal = eal::running(CALL)?;
        let c_name = c_string(CALL, name)?;
        // SAFETY: the EAL runs (`eal`), the name is NUL-terminated and is copied by the callee.
        let raw = unsafe { dpdk_sys::baton_pktmbuf_pool(c_name.as_ptr(), mbufs, cache, data_room, eal::socket_id(socket)) };
        let Some(raw) = NonNull::new(raw) else {
            let error = DpdkError::last(CALL);
            return Err(match error.kind {
                ErrorKind::OutOfMemory => error.with_hint(format!(
                    "mempool {name}: {mbufs} frames of {data_room} bytes need about {} MiB; give the EAL more memory",
                    (u64::from(mbufs) * (u64::from(data_room) + 192)) >> 20
                )),
                _ => error.with_hint(format!("mempool {name}: {mbufs} frames, cache {cache}, room {data_room}")),
            });
        };
        eal.remember_mempool(raw, mbufs);
        Ok(Self { raw, size: mbufs, _eal: eal })
    }

    /// One empty frame, or `None` when the mempool is exhausted.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the mempool is alive (`_eal`) and holds packet mbufs.
        let raw = unsafe { dpdk_sys::rte_pktmbuf_alloc(self.raw.as_ptr()) };
        // SAFETY: a fresh mbuf of this mempool, owned by nobody else.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Appends `n` empty frames to `burst`; all or none: `false` when the burst has no room or the mempool too few.
    #[inline]
    pub fn alloc_bulk(&self, burst: &mut Burst, n: usize) -> bool {
        if n == 0 {
            return true;
        }
        if n > BURST - burst.len() {
            return false;
        }
        let Ok(count) = u32::try_from(n) else {
            return false;
        };
        burst.fill(|free, _| {
            // SAFETY: the mempool is alive, and `free` has room for at least `n` pointers as checked above.
            let status = unsafe { dpdk_sys::rte_pktmbuf_alloc_bulk(self.raw.as_ptr(), free, count) };
            if status == 0 { n } else { 0 }
        }) == n
    }

    /// Frames that can be allocated now, caches included. Walks all caches: for listings, not for the path.
    pub fn available(&self) -> u32 {
        // SAFETY: the mempool is alive (`_eal`); the count reads its ring and caches.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Frames that are out: in bursts, queues, rings. Exact only while no other thread allocates or frees.
    pub fn in_use(&self) -> u32 {
        self.size.saturating_sub(self.available())
    }

    /// Frames in all.
    pub fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool").field("size", &self.size).field("in_use", &self.in_use()).finish_non_exhaustive()
    }
}
