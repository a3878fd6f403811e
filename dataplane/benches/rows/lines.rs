//! What a table in two levels costs at the least on this machine: for each packet one random line of the index and then one of the entries, with
//! nothing else done. Lines are asked for a burst ahead, so that as many as can be are on their way at once.

use dpdk::burst::BURST;
use dpdk::clock;
use dpdk::hugemem::HugeArray;

use crate::frames::Random;
use crate::rig::FRAMES;

/// Half a cache line, as an entry.
type Entry = [u64; 4];
/// A bucket of the index, and for how many entries it is.
type Bucket = [u64; 8];
const EACH: u32 = 8;

pub struct Lines {
    buckets: HugeArray<Bucket>,
    entries: HugeArray<Entry>,
    /// Where each packet of a round looks.
    places: Vec<(u32, u32)>,
}

impl Lines {
    /// As many lines as a table with room for `connections` has.
    pub fn new(connections: u32) -> Self {
        let array = HugeArray::anonymous(connections.div_ceil(EACH) as usize);
        let (mut buckets, mut entries) = (array.expect("memory"), HugeArray::anonymous(connections as usize).expect("memory"));
        buckets.prefault().expect("memory");
        entries.prefault().expect("memory");
        Self { buckets, entries, places: Vec::new() }
    }

    /// Cycles for the lines of a round's packets, each of another connection.
    pub fn read(&mut self, random: &mut Random) -> u64 {
        let [buckets, entries] = [self.buckets.len(), self.entries.len()].map(|n| u32::try_from(n).expect("as given"));
        self.places.clear();
        self.places.extend((0..FRAMES).map(|_| (random.below(buckets), random.below(entries))));
        let start = clock::cycles();
        let mut sum = 0;
        for burst in self.places.chunks(BURST) {
            for (bucket, _) in burst {
                self.buckets.prefetch(*bucket as usize);
            }
            for (bucket, entry) in burst {
                sum ^= self.buckets[*bucket as usize][0];
                self.entries.prefetch(*entry as usize);
            }
            for (_, entry) in burst {
                sum ^= self.entries[*entry as usize][0];
            }
        }
        std::hint::black_box(sum);
        clock::cycles() - start
    }
}
