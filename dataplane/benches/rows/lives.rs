//! Whole TCP connections: SYN, ACK, data, FIN and ACK from the client, and the entry that ends 120 s after the last of them.
//!
//! Frames of 204 connections, each in another phase, fill a round. The worker's clock runs so fast that about as many entries wait
//! for their end as the family is told: then as many end as are made, and what that costs is part of each round.

use dataplane::address::Address;
use dataplane::service::{Method, SchedulerKind};
use dataplane::tcp::{ACK, FIN, SYN};
use dataplane::tick::Tick;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::{End, client};
use crate::rig::{FRAMES, Rig, Served, nanoseconds};

const SERVICE: End = End { address: Address::v4(0x0a0a_1858), port: 80 };
/// What the client sends, in order. 0x18 is data: PSH and ACK.
const PHASES: [u8; 5] = [SYN, ACK, 0x18, FIN | ACK, ACK];
/// Connections that begin in each round; some frames more repeat the last phase.
const BIRTHS: u32 = FRAMES / 5;
/// Seconds after which an entry in `FIN_WAIT` ends.
const LINGER: u32 = 120;

pub fn run(options: &Options) -> Value {
    let (live, parts) = (options.number("live", 1_000_000), options.number("parts", 9));
    crate::on_worker(&crate::eal(), move |eal| {
        let served = [Served { vip: SERVICE, method: Method::DirectRouting, scheduler: SchedulerKind::RoundRobin, servers: 4 }];
        let mut rig = Rig::new(eal, "l", live / 4 * 5, &served);
        // Rounds in the time that an entry lingers.
        let lingering = live / BIRTHS;
        let mut round = 0;
        let mut play = |rig: &mut Rig| {
            round += 1;
            rig.now =
                Tick(1 + u32::try_from(u64::from(round) * u64::from(LINGER * Tick::PER_SECOND) / u64::from(lingering)).unwrap_or_default());
            let mut n = 0;
            rig.round(|| {
                let lane = n;
                n += 1;
                let phase = (lane / BIRTHS).min(4);
                // In its first rounds there is nobody yet in the later phases: those frames are of a connection that goes on for ever.
                let generation: u32 = round;
                match generation.checked_sub(phase).filter(|generation| *generation > 0) {
                    Some(generation) => (client(generation * BIRTHS + lane % BIRTHS, true), SERVICE, PHASES[phase as usize]),
                    None => (client(0, true), SERVICE, SYN),
                }
            })
        };
        // Until as many end as begin.
        for _ in 0..lingering / 8 * 9 {
            play(&mut rig);
        }
        let steady = rig.control.report().connections.get();
        let mut ns = Vec::new();
        for _ in 0..parts {
            let rounds = lingering / 4;
            let cycles = (0..rounds).map(|_| play(&mut rig)).sum();
            ns.push(nanoseconds(cycles, rounds * BIRTHS));
        }
        let after = rig.control.report().connections.get();
        assert!(after.abs_diff(steady) * 20 < steady, "as many end as begin: {steady} were there, then {after}");
        json!({ "live": after, "ns": ns })
    })
}
