//! Persistence over several workers: which real server a client's template names, wherever its packets arrive.
//!
//! RSS spreads a client's connections over the workers, each with templates of its own. So whoever makes a template says so in one
//! table that all workers share, and whoever has none for a client looks there before it schedules. Of two that schedule at once
//! the first one's word counts, and the other one follows.
//!
//! A slot is one word, changed by compare-exchange only: a tag of the key's hash, the real server and a time. One whose time is up
//! is free. A key has a few slots; when other keys that are alive hold them all, it is not shared.
//!
//! Connections are agreed on in the same way whose first packet came in parts, or as the quote of an ICMP error: RSS brings such frames
//! elsewhere than the connection's other packets.
//!
//! The table is a hint that is checked, not the truth: a real server counts only while it is a member of the service and takes
//! new connections. With one worker there is none.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::connection::{Hasher, Key};
use crate::service::ServerId;
use crate::tick::Tick;

/// Most slots: 16 MiB.
const MOST_SLOTS: usize = 1 << 21;
/// Slots that a key may be in: half a cache line.
const WINDOW: usize = 4;
/// Attempts at a slot that others change at the same time; each failure is another worker's success.
const ATTEMPTS: usize = 8;

/// A time is in units of 1.28 s, so that it wraps with the tick.
const TICK_BITS: u32 = 7;
const TIME_BITS: u32 = 32 - TICK_BITS;
/// As many as `limits.real_servers` may be.
const SERVER_BITS: u32 = 22;
const TAG_BITS: u32 = 64 - SERVER_BITS - TIME_BITS;
/// Ticks that a slot lives on beyond what it was told: a worker looks at a template that is due 0.32 s late and may let it live on, and until
/// then nobody else may take the client for a new one.
const GRACE: u32 = 64;

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word {
    /// Never 0, so that a whole word never is, which stands for an empty slot.
    tag: u64,
    server: u32,
    /// When it ends, in units of 1.28 s.
    time: u32,
}

impl Word {
    const fn pack(self) -> u64 {
        self.tag << (SERVER_BITS + TIME_BITS) | (self.server as u64) << TIME_BITS | self.time as u64
    }

    fn unpack(slot: u64) -> Self {
        let bits = |from: u32, count: u32| u32::try_from(slot >> from & ((1 << count) - 1)).unwrap_or_default();
        Self { tag: slot >> (SERVER_BITS + TIME_BITS), server: bits(TIME_BITS, SERVER_BITS), time: bits(0, TIME_BITS) }
    }

    /// What the slot says, unless it is empty or its time is up.
    fn alive(slot: u64, now: Tick) -> Option<Self> {
        let word = Self::unpack(slot);
        (slot != 0 && !now.has_reached(moment(word.time))).then_some(word)
    }
}

const fn moment(time: u32) -> Tick {
    Tick(time << TICK_BITS)
}

/// The time `ticks` from now and the grace, at most 1.28 s later.
const fn time_after(now: Tick, ticks: u32) -> u32 {
    ((now.0.wrapping_add(ticks + GRACE) >> TICK_BITS) + 1) & ((1 << TIME_BITS) - 1)
}

/// Which real servers clients belong to, as the workers have agreed: 8 bytes for each connection that they may have, to the next
/// power of two, 16 MiB at most.
pub struct Affinity {
    hasher: Hasher,
    slots: Box<[AtomicU64]>,
    /// Until when any connection may be agreed on; 0 while none ever was.
    flows_until: AtomicU32,
}

impl Affinity {
    /// Slots of a table for `connections`, of 8 bytes each.
    pub(crate) fn places(connections: usize) -> usize {
        connections.next_power_of_two().clamp(WINDOW, MOST_SLOTS)
    }

    /// A table for workers that have `connections` entries together; `seed` comes from a secure random source.
    pub fn new(connections: usize, seed: [u64; 4]) -> Self {
        let len = Self::places(connections);
        Self { hasher: Hasher::new(seed), slots: (0..len).map(|_| AtomicU64::new(0)).collect(), flows_until: AtomicU32::new(0) }
    }

    /// The tag of a template's key, and its slots in the order in which they are looked at.
    fn place(&self, key: &Key) -> (u64, impl Iterator<Item = &AtomicU64>) {
        let hash = self.hasher.hash(key);
        let tag = (hash & ((1 << TAG_BITS) - 1)).max(1);
        let first = usize::try_from(hash >> 32).unwrap_or_default();
        // The length is a power of two.
        (tag, (first..first + WINDOW).map(|n| &self.slots[n & (self.slots.len() - 1)]))
    }

    /// The real server of the template with this key, if one was agreed on and its time is not up.
    ///
    /// Cost: a hash and two cache lines at most.
    pub fn server(&self, key: &Key, now: Tick) -> Option<ServerId> {
        let (tag, mut slots) = self.place(key);
        slots
            .find_map(|slot| Word::alive(slot.load(Ordering::Relaxed), now).filter(|word| word.tag == tag))
            .map(|word| ServerId(word.server))
    }

    /// As [`server`](Self::server), for a connection. Cost while none is agreed on: one load.
    pub fn server_of_flow(&self, key: &Key, now: Tick) -> Option<ServerId> {
        self.has_flows(now).then(|| self.server(key, now)).flatten()
    }

    /// As [`agree`](Self::agree), for a connection; the real server that it has on all workers.
    pub fn agree_on_flow(&self, key: &Key, server: ServerId, now: Tick, ticks: u32, good: impl Fn(ServerId) -> bool) -> ServerId {
        self.flows_last(now, ticks);
        self.agree(key, server, now, ticks, good).unwrap_or(server)
    }

    /// Lets what was agreed on about a connection live `ticks` from now at least; nothing if nothing was. Cost as of
    /// [`server_of_flow`](Self::server_of_flow), and now and then of [`keep`](Self::keep).
    pub fn keep_flow(&self, key: &Key, server: ServerId, now: Tick, ticks: u32) {
        if self.server_of_flow(key, now) == Some(server) {
            self.flows_last(now, ticks);
            self.keep(key, server, now, ticks);
        }
    }

    fn has_flows(&self, now: Tick) -> bool {
        let until = self.flows_until.load(Ordering::Relaxed);
        until != 0 && !now.has_reached(Tick(until))
    }

    /// Connections may be agreed on until their slots are surely over. Of two workers that say so at once either may be the last: what
    /// the other one agreed on ends a moment sooner.
    fn flows_last(&self, now: Tick, ticks: u32) {
        let until = Tick(now.0.wrapping_add(ticks + (2 << TICK_BITS)));
        let before = Tick(self.flows_until.load(Ordering::Relaxed));
        if !self.has_flows(now) || until.has_reached(before) {
            self.flows_until.store(until.0.max(1), Ordering::Relaxed);
        }
    }

    /// Says that the template with this key names `server` for `ticks` from now, and answers which real server it names for all:
    /// another one that was agreed on before, if that is still `good`. `None`: there is no room.
    ///
    /// A slot lives up to 1.92 s longer than it is told. Cost: as of [`server`](Self::server), and one word exchanged.
    pub fn agree(&self, key: &Key, server: ServerId, now: Tick, ticks: u32, good: impl Fn(ServerId) -> bool) -> Option<ServerId> {
        self.put(key, server, now, |_| time_after(now, ticks), good)
    }

    /// Lets what was agreed on live `ticks` from now at least, or agrees on `server` if nothing was: for a template that lives on.
    pub fn keep(&self, key: &Key, server: ServerId, now: Tick, ticks: u32) {
        let wanted = time_after(now, ticks);
        let later = |old: Option<u32>| old.filter(|old| moment(*old).has_reached(moment(wanted))).unwrap_or(wanted);
        let _ = self.put(key, server, now, later, |_| true);
    }

    /// `time` is told that of what was agreed on before.
    fn put(
        &self,
        key: &Key,
        server: ServerId,
        now: Tick,
        time: impl Fn(Option<u32>) -> u32,
        good: impl Fn(ServerId) -> bool,
    ) -> Option<ServerId> {
        for _ in 0..ATTEMPTS {
            let (tag, slots) = self.place(key);
            let (mut own, mut free) = (None, None);
            for slot in slots {
                let old = slot.load(Ordering::Relaxed);
                match Word::alive(old, now) {
                    Some(word) if word.tag == tag => {
                        own = Some((slot, old, Some(word)));
                        break;
                    }
                    None if free.is_none() => free = Some((slot, old, None)),
                    _ => {}
                }
            }
            let (slot, old, before) = own.or(free)?;
            let agreed = before.map(|word| ServerId(word.server)).filter(|theirs| *theirs == server || good(*theirs));
            let before = before.filter(|_| agreed.is_some()).map(|word| word.time);
            let agreed = agreed.unwrap_or(server);
            let new = Word { tag, server: agreed.0, time: time(before) }.pack();
            if new == old || slot.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Some(agreed);
            }
        }
        None
    }

    /// Forgets that the template with this key names `server`.
    pub fn withdraw(&self, key: &Key, server: ServerId) {
        let (tag, slots) = self.place(key);
        for slot in slots {
            let old = slot.load(Ordering::Relaxed);
            let word = Word::unpack(old);
            if word.tag == tag && word.server == server.0 {
                // Whoever has changed it meanwhile knows better.
                let _ = slot.compare_exchange(old, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

impl std::fmt::Debug for Affinity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Affinity").field("len", &self.slots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
