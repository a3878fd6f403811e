//! Forwarding methods beside each other: IPv4 and IPv6 direct routing, tunnel (IP in IP) and masquerading, one real server each.
//!
//! Rounds alternate, all on one worker and one table. Half the frames of a masquerading round are the real server's answers.

use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::ACK;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, Random, client};
use crate::rig::{FRAMES, Rig, Served, least_of_each, nanoseconds, rip};
use dataplane::address::Address;

const NAMES: [&str; 4] = ["ipv4", "ipv6", "tunnel", "masquerading"];
const MASQUERADING: u32 = 3;

fn vip(n: u32) -> End {
    let address = if n == 1 { Address(0xfd00 << 112 | 0x88) } else { Address::v4(0x0a0a_1858 + n) };
    End { address, port: 80 }
}

pub fn run(options: &Options) -> Value {
    let (connections, rounds) = (options.number("connections", 65_536), options.number("rounds", 900));
    crate::on_worker(&crate::eal(), move |eal| {
        let methods = [Method::DirectRouting, Method::DirectRouting, Method::Tunnel, Method::Masquerading];
        let served: Vec<_> = (0..)
            .zip(methods)
            .map(|(n, method)| Served { vip: vip(n), method, scheduler: SchedulerKind::RoundRobin, servers: 1 })
            .collect();
        let mut rig = Rig::new(eal, "m", connections * 5, &served);
        for n in 0..4 {
            rig.open(connections, |i| (client(i, n != 1), vip(n)));
        }
        let mut random = Random(0x0123_4567_89ab_cdef);
        let mut samples: [Vec<f64>; 4] = Default::default();
        for _ in 0..rounds {
            for (n, samples) in (0..).zip(&mut samples) {
                let mut answer = false;
                let cycles = rig.round(|| {
                    let i = random.below(connections);
                    answer = n == MASQUERADING && !answer;
                    if answer {
                        (End { address: rip(MASQUERADING, true), port: 80 }, client(i, true), ACK)
                    } else {
                        (client(i, n != 1), vip(n), ACK)
                    }
                });
                samples.push(nanoseconds(cycles, FRAMES));
            }
        }
        rig.assert_forwarded(connections * 4);
        let group = rounds as usize / 9;
        let methods: serde_json::Map<_, _> =
            NAMES.iter().zip(&samples).map(|(name, samples)| ((*name).to_owned(), json!(least_of_each(samples, group)))).collect();
        json!({ "connections": connections, "ns": methods })
    })
}
