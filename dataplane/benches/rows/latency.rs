//! Latency at half load: a worker on its own core, another core that gives it frames at half the rate that it can do and takes them
//! back, stamping each with the TSC. First a MAC swap in the worker's place, at the same rate: what it takes is not the director's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::ACK;
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
    let milliseconds = u64::from(options.number("milliseconds", 2000));
    let eal = crate::eal();
    let (tell, hear) = mpsc::channel();
    let swapped = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&swapped);
    let there = Arc::clone(&eal);
    let worker = eal.launch(0, move || {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler: SchedulerKind::RoundRobin, servers: 4 }];
        let mut rig = Rig::new(&there, "t", FRAMES * 2, &served);
        rig.open(FRAMES, ends);
        let full = (0..200).map(|_| {
            let mut n = 0;
            rig.round(|| {
                n += 1;
                let (from, to) = ends(n - 1);
                (from, to, ACK)
            })
        });
        let interval = full.min().expect("rounds") * 2 / u64::from(FRAMES);
        tell.send((rig.wire.rx.clone(), rig.wire.tx.clone(), rig.control.clone(), interval)).expect("heard");
        let mut burst = Burst::new();
        while !done.load(Ordering::Acquire) {
            rig.swap_once(&mut burst);
        }
        rig.worker.run();
    });
    let worker = worker.expect("launched");
    let (rx, tx, control, interval) = hear.recv().expect("told");
    let feeder = eal.launch(1, move || {
        let mut feeder = Feeder::new(rx, tx, FRAMES, ends);
        let cycles = clock::hz() / 1000 * milliseconds;
        // A little of each first, for the caches.
        feeder.feed(interval, cycles / 20, QUEUE);
        let swap = feeder.feed(interval, cycles, QUEUE);
        swapped.store(true, Ordering::Release);
        feeder.feed(interval, cycles / 20, QUEUE);
        let director = feeder.feed(interval, cycles, QUEUE);
        control.stop();
        let offered = clock::hz() as f64 / interval as f64 / 1e6;
        json!({ "offered_mpps": offered, "macswap": told(&swap), "director": told(&director) })
    });
    let told = feeder.expect("launched").join().expect("fed");
    worker.join().expect("ran");
    told
}
