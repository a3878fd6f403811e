//! From hash to entry: a fixed table of cache-line buckets.

use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ids that a bucket holds.
const SLOTS: usize = 10;

/// Ids that a bucket holds on average when the index is full: a load of 0.7.
///
/// At this load about one id in a hundred lies outside its first bucket.
const FILL: usize = 7;

/// One cache line: 16 bits of the hash and the id for each slot, and how many ids had to go further.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 for an empty slot.
    tags: [u16; SLOTS],
    /// How many ids passed this bucket because it was full; at 0 a search ends here.
    passed: u32,
    ids: [u32; SLOTS],
}

impl Bucket {
    /// A bit for each slot with this tag.
    #[inline]
    fn slots(&self, tag: u16) -> u32 {
        self.tags.iter().enumerate().fold(0, |bits, (slot, t)| bits | u32::from(*t == tag) << slot)
    }
}

/// Ids by hash, for a fixed number of ids: never grows, never moves an id, never leaves a tombstone.
///
/// An id lies in the bucket that its hash names or, if that was full, in the first one after it with room. Every bucket
/// counts the ids that passed it, so a search for what is not there ends at the first bucket, nearly always.
pub struct Index {
    buckets: HugeArray<Bucket>,
}

/// Every slot of the index is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexFull;

#[inline]
const fn tag(hash: u64) -> u16 {
    let tag = (hash >> 48) as u16;
    if tag == 0 { 1 } else { tag }
}

impl Index {
    /// An index in which `capacity` ids always find room: 64 bytes for every 7 ids.
    pub fn new(capacity: u32) -> Result<Self, DpdkError> {
        let mut buckets = HugeArray::anonymous((capacity as usize).div_ceil(FILL).max(1))?;
        buckets.prefault()?;
        Ok(Self { buckets })
    }

    /// The bucket that `hash` names: its low half scaled to the number of buckets, a multiplication instead of a division.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// Asks for the line that a search for `hash` begins with.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.home(hash));
    }

    /// The first id in the first bucket that may be the one looked for, to be fetched ahead of [`find`](Self::find).
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        let bucket = &self.buckets[self.home(hash)];
        bucket.ids.get(bucket.slots(tag(hash)).trailing_zeros() as usize).copied()
    }

    /// The id under `hash` for which `is_it` holds. Cost: one line, and one more for about one hash in fifty at full load.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut slots = bucket.slots(tag(hash));
            while slots != 0 {
                let id = bucket.ids[slots.trailing_zeros() as usize % SLOTS];
                if is_it(id) {
                    return Some(id);
                }
                slots &= slots - 1;
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Puts `id` under `hash`; it must not be there yet. Fails only if every slot is taken, 1.4 times the capacity.
    pub fn insert(&mut self, hash: u64, id: u32) -> Result<(), IndexFull> {
        let home = self.home(hash);
        let mut at = home;
        let mut steps = 0;
        let slot = loop {
            if let Some(slot) = self.buckets[at].tags.iter().position(|t| *t == 0) {
                break slot;
            }
            at = self.after(at);
            steps += 1;
            if steps == self.buckets.len() {
                return Err(IndexFull);
            }
        };
        self.buckets[at].tags[slot] = tag(hash);
        self.buckets[at].ids[slot] = id;
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
            if let Some(slot) = bucket.ids.iter().zip(bucket.tags).position(|(i, t)| *i == id && t == tag) {
                bucket.tags[slot] = 0;
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
            bucket.tags = [0; SLOTS];
            bucket.passed = 0;
        }
    }
}

#[cfg(test)]
mod tests;
