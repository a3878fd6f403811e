//! What the pipeline costs a packet of an established connection, beside a plain MAC swap of the same frames in the same process.
//!
//! Both take frames from one ring and put them into one other, rounds in turn. The flows of a round are drawn at random from all
//! connections, so that with many of them nearly every lookup misses the caches. What these misses cost alone is measured afterwards over as
//! many [`Lines`] as the table has: in between they would take the table's place in the caches.

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::ACK;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, Random, client};
use crate::lines::Lines;
use crate::rig::{FRAMES, Rig, Served, least_of_each, nanoseconds};

const SERVICE: End = End { address: Address::v4(0x0a0a_1858), port: 80 };

pub fn run(options: &Options) -> Value {
    let (connections, rounds) = (options.number("connections", 65_536), options.number("rounds", 900));
    crate::on_worker(&crate::eal(), move |eal| {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler: SchedulerKind::RoundRobin, servers: 4 }];
        let room = connections.max(1024) / 8 * 9;
        let mut rig = Rig::new(eal, "p", room, &served);
        rig.open(connections, |n| (client(n, true), SERVICE));
        let mut random = Random(0x0123_4567_89ab_cdef);
        let (mut swap, mut director) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            rig.load(|| (client(random.below(connections), true), SERVICE, ACK));
            swap.push(nanoseconds(rig.swap(), FRAMES));
            rig.unload();
            director.push(nanoseconds(rig.round(|| (client(random.below(connections), true), SERVICE, ACK)), FRAMES));
        }
        rig.assert_forwarded(connections);
        drop(rig);
        let mut table = Lines::new(room);
        let lines = (0..rounds).map(|_| nanoseconds(table.read(&mut random), FRAMES)).collect();
        let [macswap, director, lines] = [swap, director, lines].map(|samples| least_of_each(&samples, rounds as usize / 9));
        json!({ "connections": connections, "macswap_ns": macswap, "director_ns": director, "lines_ns": lines })
    })
}
