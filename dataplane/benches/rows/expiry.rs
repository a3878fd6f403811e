//! What ending idle connections costs: a table of them, spread over the 900 s of their lives, while 4096 others carry full load.
//!
//! Blocks of rounds alternate between a clock that stands still and one that runs a hundred times as fast as the real one. What the second kind
//! takes longer, divided by a hundred, is the share of a core that expiry takes.

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::{ACK, SYN};
use dataplane::tick::Tick;
use dpdk::clock;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, Random, client};
use crate::rig::{FRAMES, Rig, Served, nanoseconds};

const SERVICE: End = End { address: Address::v4(0x0a0a_1858), port: 80 };
const HOT: u32 = 4096;
const LIFE: u32 = 900;
const FASTER: f64 = 100.0;
/// Rounds in turn: of a clock that stands still, then of one that runs.
const BLOCK: u32 = 50;
/// A round that takes so many times as long as the shortest was interrupted, and counts as that. One that ends as many entries as it
/// may takes three or four times as long.
const INTERRUPTED: u64 = 8;

struct Clock {
    ticks: f64,
    least: u64,
}

impl Clock {
    /// Nanoseconds that count of a round that took so many cycles.
    fn kept(&mut self, cycles: u64) -> f64 {
        self.least = self.least.min(cycles);
        nanoseconds(if cycles > self.least * INTERRUPTED { self.least } else { cycles }, 1)
    }

    /// A round's time passes, a hundred times over.
    fn advance(&mut self, rig: &mut Rig) {
        self.ticks += nanoseconds(self.least, 1) / 1e9 * FASTER * f64::from(Tick::PER_SECOND);
        while self.ticks >= 1.0 {
            self.ticks -= 1.0;
            rig.now = Tick(rig.now.0 + 1);
        }
    }
}

/// Ends what is still due, so that it does not fall to the clock that stands; nanoseconds that it took.
fn catch_up(rig: &mut Rig) -> f64 {
    let start = clock::cycles();
    loop {
        let before = rig.control.report().connections.get();
        rig.worker.turn(rig.now);
        if rig.control.report().connections.get() == before {
            return nanoseconds(clock::cycles() - start, 1);
        }
    }
}

pub fn run(options: &Options) -> Value {
    let (idle, parts) = (options.number("connections", 10_000_000), options.number("parts", 9));
    let rounds = options.number("rounds", 400);
    crate::on_worker(&crate::eal(), move |eal| {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler: SchedulerKind::RoundRobin, servers: 4 }];
        let mut rig = Rig::new(eal, "e", idle / 16 * 17 + HOT, &served);
        let all = (idle / FRAMES).max(1);
        // The first of them end soon after the last have come.
        for n in 0..all {
            rig.now = Tick(
                1 + u32::try_from(u64::from(n) * u64::from(LIFE - 10) * u64::from(Tick::PER_SECOND) / u64::from(all)).unwrap_or_default(),
            );
            for flags in [SYN, ACK] {
                let mut next = HOT + n * FRAMES;
                rig.round(|| {
                    next += 1;
                    (client(next, true), SERVICE, flags)
                });
            }
        }
        rig.open(HOT, |i| (client(i, true), SERVICE));
        // Until the first of them end.
        for _ in 0..Tick::PER_SECOND * 12 {
            rig.now = Tick(rig.now.0 + 1);
            rig.worker.turn(rig.now);
            rig.worker.turn(rig.now);
        }
        let mut random = Random(0x0123_4567_89ab_cdef);
        let mut play = |rig: &mut Rig| rig.round(|| (client(random.below(HOT), true), SERVICE, ACK));
        let before = rig.control.report().connections.get();
        let (mut still, mut running) = (Vec::new(), Vec::new());
        let mut clock = Clock { ticks: 0.0, least: u64::MAX };
        for _ in 0..parts {
            let mut sums = [0.0; 2];
            for _ in 0..rounds / BLOCK {
                sums[0] += (0..BLOCK).map(|_| clock.kept(play(&mut rig))).sum::<f64>();
                for _ in 0..BLOCK {
                    clock.advance(&mut rig);
                    sums[1] += clock.kept(play(&mut rig));
                }
                sums[1] += catch_up(&mut rig);
            }
            let [stands, runs] = sums.map(|sum| sum / f64::from(FRAMES * (rounds / BLOCK * BLOCK)));
            still.push(stands);
            running.push(runs);
        }
        let ended = before - rig.control.report().connections.get();
        assert!(ended > 0, "entries ended meanwhile");
        let share: Vec<f64> = still.iter().zip(&running).map(|(still, running)| (running - still) / still / FASTER).collect();
        json!({ "connections": idle, "ended": ended, "still_ns": still, "running_ns": running, "share": share })
    })
}
