//! Rounds of one kind for callgrind to count the instructions of: `tests/instructions.py` runs this and holds its stages to a limit.
//!
//! What is counted happens in [`counted`] alone. Frames, order and clock are the same in every run, and so is the count.

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::{ACK, FIN, SYN};
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, Random, client};
use crate::rig::{FRAMES, Rig, Served, rip};

/// Connections that there are.
const HELD: u32 = 4 * FRAMES;
const SERVERS: u32 = 4;

/// A round of the worker's turns.
#[inline(never)]
fn counted(rig: &mut Rig) {
    rig.work();
}

/// What is sent of the connection `n`.
fn packet(case: &str, n: u32, vip: End) -> (End, End, u8) {
    let from = client(n, vip.address.is_v4());
    match case {
        "new" => (from, vip, SYN),
        "closing" => (from, vip, FIN | ACK),
        // Connections have their real servers in turn.
        "masquerading" if n % 2 == 1 => (End { address: rip(n % SERVERS, true), port: vip.port }, from, ACK),
        _ => (from, vip, ACK),
    }
}

pub fn run(options: &Options) -> Value {
    let case = options.text("case").expect("--case").to_owned();
    let rounds = options.number("rounds", 16);
    crate::on_worker(&crate::eal(), move |eal| {
        let address = if case == "ipv6" { Address(0xfd00 << 112 | 0x88) } else { Address::v4(0x0a0a_1858) };
        let method = match case.as_str() {
            "tunnel" => Method::Tunnel,
            "masquerading" => Method::Masquerading,
            _ => Method::DirectRouting,
        };
        let vip = End { address, port: 80 };
        let served = [Served { vip, method, scheduler: SchedulerKind::RoundRobin, servers: SERVERS }];
        let mut rig = Rig::new(eal, "i", HELD + FRAMES * rounds, &served);
        if case == "expiry" {
            end_all(&mut rig, rounds, vip);
        } else {
            rig.open(HELD, |n| (client(n, address.is_v4()), vip));
            let mut random = Random(0x0123_4567_89ab_cdef);
            let mut next = HELD;
            for _ in 0..rounds {
                rig.load(|| {
                    next += 1;
                    packet(&case, if case == "new" { next } else { random.below(HELD) }, vip)
                });
                counted(&mut rig);
                rig.unload();
            }
        }
        json!({ "case": case, "count": rounds * FRAMES })
    })
}

/// Makes connections and lets all of them end, time and again; the ends are counted.
fn end_all(rig: &mut Rig, rounds: u32, vip: End) {
    for _ in 0..rounds {
        let mut next = 0;
        rig.round(|| {
            next += 1;
            packet("new", next, vip)
        });
        rig.now = rig.now.after_seconds(61);
        while rig.control.report().connections.get() != 0 {
            counted(rig);
        }
    }
}
