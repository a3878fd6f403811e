//! Arithmetic in registers for a while, on one CPU: tells whether this machine's CPUs are whole cores or share one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::Options;

/// Prints turns a second.
pub fn run(options: &Options) {
    let time = Duration::from_millis(options.number("milliseconds", 500).into());
    let (start, mut turns, mut n) = (Instant::now(), 0_u64, [1_u64, 3, 5, 7]);
    while start.elapsed() < time {
        for _ in 0..10_000 {
            for word in &mut n {
                *word = black_box(word.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (*word >> 7));
            }
        }
        turns += 10_000;
    }
    println!("{}", turns as f64 / start.elapsed().as_secs_f64());
}
