//! The worker: this file is the product, read from top to bottom.
//!
//! ```text
//! commands -> rx -> glance -> parse (unusual ones) -> classify -> established -> rewritten
//!          -> what is left: parse -> track -> schedule (misses only) -> forward -> tunnel -> masquerade -> cut
//!          -> tx -> expire (bounded)
//! ```
//!
//! Each stage is one function over the whole burst, in one other file, and no stage calls the next.

mod rest;
mod spreading;

use std::sync::Arc;

use dpdk::burst::{BURST, Burst};
use dpdk::clock;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::port::RxQueue;
use dpdk::ring::Ring;

use crate::classify::{Sight, classify, parse_unusual};
use crate::command::{WorkerEnd, WorkerReport};
use crate::connection::{ConnectionTable, TableError};
use crate::cut::cut_long;
use crate::established::{Around, parse_left};
use crate::forward::forward;
use crate::fragment::{self, Arrival, Fragments};
use crate::glance::glance;
use crate::handover::{Came, HandOver};
use crate::icmp_error::{self, Cause, IcmpErrors, Wanted};
use crate::lanes::{Fate, Lanes};
use crate::limiter::Limiter;
use crate::link::{Origin, Outgoing, PortQueues, Tally, push_by, send_tagged_from};
use crate::masquerade::{Ends, masquerade};
use crate::orders::Orders;
use crate::plain::Ethernet;
use crate::reset;
use crate::rules::Rules;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::tunnel::{self, Tunnels};
use crate::verdict::Verdict;
use crate::vlan::{VlanQueues, Vlans};

/// What a worker does when no frame has come for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Sleeps longer and longer, up to half a millisecond.
    #[default]
    Adaptive,
    /// Polls on.
    Poll,
    /// Waits for the interrupts of its receive queues, which all have one; without traffic it wakes up for everything else.
    Interrupt,
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
    /// VLANs on them, which count as ports after these.
    pub vlans: Vec<VlanQueues>,
    /// What it does without traffic.
    pub idle: Idle,
    /// Secret of the connection table's hash: random, another one for each worker.
    pub seed: [u64; 4],
    /// Its ends of the rings between workers; `None` for one alone.
    pub handover: Option<HandOver>,
}

/// A worker as it runs on its core.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    end: WorkerEnd,
    orders: Orders,
    rules: Rules,
    tracker: Tracker,
    tunnels: Tunnels,
    handover: Option<HandOver>,
    fragments: Fragments,
    errors: IcmpErrors,
    kernel: Limiter,
    /// Answers to the kernel's own questions (ARP, neighbour discovery) have a share that a flood of other frames cannot use up.
    kernel_neighbours: Limiter,
    kernel_answers: Limiter,
    /// The burst that goes through the stages.
    lanes: Box<Lanes>,
    /// The one behind it that came by the same port, if the port has more than one: it is looked at meanwhile.
    ahead: Box<Lanes>,
    tally: Tally,
    macs: Vec<[u8; 6]>,
    receivers: Vec<Option<RxQueue>>,
    outgoing: Vec<Outgoing>,
    /// A bit for each port and VLAN whose frames are to be shared out among all workers.
    spread: u64,
    /// Whether other workers' frames leave by a queue of this one.
    relays: bool,
    vlans: Vlans,
    sides: Vec<Side>,
    idle: Idle,
}

/// What every port and VLAN has.
#[derive(Debug)]
struct Side {
    pool: Mempool,
    to_kernel: Arc<Ring>,
    from_kernel: Option<Arc<Ring>>,
}

/// Entries that one turn looks at, at most, to end those whose time is up: bounds what expiry adds to a frame's delay.
const EXPIRE_BUDGET: usize = 64;
/// Bursts of one port that a turn takes at most.
const BURSTS: usize = 16;
/// Answers for the kernel a second, whatever else it is sent.
const KERNEL_NEIGHBOUR_RATE: u32 = 2_000;

/// Answers to health checks that are handed to the kernel a second: ten frames for each of 6000 checks. They have a share of their
/// own, so that no flood of other frames makes real servers look dead.
const KERNEL_ANSWER_RATE: u32 = 60_000;
/// Empty turns before the first sleep: a worker with traffic never gets there.
const EMPTY_TURNS_BEFORE_SLEEP: u32 = 256;

impl Worker {
    /// A worker without rules; the first batch brings them. Everything that it will ever need is allocated here.
    pub fn new(config: WorkerConfig, end: WorkerEnd) -> Result<Self, TableError> {
        let mut connections = ConnectionTable::new(config.connections, config.half_open, config.seed)?;
        if let Some(handover) = &config.handover {
            connections.agree_with(Arc::clone(handover.affinity()));
        }
        let start = Tick::default();
        let of_port = |vlan: &VlanQueues| config.ports.get(usize::from(vlan.port));
        // A VLAN of a port that there is not would be one of no port's frames.
        let vlan_macs = config.vlans.iter().filter_map(|vlan| of_port(vlan).map(|port| port.mac));
        let macs: Vec<_> = config.ports.iter().map(|port| port.mac).chain(vlan_macs).collect();
        let pools: Vec<_> = config.vlans.iter().filter_map(|vlan| of_port(vlan).map(|port| port.pool.clone())).collect();
        let vlans = Vlans::new(config.ports.len(), config.vlans.iter().map(|vlan| (vlan.port, vlan.tags)).collect());
        let rules = Rules::new(config.index, config.services, config.servers, macs.clone(), config.seed).map_err(TableError::Memory)?;
        let mut worker = Self {
            end,
            orders: Orders::new(),
            tracker: Tracker::new(config.index, connections, config.handover.as_ref().map(|h| Arc::clone(h.directory()))),
            index: config.index,
            handover: config.handover,
            tunnels: Tunnels::new(config.index, config.workers),
            fragments: Fragments::new(config.seed),
            errors: IcmpErrors::new(Limiter::new(rules.settings.icmp_error_rate, start)),
            kernel: Limiter::new(rules.settings.exception_rate, start),
            kernel_neighbours: Limiter::new(KERNEL_NEIGHBOUR_RATE, start),
            kernel_answers: Limiter::new(KERNEL_ANSWER_RATE, start),
            rules,
            lanes: Box::default(),
            ahead: Box::default(),
            tally: Tally::default(),
            macs,
            receivers: Vec::new(),
            outgoing: Vec::new(),
            spread: 0,
            relays: false,
            vlans,
            sides: Vec::new(),
            idle: config.idle,
        };
        let spread: Vec<bool> = config.ports.iter().map(|port| port.spread).collect();
        let of_vlan = |vlan: &VlanQueues| spread.get(usize::from(vlan.port)).copied().unwrap_or_default();
        let sides = spread.iter().copied().chain(config.vlans.iter().map(of_vlan));
        worker.spread = sides.enumerate().fold(0, |bits, (side, spread)| bits | u64::from(spread) << (side & 63));
        for port in config.ports {
            worker.relays |= !port.relays.is_empty();
            worker.receivers.push(port.rx);
            worker.outgoing.push(Outgoing::new(port.tx, port.relays));
            worker.sides.push(Side { pool: port.pool, to_kernel: port.to_kernel, from_kernel: port.from_kernel });
        }
        for (vlan, pool) in config.vlans.into_iter().zip(pools) {
            worker.sides.push(Side { pool, to_kernel: vlan.to_kernel, from_kernel: vlan.from_kernel });
        }
        Ok(worker)
    }

    /// Turns until the control plane says stop, then sends what is left and returns.
    pub fn run(mut self) {
        let cycles_per_tick = (clock::hz() / u64::from(Tick::PER_SECOND)).max(1);
        let mut before = clock::cycles();
        let start = self.handover.as_ref().map_or(before, HandOver::began);
        let mut empty = 0_u32;
        let mut armed = false;
        self.listen();
        while !self.end.is_stopped() {
            // Only differences of ticks mean anything, so cutting off the high bits is how a tick wraps.
            let now = Tick(u32::try_from((before.saturating_sub(start) / cycles_per_tick) & u64::from(u32::MAX)).unwrap_or_default());
            let worked = self.turn(now);
            empty = if worked { 0 } else { empty.saturating_add(1) };
            if empty > EMPTY_TURNS_BEFORE_SLEEP && self.idle != Idle::Poll {
                armed = self.rest(empty - EMPTY_TURNS_BEFORE_SLEEP, armed);
            } else if armed {
                armed = self.wake();
            }
            let after = clock::cycles();
            let report = self.end.report();
            if worked { &report.busy_cycles } else { &report.idle_cycles }.add(after - before);
            before = after;
        }
    }

    /// One turn: commands, what has come by every port, the kernel's frames, expiry. `true` when there was anything to do.
    pub fn turn(&mut self, now: Tick) -> bool {
        let mut worked = self.orders.carry_out(&mut self.end, &mut self.rules, &mut self.tracker, now);
        if worked {
            self.errors.limiter.set_rate(self.rules.settings.icmp_error_rate);
            self.kernel.set_rate(self.rules.settings.exception_rate);
            self.tracker.rules_changed(&mut self.rules, now);
        }
        self.errors.limiter.refill(now);
        self.kernel.refill(now);
        self.kernel_neighbours.refill(now);
        self.kernel_answers.refill(now);
        for port in 0..self.receivers.len() {
            worked |= self.burst(port, now);
        }
        worked |= self.take_over(now);
        if self.relays {
            worked |= self.send_for_others();
        }
        for vlan in self.receivers.len()..self.sides.len() {
            worked |= self.inject(vlan);
        }
        self.give_up_fragments(now);
        self.tracker.expire(&self.rules, now, EXPIRE_BUDGET);
        worked |= self.tracker.defend(&self.rules, now);
        self.rules.memory.sweep(now);
        self.report();
        worked
    }

    /// What has come by one port through all stages: a burst, or several as long as they are full.
    fn burst(&mut self, port: usize, now: Tick) -> bool {
        let injected = self.inject(port);
        let Some(receiver) = &mut self.receivers[port] else { return injected };
        if receiver.receive(&mut self.lanes.frames) == 0 {
            return injected;
        }
        if !self.vlans.is_empty() {
            self.trunk(port, now);
            self.let_go(now);
            return true;
        }
        for left in (0..BURSTS).rev() {
            if left != 0
                && self.lanes.frames.is_full()
                && !self.spreads(port)
                && let Some(receiver) = &mut self.receivers[port]
            {
                receiver.receive(&mut self.ahead.frames);
            }
            self.received(port, now);
            self.let_go(now);
            if self.ahead.is_empty() {
                break;
            }
            std::mem::swap(&mut self.lanes, &mut self.ahead);
            self.tracker.expire(&self.rules, now, EXPIRE_BUDGET);
        }
        true
    }

    /// Whether frames of this port are to be shared out among all workers.
    #[inline(always)]
    const fn spreads(&self, port: usize) -> bool {
        self.spread >> (port & 63) & 1 != 0
    }

    /// The frames in the lanes, which a queue of this worker received by `port`.
    #[inline(always)]
    fn received(&mut self, port: usize, now: Tick) {
        if self.spreads(port) {
            self.hand_on(port);
            if self.lanes.is_empty() {
                return;
            }
        }
        self.process(port, Came::Received, now);
    }

    /// Fragments whose first one has come go through all stages again.
    fn let_go(&mut self, now: Tick) {
        while let Some(Arrival { port, came }) = self.fragments.next_ready(&mut self.lanes.frames) {
            if came == Came::FromWorker {
                for (frame, journey) in self.lanes.frames.iter().zip(&mut self.lanes.journeys) {
                    *journey = HandOver::journey(frame);
                }
            }
            self.process(usize::from(port), came, now);
        }
    }

    /// Frames that other workers handed to this one, for the connections that it has, go through the same stages.
    fn take_over(&mut self, now: Tick) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        let mut taken = Burst::new();
        if handover.receive(now, &mut taken) == 0 {
            return false;
        }
        for port in 0..self.sides.len() {
            let mut others = Burst::new();
            for frame in taken.drain(..) {
                let journey = HandOver::journey(&frame);
                if journey.port() == port {
                    self.lanes.journeys[self.lanes.frames.len()] = journey;
                    let _ = self.lanes.frames.push(frame);
                } else {
                    let _ = others.push(frame);
                }
            }
            taken = others;
            if !self.lanes.is_empty() {
                self.process(port, Came::FromWorker, now);
            }
        }
        self.let_go(now);
        true
    }

    /// What a port with VLANs received, a VLAN after the other.
    #[inline(never)]
    fn trunk(&mut self, port: usize, now: Tick) {
        self.vlans.sort(u16::try_from(port).unwrap_or(u16::MAX), &mut self.lanes.frames);
        if !self.lanes.is_empty() {
            self.received(port, now);
        }
        while let Some(vlan) = self.vlans.next(&mut self.lanes.frames) {
            self.received(usize::from(vlan), now);
        }
    }

    /// The frames in the lanes, which came by `port`, through all stages.
    fn process(&mut self, port: usize, came: Came, now: Tick) {
        let taken = self.lanes.len();
        if self.handover.is_some() {
            self.lanes.set_out(self.index, port, came);
        }
        let our_mac = self.macs[port];
        // A port's number is an index into a list whose length the configuration bounds.
        let port_number = u16::try_from(port).unwrap_or(u16::MAX);
        let ethernet = Ethernet::to(our_mac);
        glance(&mut self.lanes, &ethernet, &self.tracker, &self.rules);
        parse_unusual(&mut self.lanes, our_mac, &self.tracker.connections);
        let (macs, rules, tracker, handover) = (&self.macs, &self.rules, &self.tracker, self.handover.as_ref());
        self.fragments.place(&mut self.lanes, fragment::Sight { macs, rules, tracker, handover, now });
        let around = tunnel::Around {
            port: port_number,
            rules: &self.rules,
            tracker: &self.tracker,
            macs: &self.macs,
            pool: &self.sides[port].pool,
            now,
        };
        self.tunnels.take_notice(&mut self.lanes, around, &mut self.handover, &mut self.errors);
        let sight = Sight { port: port_number, macs: &self.macs, rules: &self.rules, tracker: &self.tracker };
        classify(&mut self.lanes, sight, &mut self.handover);
        let (rules, macs, tunnels) = (&self.rules, &self.macs, &mut self.tunnels);
        let mut around = Around { port: port_number, ethernet, rules, macs, tunnels, now };
        self.tracker.established(&mut self.lanes, &mut self.ahead, &mut around);
        self.tracker.rewritten(&mut self.lanes, &mut around);
        parse_left(&mut self.lanes);
        let ends = Ends { rules: &self.rules, macs: &self.macs, handover: self.handover.as_ref(), now };
        self.tracker.track(&mut self.lanes, ends, &mut self.errors);
        self.fragments.pass_on(&mut self.lanes, &self.rules, &mut self.handover);
        self.tracker.schedule(&mut self.lanes, &mut self.rules, &mut self.errors, now);
        let ends = Ends { rules: &self.rules, macs: &self.macs, handover: None, now };
        self.tracker.pass_answers(&mut self.lanes, ends, &mut self.handover);
        self.fragments.learn(&mut self.lanes, &self.rules, &self.tracker, now);
        forward(&mut self.lanes, &self.rules, &self.macs, &mut self.errors);
        self.tunnels.encapsulate(&mut self.lanes, &self.rules, &self.macs, &self.sides[port].pool, &mut self.errors, now);
        masquerade(&mut self.lanes, port_number, &self.rules, &mut self.tracker, &self.macs, &mut self.errors);
        cut_long(&mut self.lanes, &self.rules, &self.sides[port].pool, &mut self.tunnels.later_fragments);
        self.send_icmp_errors(port);
        let held = self.dispatch(port, now);
        self.lanes.begin();
        self.send_fragments();
        let report = self.end.report();
        match came {
            Came::Received => &report.received[port],
            Came::FromWorker => &report.taken_over,
        }
        .add((taken - held) as u64);
        self.tally.publish(&report.verdicts[port]);
    }

    /// Drops fragments whose first one did not come.
    fn give_up_fragments(&mut self, now: Tick) {
        for _ in 0..BURST {
            let Some((arrival, frame)) = self.fragments.expired(now) else { return };
            give_up(self.end.report(), arrival, frame);
        }
    }

    /// Answers the frames that drew an ICMP error or a reset, on the port they came by, before they are freed.
    fn send_icmp_errors(&mut self, port: usize) {
        for (port, frame) in self.errors.take_ready() {
            let _ = push_by(&mut self.outgoing, &self.vlans, port, frame, Origin::IcmpError, &mut self.tally);
        }
        for Wanted { lane, cause, source } in self.errors.take() {
            let offending = self.lanes.frames[lane].data();
            let (pool, packet, our_mac) = (&self.sides[port].pool, &self.lanes.packets[lane], self.macs[port]);
            let (answer, origin) = match cause {
                Cause::Reset => (reset::write(pool, offending, packet, our_mac), Origin::Reset),
                cause => (icmp_error::write(pool, offending, packet, our_mac, cause, source), Origin::IcmpError),
            };
            if let Some(frame) = answer {
                let port = u16::try_from(port).unwrap_or(u16::MAX);
                let _ = push_by(&mut self.outgoing, &self.vlans, port, frame, origin, &mut self.tally);
            }
        }
    }

    /// Later fragments follow the first ones.
    fn send_fragments(&mut self) {
        if self.tunnels.later_fragments.is_empty() {
            return;
        }
        for (port, frame) in self.tunnels.later_fragments.drain(..) {
            let _ = push_by(&mut self.outgoing, &self.vlans, port, frame, Origin::Fragment, &mut self.tally);
        }
        for outgoing in &mut self.outgoing {
            outgoing.flush(&mut self.tally);
        }
    }

    /// Every frame goes where it was decided to go and is counted; gives how many are kept, and not yet counted.
    fn dispatch(&mut self, port: usize, now: Tick) -> usize {
        let side = &self.sides[port];
        // Nearly every burst leaves as it came: all to real servers, by one port.
        let whole = self.lanes.leaves_whole();
        let Lanes { frames, packets, fates, journeys, journeys_from, .. } = &mut *self.lanes;
        if let Some(outgoing) = whole.and_then(|port| self.outgoing.get_mut(usize::from(port))) {
            outgoing.flush(&mut self.tally);
            outgoing.send(frames, Verdict::Forwarded, &mut self.tally);
            return 0;
        }
        let mut dropped = Burst::new();
        let mut held = 0;
        for (i, frame) in frames.drain(..).enumerate() {
            let refused = match fates[i] {
                Fate::Send(out, verdict) => {
                    match push_by(&mut self.outgoing, &self.vlans, out, frame, Origin::Received(verdict), &mut self.tally) {
                        Ok(()) => continue,
                        Err(frame) => (Verdict::NoNextHop, frame),
                    }
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
                        match side.to_kernel.enqueue(frame) {
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
                Fate::HandOver(to) => {
                    *journeys_from = None;
                    let handed = match &mut self.handover {
                        Some(handover) => handover.send(to, frame, journeys[i]),
                        None => Err(frame),
                    };
                    match handed {
                        Ok(()) => {
                            self.end.report().handed_over.add(1);
                            continue;
                        }
                        Err(frame) => (Verdict::HandOverFull, frame),
                    }
                }
                Fate::Drop(verdict) => (verdict, frame),
                Fate::Hold => {
                    held += 1;
                    if let Some((arrival, frame)) = self.fragments.hold(i, frame, port, journeys[i].came(), now) {
                        give_up(self.end.report(), arrival, frame);
                    }
                    continue;
                }
                // Every stage before has decided: a frame without a fate has no real server to go to.
                Fate::Undecided | Fate::Server(..) => (Verdict::NoNextHop, frame),
            };
            self.tally.count(refused.0);
            let _ = dropped.push(refused.1);
        }
        drop(dropped);
        for outgoing in &mut self.outgoing {
            outgoing.flush(&mut self.tally);
        }
        held
    }

    /// Sends what the kernel has for this port.
    fn inject(&mut self, port: usize) -> bool {
        let Some(ring) = &self.sides[port].from_kernel else { return false };
        let sent = match self.outgoing.get_mut(port) {
            Some(outgoing) => outgoing.send_from(ring),
            None => send_tagged_from(&mut self.outgoing, &self.vlans, u16::try_from(port).unwrap_or(u16::MAX), ring),
        };
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
        self.tracker.report(report);
        for (port, outgoing) in self.outgoing.iter_mut().enumerate() {
            let sent = if outgoing.is_relay() { &report.sent_by_others } else { &report.sent[port] };
            sent.add(std::mem::take(&mut outgoing.sent));
            report.icmp_errors.add(std::mem::take(&mut outgoing.sent_errors));
            report.resets.add(std::mem::take(&mut outgoing.sent_resets));
            report.fragments.add(std::mem::take(&mut outgoing.sent_fragments));
        }
    }
}

/// Drops a fragment that was kept: it counts as received or taken over only now that it is decided about.
fn give_up(report: &WorkerReport, Arrival { port, came }: Arrival, fragment: Mbuf) {
    if let (Some(received), Some(verdicts)) = (report.received.get(usize::from(port)), report.verdicts.get(usize::from(port))) {
        match came {
            Came::Received => received,
            Came::FromWorker => &report.taken_over,
        }
        .add(1);
        verdicts.add(Verdict::FragmentLost, 1);
    }
    drop(fragment);
}
