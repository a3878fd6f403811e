//! The real worker against a slow, obvious reference director: every verdict, byte and counter of frames, commands and time
//! that nobody thought of.
//!
//! A slice of fixed seeds runs with every `cargo test`. For more, say how many frames:
//! `FRAMES=100000000 cargo test --profile checked -p dataplane --test differential -- --nocapture`; `SEED=n` begins at another seed.
#![allow(clippy::print_stdout, clippy::panic)]

mod fuzzing;
mod reference;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use dataplane::verdict::Verdict;
use dpdk::eal::Eal;
use fuzzing::choices::Choices;
use fuzzing::rig::Rig;
use fuzzing::{Tally, case};

/// Frames of a case: enough that connections meet what changes around them.
const CASE: usize = 3_000;
/// How many frames the slice takes.
const SLICE: usize = 150_000;
/// Verdicts for moments so rare that the slice may see none, and of several workers.
const RARE: [&str; 3] = ["no_buffer", "table_full", "hand_over_full"];

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// The only test of this program, so that the EAL can start here and what is printed is seen at once.
#[test]
fn worker_and_reference_agree_on_every_frame() {
    let mut rig = Rig::new(Eal::init(&dpdk::test_support::config()).expect("the EAL"));
    let (wanted, first) = (number("FRAMES").unwrap_or(SLICE), number("SEED").unwrap_or(1));
    let (mut frames, mut told, mut tally) = (0, Instant::now(), Tally::new());
    for seed in first.. {
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{frames} frames, seed {seed}");
        }
        let done = catch_unwind(AssertUnwindSafe(|| case(&mut rig, Choices::Seed(seed as u64), CASE, &mut tally)));
        frames += done.unwrap_or_else(|_| panic!("SEED={seed} shows it, after {frames} frames without a difference"));
        if frames >= wanted {
            println!("{frames} frames of seeds {first} to {seed}, no difference: {tally:?}");
            // A verdict that never comes up is not tested.
            let known = |label: &&str| tally.contains_key(label) || RARE.contains(label);
            let missing: Vec<&str> = Verdict::ALL.iter().map(|v| v.label()).filter(|label| !known(label)).collect();
            assert!(missing.is_empty() || wanted < SLICE, "no frame got {missing:?}");
            return;
        }
    }
}
