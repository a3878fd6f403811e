//! 10 000 services with 100 000 real servers against one service with ten: two workers, equal numbers of connections, rounds in turn.

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::ACK;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, Random, client};
use crate::rig::{FRAMES, Rig, Served, least_of_each, nanoseconds};

const SERVERS: u32 = 10;

fn vip(n: u32) -> End {
    End { address: Address::v4(0x0a80_0000 + n / 100), port: u16::try_from(8000 + n % 100).unwrap_or_default() }
}

pub fn run(options: &Options) -> Value {
    let (connections, rounds) = (options.number("connections", 1_000_000), options.number("rounds", 1800));
    let many = options.number("services", 10_000);
    crate::on_worker(&crate::eal(), move |eal| {
        let rig = |name: &str, services: u32| {
            let served = (0..services).map(|n| Served {
                vip: vip(n),
                method: Method::DirectRouting,
                scheduler: SchedulerKind::RoundRobin,
                servers: SERVERS,
            });
            let mut rig = Rig::new(eal, name, connections / 8 * 9, &served.collect::<Vec<_>>());
            rig.open(connections, |i| (client(i, true), vip(i % services)));
            (services, rig)
        };
        let mut rigs = vec![rig("one", 1), rig("many", many)];
        let mut random = Random(0x0123_4567_89ab_cdef);
        let mut samples: [Vec<f64>; 2] = Default::default();
        for _ in 0..rounds {
            for ((services, rig), samples) in rigs.iter_mut().zip(&mut samples) {
                let cycles = rig.round(|| {
                    let i = random.below(connections);
                    (client(i, true), vip(i % *services), ACK)
                });
                samples.push(nanoseconds(cycles, FRAMES));
            }
        }
        for (_, rig) in &rigs {
            rig.assert_forwarded(connections);
        }
        let group = rounds as usize / 9;
        let [one, many_ns] = samples.map(|samples| least_of_each(&samples, group));
        json!({ "connections": connections, "services": many, "real_servers": many * SERVERS, "one_ns": one, "many_ns": many_ns })
    })
}
