//! A worker without traffic in `idle = "adaptive"`: what of its core it uses, and what is lost of the first burst after a while of idling.
//!
//! Two kinds of bursts: 1000 frames at once, and two million a second for two milliseconds. The receive queue holds 1024.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::worker::Idle;
use dpdk::clock;
use serde_json::{Value, json};

use crate::Options;
use crate::feeder::Feeder;
use crate::frames::{End, client};
use crate::rig::{FRAMES, Rig, Served};

const SERVICE: End = End { address: Address::v4(0x0a0a_1858), port: 80 };
const QUEUE: usize = 1024;
const AT_ONCE: usize = 1000;
const RATE: u64 = 2_000_000;

fn ends(n: u32) -> (End, End) {
    (client(n, true), SERVICE)
}

/// Nanoseconds that a thread of ours has run (proc(5), schedstat).
fn ran(thread: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).expect("schedstat");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("nanoseconds")
}

pub fn run(options: &Options) -> Value {
    let (milliseconds, bursts) = (options.number("milliseconds", 3000), options.number("bursts", 50));
    let eal = crate::eal();
    let (tell, hear) = mpsc::channel();
    let there = Arc::clone(&eal);
    let worker = eal.launch(0, move || {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler: SchedulerKind::RoundRobin, servers: 4 }];
        let mut rig = Rig::with(&there, "i", FRAMES * 2, &served, Idle::Adaptive, FRAMES * 2);
        rig.open(FRAMES, ends);
        let thread = std::fs::read_link("/proc/thread-self").expect("proc").to_string_lossy().into_owned();
        tell.send((rig.wire.rx.clone(), rig.wire.tx.clone(), rig.control.clone(), thread)).expect("heard");
        rig.worker.run();
    });
    let worker = worker.expect("launched");
    let (rx, tx, control, thread) = hear.recv().expect("told");
    std::thread::sleep(Duration::from_millis(300));
    let (start, before) = (Instant::now(), ran(&thread));
    std::thread::sleep(Duration::from_millis(milliseconds.into()));
    let cpu = (ran(&thread) - before) as f64 / start.elapsed().as_nanos() as f64;
    let fed = eal.launch(1, move || {
        let mut feeder = Feeder::new(rx, tx, FRAMES, ends);
        let rest = || std::thread::sleep(Duration::from_millis(20));
        let (mut at_once, mut paced) = (Vec::new(), Vec::new());
        for _ in 0..bursts {
            rest();
            at_once.push(feeder.burst(AT_ONCE, QUEUE).lost);
            rest();
            paced.push(feeder.feed(clock::hz() / RATE, clock::hz() / 500, QUEUE).lost);
        }
        control.stop();
        json!({ "at_once": at_once, "paced": paced })
    });
    let lost = fed.expect("launched").join().expect("fed");
    worker.join().expect("ran");
    json!({ "cpu": cpu, "bursts": bursts, "lost": lost })
}
