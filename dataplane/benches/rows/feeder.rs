//! What plays the network for a worker that runs on a core of its own: frames in, frames out, each stamped with the time it came.

use dpdk::burst::{BURST, Burst};
use dpdk::clock;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::{DEFAULT_DATA_ROOM, Mempool};
use dpdk::ring::Ring;

use crate::frames::{CLIENT_MAC, End, OUR_MAC, segment};
use dataplane::tcp::ACK;

/// Where the padding of a 64-byte frame begins: the stamp stands there.
const STAMP: usize = 54;
const LEN: usize = 64;
/// Nanoseconds that a bucket of the histogram is wide.
pub const WIDTH: u64 = 16;
const BUCKETS: usize = 1 << 17;

pub struct Feeder {
    rx: Ring,
    tx: Ring,
    home: Vec<Mbuf>,
    out: usize,
}

/// What came of a while of feeding.
pub struct Fed {
    pub sent: u64,
    pub lost: u64,
    /// How many frames took so long, in buckets of [`WIDTH`] ns; the last one has what took longer.
    pub histogram: Vec<u64>,
}

impl Feeder {
    /// With `count` frames, each of another connection that is established already.
    pub fn new(rx: Ring, tx: Ring, count: u32, ends: impl Fn(u32) -> (End, End)) -> Self {
        let pool = Mempool::new("feeder", 8191, 256, DEFAULT_DATA_ROOM, None).expect("pool");
        let home = (0..count).map(|n| {
            let (from, to) = ends(n);
            let mut frame = pool.alloc().expect("a frame");
            frame.copy_from(&segment(from, to, ACK).0[..LEN]).expect("room");
            frame
        });
        Self { rx, tx, home: home.collect(), out: 0 }
    }

    /// One frame each `interval` cycles, for `cycles`; what finds `queue` others waiting is lost.
    pub fn feed(&mut self, interval: u64, cycles: u64, queue: usize) -> Fed {
        let mut fed = Fed { sent: 0, lost: 0, histogram: vec![0; BUCKETS] };
        let (start, mut burst) = (clock::cycles(), Burst::new());
        let mut next = start;
        loop {
            let now = clock::cycles();
            if now - start >= cycles {
                break;
            }
            while next <= now && burst.len() < BURST {
                let Some(mut frame) = self.home.pop() else { break };
                frame.data_mut()[STAMP..STAMP + 8].copy_from_slice(&now.to_le_bytes());
                let _ = burst.push(frame);
                next += interval;
            }
            if !burst.is_empty() {
                self.put(&mut burst, queue, &mut fed);
            }
            self.take(&mut fed);
        }
        self.settle(&mut fed);
        fed
    }

    /// `count` frames at once.
    pub fn burst(&mut self, count: usize, queue: usize) -> Fed {
        let mut fed = Fed { sent: 0, lost: 0, histogram: vec![0; BUCKETS] };
        let mut burst = Burst::new();
        for n in 1..=count {
            let _ = burst.push(self.home.pop().expect("frames enough"));
            if burst.is_full() || n == count {
                self.put(&mut burst, queue, &mut fed);
            }
        }
        self.settle(&mut fed);
        fed
    }

    fn put(&mut self, burst: &mut Burst, queue: usize, fed: &mut Fed) {
        if self.rx.len() + burst.len() <= queue {
            let sent = self.rx.enqueue_burst(burst);
            self.out += sent;
            fed.sent += sent as u64;
        }
        fed.lost += burst.len() as u64;
        self.home.extend(burst.drain(..));
    }

    fn take(&mut self, fed: &mut Fed) {
        let mut burst = Burst::new();
        if self.tx.dequeue_burst(&mut burst) == 0 {
            return;
        }
        let now = clock::cycles();
        let hz = clock::hz();
        for mut frame in burst.drain(..) {
            let data = frame.data_mut();
            let stamp = data.get(STAMP..STAMP + 8).and_then(|bytes| bytes.try_into().ok()).map_or(now, u64::from_le_bytes);
            let bucket = now.saturating_sub(stamp) * (1_000_000_000 / WIDTH) / hz;
            fed.histogram[usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)] += 1;
            data[..6].copy_from_slice(&OUR_MAC);
            data[6..12].copy_from_slice(&CLIENT_MAC);
            self.home.push(frame);
            self.out -= 1;
        }
    }

    /// Waits for what is under way; what does not come within a second is lost.
    fn settle(&mut self, fed: &mut Fed) {
        let start = clock::cycles();
        while self.out > 0 && clock::cycles() - start < clock::hz() {
            self.take(fed);
        }
        fed.lost += self.out as u64;
    }
}

impl Fed {
    /// Nanoseconds within which this share of the frames came out.
    pub fn percentile(&self, share: f64) -> f64 {
        let all: u64 = self.histogram.iter().sum();
        let (mut seen, mut at) = (0, 0);
        for (bucket, count) in self.histogram.iter().enumerate() {
            seen += count;
            at = bucket;
            if seen as f64 >= share * all as f64 {
                break;
            }
        }
        (at as f64 + 0.5) * WIDTH as f64
    }
}
