//! Latency at half load: a worker on its own core, and another core that gives it frames, each stamped with the TSC, and takes them
//! back. Half load is half of what came out when as much as possible was put in. The same rate is then given to a MAC swap in the
//! worker's place: what that takes is not the director's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tick::Tick;
use dpdk::burst::Burst;
use dpdk::clock;
use serde_json::{Value, json};

use crate::Options;
use crate::feeder::{Fed, Feeder};
use crate::frames::{End, client};
use crate::rig::{FRAMES, Rig, Served};

const SERVICE: End = End { address: Address::v4(0x0a0a_1858), port: 80 };
/// Frames that a receive queue holds.
const QUEUE: usize = 1024;

fn ends(n: u32) -> (End, End) {
    (client(n, true), SERVICE)
}

fn told(fed: &Fed) -> Value {
    json!({
        "frames": fed.sent, "lost": fed.lost,
        "p50_ns": fed.percentile(0.5), "p99_ns": fed.percentile(0.99), "p999_ns": fed.percentile(0.999),
    })
}

pub fn run(options: &Options) -> Value {
    let (milliseconds, parts) = (u64::from(options.number("milliseconds", 400)), options.number("parts", 9));
    let eal = crate::eal();
    let (tell, hear) = mpsc::channel();
    let [swapping, over]: [Arc<AtomicBool>; 2] = Default::default();
    let (swaps, ends_now) = (Arc::clone(&swapping), Arc::clone(&over));
    let there = Arc::clone(&eal);
    let worker = eal.launch(0, move || {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler: SchedulerKind::RoundRobin, servers: 4 }];
        let mut rig = Rig::new(&there, "t", FRAMES * 2, &served);
        rig.open(FRAMES, ends);
        tell.send((rig.wire.rx.clone(), rig.wire.tx.clone())).expect("heard");
        let mut burst = Burst::new();
        let (start, cycles_per_tick) = (clock::cycles(), clock::hz() / u64::from(Tick::PER_SECOND));
        while !ends_now.load(Ordering::Relaxed) {
            if swaps.load(Ordering::Relaxed) {
                rig.swap_once(&mut burst);
            } else {
                let now = Tick(u32::try_from((clock::cycles() - start) / cycles_per_tick).unwrap_or_default());
                rig.worker.turn(now);
            }
        }
    });
    let worker = worker.expect("launched");
    let (rx, tx) = hear.recv().expect("told");
    let feeder = eal.launch(1, move || {
        let mut feeder = Feeder::new(rx, tx, FRAMES, ends);
        let cycles = clock::hz() / 1000 * milliseconds;
        let full = (0..parts).map(|_| feeder.feed(1, cycles / 4, QUEUE).sent).max().unwrap_or(1).max(1);
        let interval = cycles / 4 * 2 / full;
        let [mut macswap, mut director] = [Vec::new(), Vec::new()];
        for _ in 0..parts {
            for (swap, told_of) in [(true, &mut macswap), (false, &mut director)] {
                swapping.store(swap, Ordering::Relaxed);
                // A little of each first, for the caches.
                feeder.feed(interval, cycles / 20, QUEUE);
                told_of.push(told(&feeder.feed(interval, cycles, QUEUE)));
            }
        }
        over.store(true, Ordering::Relaxed);
        json!({ "offered_mpps": clock::hz() as f64 / interval as f64 / 1e6, "macswap": macswap, "director": director })
    });
    let told = feeder.expect("launched").join().expect("fed");
    worker.join().expect("ran");
    told
}
