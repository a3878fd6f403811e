//! From hash to entry: a fixed table of cache-line buckets.

use std::hint::cold_path;
use std::num::NonZeroU32;

use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;
use dpdk::words;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_ref};

/// Ids that a bucket holds.
const SLOTS: usize = 12;

/// Ids that a bucket holds on average when the index is full: a load of two thirds.
///
/// At this load one id in fifty lies outside its first bucket, and one bucket in fifteen was passed by an id. One id in seventy
/// has another one with its tag before it.
const FILL: usize = 8;

/// The tag of no hash.
const EMPTY: u8 = 0;

/// One cache line: the id and 8 bits of the hash for each slot, and how many ids had to go further.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    ids: [u32; SLOTS],
    /// [`EMPTY`] for an empty slot.
    tags: [u8; SLOTS],
    /// How many ids passed this bucket because it was full; at 0 a search ends here.
    passed: u32,
}

/// Slots of a bucket, as bits.
#[derive(Clone, Copy)]
struct Slots(u32);

impl Slots {
    /// The first of them.
    #[inline(always)]
    fn first(self) -> Option<usize> {
        NonZeroU32::new(self.0).map(|slots| slots.trailing_zeros() as usize)
    }

    /// All but the first.
    #[inline]
    const fn rest(self) -> Self {
        Self(self.0 & self.0.wrapping_sub(1))
    }
}

impl Bucket {
    /// The slots with this tag, with bits beyond them that mean nothing.
    #[inline(always)]
    fn like(&self, tag: u8) -> u32 {
        let quarters: &[[u8; 16]; 4] = transmute_ref!(self);
        words::equal(&quarters[3], tag)
    }

    /// The slots with this tag.
    #[inline(always)]
    fn slots(&self, tag: u8) -> Slots {
        Slots(self.like(tag) & ((1 << SLOTS) - 1))
    }

    /// The id in the first slot with this tag; any number if there is none.
    #[inline(always)]
    fn candidate(&self, tag: u8) -> u32 {
        let numbers: &[u32; 16] = transmute_ref!(self);
        numbers[(self.like(tag) | 1 << SLOTS).trailing_zeros() as usize]
    }
}

/// Ids by hash, for a fixed number of ids: never grows, never moves an id, never leaves a tombstone.
///
/// An id lies in the bucket that its hash names or, if that was full, in the first one after it with room. Every bucket
/// counts the ids that passed it, so that a search for what is not there mostly ends at the first bucket.
pub struct Index {
    buckets: HugeArray<Bucket>,
    changes: u32,
}

/// Every slot of the index is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexFull;

#[inline(always)]
const fn tag(hash: u64) -> u8 {
    let tag = (hash >> 56) as u8;
    if tag == EMPTY { 1 } else { tag }
}

impl Index {
    /// An index in which `capacity` ids always find room: 64 bytes for every 8 ids.
    pub fn new(capacity: u32) -> Result<Self, DpdkError> {
        let mut buckets = HugeArray::anonymous((capacity as usize).div_ceil(FILL).max(1))?;
        buckets.prefault()?;
        Ok(Self { buckets, changes: 0 })
    }

    /// The bucket that `hash` names: its low half scaled to the number of buckets, a multiplication instead of a division.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// How often an id was put in or taken out; wraps.
    #[inline(always)]
    pub const fn changes(&self) -> u32 {
        self.changes
    }

    /// Asks for the line that a search for `hash` begins with.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.home(hash));
    }

    /// What [`find`](Self::find) most likely finds, by a look at the first bucket and, if nothing there is alike, at the second: any number if
    /// there is nothing. Cost: one line; at full load another for one id in fifty.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> u32 {
        if let Some(id) = self.alike(hash) {
            return id;
        }
        cold_path();
        let home = self.home(hash);
        if self.buckets[home].passed == 0 { u32::MAX } else { self.buckets[self.after(home)].candidate(tag(hash)) }
    }

    /// The first id that [`find`](Self::find) looks at in the first bucket, if anything there is alike. Cost: one line.
    #[inline(always)]
    pub fn alike(&self, hash: u64) -> Option<u32> {
        let bucket = &self.buckets[self.home(hash)];
        bucket.slots(tag(hash)).first().map(|slot| bucket.ids[slot])
    }

    /// The id under `hash` for which `is_it` holds. Cost: one line; at full load another for one id in fifty, and
    /// for one in fifteen of the hashes that have none.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut slots = bucket.slots(tag(hash));
            while let Some(slot) = slots.first() {
                let id = bucket.ids[slot];
                if is_it(id) {
                    return Some(id);
                }
                slots = slots.rest();
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Puts `id` under `hash`; it must not be there yet. Fails only if every slot is taken, 1.5 times the capacity.
    pub fn insert(&mut self, hash: u64, id: u32) -> Result<(), IndexFull> {
        let home = self.home(hash);
        let mut at = home;
        let mut steps = 0;
        let slot = loop {
            if let Some(empty) = self.buckets[at].slots(EMPTY).first() {
                break empty;
            }
            at = self.after(at);
            steps += 1;
            if steps == self.buckets.len() {
                return Err(IndexFull);
            }
        };
        self.buckets[at].tags[slot] = tag(hash);
        self.buckets[at].ids[slot] = id;
        self.changes = self.changes.wrapping_add(1);
        self.count_passed(home, steps, |passed| passed + 1);
        Ok(())
    }

    /// Takes `id` out from under `hash`; whether it was there.
    pub fn remove(&mut self, hash: u64, id: u32) -> bool {
        let home = self.home(hash);
        let mut at = home;
        for steps in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            let tag = tag(hash);
            if let Some(slot) = (0..SLOTS).find(|slot| bucket.ids[*slot] == id && bucket.tags[*slot] == tag) {
                bucket.tags[slot] = EMPTY;
                self.changes = self.changes.wrapping_add(1);
                self.count_passed(home, steps, |passed| passed - 1);
                return true;
            }
            if bucket.passed == 0 {
                return false;
            }
            at = self.after(at);
        }
        false
    }

    fn count_passed(&mut self, home: usize, steps: usize, change: impl Fn(u32) -> u32) {
        let mut at = home;
        for _ in 0..steps {
            self.buckets[at].passed = change(self.buckets[at].passed);
            at = self.after(at);
        }
    }

    /// Forgets every id.
    pub fn clear(&mut self) {
        for bucket in self.buckets.iter_mut() {
            bucket.tags = [EMPTY; SLOTS];
            bucket.passed = 0;
        }
    }
}

#[cfg(test)]
mod tests;
