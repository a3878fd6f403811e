//! What counting costs: packets and bytes of a service and of a real server, as the established stage counts them.
//!
//! Isolated from all else: both loops go over bursts of 64 packets and load the same lines of real servers' ways, one of them counts
//! there, for the service, too, of which the counters are the sum of its real servers'. Four real servers, so all lines are in the L1 cache; what cold lines cost is part of the row of 10 000 services.

use std::hint::black_box;

use dataplane::service::ServerId;
use dataplane::ways::Ways;
use dpdk::burst::BURST;
use dpdk::clock;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::Random;
use crate::rig::nanoseconds;

const BURSTS: u32 = 256;

pub fn run(options: &Options) -> Value {
    let rounds = options.number("rounds", 3000);
    crate::on_worker(&crate::eal(), move |_| {
        let ways = Ways::new(1, 4, Vec::new()).expect("memory");
        let mut random = Random(0x0123_4567_89ab_cdef);
        let lanes: Vec<(ServerId, u16)> =
            (0..BURST).map(|_| (ServerId(random.below(4)), 40 + u16::try_from(random.below(1400)).unwrap_or(0))).collect();
        let frames = BURSTS * u32::try_from(BURST).unwrap_or(64);
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = clock::cycles();
            for _ in 0..BURSTS {
                for (server, length) in black_box(&lanes) {
                    black_box((ways.way(*server).map(|way| ways.exit(way.hop()).mtu), *length));
                }
            }
            let half = clock::cycles();
            for _ in 0..BURSTS {
                for (server, length) in black_box(&lanes) {
                    let way = ways.way(*server);
                    black_box((way.map(|way| ways.exit(way.hop()).mtu), *length));
                    if let Some(way) = way {
                        ways.count(*server, way, *length);
                    }
                }
            }
            let end = clock::cycles();
            without.push(nanoseconds(half - start, frames));
            with.push(nanoseconds(end - half, frames));
        }
        let group = rounds as usize / 9;
        let [without, with] = [without, with].map(|samples| crate::rig::least_of_each(&samples, group));
        json!({ "without_ns": without, "with_ns": with })
    })
}
