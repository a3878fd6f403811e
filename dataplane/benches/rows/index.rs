//! The connection index: the fixed bucket table that the director uses against hashbrown, over the same keys, entries and hash.
//!
//! `fixed` finds ids in buckets of one line, with prefetch ahead over a burst. `hashbrown` finds the same ids; `hashbrown_inline` holds
//! the entries themselves. Both get twice the room, as they would need in order not to grow under churn. Lookups go over bursts of 64,
//! all hashed first. Bytes are the table's own, of `hashbrown_inline` with the entries, 64 each. The worst of the single insertions is what a burst would wait for.

use dataplane::address::Address;
use dataplane::connection::index::Index;
use dataplane::connection::{Hasher, Key};
use dpdk::burst::BURST;
use dpdk::clock;
use hashbrown::HashTable;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{Random, client};
use crate::memory::resident;
use crate::rig::{least_of_each, nanoseconds};

/// An entry's size, with the key in it.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Slot(Key);

/// A way from keys to entries.
trait Table {
    const NAME: &'static str;
    fn new(capacity: u32) -> Self;
    /// How many of these keys are there.
    fn find(&self, hashes: &[u64], keys: &[Key], entries: &[Slot]) -> usize;
    fn insert(&mut self, hash: u64, id: u32, entries: &[Slot], hasher: &Hasher);
    fn remove(&mut self, hash: u64, id: u32, entries: &[Slot]);
    /// Its bytes, where the process has `grown` by so many since before it was made.
    fn bytes(&self, grown: u64) -> u64;
}

struct Fixed(Index);

impl Table for Fixed {
    const NAME: &'static str = "fixed";

    fn new(capacity: u32) -> Self {
        Self(Index::new(capacity).expect("memory"))
    }

    fn find(&self, hashes: &[u64], keys: &[Key], entries: &[Slot]) -> usize {
        for hash in hashes {
            self.0.prefetch(*hash);
        }
        for hash in hashes {
            dpdk::prefetch::slot(entries, self.0.candidate(*hash) as usize);
        }
        hashes.iter().zip(keys).filter(|(hash, key)| self.0.find(**hash, |id| entries[id as usize].0 == **key).is_some()).count()
    }

    fn insert(&mut self, hash: u64, id: u32, _: &[Slot], _: &Hasher) {
        self.0.insert(hash, id).expect("room");
    }

    fn remove(&mut self, hash: u64, id: u32, _: &[Slot]) {
        self.0.remove(hash, id);
    }

    fn bytes(&self, grown: u64) -> u64 {
        grown
    }
}

struct Ids(HashTable<u32>);

impl Table for Ids {
    const NAME: &'static str = "hashbrown";

    fn new(capacity: u32) -> Self {
        Self(HashTable::with_capacity(capacity as usize * 2))
    }

    fn find(&self, hashes: &[u64], keys: &[Key], entries: &[Slot]) -> usize {
        hashes.iter().zip(keys).filter(|(hash, key)| self.0.find(**hash, |id| entries[*id as usize].0 == **key).is_some()).count()
    }

    fn insert(&mut self, hash: u64, id: u32, entries: &[Slot], hasher: &Hasher) {
        self.0.insert_unique(hash, id, |id| hasher.hash(&entries[*id as usize].0));
    }

    fn remove(&mut self, hash: u64, id: u32, _: &[Slot]) {
        if let Ok(entry) = self.0.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    fn bytes(&self, _: u64) -> u64 {
        self.0.allocation_size() as u64
    }
}

struct Inline(HashTable<Slot>);

impl Table for Inline {
    const NAME: &'static str = "hashbrown_inline";

    fn new(capacity: u32) -> Self {
        Self(HashTable::with_capacity(capacity as usize * 2))
    }

    fn find(&self, hashes: &[u64], keys: &[Key], _: &[Slot]) -> usize {
        hashes.iter().zip(keys).filter(|(hash, key)| self.0.find(**hash, |slot| slot.0 == **key).is_some()).count()
    }

    fn insert(&mut self, hash: u64, id: u32, entries: &[Slot], hasher: &Hasher) {
        self.0.insert_unique(hash, entries[id as usize], |slot| hasher.hash(&slot.0));
    }

    fn remove(&mut self, hash: u64, id: u32, entries: &[Slot]) {
        if let Ok(entry) = self.0.find_entry(hash, |slot| slot.0 == entries[id as usize].0) {
            entry.remove();
        }
    }

    fn bytes(&self, _: u64) -> u64 {
        self.0.allocation_size() as u64
    }
}

fn key(n: u32) -> Key {
    let from = client(n, true);
    Key { client: from.address, virtual_: Address::v4(0x0a0a_1858), virtual_port: 80, client_port: from.port, protocol: 6 }
}

fn measure<T: Table>(connections: u32, rounds: u32) -> Value {
    let hasher = Hasher::new([0x9e37_79b9, 2, 3, 4]);
    let mut entries: Vec<Slot> = (0..connections).map(|n| Slot(key(n))).collect();
    let before = resident();
    let mut table = T::new(connections);
    for id in 0..connections {
        table.insert(hasher.hash(&entries[id as usize].0), id, &entries, &hasher);
    }
    let bytes = table.bytes(resident() - before);
    let mut random = Random(0x0123_4567_89ab_cdef);
    let bursts = 16;
    let mut keys = vec![key(0); BURST * bursts];
    let mut lookups = |table: &T, entries: &[Slot], known: bool| {
        let mut samples = Vec::new();
        for _ in 0..rounds {
            keys.fill_with(|| {
                if known { entries[random.below(connections) as usize].0 } else { key(u32::MAX / 2 + random.below(connections)) }
            });
            let start = clock::cycles();
            let mut found = 0;
            for burst in keys.chunks(BURST) {
                let mut hashes = [0; BURST];
                for (hash, key) in hashes.iter_mut().zip(burst) {
                    *hash = hasher.hash(key);
                }
                found += table.find(&hashes, burst, entries);
            }
            samples.push(nanoseconds(clock::cycles() - start, 1024));
            assert_eq!(found, if known { BURST * bursts } else { 0 });
        }
        least_of_each(&samples, rounds as usize / 9)
    };
    let (hit, miss) = (lookups(&table, &entries, true), lookups(&table, &entries, false));
    let (mut churn, mut worst) = (Vec::new(), 0);
    let mut fresh = connections;
    for _ in 0..rounds {
        let ids: Vec<u32> = (0..256).map(|_| random.below(connections)).collect();
        let mut cycles = 0;
        for id in ids {
            let start = clock::cycles();
            table.remove(hasher.hash(&entries[id as usize].0), id, &entries);
            entries[id as usize] = Slot(key(fresh));
            let between = clock::cycles();
            table.insert(hasher.hash(&entries[id as usize].0), id, &entries, &hasher);
            let end = clock::cycles();
            (cycles, worst, fresh) = (cycles + end - start, worst.max(end - between), fresh + 1);
        }
        churn.push(nanoseconds(cycles, 256));
    }
    json!({
        "table": T::NAME, "connections": connections, "bytes_each": bytes as f64 / f64::from(connections), "hit_ns": hit, "miss_ns": miss,
        "churn_ns": least_of_each(&churn, rounds as usize / 9), "worst_insert_us": nanoseconds(worst, 1000),
    })
}

pub fn run(options: &Options) -> Value {
    let (connections, rounds) = (options.number("connections", 1_000_000), options.number("rounds", 900));
    // One table a process: memory that one gave back would be another's for nothing.
    let measure = match options.text("table") {
        Some(Ids::NAME) => measure::<Ids>,
        Some(Inline::NAME) => measure::<Inline>,
        _ => measure::<Fixed>,
    };
    crate::on_worker(&crate::eal(), move |_| measure(connections, rounds))
}
