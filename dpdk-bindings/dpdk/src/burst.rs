//! Up to 64 frames that travel together.

use core::ops::{Index, IndexMut, RangeBounds};

use arrayvec::ArrayVec;

use crate::mbuf::Mbuf;

/// Most frames in a [`Burst`].
pub const BURST: usize = 64;

/// Up to [`BURST`] frames in order, owned; dropped or cleared, they return to their mempools in one call.
///
/// 8 bytes a frame and no allocation: make it once per worker and reuse it.
#[derive(Default)]
pub struct Burst {
    frames: ArrayVec<Mbuf, BURST>,
}

impl Burst {
    /// An empty burst.
    pub const fn new() -> Self {
        Self { frames: ArrayVec::new_const() }
    }

    /// Frames in the burst.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it holds no frame.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether it has no room left.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.frames.is_full()
    }

    /// Frames that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.frames.remaining_capacity()
    }

    /// Appends a frame, or gives it back when the burst is full.
    #[inline(always)]
    pub fn push(&mut self, frame: Mbuf) -> Result<(), Mbuf> {
        self.frames.try_push(frame).map_err(arrayvec::CapacityError::element)
    }

    /// Takes the last frame.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.frames.pop()
    }

    /// The frame at `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&Mbuf> {
        self.frames.get(index)
    }

    /// The frame at `index`, to change.
    #[inline(always)]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Mbuf> {
        self.frames.get_mut(index)
    }

    /// The frames in order.
    #[inline(always)]
    pub fn iter(&self) -> core::slice::Iter<'_, Mbuf> {
        self.frames.iter()
    }

    /// The frames in order, to change.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> core::slice::IterMut<'_, Mbuf> {
        self.frames.iter_mut()
    }

    /// The frames as a slice.
    #[inline(always)]
    pub fn as_slice(&self) -> &[Mbuf] {
        &self.frames
    }

    /// Takes the frames in `range` (`..` for all) out in order; those not consumed are freed when the iterator is dropped.
    ///
    /// A range beyond the end is a mistake of the caller and panics, as with `Vec`.
    #[inline(always)]
    pub fn drain(&mut self, range: impl RangeBounds<usize>) -> impl DoubleEndedIterator<Item = Mbuf> + ExactSizeIterator + '_ {
        self.frames.drain(range)
    }

    /// Takes up to `n` frames from the front as a burst of their own.
    #[inline]
    #[must_use]
    pub fn take_front(&mut self, n: usize) -> Self {
        let mut front = Self::new();
        self.move_front(n, &mut front);
        front
    }

    /// Takes the frame at `index` out and puts the last one in its place.
    #[inline(always)]
    pub fn swap_remove(&mut self, index: usize) -> Option<Mbuf> {
        self.frames.swap_pop(index)
    }

    /// Moves up to `n` frames from the front of this burst to the end of `to`, as far as that has room; how many.
    #[inline]
    pub fn move_front(&mut self, n: usize, to: &mut Self) -> usize {
        let n = n.min(self.len()).min(to.room());
        to.frames.extend(self.frames.drain(..n));
        n
    }

    /// Frees the first `n` frames (all, if there are fewer) in one call; the others move to the front.
    #[inline]
    pub fn free_front(&mut self, n: usize) {
        let n = n.min(self.len());
        let Ok(count) = u32::try_from(n) else { return };
        self.release_front(|frames, _| {
            // SAFETY: the first `count` (at most `len`) pointers are mbufs that we own, and release_front forgets them.
            unsafe { dpdk_sys::rte_pktmbuf_free_bulk(frames, count) };
            n
        });
    }

    /// Frees all frames in one call.
    #[inline]
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.free_front(self.len());
        }
    }

    /// Lets `writer` store frames behind the last one. It gets the place and the room there, and answers how many
    /// it stored, each an mbuf that is now ours. How many that were.
    #[inline(always)]
    pub(crate) fn fill(&mut self, writer: impl FnOnce(*mut *mut dpdk_sys::rte_mbuf, u16) -> usize) -> usize {
        let (len, room) = (self.frames.len(), self.frames.remaining_capacity());
        #[expect(clippy::cast_possible_truncation, reason = "at most BURST")]
        let room_u16 = room as u16;
        // SAFETY: `len` is at most the capacity.
        let free = unsafe { self.frames.as_mut_ptr().add(len) };
        let stored = writer(free.cast(), room_u16).min(room);
        // SAFETY: the writer stored `stored` live mbufs behind `len`; Mbuf is a transparent, non-null mbuf pointer.
        unsafe { self.frames.set_len(len + stored) };
        stored
    }

    /// Lets `reader` take frames from the front. It gets their place and number and answers how many it took, each an
    /// mbuf that is no longer ours. How many that were; the others move to the front, in order.
    #[inline(always)]
    pub(crate) fn release_front(&mut self, reader: impl FnOnce(*mut *mut dpdk_sys::rte_mbuf, u16) -> usize) -> usize {
        let len = self.frames.len();
        #[expect(clippy::cast_possible_truncation, reason = "at most BURST")]
        let len_u16 = len as u16;
        let first = self.frames.as_mut_ptr();
        let taken = reader(first.cast(), len_u16).min(len);
        let kept = len - taken;
        if kept > 0 && taken > 0 {
            // SAFETY: `taken` is less than `len`.
            let rest = unsafe { first.add(taken) };
            // SAFETY: both ranges lie within the `len` frames; `copy` allows them to overlap.
            unsafe { core::ptr::copy(rest, first, kept) };
        }
        // SAFETY: the first `kept` places hold frames that were not taken; those behind were taken or moved.
        unsafe { self.frames.set_len(kept) };
        taken
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Index<usize> for Burst {
    type Output = Mbuf;
    #[inline(always)]
    fn index(&self, index: usize) -> &Mbuf {
        &self.frames[index]
    }
}

impl IndexMut<usize> for Burst {
    #[inline(always)]
    fn index_mut(&mut self, index: usize) -> &mut Mbuf {
        &mut self.frames[index]
    }
}

impl<'a> IntoIterator for &'a Burst {
    type Item = &'a Mbuf;
    type IntoIter = core::slice::Iter<'a, Mbuf>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Burst {
    type Item = &'a mut Mbuf;
    type IntoIter = core::slice::IterMut<'a, Mbuf>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl core::fmt::Debug for Burst {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
