//! Packets that come in full bursts, of which each is looked at while the one before it is sent on, fare as each would alone.
#![allow(clippy::panic)]

mod common;

use common::frame::*;
use common::*;
use dataplane::service::{Protocol, Protocol::*, SchedulerKind::*};
use dpdk::burst::BURST;
use dpdk::eal_test;

/// Clients that have connections from the beginning; a burst has packets of few of them more than once.
const CLIENTS: u32 = 150;
/// Turns of so many frames.
const TURNS: usize = 12;
const FRAMES: usize = 4 * BURST;

/// Numbers that are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(n)) >> 32).unwrap_or_default()
    }
}

/// What is sent to one service.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    protocol: Protocol,
    v6: bool,
    masquerading: bool,
    /// One packet in so many is not of an established connection, or ends it.
    odd: u32,
}

impl Traffic {
    fn client(self, n: u32) -> String {
        let (host, port) = (1 + n % 200, 1000 + n / 200);
        if self.v6 { format!("[2001:db8::{host:x}]:{port}") } else { format!("198.51.100.{host}:{port}") }
    }

    fn packet(self, from: &str, to: &str, flags: u8) -> Vec<u8> {
        if self.protocol == Udp { udp_of(from, to, &[7; 40]) } else { tcp(from, to).payload(&[7; 30]).segment(flags) }
    }

    fn service(self) -> &'static str {
        if self.v6 { "[fd00:10::88]:80" } else { "10.10.24.88:80" }
    }

    fn request(self, n: u32, flags: u8) -> Vec<u8> {
        self.packet(&self.client(n), self.service(), flags)
    }

    fn answer(self, n: u32, flags: u8) -> Vec<u8> {
        self.packet(if self.v6 { "[fd00:10::21]:8080" } else { "10.10.24.21:8080" }, &self.client(n), flags)
    }

    /// All that is sent, in order.
    fn frames(self) -> Vec<Vec<u8>> {
        let (mut random, mut newcomers) = (Random(0x0123_4567_89ab_cdef), CLIENTS);
        let mut frames = Vec::new();
        while frames.len() < TURNS * FRAMES {
            let known = random.below(CLIENTS);
            let odd = random.below(self.odd) == 0;
            match random.below(5) {
                0 if odd => {
                    newcomers += 1;
                    frames.push(self.request(newcomers, SYN));
                }
                1 if odd => frames.push(arp_request(ROUTER_MAC, [10, 10, 24, 1], [10, 10, 24, 88])),
                2 if odd => frames.push(self.request(known, FIN | ACK)),
                // A connection that begins again may be another real server's, and so are the packets behind. First packets come last in a
                // burst, so that answers behind them would find no connection.
                3 if odd && !self.masquerading => frames.extend([RST, SYN, ACK].map(|flags| self.request(known, flags))),
                4 if odd && self.masquerading => frames.push(self.answer(known, FIN | ACK)),
                0 | 1 if self.masquerading => frames.push(self.answer(known, ACK)),
                _ => frames.push(self.request(known, ACK)),
            }
        }
        frames.truncate(TURNS * FRAMES);
        frames
    }
}

/// What comes of frames: those that leave, what is counted, and the connections, as they are then.
type Outcome = (Vec<Vec<u8>>, Vec<(&'static str, u64)>, Vec<String>);

/// What comes of frames, so many in a turn.
fn outcome(lab: &mut Lab, traffic: Traffic, servers: &[Server], at_once: usize) -> Outcome {
    lab.flush(None);
    // Begins with the first real server again.
    for servers in [&[], servers] {
        lab.service(0, traffic.protocol, if traffic.v6 { VIP6 } else { VIP }, 80, RoundRobin, servers);
    }
    for n in 0..CLIENTS {
        lab.send(&traffic.request(n, SYN));
        lab.send(&traffic.request(n, ACK));
    }
    let before = lab.counters();
    let mut sent = Vec::new();
    for frames in traffic.frames().chunks(at_once) {
        sent.extend(lab.burst(frames));
    }
    let moved = lab.counters().into_iter().map(|(name, count)| (name, count - before[name])).collect();
    let mut rows: Vec<_> = lab.connections().iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    lab.assert_no_leak();
    (sent, moved, rows)
}

eal_test! {
    fn packets_in_full_bursts_fare_as_each_would_alone(eal) {
        let mut lab = Lab::new(eal);
        let rip = |v6| if v6 { "fd00:10::21" } else { "10.10.24.21" };
        for protocol in [Tcp, Udp] {
            for v6 in [false, true] {
                let dip = if v6 { "fd00:10::10" } else { DIP };
                let tunnelled = |n| server(n).tunnel(rip(v6), dip);
                let methods = [vec![server(21), server(22)], vec![tunnelled(21), tunnelled(22)], vec![server(21).masquerading(8080)]];
                for servers in methods {
                    let masquerading = servers[0].masquerading.is_some();
                    for odd in [3, 40, 2000] {
                        let traffic = Traffic { protocol, v6, masquerading, odd };
                        let mut outcome = |at_once| outcome(&mut lab, traffic, &servers, at_once);
                        let alone = outcome(1);
                        assert!(alone.0.len() * 10 > TURNS * FRAMES * 7, "{traffic:?}: nearly all are forwarded");
                        for at_once in [BURST, FRAMES] {
                            let together = outcome(at_once);
                            assert_eq!(together.1, alone.1, "{traffic:?}: what is counted of {at_once} at once");
                            assert!(together.0 == alone.0, "{traffic:?}: frames of {at_once} at once");
                            assert_eq!(together.2, alone.2, "{traffic:?}: connections after {at_once} at once");
                        }
                    }
                }
            }
        }
    }
}
