//! Cases: a worker and the reference director live through the same frames, commands and hours, and must agree on all of it.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, clippy::too_many_lines, missing_docs)]

pub mod choices;
pub mod frames;
pub mod pieces;
pub mod rig;
pub mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dataplane::command::ConnectionFilter;
use dataplane::service::Protocol;
use dataplane::tick::Tick;
use dataplane::verdict::Verdict;

use crate::reference::connections::Row;
use crate::reference::{Counts, Director, Outcome, Traffic};
use choices::Choices;
use frames::Places;
use rig::{Bench, MACS, Rig};
use world::World;

/// What became of frames: how many got each verdict, and how many of our own were sent.
pub type Tally = BTreeMap<&'static str, u64>;

/// One case of about `length` frames from beginning to end; gives how many there were. Panics where the two differ.
pub fn case(rig: &mut Rig, mut choices: Choices<'_>, length: usize, tally: &mut Tally) -> usize {
    let c = &mut choices;
    let start = c.pick(&[1000, u32::MAX - 3_000, u32::MAX - 200_000, 0x7fff_ff00]);
    // Of every fourth case only what holds for whatever happens is asked: no reference says how a flood is to end.
    let exact = !c.one_in(4);
    let capacity = if exact { 4000 } else { c.pick(&[1000, 300, 40, 8, 1]) };
    let half_open = if exact { capacity } else { capacity / c.pick(&[4, 1, 2, 10]) };
    // A case is of single frames, of whole bursts, or of both.
    let most = c.pick(&[1, 1, 8, 64]);
    let mut case = Case {
        exact,
        capacity,
        bench: rig.bench(capacity, half_open, Tick(start)),
        director: Director::new(&MACS),
        world: World::new(most == 1, exact),
        places: Places { ours: world::our_addresses(), services: Vec::new(), recent: Vec::new(), last: None },
        tally,
        frames: 0,
        steps: 0,
        last_sent: Vec::new(),
    };
    case.director.pass(start);
    let first = case.world.begin(c);
    case.apply(first);
    while case.frames < length && !c.is_over() {
        case.steps += 1;
        match c.below(64) {
            0..52 => case.frames_come(c, most),
            52..56 => case.time_passes(c),
            56..62 => {
                let change = case.world.change(c);
                case.apply(change);
            }
            62 => case.listed(),
            _ => case.flushed(c),
        }
    }
    case.finish()
}

struct Case<'a> {
    /// Whether the reference director is asked.
    exact: bool,
    capacity: u32,
    bench: Bench<'a>,
    director: Director,
    world: World,
    places: Places,
    tally: &'a mut Tally,
    frames: usize,
    steps: usize,
    /// A frame that was sent of late.
    last_sent: Vec<u8>,
}

impl Case<'_> {
    fn apply(&mut self, batch: dataplane::command::Batch) {
        for server in self.world.relieved.drain(..) {
            self.director.relieve(server);
        }
        self.director.marks.clone_from(&self.world.marks);
        self.director.apply(&batch);
        self.bench.apply(batch);
        self.bench.settle();
        self.counts_agree();
    }

    fn frames_come(&mut self, c: &mut Choices<'_>, most: usize) {
        let port = c.below(2);
        self.places.services = self.world.services();
        let mut frames = Vec::new();
        let count = 1 + c.below(most);
        while frames.len() < count {
            let frame = frames::frame(c, port, &mut self.places, &self.director);
            if !self.exact && c.one_in(6) {
                frames.extend(pieces::cut(c, &frame));
                continue;
            }
            if !self.exact && c.one_in(12) {
                frames.extend(pieces::too_big(c, &self.last_sent, MACS[port]));
            }
            if !self.exact && c.one_in(6) {
                frames.extend(pieces::answer(c, &self.last_sent, MACS[port]));
            }
            // The same again, as clients do that wait for an answer.
            let copies = if most > 1 && c.one_in(16) { 1 + c.below(3) } else { 1 };
            frames.extend(std::iter::repeat_n(frame, copies));
        }
        frames.truncate(64);
        // The reference director knows nothing of fragments for VIPs.
        frames.retain(|frame| !self.exact || !self.director.is_placed(frame, port));
        let injected: Vec<Vec<u8>> = if c.one_in(20) {
            let waiting = 1 + c.below(if most > 8 { 64 } else { 3 });
            (0..waiting).map(|n| vec![n as u8; 60]).collect()
        } else {
            Vec::new()
        };
        let starve = c.one_in(25).then(|| c.below(3));
        // Now and then time has gone on since the last turn.
        let passed = if c.one_in(8) { c.pick(&[1, 3, 50]) } else { 0 };
        self.clock(passed);
        let before = self.bench.counters();
        let room = self.bench.feed(port, &injected, &frames, starve);
        let scheduled = self.world.scheduled();
        self.bench.turn();
        self.director.seen = self.world.scheduled().into_iter().filter(|now| !scheduled.contains(now)).map(|(server, _)| server).collect();
        let expected = self.exact.then(|| self.director.burst(port, injected, frames.clone(), &room));
        self.bench.hold_all_but(None);
        let (sent, kernel) = self.bench.collect();
        let after = self.bench.counters();

        let moved = |of: fn(&rig::Counters) -> u64| of(&after) - of(&before);
        let mut verdicts = BTreeMap::new();
        for (at, verdict) in Verdict::ALL.iter().enumerate() {
            // A fragment that waited is counted where it came by, which may be the other port.
            let new = (0..2).map(|port| after.verdicts[port][at] - before.verdicts[port][at]).sum();
            if new != 0 {
                verdicts.insert(verdict.label(), new);
            }
        }
        let seen = Outcome {
            verdicts,
            sent,
            kernel,
            icmp_errors: moved(|c| c.icmp_errors),
            resets: moved(|c| c.resets),
            fragments: moved(|c| c.fragments),
            injected: moved(|c| c.injected),
        };
        if let Some(expected) = expected.filter(|expected| *expected != seen) {
            self.differ(port, &frames, &seen, &expected);
        }
        // Conservation: every frame received has one verdict, every frame sent one reason.
        self.frames += frames.len();
        self.all_counted();
        if let Some(frame) =
            seen.sent.iter().flatten().find(|frame| frame.len() > 60 && [[8, 0], [0x86, 0xdd]].contains(&[frame[12], frame[13]]))
        {
            self.last_sent.clone_from(frame);
        }
        for (n, sent) in seen.sent.iter().enumerate() {
            assert_eq!(after.sent[n] - before.sent[n], sent.len() as u64, "sent by port {n}");
        }
        let left: u64 = seen.sent.iter().map(|sent| sent.len() as u64).sum();
        let of = |name| seen.verdicts.get(name).copied().unwrap_or(0);
        assert_eq!(
            left,
            of("forwarded") + of("answered") + seen.icmp_errors + seen.resets + seen.fragments + seen.injected,
            "sent, by reason"
        );
        let own = [
            ("(icmp errors)", seen.icmp_errors),
            ("(resets)", seen.resets),
            ("(fragments)", seen.fragments),
            ("(injected)", seen.injected),
        ];
        for (name, count) in seen.verdicts.iter().map(|(name, count)| (*name, *count)).chain(own) {
            *self.tally.entry(name).or_default() += count;
        }
        if passed > 0 {
            self.expire(passed);
        }
        // What differs stays different: no need to look after every frame.
        if frames.len() > 1 || self.steps.is_multiple_of(8) {
            self.counts_agree();
        }
    }

    #[cold]
    fn differ(&self, port: usize, frames: &[Vec<u8>], seen: &Outcome, expected: &Outcome) -> ! {
        let mut text = format!("step {}, port {port}, {} frames:\n", self.steps, frames.len());
        for frame in frames {
            let _ = writeln!(text, "  in     {}", hex(frame));
        }
        let _ = writeln!(text, "with {}", self.world);
        let flat = |outcome: &Outcome| outcome.sent.iter().chain([&outcome.kernel]).cloned().collect::<Vec<_>>();
        let (ours, theirs) = (flat(seen), flat(expected));
        for (whose, outcome, mine, other) in [("worker", seen, &ours, &theirs), ("reference", expected, &theirs, &ours)] {
            let _ = writeln!(text, "{whose}: {outcome}");
            for (way, (mine, other)) in mine.iter().zip(other).enumerate() {
                for (at, frame) in mine.iter().enumerate().filter(|(at, frame)| other.get(*at) != Some(frame)) {
                    let way = if way == 2 { "kernel".to_owned() } else { format!("port {way}") };
                    let _ = writeln!(text, "  {way} frame {at}: {}", hex(frame));
                }
            }
        }
        panic!("{text}");
    }

    /// The clock goes on; what ends by that ends with the next turn.
    fn clock(&mut self, ticks: u32) {
        self.bench.now = Tick(self.bench.now.0.wrapping_add(ticks));
        self.director.pass(self.bench.now.0);
    }

    fn time_passes(&mut self, c: &mut Choices<'_>) {
        let seconds = |n: u32| n * Tick::PER_SECOND;
        let ticks = match c.below(16) {
            0..8 => c.below(300) as u32,
            8..12 => seconds(c.pick(&[1, 3, 10, 11, 30, 60])),
            12..15 => seconds(c.pick(&[61, 120, 121, 301, 901])),
            _ => c.pick(&[seconds(86_400), seconds(1_400), 1, 31, 32]),
        };
        self.clock(ticks);
        self.expire(ticks);
        self.counts_agree();
    }

    /// What is over ends on both sides.
    fn expire(&mut self, ticks: u32) {
        self.bench.catch_up(ticks);
        if !self.exact {
            return;
        }
        let unsure = self.director.expire();
        if !unsure.is_empty() {
            let rows = self.bench.rows();
            for key in unsure {
                self.director.settle(&key, &rows);
            }
        }
    }

    /// Every frame received has one verdict, but for fragments that wait, of which every one has its buffer.
    fn all_counted(&self) {
        let counters = self.bench.counters();
        let received: u64 = counters.received.iter().sum();
        let verdicts: u64 = counters.verdicts.iter().flatten().sum();
        assert_eq!(verdicts, received, "step {}: one verdict each", self.steps);
        let waiting = self.frames as u64 - received;
        assert!(waiting == 0 || !self.exact, "step {}: {waiting} frames without a verdict", self.steps);
        assert_eq!(u64::from(self.bench.rig.pool.in_use()), waiting, "step {}: buffers that are out", self.steps);
    }

    fn listed(&mut self) {
        let seen = self.bench.rows();
        let entries = self.bench.control.report().connections.get();
        assert_eq!(entries, seen.len() as u64, "every entry is listed");
        if !self.exact {
            return;
        }
        let expected = self.director.rows();
        if seen != expected {
            let only = |a: &[Row], b: &[Row]| {
                a.iter().filter(|row| !b.contains(row)).fold(String::new(), |mut text, row| {
                    let _ = writeln!(text, "  {row:?}");
                    text
                })
            };
            panic!(
                "step {}: the worker alone has\n{}the reference alone has\n{}",
                self.steps,
                only(&seen, &expected),
                only(&expected, &seen)
            );
        }
        let report = self.bench.control.report();
        assert_eq!(report.half_open.get(), self.director.half_open() as u64, "half-open entries");
    }

    fn flushed(&mut self, c: &mut Choices<'_>) {
        let known = !self.places.recent.is_empty();
        let key = known.then(|| self.places.connection(c, &self.director));
        let mut filter = ConnectionFilter::default();
        if let Some(key) = key {
            match c.below(7) {
                0 => filter.client = Some(key.client.ip().into()),
                1 => filter.virtual_address = Some(key.virtual_.ip().into()),
                2 => filter.virtual_port = Some(key.virtual_.port()),
                3 => filter.protocol = Some(c.pick(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Ip])),
                4 => {
                    filter.protocol = Some(Protocol::Ip);
                    filter.virtual_address = Some(dataplane::service::ServiceKey::marked(1, key.client.is_ipv4()).address);
                }
                5 => filter.server = self.bench.rows().first().map(|row| row.server.ip().into()),
                _ => {}
            }
        }
        let (seen, expected) = (self.bench.flush(filter), self.director.flush(&filter));
        assert!(!self.exact || seen == expected, "{seen} entries ended, not {expected}, by {filter:?}");
        self.listed();
        self.counts_agree();
    }

    fn counts_agree(&mut self) {
        let counted = self.world.server_stats.values().map(|stats| u64::from(stats.connections() + stats.persistent())).sum::<u64>();
        let entries = self.bench.control.report().connections.get();
        assert_eq!(counted, entries, "step {}: entries, counted by real server", self.steps);
        assert!(entries <= u64::from(self.capacity), "more entries than places");
        if !self.exact {
            return;
        }
        let mut differs = None;
        for (id, stats) in &self.world.server_stats {
            let sum = stats.sum();
            let seen = Counts {
                traffic: Traffic { connections: sum.connections, packets: sum.in_packets, bytes: sum.in_bytes },
                active: stats.active(),
                inactive: stats.inactive(),
                persistent: stats.persistent(),
                overloaded: stats.is_overloaded(),
            };
            let expected = self.director.server_counts.get(id).copied().unwrap_or_default();
            if seen != expected {
                differs = Some((*id, seen, expected));
            }
        }
        if let Some((id, seen, expected)) = differs {
            // Says which entry it is, if it is one.
            self.listed();
            panic!("step {}: real server {id} has {seen:?}, not {expected:?}", self.steps);
        }
        for (id, stats) in &self.world.service_stats {
            let sum = stats.sum();
            let traffic = Traffic { connections: sum.connections, packets: sum.in_packets, bytes: sum.in_bytes };
            assert_eq!(traffic, self.director.service_counts.get(id).copied().unwrap_or_default(), "step {}: service {id}", self.steps);
        }
    }

    /// Everything ends, and nothing is left.
    fn finish(mut self) -> usize {
        self.listed();
        let all = ConnectionFilter::default();
        let (seen, expected) = (self.bench.flush(all), self.director.flush(&all));
        assert!(!self.exact || seen == expected, "{seen} entries ended at last, not {expected}");
        self.listed();
        self.counts_agree();
        assert_eq!(self.bench.control.report().connections.get(), 0, "entries left");
        // Fragments wait for two seconds.
        self.clock(3 * Tick::PER_SECOND);
        for _ in 0..12 {
            self.bench.turn();
        }
        self.all_counted();
        assert_eq!(self.bench.rig.pool.in_use(), 0, "buffers leaked");
        self.frames
    }
}

/// The beginning of a frame, where all headers are.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(120).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
