//! One frame, owned.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;

use dpdk_sys::rte_mbuf;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::mempool::HEADROOM;
use crate::prefetch;

/// A field of `rte_mbuf`, by its offset in the installed DPDK.
struct Field<T> {
    offset: usize,
    kind: PhantomData<T>,
}

impl<T: Copy> Field<T> {
    /// # Safety
    /// A field of type `T`, for which every bit pattern is valid, lies at `offset` in `rte_mbuf`.
    const unsafe fn at(offset: dpdk_sys::baton_mbuf_layout) -> Self {
        Self { offset: offset as usize, kind: PhantomData }
    }

    #[inline(always)]
    fn get(&self, mbuf: &Mbuf) -> T {
        // SAFETY: `at` promises that the offset is inside the mbuf, which is alive and ours.
        let field = unsafe { mbuf.0.as_ptr().byte_add(self.offset) };
        // SAFETY: `at` promises an aligned, initialised `T` there; nobody writes it while we own the mbuf.
        unsafe { field.cast::<T>().read() }
    }

    #[inline(always)]
    fn set(&self, mbuf: &mut Mbuf, value: T) {
        // SAFETY: as in `get`.
        let field = unsafe { mbuf.0.as_ptr().byte_add(self.offset) };
        // SAFETY: as in `get`; the exclusive borrow makes us the only user.
        unsafe { field.cast::<T>().write(value) }
    }
}

// The widths are asserted in wrapper.h.
// SAFETY: offsetof(buf_addr), a pointer.
const BUF_ADDR: Field<*mut u8> = unsafe { Field::at(dpdk_sys::BATON_MBUF_BUF_ADDR) };
// SAFETY: offsetof(data_off), 16 bits.
const DATA_OFF: Field<u16> = unsafe { Field::at(dpdk_sys::BATON_MBUF_DATA_OFF) };
// SAFETY: offsetof(nb_segs), 16 bits.
const NB_SEGS: Field<u16> = unsafe { Field::at(dpdk_sys::BATON_MBUF_NB_SEGS) };
// SAFETY: offsetof(port), 16 bits.
const PORT: Field<u16> = unsafe { Field::at(dpdk_sys::BATON_MBUF_PORT) };
// SAFETY: offsetof(ol_flags), 64 bits.
const OL_FLAGS: Field<u64> = unsafe { Field::at(dpdk_sys::BATON_MBUF_OL_FLAGS) };
// SAFETY: offsetof(pkt_len), 32 bits.
const PKT_LEN: Field<u32> = unsafe { Field::at(dpdk_sys::BATON_MBUF_PKT_LEN) };
// SAFETY: offsetof(data_len), 16 bits.
const DATA_LEN: Field<u16> = unsafe { Field::at(dpdk_sys::BATON_MBUF_DATA_LEN) };
// SAFETY: offsetof(vlan_tci), 16 bits.
const VLAN_TCI: Field<u16> = unsafe { Field::at(dpdk_sys::BATON_MBUF_VLAN_TCI) };
// SAFETY: offsetof(hash.rss), 32 bits.
const RSS_HASH: Field<u32> = unsafe { Field::at(dpdk_sys::BATON_MBUF_RSS_HASH) };
// SAFETY: offsetof(buf_len), 16 bits.
const BUF_LEN: Field<u16> = unsafe { Field::at(dpdk_sys::BATON_MBUF_BUF_LEN) };

/// One frame with the buffer that holds it: owned, not clonable, given back to its mempool on drop.
///
/// `Option<Mbuf>` is one pointer wide. Bound to its thread; [`Mbuf::hand_over`] and [`crate::ring::Ring`] cross threads.
/// Almost every frame is one segment; frames of several (jumbo frames in small buffers) show only their first one here
/// and say so by [`Mbuf::is_contiguous`].
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

const _: () = assert!(size_of::<Option<Mbuf>>() == 8);
const _: () = assert!(dpdk_sys::BATON_MBUF_SIZE == 128);

impl Mbuf {
    /// # Safety
    /// `raw` is a live mbuf that nobody else owns, of a mempool that is not freed before it.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self(raw)
    }

    /// Gives the frame away; whoever takes the pointer frees it.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> NonNull<rte_mbuf> {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    /// Bytes in the first segment: those that [`Mbuf::data`] shows.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(DATA_LEN.get(self))
    }

    /// Whether the first segment holds nothing.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in the frame, all segments.
    #[inline(always)]
    pub fn packet_len(&self) -> usize {
        PKT_LEN.get(self) as usize
    }

    /// Whether one segment holds the whole frame.
    #[inline(always)]
    pub fn is_contiguous(&self) -> bool {
        NB_SEGS.get(self) == 1
    }

    /// Address of the first byte of the frame, inside the buffer.
    #[inline(always)]
    fn start(&self) -> *mut u8 {
        let (buffer, offset) = (BUF_ADDR.get(self), usize::from(DATA_OFF.get(self)));
        // SAFETY: DPDK and the setters here keep data_off within the buffer that starts at buf_addr.
        let start = unsafe { buffer.add(offset) };
        // SAFETY: a buffer is at no null address, nor is what lies in it.
        unsafe { core::hint::assert_unchecked(!start.is_null()) };
        start
    }

    /// The bytes of the first segment, from the Ethernet header on.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: data_off + data_len lie within the buffer, which was mapped zeroed and is ours while we own the mbuf.
        unsafe { slice::from_raw_parts(self.start(), self.len()) }
    }

    /// The bytes of the first segment, to change.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`; the exclusive borrow makes us the only user.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len()) }
    }

    /// Bytes that [`Mbuf::prepend`] can add.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        usize::from(DATA_OFF.get(self))
    }

    /// Bytes that [`Mbuf::append`] can add; 0 for a frame of several segments.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        let end = DATA_OFF.get(self).saturating_add(DATA_LEN.get(self));
        if self.is_contiguous() { usize::from(BUF_LEN.get(self).saturating_sub(end)) } else { 0 }
    }

    /// Grows the frame by `n` bytes at the front and gives them; `None`, and no change, when the headroom is smaller.
    ///
    /// The bytes hold what was there before: write all of them.
    #[inline(always)]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let n = u16::try_from(n).ok()?;
        let offset = DATA_OFF.get(self).checked_sub(n)?;
        let len = DATA_LEN.get(self).checked_add(n)?;
        DATA_OFF.set(self, offset);
        self.set_first_len(len);
        self.data_mut().get_mut(..usize::from(n))
    }

    /// Removes `n` bytes at the front; `None`, and no change, when the first segment is shorter.
    #[inline]
    pub fn adjust(&mut self, n: usize) -> Option<()> {
        let n = u16::try_from(n).ok()?;
        let len = DATA_LEN.get(self).checked_sub(n)?;
        let offset = DATA_OFF.get(self).checked_add(n)?;
        DATA_OFF.set(self, offset);
        self.set_first_len(len);
        Some(())
    }

    /// Grows the frame by `n` bytes at the end and gives them; `None`, and no change, when the buffer has no such room
    /// or the frame has several segments.
    ///
    /// The bytes hold what was there before: write all of them.
    #[inline]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if !self.is_contiguous() {
            return None;
        }
        let n = u16::try_from(n).ok()?;
        let old = DATA_LEN.get(self);
        let len = old.checked_add(n)?;
        if DATA_OFF.get(self).checked_add(len)? > BUF_LEN.get(self) {
            return None;
        }
        self.set_first_len(len);
        self.data_mut().get_mut(usize::from(old)..)
    }

    /// Cuts the frame at the end to `len` bytes; `None`, and no change, when it is shorter or has several segments.
    #[inline(always)]
    pub fn truncate(&mut self, len: usize) -> Option<()> {
        if !self.is_contiguous() || len > self.len() {
            return None;
        }
        self.set_first_len(u16::try_from(len).ok()?);
        Some(())
    }

    /// Lets a frame in one piece begin `more` bytes earlier, and end `len` bytes behind where it begins now; gives all of it. `None`, and no
    /// change, when the headroom is smaller, or the frame is shorter or has several segments.
    ///
    /// The bytes in front hold what was there before: write all of them.
    #[inline(always)]
    pub fn reframe(&mut self, more: usize, len: usize) -> Option<&mut [u8]> {
        let whole = u16::try_from(more + len).ok()?;
        let offset = DATA_OFF.get(self).checked_sub(u16::try_from(more).ok()?)?;
        if !self.is_contiguous() || len > self.len() {
            return None;
        }
        DATA_OFF.set(self, offset);
        DATA_LEN.set(self, whole);
        PKT_LEN.set(self, u32::from(whole));
        Some(self.data_mut())
    }

    /// Makes the frame be `bytes`, with full headroom in front and nothing remembered of its reception; `None`, and no
    /// change, when the buffer is smaller or the frame has several segments.
    pub fn copy_from(&mut self, bytes: &[u8]) -> Option<()> {
        if !self.is_contiguous() {
            return None;
        }
        let len = u16::try_from(bytes.len()).ok()?;
        let room = BUF_LEN.get(self);
        let offset = HEADROOM.min(room);
        if len > room - offset {
            return None;
        }
        DATA_OFF.set(self, offset);
        self.set_first_len(len);
        OL_FLAGS.set(self, OL_FLAGS.get(self) & dpdk_sys::BATON_MBUF_ATTACHED);
        self.data_mut().copy_from_slice(bytes);
        Some(())
    }

    /// Sets the length of the first segment and moves that of the frame along.
    #[inline(always)]
    fn set_first_len(&mut self, len: u16) {
        let old = u32::from(DATA_LEN.get(self));
        let packet = PKT_LEN.get(self).wrapping_sub(old).wrapping_add(u32::from(len));
        PKT_LEN.set(self, packet);
        DATA_LEN.set(self, len);
    }

    /// The port that received the frame; `u16::MAX` for one that was made here.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        PORT.get(self)
    }

    /// The hash by which the device chose the rx queue, when it tells.
    #[inline(always)]
    pub fn rss_hash(&self) -> Option<u32> {
        (OL_FLAGS.get(self) & dpdk_sys::BATON_RX_RSS_HASH != 0).then(|| RSS_HASH.get(self))
    }

    /// A number that travels with the frame: what [`Mbuf::set_tag`] wrote, otherwise nothing of meaning.
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        RSS_HASH.get(self)
    }

    /// Lets a number travel with the frame, in the place of [`Mbuf::rss_hash`], which is forgotten (`rte_mbuf`'s `hash.usr`).
    #[inline(always)]
    pub fn set_tag(&mut self, tag: u32) {
        OL_FLAGS.set(self, OL_FLAGS.get(self) & !dpdk_sys::BATON_RX_RSS_HASH);
        RSS_HASH.set(self, tag);
    }

    /// Whether the device may have found the IPv4 header checksum wrong; [`bad_ip_checksum`](Self::bad_ip_checksum) tells whether
    /// it did. Cost: one bit looked at.
    #[inline(always)]
    pub fn doubts_ip_checksum(&self) -> bool {
        OL_FLAGS.get(self) & dpdk_sys::BATON_RX_IP_CKSUM_BAD != 0
    }

    /// Whether the device found the IPv4 header checksum wrong. `false` also when it did not look.
    #[inline(always)]
    pub fn bad_ip_checksum(&self) -> bool {
        OL_FLAGS.get(self) & dpdk_sys::BATON_RX_IP_CKSUM_MASK == dpdk_sys::BATON_RX_IP_CKSUM_BAD
    }

    /// The VLAN tag that the device took off the frame, if it did.
    #[inline(always)]
    pub fn vlan_tci(&self) -> Option<u16> {
        (OL_FLAGS.get(self) & dpdk_sys::BATON_RX_VLAN_STRIPPED != 0).then(|| VLAN_TCI.get(self))
    }

    /// The header at `offset`, in place; `None` when the first segment ends before it does.
    #[inline(always)]
    pub fn view<T>(&self, offset: usize) -> Option<&T>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_prefix(self.data().get(offset..)?).ok().map(|(view, _)| view)
    }

    /// The header at `offset`, in place, to change; `None` when the first segment ends before it does.
    #[inline(always)]
    pub fn view_mut<T>(&mut self, offset: usize) -> Option<&mut T>
    where
        T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned,
    {
        T::mut_from_prefix(self.data_mut().get_mut(offset..)?).ok().map(|(view, _)| view)
    }

    /// Asks for the cache line with the byte at `offset` of the frame ahead of its use.
    ///
    /// Touches the mbuf itself, whose line the receiving driver has just written.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        prefetch::address::<{ prefetch::NEAR }>(self.start().wrapping_add(offset));
    }

    /// Asks for the line in front of the frame's first one, where [`Mbuf::prepend`] writes.
    #[inline(always)]
    pub fn prefetch_headroom(&self) {
        prefetch::address::<{ prefetch::NEAR }>(self.start().wrapping_sub(1));
    }

    /// Makes the frame fit to cross to another thread.
    #[inline(always)]
    pub fn hand_over(self) -> HandedOver {
        HandedOver(self)
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own the mbuf, its mempool is alive, and it is not used after.
        unsafe { dpdk_sys::rte_pktmbuf_free(self.0.as_ptr()) }
    }
}

impl core::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mbuf").field("port", &self.port()).field("data", &format_args!("{:02x?}", self.data())).finish()
    }
}

/// A frame on its way between threads.
#[derive(Debug)]
pub struct HandedOver(Mbuf);

// SAFETY: the frame is owned by this value alone, and its mempool takes frames back from any thread. `Mbuf` is bound to
// its thread only to make crossing visible.
unsafe impl Send for HandedOver {}

impl HandedOver {
    /// The frame, on the thread that has it now.
    #[inline(always)]
    pub fn take(self) -> Mbuf {
        self.0
    }
}

#[cfg(test)]
mod tests;
