//! When entries end: lists of entries by the slot of time in which to look at them again.

use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;
use zerocopy::FromBytes;

use crate::connection::entry::Entry;
use crate::tick::Tick;

/// A slot is 2^5 ticks, 0.32 s.
const SLOT_BITS: u32 = 5;
/// Slots in a turn: 4096, 22 minutes, so that an entry of 15 minutes is looked at once. Longer ones are looked at once a turn.
const SLOTS: u32 = 1 << 12;
/// Slots are numbered without end, modulo the range of a tick.
const NUMBERS: u32 = u32::MAX >> SLOT_BITS;
/// No entry.
pub(super) const NIL: u32 = u32::MAX;
/// Marks the `prev` of a slot's first entry, which holds the slot instead of an entry.
const FIRST: u32 = 1 << 31;
/// Ids are below this.
pub(super) const ID_LIMIT: u32 = FIRST;

/// A timer wheel with a link for each place of the table: 8 bytes, touched only when an entry comes, is looked at or ends.
///
/// A packet only writes the entry's new `expires`: the wheel finds out when the slot comes in which the entry was left and puts
/// it where it belongs now. So an entry is never in a slot after its `expires`, and whoever shortens that must [`link`](Self::link)
/// it again.
pub(super) struct Wheel {
    /// For every entry in a slot the next one, and the one before it or the slot itself; for every free place the next free one.
    links: HugeArray<Link>,
    /// First entry of each slot.
    heads: Box<[u32]>,
    /// The number of the slot to work on next; all before it are done.
    cursor: u32,
}

#[derive(Clone, Copy, FromBytes)]
struct Link {
    next: u32,
    prev: u32,
}

const fn number(moment: Tick) -> u32 {
    moment.0 >> SLOT_BITS
}

impl Wheel {
    /// An empty wheel for entries in `places` places.
    pub(super) fn new(places: usize) -> Result<Self, DpdkError> {
        let mut links = HugeArray::anonymous(places)?;
        links.prefault()?;
        Ok(Self { links, heads: vec![NIL; SLOTS as usize].into_boxed_slice(), cursor: 0 })
    }

    /// The free place behind free place `id`.
    #[inline]
    pub(super) fn next_free(&self, id: u32) -> u32 {
        self.links[id as usize].next
    }

    /// Notes which free place comes behind `id`, which is in no slot.
    #[inline]
    pub(super) fn set_next_free(&mut self, id: u32, next: u32) {
        self.links[id as usize].next = next;
    }

    /// Empties the wheel and sets it to `now`.
    pub(super) fn reset(&mut self, now: Tick) {
        self.heads.fill(NIL);
        self.start(now);
    }

    /// Sets a wheel without entries to `now`.
    pub(super) fn start(&mut self, now: Tick) {
        self.cursor = number(now);
    }

    /// Puts entry `id`, which is in no slot, into the one of its `expires`.
    #[inline]
    pub(super) fn link(&mut self, entries: &[Entry], id: u32) {
        self.link_ahead(entries, id, 0);
    }

    /// As [`link`](Self::link), but at least `least` slots ahead.
    #[inline]
    fn link_ahead(&mut self, entries: &[Entry], id: u32, least: u32) {
        let ahead = number(entries[id as usize].expires()).wrapping_sub(self.cursor) & NUMBERS;
        let ahead = if ahead > NUMBERS / 2 { 0 } else { ahead }.clamp(least, SLOTS - 1);
        let slot = self.cursor.wrapping_add(ahead) % SLOTS;
        let next = std::mem::replace(&mut self.heads[slot as usize], id);
        self.links[id as usize] = Link { next, prev: FIRST | slot };
        if next != NIL {
            self.links[next as usize].prev = id;
        }
    }

    /// Takes entry `id` out of its slot.
    #[inline]
    pub(super) fn unlink(&mut self, id: u32) {
        let Link { next, prev } = self.links[id as usize];
        if prev & FIRST != 0 {
            self.heads[(prev % SLOTS) as usize] = next;
        } else {
            self.links[prev as usize].next = next;
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
    }

    /// Takes out an entry that has ended by `now`, at most 0.32 s late. Every slot passed and every entry looked at costs one of
    /// `budget`; `None` when there is nothing more to do or the budget is spent.
    pub(super) fn pop(&mut self, entries: &[Entry], now: Tick, budget: &mut usize) -> Option<u32> {
        let end = number(now);
        // A moment past the cursor by more than half the range lies before it.
        while *budget > 0 && (end.wrapping_sub(self.cursor) & NUMBERS).wrapping_sub(1) < NUMBERS / 2 {
            *budget -= 1;
            let id = self.heads[(self.cursor % SLOTS) as usize];
            if id == NIL {
                self.cursor = self.cursor.wrapping_add(1) & NUMBERS;
                continue;
            }
            self.unlink(id);
            if now.has_reached(entries[id as usize].expires()) {
                return Some(id);
            }
            // Never into the same slot again, whatever its moment: adopted entries may say anything.
            self.link_ahead(entries, id, 1);
        }
        None
    }
}

#[cfg(test)]
mod tests;
