//! The connection table of one worker: entries, the index that finds them and the wheel that ends them.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;

use crate::affinity::Affinity;
use crate::connection::entry::{Entry, EntryId, Plain, TEMPLATE, flags};
use crate::connection::index::Index;
use crate::connection::key::{Addresses, Hasher, Key};
use crate::connection::reply::Replies;
use crate::connection::tentative::{Queues, Tentative};
use crate::connection::wheel::{ID_LIMIT, NIL, Wheel};
use crate::service::{ServerId, ServiceId};
use crate::tcp::State;
use crate::tick::Tick;

/// Entries that end together, so that their cache misses overlap.
const ENDED: usize = 16;

/// Connections whose entries and index lines are 1.3 MiB: about what a core has to itself. With checks, so few that tests have more and fewer.
const MANY: u32 = if cfg!(debug_assertions) { 32 } else { 1 << 15 };

/// The connections of one worker: a fixed number of places, allocated at the start; nothing here allocates afterwards.
///
/// Memory: 60 bytes a place (32 for the entry, 8 for the index, 8 for the wheel, 4 for its template, 8 for the queues of tentative
/// ones), and 32 more for the addresses of IPv6, which are provided as they are used.
pub struct ConnectionTable {
    hasher: Hasher,
    pub(super) index: Index,
    pub(super) wheel: Wheel,
    pub(super) entries: HugeArray<Entry>,
    /// For every place whose entry is of [`flags::V6`], its addresses; not read otherwise.
    v6: HugeArray<[u64; 4]>,
    /// For every place whose entry is [`flags::CONTROLLED`], the template; not read otherwise.
    pub(super) templates: HugeArray<u32>,
    /// Where workers agree on templates; `None` for a worker alone.
    pub(super) affinity: Option<Arc<Affinity>>,
    capacity: u32,
    /// The index of replies, once there is a masquerading real server.
    pub(super) replies: Option<Replies>,
    /// First of the places that were used and given back.
    free: u32,
    /// First of the places that were never used.
    fresh: u32,
    live: u32,
    pub(super) tentative: Queues,
    half_open_limit: u32,
}

/// What a new entry holds besides its key.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry {
    /// The real server that was picked.
    pub server: ServerId,
    /// The virtual service.
    pub service: ServiceId,
    /// The value of its first state, which is one of its protocol's; 0 where that has none.
    pub state: u8,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Ticks until it ends unless a packet comes; at most 31 days.
    pub timeout_ticks: u32,
}

/// Why a connection got no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// Every place is taken.
    TableFull,
    /// The share for half-open connections is taken.
    HalfOpenLimit,
}

/// Why a table could not be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableError {
    /// The capacity is not between 1 and 2^31 - 1.
    Capacity(usize),
    /// The memory could not be had.
    Memory(DpdkError),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(n) => write!(f, "a connection table of {n} entries: allowed are 1 to {}", ID_LIMIT - 1),
            Self::Memory(error) => write!(f, "memory for a worker's tables: {error}"),
        }
    }
}

impl std::error::Error for TableError {}

impl ConnectionTable {
    /// A table for `capacity` connections (1 to 2^31 - 1), of which at most `half_open` may be half open when they are made;
    /// `seed` comes from a secure random source. All memory is provided here, on huge pages where there are any.
    pub fn new(capacity: u32, half_open: u32, seed: [u64; 4]) -> Result<Self, TableError> {
        let mut entries = HugeArray::anonymous(capacity as usize).map_err(TableError::Memory)?;
        entries.prefault().map_err(TableError::Memory)?;
        let v6 = HugeArray::on_demand(capacity as usize).map_err(TableError::Memory)?;
        Self::over(entries, v6, half_open, seed)
    }

    /// An empty table over `entries` and as many IPv6 addresses, the contents of which count only after
    /// [`rebuild_index`](Self::rebuild_index).
    pub fn over(entries: HugeArray<Entry>, v6: HugeArray<[u64; 4]>, half_open: u32, seed: [u64; 4]) -> Result<Self, TableError> {
        let capacity = u32::try_from(entries.len()).ok().filter(|n| (1..ID_LIMIT).contains(n));
        let capacity = capacity.filter(|_| v6.len() == entries.len()).ok_or(TableError::Capacity(entries.len()))?;
        let mut templates = HugeArray::anonymous(entries.len()).map_err(TableError::Memory)?;
        templates.prefault().map_err(TableError::Memory)?;
        Ok(Self {
            hasher: Hasher::new(seed),
            index: Index::new(capacity).map_err(TableError::Memory)?,
            wheel: Wheel::new(entries.len()).map_err(TableError::Memory)?,
            tentative: Queues::new(entries.len()).map_err(TableError::Memory)?,
            templates,
            affinity: None,
            entries,
            v6,
            replies: None,
            capacity,
            free: NIL,
            fresh: 0,
            live: 0,
            half_open_limit: half_open,
        })
    }

    /// A number that is another one after entries came or went.
    #[inline(always)]
    pub const fn changes(&self) -> u32 {
        self.index.changes()
    }

    /// The hash under which `key` is found; to be computed once a packet.
    #[inline]
    pub fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash(key)
    }

    /// What makes the hash.
    #[inline]
    pub const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Asks for the index line that a search for `hash` reads first.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Asks for the entry that a search for `hash` will most likely find, and gives it as a guess, which may be as wrong as it
    /// likes; reads the index line.
    #[inline(always)]
    pub fn prefetch_entry(&self, hash: u64) -> EntryId {
        let id = self.index.candidate(hash);
        self.entries.prefetch(id as usize);
        EntryId(id)
    }

    /// Asks for the entry at `guess` once more, just ahead of its use.
    #[inline(always)]
    pub(crate) fn prefetch_near(&self, guess: EntryId) {
        self.entries.prefetch_near(guess.0 as usize);
    }

    /// The entry at `guess`, if it is as `plain` says and has these ports and addresses with this [`word`](Hasher::word).
    ///
    /// Two pairs of IPv6 addresses have the same word once in 2^64 pairs that nobody can choose, less often than a TCP checksum or a memory
    /// with error correction lets a wrong bit pass. Cost: its line.
    #[inline(always)]
    pub(crate) fn plain(&mut self, guess: EntryId, plain: Plain, addresses: u64, ports: u32) -> Option<&mut Entry> {
        self.entries.get_mut(guess.0 as usize).filter(|entry| entry.addresses == addresses && entry.is_plain(plain, ports))
    }

    /// Whether the entry at `guess`, if there is one, has these ports, this protocol and family, and addresses with this word, which says as much
    /// as in [`plain`](Self::plain). Cost: its line.
    #[inline(always)]
    pub(crate) fn is_at(&self, guess: EntryId, addresses: u64, ports: u32, protocol: u8, v4: bool) -> bool {
        let entry = self.entries.get(guess.0 as usize);
        entry.is_some_and(|entry| entry.is_live() && entry.addresses == addresses && entry.has(ports, protocol, v4))
    }

    /// CIP and VIP of the entry in this place, if it is of IPv4, as a header has them.
    #[inline(always)]
    pub(crate) fn addresses_v4(&self, id: EntryId) -> Option<u64> {
        self.entries.get(id.0 as usize).filter(|entry| entry.flags & flags::V6 == 0).map(|entry| entry.addresses)
    }

    /// As [`addresses_v4`](Self::addresses_v4), of IPv6.
    #[inline(always)]
    pub(crate) fn addresses_v6(&self, id: EntryId) -> Option<[u64; 4]> {
        self.entries.get(id.0 as usize).filter(|entry| entry.flags & flags::V6 != 0)?;
        self.v6.get(id.0 as usize).copied()
    }

    /// The entry in this place, if there is such a place.
    #[inline(always)]
    pub(crate) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)
    }

    /// The entry in this place, to send a packet on; its key, state and flags stay as they are.
    #[inline(always)]
    pub(crate) fn entry_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.get_mut(id.0 as usize)
    }

    /// What packets of the entry in this place are found by. Cost: its line, and another one for IPv6.
    #[inline]
    pub fn key(&self, id: EntryId) -> Key {
        let entry = self.entry(id);
        Key::of(self.addresses(entry, id.0), entry.ports, entry.protocol)
    }

    #[inline]
    fn addresses(&self, entry: &Entry, id: u32) -> Addresses {
        if entry.flags & flags::V6 == 0 {
            return Addresses::V4(entry.addresses);
        }
        Addresses::V6(self.v6.get(id as usize).copied().unwrap_or_default())
    }

    /// The entry with this key, where `hash` is the key's. Cost: two lines, both prefetched by then, and a third for IPv6.
    #[inline]
    pub fn find(&self, hash: u64, key: &Key) -> Option<EntryId> {
        self.find_words(hash, key.addresses(), key.ports(), key.protocol)
    }

    /// As [`find`](Self::find), for addresses and ports that are as a packet's header has them.
    #[inline]
    pub fn find_words(&self, hash: u64, addresses: Addresses, ports: u32, protocol: u8) -> Option<EntryId> {
        let entry = |id: u32| &self.entries[id as usize];
        let id = match addresses {
            Addresses::V4(both) => self.index.find(hash, |id| entry(id).addresses == both && entry(id).has(ports, protocol, true)),
            Addresses::V6(words) => {
                self.index.find(hash, |id| entry(id).has(ports, protocol, false) && self.v6.get(id as usize) == Some(&words))
            }
        };
        id.map(EntryId)
    }

    /// Makes an entry for `key`, which must have none, as [`find`](Self::find) just said.
    pub fn insert(&mut self, hash: u64, key: &Key, new: NewEntry, now: Tick) -> Result<EntryId, InsertError> {
        let id = if self.free == NIL { self.fresh } else { self.free };
        let Some(place) = self.entries.get_mut(id as usize) else { return Err(InsertError::TableFull) };
        let addresses = key.addresses();
        let family = if matches!(addresses, Addresses::V4(_)) { 0 } else { flags::V6 };
        let entry = Entry {
            addresses: self.hasher.word(addresses),
            ports: key.ports(),
            protocol: key.protocol,
            state: new.state,
            flags: new.flags | flags::LIVE | family,
            server: new.server.0,
            service: new.service.0,
            expires: now.0.wrapping_add(new.timeout_ticks),
            in_packets: u32::from(key.protocol & TEMPLATE == 0),
        };
        if entry.is_half_open() && self.tentative.len(Tentative::HalfOpen) >= self.half_open_limit {
            return Err(InsertError::HalfOpenLimit);
        }
        self.index.insert(hash, id).map_err(|_| InsertError::TableFull)?;
        if self.free == NIL {
            self.fresh += 1;
        } else {
            self.free = self.wheel.next_free(id);
        }
        *place = entry;
        if let Addresses::V6(words) = addresses {
            self.v6[id as usize] = words;
        }
        if Tentative::is_new(&entry) {
            self.enlist(id);
        }
        if self.live == 0 {
            // Nothing was due while the table was empty.
            self.wheel.start(now);
        }
        self.live += 1;
        self.wheel.link(&self.entries, id);
        Ok(EntryId(id))
    }

    /// The entry in this place.
    #[inline]
    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id.0 as usize]
    }

    /// Counts a packet and lets the entry live for another `timeout_ticks`. Cost: one line written, unless the timeout shrinks.
    #[inline]
    pub fn touch(&mut self, id: EntryId, now: Tick, timeout_ticks: u32) {
        let entry = &mut self.entries[id.0 as usize];
        entry.in_packets = entry.in_packets.wrapping_add(1);
        self.set_expiry(id, now, timeout_ticks);
    }

    /// Puts the entry into another state and lets it live for `timeout_ticks` from now; counts no packet.
    #[inline]
    pub fn set_state(&mut self, id: EntryId, state: State, now: Tick, timeout_ticks: u32) {
        self.set_state_value(id, state as u8, now, timeout_ticks);
    }

    /// Notes that an answer passed the director, whatever the entry's method.
    pub fn note_answer(&mut self, id: EntryId) {
        self.entries[id.0 as usize].flags |= flags::ANSWERED;
    }

    /// As [`set_state`](Self::set_state), for a state of the entry's own protocol.
    #[inline]
    pub fn set_state_value(&mut self, id: EntryId, state: u8, now: Tick, timeout_ticks: u32) {
        let entry = &mut self.entries[id.0 as usize];
        entry.state = state;
        if entry.is_half_open() {
            self.enlist(id.0);
        } else if entry.flags & flags::TENTATIVE != 0 {
            self.delist(id.0);
        }
        self.set_expiry(id, now, timeout_ticks);
    }

    /// Replaces the entry's [`flags`], except those that are the table's own.
    pub fn set_flags(&mut self, id: EntryId, flags: u16) {
        let entry = &mut self.entries[id.0 as usize];
        entry.flags = flags | entry.flags & (flags::LIVE | flags::TENTATIVE);
    }

    #[inline(always)]
    pub(super) fn set_expiry(&mut self, id: EntryId, now: Tick, timeout_ticks: u32) {
        let entry = &mut self.entries[id.0 as usize];
        let expires = Tick(now.0.wrapping_add(timeout_ticks));
        if expires == entry.expires() {
            return;
        }
        let sooner = entry.expires().until(expires) == 0;
        entry.expires = expires.0;
        if sooner {
            self.move_in_wheel(id);
        }
    }

    /// Apart from the way that every packet goes.
    #[inline(never)]
    fn move_in_wheel(&mut self, id: EntryId) {
        self.wheel.unlink(id.0);
        self.wheel.link(&self.entries, id.0);
    }

    /// Ends the entry at once and returns what it held.
    pub fn remove(&mut self, id: EntryId) -> Entry {
        self.wheel.unlink(id.0);
        let hash = self.hash_of(id.0);
        self.release(hash, id.0)
    }

    /// The hash under which the entry in this place is found.
    #[inline]
    fn hash_of(&self, id: u32) -> u64 {
        let entry = &self.entries[id as usize];
        self.hasher.mix(entry.addresses, entry.ports, entry.protocol)
    }

    /// Gives back the place of an entry that the wheel has let go.
    fn release(&mut self, hash: u64, id: u32) -> Entry {
        self.index.remove(hash, id);
        self.delist(id);
        if self.entries[id as usize].flags & flags::CONTROLLED != 0 {
            let template = &mut self.entries[self.templates[id as usize] as usize];
            template.in_packets = template.in_packets.saturating_sub(1);
        }
        if self.entries[id as usize].flags & flags::MASQUERADED != 0
            && let Some(replies) = &mut self.replies
        {
            replies.release(id);
        }
        let place = &mut self.entries[id as usize];
        let entry = *place;
        place.flags &= flags::V6;
        self.wheel.set_next_free(id, std::mem::replace(&mut self.free, id));
        self.live -= 1;
        entry
    }

    /// Ends entries whose time has come, at most 0.32 s late, and shows each with its key to `ended`; looks at no more than `budget` slots
    /// and entries, so that a call's cost is bounded and what is left is done by the next calls.
    pub fn expire(&mut self, now: Tick, budget: usize, ended: &mut impl FnMut(&Key, &Entry)) {
        let mut budget = budget;
        if self.live == 0 {
            self.wheel.start(now);
            return;
        }
        loop {
            let mut due = ArrayVec::<(u64, u32), ENDED>::new();
            while !due.is_full()
                && let Some(id) = self.wheel.pop(&self.entries, now, &mut budget)
            {
                if self.keep_template(id, now) {
                    continue;
                }
                let hash = self.hash_of(id);
                self.index.prefetch(hash);
                due.push((hash, id));
            }
            for (hash, id) in &due {
                let entry = self.release(*hash, *id);
                ended(&self.key(EntryId(*id)), &entry);
            }
            if !due.is_full() {
                return;
            }
        }
    }

    /// Connections held.
    pub const fn len(&self) -> u32 {
        self.live
    }

    /// Whether there are so many that a packet's is hardly in the nearest caches, nor its page among those that the core knows.
    #[inline(always)]
    pub const fn are_many(&self) -> bool {
        self.live > MANY
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Places.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Half-open connections among those held.
    pub const fn half_open(&self) -> u32 {
        self.tentative.len(Tentative::HalfOpen)
    }

    /// Where a walk over all entries ends: no place from this one on was ever used.
    pub const fn extent(&self) -> u32 {
        self.fresh
    }

    /// The entries in the `count` places from `from` on, for listings; reads every place, so `count` bounds the cost.
    pub fn scan(&self, from: u32, count: u32) -> impl Iterator<Item = (EntryId, &Entry)> {
        let end = from.saturating_add(count).min(self.fresh);
        let places = self.entries.get(from as usize..end as usize).unwrap_or_default();
        (from..end).map(EntryId).zip(places).filter(|(_, entry)| entry.is_live())
    }

    /// Makes index, wheel, free list and counts anew from the entries alone, and returns how many were kept.
    ///
    /// Which template an entry came from is not kept: templates then end by their own time alone. Neither is what replies are
    /// found by: those of masqueraded connections are not translated any more.
    ///
    /// For a director that adopts the entries of an earlier one: `was` is the earlier clock's moment of adoption and `now` the
    /// same moment on this clock, so every entry keeps the time that it had left. Of two entries with one key the first is
    /// kept. Takes time in proportion to the capacity; not for the packet path.
    pub fn rebuild_index(&mut self, was: Tick, now: Tick) -> u32 {
        let shift = now.0.wrapping_sub(was.0);
        self.index.clear();
        self.replies = None;
        self.wheel.reset(now);
        self.tentative.clear();
        (self.free, self.fresh, self.live) = (NIL, self.capacity, 0);
        for id in 0..self.fresh {
            let entry = self.entries[id as usize];
            let key = self.key(EntryId(id));
            // The digest of IPv6 addresses is another one for each table.
            self.entries[id as usize].addresses = self.hasher.word(key.addresses());
            let hash = self.hash(&key);
            if entry.is_live() && self.find(hash, &key).is_none() && self.index.insert(hash, id).is_ok() {
                let place = &mut self.entries[id as usize];
                place.expires = entry.expires.wrapping_add(shift);
                place.flags &= !(flags::CONTROLLED | flags::MASQUERADED | flags::TENTATIVE);
                if entry.is_template() {
                    place.in_packets = 0;
                }
                self.wheel.link(&self.entries, id);
                self.live += 1;
                if entry.is_half_open() {
                    self.enlist(id);
                }
            } else {
                let place = &mut self.entries[id as usize];
                place.flags = 0;
                self.wheel.set_next_free(id, std::mem::replace(&mut self.free, id));
            }
        }
        self.live
    }
}

impl fmt::Debug for ConnectionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionTable")
            .field("len", &self.live)
            .field("capacity", &self.capacity)
            .field("half_open", &self.half_open())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
