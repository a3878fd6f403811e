//! Lock-free queues of frames between threads, and ports made of them.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::burst::Burst;
use crate::eal::{self, Eal, EalInner};
use crate::error::{DpdkError, ErrorKind, c_string};
use crate::mbuf::Mbuf;
use crate::port::Port;

/// A bounded queue of frames that any thread may fill and any may empty; clones are handles of the same ring.
///
/// Frames left in it are freed with its last handle.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<RingInner>,
}

pub(crate) struct RingInner {
    raw: NonNull<dpdk_sys::rte_ring>,
    _eal: Arc<EalInner>,
}

// SAFETY: an MPMC rte_ring is made for many threads at once, and one with single ends is reached only through a
// `RingSender` and a `RingReceiver`, which are neither cloned nor shared while they work. Frames may cross threads: a mempool
// takes them back from any. The pointer stays valid as long as this value.
unsafe impl Send for RingInner {}
// SAFETY: as for Send.
unsafe impl Sync for RingInner {}

impl Ring {
    /// Makes a ring for `size` frames; `socket` is the NUMA node, `None` for any.
    ///
    /// Errors: the EAL does not run; name longer than 28 bytes or taken; size 0 or too large; no memory.
    pub fn new(name: &str, size: u32, socket: Option<u32>) -> Result<Self, DpdkError> {
        Self::with(name, size, socket, 0)
    }

    /// Makes a ring for `size` frames from one thread to one other, which needs no locked instruction at either end.
    ///
    /// Errors: as for [`Ring::new`].
    pub fn one_way(name: &str, size: u32, socket: Option<u32>) -> Result<(RingSender, RingReceiver), DpdkError> {
        let ring = Self::with(name, size, socket, dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ)?;
        Ok((RingSender(ring.clone()), RingReceiver(ring)))
    }

    fn with(name: &str, size: u32, socket: Option<u32>, ends: u32) -> Result<Self, DpdkError> {
        const CALL: &str = "rte_ring_create";
        let eal = eal::running(CALL)?;
        let c_name = c_string(CALL, name)?;
        // SAFETY: the EAL runs; the name is NUL-terminated and copied by the callee.
        let raw = unsafe { dpdk_sys::rte_ring_create(c_name.as_ptr(), size, eal::socket_id(socket), dpdk_sys::RING_F_EXACT_SZ | ends) };
        let raw = NonNull::new(raw).ok_or_else(|| DpdkError::last(CALL).with_hint(format!("ring {name} for {size} frames")))?;
        Ok(Self { inner: Arc::new(RingInner { raw, _eal: eal }) })
    }

    /// Puts one frame in, or gives it back when the ring is full.
    #[inline]
    pub fn enqueue(&self, frame: Mbuf) -> Result<(), Mbuf> {
        let mbuf = frame.into_raw();
        let pointer = mbuf.as_ptr().cast();
        // SAFETY: the ring is alive; one pointer is read.
        let put = unsafe { dpdk_sys::rte_ring_enqueue_burst(self.as_ptr(), &raw const pointer, 1, std::ptr::null_mut()) };
        if put == 1 {
            return Ok(());
        }
        // SAFETY: the ring refused the frame, so it is still ours.
        Err(unsafe { Mbuf::from_raw(mbuf) })
    }

    /// Puts as many frames in as fit, from the front of the burst; how many. The others stay, in order.
    #[inline]
    pub fn enqueue_burst(&self, burst: &mut Burst) -> usize {
        burst.release_front(|frames, len| {
            // SAFETY: the ring is alive; `len` frames of ours are at `frames`, and release_front forgets those taken.
            let put = unsafe {
                dpdk_sys::rte_ring_enqueue_burst(self.as_ptr(), frames.cast_const().cast(), u32::from(len), std::ptr::null_mut())
            };
            put as usize
        })
    }

    /// Takes frames out, as many as there are and fit behind those in the burst; how many.
    #[inline]
    pub fn dequeue_burst(&self, burst: &mut Burst) -> usize {
        burst.fill(|free, room| {
            // SAFETY: the ring is alive and holds owned frames only; `free` has room for `room` pointers.
            let got = unsafe { dpdk_sys::rte_ring_dequeue_burst(self.as_ptr(), free.cast(), u32::from(room), std::ptr::null_mut()) };
            got as usize
        })
    }

    /// Frames in the ring now.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: the ring is alive; reads its two positions.
        (unsafe { dpdk_sys::rte_ring_count(self.as_ptr()) }) as usize
    }

    /// Whether the ring holds no frame now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells how full the ring is, beside its users.
    pub fn gauge(&self) -> RingGauge {
        RingGauge(self.clone())
    }

    fn as_ptr(&self) -> *mut dpdk_sys::rte_ring {
        self.inner.raw.as_ptr()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("len", &self.len()).finish()
    }
}

/// Tells how full a ring is, and can do nothing else; holds the ring as a handle does.
#[derive(Clone, Debug)]
pub struct RingGauge(Ring);

impl RingGauge {
    /// Frames in the ring now: a moment's reading while others use it. Cost: two loads.
    pub fn waiting(&self) -> usize {
        self.0.len()
    }
}

/// The end of a one-way ring that frames go in by; the only one.
#[derive(Debug)]
pub struct RingSender(Ring);

impl RingSender {
    /// Puts one frame in, or gives it back when the ring is full.
    #[inline]
    pub fn send(&mut self, frame: Mbuf) -> Result<(), Mbuf> {
        self.0.enqueue(frame)
    }

    /// Puts as many frames in as fit, from the front of the burst; how many. The others stay, in order.
    #[inline]
    pub fn send_burst(&mut self, burst: &mut Burst) -> usize {
        self.0.enqueue_burst(burst)
    }
}

/// The end of a one-way ring that frames come out of; the only one.
#[derive(Debug)]
pub struct RingReceiver(Ring);

impl RingReceiver {
    /// Takes frames out, as many as there are and fit behind those in the burst; how many.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        self.0.dequeue_burst(burst)
    }

    /// Tells how full the ring is, beside its users.
    pub fn gauge(&self) -> RingGauge {
        self.0.gauge()
    }
}

impl Drop for RingInner {
    fn drop(&mut self) {
        let mut left = Burst::new();
        loop {
            let taken = left.fill(|free, room| {
                // SAFETY: the ring is alive and holds owned frames only; `free` has room for `room` pointers.
                let got =
                    unsafe { dpdk_sys::rte_ring_dequeue_burst(self.raw.as_ptr(), free.cast(), u32::from(room), std::ptr::null_mut()) };
                got as usize
            });
            if taken == 0 {
                break;
            }
            left.clear();
        }
        // SAFETY: this was the last handle, and ports made of the ring hold one; nobody uses it after.
        unsafe { dpdk_sys::rte_ring_free(self.raw.as_ptr()) }
    }
}

/// A port whose rx queue `i` reads ring `rx[i]` and whose tx queue `i` writes ring `tx[i]`: the frames themselves, uncopied.
///
/// For tests: what is put into an rx ring is received, what is sent appears in a tx ring. Its name is `net_ring_` and `name`.
///
/// Errors: no or more than 16 rings; a name that this process used before.
pub fn ring_port(eal: &Eal, name: &str, rx: &[&Ring], tx: &[&Ring]) -> Result<Port, DpdkError> {
    const CALL: &str = "rte_eth_from_rings";
    /// Most rings per direction (`RTE_PMD_RING_MAX_RX_RINGS`).
    const MOST: usize = 16;
    if rx.is_empty() || tx.is_empty() || rx.len() > MOST || tx.len() > MOST {
        return Err(DpdkError::refused(
            CALL,
            ErrorKind::InvalidArgument,
            format!("{} rx and {} tx rings; from 1 to {MOST} each", rx.len(), tx.len()),
        ));
    }
    let c_name = c_string(CALL, name)?;
    let pointers = |rings: &[&Ring]| rings.iter().map(|ring| ring.as_ptr()).collect::<Vec<_>>();
    let (rx_pointers, tx_pointers) = (pointers(rx), pointers(tx));
    let count = |rings: &[&Ring]| u32::try_from(rings.len()).unwrap_or(0);
    // SAFETY: the EAL runs; the arrays hold as many live rings as said, and are copied; the port made below keeps the
    // rings alive.
    let status =
        unsafe { dpdk_sys::rte_eth_from_rings(c_name.as_ptr(), rx_pointers.as_ptr(), count(rx), tx_pointers.as_ptr(), count(tx), 0) };
    let id = u16::try_from(status).map_err(|_| DpdkError::last(CALL).with_hint(format!("ring port {name}")))?;
    let rings = rx.iter().chain(tx).map(|ring| Arc::clone(&ring.inner)).collect();
    Port::claim(eal, id, rings)
}

#[cfg(test)]
mod tests;
