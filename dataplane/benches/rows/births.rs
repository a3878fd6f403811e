//! New connections: SYNs of new clients, each scheduled and inserted, until a table of the given size is full.
//!
//! The filling is cut into sixteen parts. The later eight count, when the table is half full and more, and the best of them.

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::SYN;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, client};
use crate::rig::{FRAMES, Rig, Served, nanoseconds};

const PARTS: usize = 16;
const SERVERS: u32 = 10;
const SERVICE: End = End { address: Address::v4(0x0a0a_1858), port: 80 };

pub fn run(options: &Options) -> Value {
    let capacity = options.number("capacity", 1_000_000) / FRAMES * FRAMES;
    let name = options.text("scheduler").unwrap_or("rr").to_owned();
    let scheduler = match name.as_str() {
        "wlc" => SchedulerKind::WeightedLeastConnections,
        "mh" => SchedulerKind::Maglev { port: true, fallback: false },
        _ => SchedulerKind::RoundRobin,
    };
    crate::on_worker(&crate::eal(), move |eal| {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler, servers: SERVERS }];
        let mut rig = Rig::new(eal, "b", capacity, &served);
        let mut rounds = Vec::new();
        for first in (0..capacity).step_by(FRAMES as usize) {
            let mut next = first;
            rounds.push(rig.round(|| {
                next += 1;
                (client(next - 1, true), SERVICE, SYN)
            }));
        }
        rig.assert_forwarded(capacity);
        let parts = rounds.chunks(rounds.len().div_ceil(PARTS));
        let each = |part: &[u64]| nanoseconds(part.iter().sum(), FRAMES * u32::try_from(part.len()).unwrap_or(1));
        let ns: Vec<f64> = parts.map(each).collect();
        json!({ "scheduler": name, "capacity": capacity, "ns": &ns[ns.len() / 2..] })
    })
}
