//! The worker: this file is the product, read from top to bottom.
//!
//! ```text
//! commands -> rx -> parse -> classify -> seek -> established -> what is left: lookup -> track -> schedule (misses only) -> forward
//!          -> tunnel -> tx -> expire (bounded)
//! ```
//!
//! Each stage is one function over the whole burst, in one other file, and no stage calls the next.

use std::sync::Arc;
use std::time::Duration;

use dpdk::burst::Burst;
use dpdk::clock;
use dpdk::mempool::Mempool;
use dpdk::port::RxQueue;
use dpdk::ring::Ring;

use crate::classify::{classify, parse_all};
use crate::command::WorkerEnd;
use crate::connection::{ConnectionTable, TableError};
use crate::forward::forward;
use crate::icmp_error::{self, IcmpErrors};
use crate::lanes::{Fate, Lanes};
use crate::limiter::Limiter;
use crate::link::{Origin, Outgoing, PortQueues, Tally};
use crate::orders::Orders;
use crate::rules::Rules;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::tunnel::Tunnels;
use crate::verdict::Verdict;

/// What a worker does when no frame has come for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Sleeps longer and longer, up to half a millisecond.
    #[default]
    Adaptive,
    /// Polls on.
    Poll,
}

/// What a worker is made from.
#[derive(Debug)]
pub struct WorkerConfig {
    /// Its number, from 0.
    pub index: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Connection entries that it can hold.
    pub connections: u32,
    /// How many of them may be half open.
    pub half_open: u32,
    /// Places for virtual services.
    pub services: u32,
    /// Places for real servers.
    pub servers: u32,
    /// Its queues, in the order of the ports in the configuration.
    pub ports: Vec<PortQueues>,
    /// What it does without traffic.
    pub idle: Idle,
    /// Secret of the connection table's hash: random, another one for each worker.
    pub seed: [u64; 4],
}

/// A worker as it runs on its core.
#[derive(Debug)]
pub struct Worker {
    end: WorkerEnd,
    orders: Orders,
    rules: Rules,
    tracker: Tracker,
    tunnels: Tunnels,
    errors: IcmpErrors,
    kernel: Limiter,
    /// Answers to the kernel's own questions (ARP, neighbour discovery) have a share that a flood of other frames cannot use up.
    kernel_neighbours: Limiter,
    kernel_answers: Limiter,
    lanes: Lanes,
    tally: Tally,
    macs: Vec<[u8; 6]>,
    receivers: Vec<Receiver>,
    outgoing: Vec<Outgoing>,
    idle: Idle,
}

#[derive(Debug)]
struct Receiver {
    rx: RxQueue,
    pool: Mempool,
    to_kernel: Arc<Ring>,
    from_kernel: Option<Arc<Ring>>,
}

/// Entries that one turn looks at, at most, to end those whose time is up: bounds what expiry adds to a frame's delay.
const EXPIRE_BUDGET: usize = 64;
/// Answers for the kernel a second, whatever else it is sent.
const KERNEL_NEIGHBOUR_RATE: u32 = 2_000;

/// Answers to health checks that are handed to the kernel a second: ten frames for each of 6000 checks. They have a share of their
/// own, so that no flood of other frames makes real servers look dead.
const KERNEL_ANSWER_RATE: u32 = 60_000;
/// Empty turns before the first sleep: a worker with traffic never gets there.
const EMPTY_TURNS_BEFORE_SLEEP: u32 = 256;
/// The longest sleep: a receive queue of 1024 holds what comes at 2 million frames a second.
const LONGEST_SLEEP: Duration = Duration::from_micros(500);

impl Worker {
    /// A worker without rules; the first batch brings them. Everything that it will ever need is allocated here.
    pub fn new(config: WorkerConfig, end: WorkerEnd) -> Result<Self, TableError> {
        let connections = ConnectionTable::new(config.connections, config.half_open, config.seed)?;
        let start = Tick::default();
        let macs: Vec<_> = config.ports.iter().map(|port| port.mac).collect();
        let rules = Rules::new(config.index, config.services, config.servers, macs.clone(), config.seed);
        let mut worker = Self {
            end,
            orders: Orders::new(),
            tracker: Tracker::new(config.index, connections),
            tunnels: Tunnels::new(config.index, config.workers),
            errors: IcmpErrors::new(Limiter::new(rules.settings.icmp_error_rate, start)),
            kernel: Limiter::new(rules.settings.exception_rate, start),
            kernel_neighbours: Limiter::new(KERNEL_NEIGHBOUR_RATE, start),
            kernel_answers: Limiter::new(KERNEL_ANSWER_RATE, start),
            rules,
            lanes: Lanes::new(),
            tally: Tally::default(),
            macs,
            receivers: Vec::new(),
            outgoing: Vec::new(),
            idle: config.idle,
        };
        for port in config.ports {
            worker.receivers.push(Receiver { rx: port.rx, pool: port.pool, to_kernel: port.to_kernel, from_kernel: port.from_kernel });
            worker.outgoing.push(Outgoing::new(port.tx));
        }
        Ok(worker)
    }

    /// Turns until the control plane says stop, then sends what is left and returns.
    pub fn run(mut self) {
        let cycles_per_tick = (clock::hz() / u64::from(Tick::PER_SECOND)).max(1);
        let start = clock::cycles();
        let mut before = start;
        let mut empty = 0_u32;
        while !self.end.is_stopped() {
            // Only differences of ticks mean anything, so cutting off the high bits is how a tick wraps.
            let now = Tick(u32::try_from(((before - start) / cycles_per_tick) & u64::from(u32::MAX)).unwrap_or_default());
            let worked = self.turn(now);
            empty = if worked { 0 } else { empty.saturating_add(1) };
            if empty > EMPTY_TURNS_BEFORE_SLEEP && self.idle == Idle::Adaptive {
                let microseconds = u64::from(empty - EMPTY_TURNS_BEFORE_SLEEP);
                std::thread::sleep(Duration::from_micros(microseconds).min(LONGEST_SLEEP));
            }
            let after = clock::cycles();
            let report = self.end.report();
            if worked { &report.busy_cycles } else { &report.idle_cycles }.add(after - before);
            before = after;
        }
    }

    /// One turn: commands, one burst of every port, the kernel's frames, expiry. `true` when there was anything to do.
    pub fn turn(&mut self, now: Tick) -> bool {
        let mut worked = self.orders.carry_out(&mut self.end, &mut self.rules, &mut self.tracker, now);
        if worked {
            self.errors.limiter.set_rate(self.rules.settings.icmp_error_rate);
            self.kernel.set_rate(self.rules.settings.exception_rate);
        }
        self.errors.limiter.refill(now);
        self.kernel.refill(now);
        self.kernel_neighbours.refill(now);
        self.kernel_answers.refill(now);
        for port in 0..self.receivers.len() {
            worked |= self.burst(port, now);
        }
        self.tracker.expire(&self.rules, now, EXPIRE_BUDGET);
        self.rules.memory.sweep(now);
        self.report();
        worked
    }

    /// One burst of one port through all stages.
    fn burst(&mut self, port: usize, now: Tick) -> bool {
        let injected = self.inject(port);
        let receiver = &mut self.receivers[port];
        let received = receiver.rx.receive(&mut self.lanes.frames);
        if received == 0 {
            return injected;
        }
        let our_mac = self.macs[port];
        // A port's number is an index into a list whose length the configuration bounds.
        let port_number = u16::try_from(port).unwrap_or(u16::MAX);
        parse_all(&mut self.lanes, our_mac, &self.tracker.connections);
        classify(&mut self.lanes, port_number, our_mac, &self.rules, &self.tracker);
        self.tracker.seek(&mut self.lanes);
        self.tracker.established(&mut self.lanes, &self.rules, now);
        self.tracker.lookup(&mut self.lanes);
        self.tracker.track(&mut self.lanes, &self.rules, now);
        self.tracker.schedule(&mut self.lanes, &mut self.rules, &mut self.errors, now);
        forward(&mut self.lanes, &self.rules, &self.macs, &mut self.errors);
        self.tunnels.encapsulate(&mut self.lanes, &self.rules, &self.macs, &self.receivers[port].pool, &mut self.errors);
        self.send_icmp_errors(port);
        self.dispatch(port);
        self.send_fragments();
        let report = self.end.report();
        report.received[port].add(received as u64);
        self.tally.publish(&report.verdicts[port]);
        true
    }

    /// Answers the frames that drew an ICMP error, on the port they came by, before they are freed.
    fn send_icmp_errors(&mut self, port: usize) {
        for (lane, cause) in self.errors.take() {
            let offending = self.lanes.frames[lane].data();
            if let Some(frame) = icmp_error::write(&self.receivers[port].pool, offending, &self.lanes.packets[lane], self.macs[port], cause)
            {
                self.outgoing[port].push(frame, Origin::IcmpError, &mut self.tally);
            }
        }
    }

    /// Later fragments follow the first ones.
    fn send_fragments(&mut self) {
        if self.tunnels.later_fragments.is_empty() {
            return;
        }
        for (port, frame) in self.tunnels.later_fragments.drain(..) {
            if let Some(outgoing) = self.outgoing.get_mut(usize::from(port)) {
                outgoing.push(frame, Origin::Fragment, &mut self.tally);
            }
        }
        for outgoing in &mut self.outgoing {
            outgoing.flush(&mut self.tally);
        }
    }

    /// Every frame goes where it was decided to go and is counted.
    fn dispatch(&mut self, port: usize) {
        let receiver = &mut self.receivers[port];
        // Nearly every burst leaves as it came: all to real servers, by one port.
        let port = self.lanes.leaves_whole();
        let Lanes { frames, packets, fates, .. } = &mut self.lanes;
        if let Some(outgoing) = port.and_then(|port| self.outgoing.get_mut(usize::from(port))) {
            outgoing.flush(&mut self.tally);
            outgoing.send(frames, Verdict::Forwarded, &mut self.tally);
            return;
        }
        let mut dropped = Burst::new();
        for (i, frame) in frames.drain(..).enumerate() {
            let refused = match fates[i] {
                Fate::Send(out, verdict) => {
                    if let Some(outgoing) = self.outgoing.get_mut(usize::from(out)) {
                        outgoing.push(frame, Origin::Received(verdict), &mut self.tally);
                        continue;
                    }
                    (Verdict::NoNextHop, frame)
                }
                Fate::Kernel | Fate::Answer => {
                    let limiter = if fates[i] == Fate::Answer {
                        &mut self.kernel_answers
                    } else if packets[i].is_neighbour_message() {
                        &mut self.kernel_neighbours
                    } else {
                        &mut self.kernel
                    };
                    if limiter.take() {
                        match receiver.to_kernel.enqueue(frame) {
                            Ok(()) => {
                                self.tally.count(Verdict::Exception);
                                continue;
                            }
                            Err(frame) => (Verdict::ExceptionFull, frame),
                        }
                    } else {
                        (Verdict::ExceptionRate, frame)
                    }
                }
                Fate::Drop(verdict) => (verdict, frame),
                // Every stage before has decided: a frame without a fate has no real server to go to.
                Fate::Undecided | Fate::Server(_) => (Verdict::NoNextHop, frame),
            };
            self.tally.count(refused.0);
            let _ = dropped.push(refused.1);
        }
        drop(dropped);
        for outgoing in &mut self.outgoing {
            outgoing.flush(&mut self.tally);
        }
    }

    /// Sends what the kernel has for this port.
    fn inject(&mut self, port: usize) -> bool {
        let Some(ring) = &self.receivers[port].from_kernel else { return false };
        let sent = self.outgoing[port].send_from(ring);
        if sent != 0 {
            self.end.report().injected.add(sent);
        }
        sent != 0
    }

    /// Publishes the gauges that change every turn.
    fn report(&mut self) {
        let report = self.end.report();
        report.turns.add(1);
        report.version.set(self.rules.version);
        report.connections.set(u64::from(self.tracker.connections.len()));
        report.half_open.set(u64::from(self.tracker.connections.half_open()));
        for (port, outgoing) in self.outgoing.iter_mut().enumerate() {
            report.sent[port].add(std::mem::take(&mut outgoing.sent));
            report.icmp_errors.add(std::mem::take(&mut outgoing.sent_errors));
            report.fragments.add(std::mem::take(&mut outgoing.sent_fragments));
        }
    }
}
