//! What is compared: every turn's frames and verdicts, the counters, the connections.

use std::fmt::Write as _;

use dataplane::verdict::Verdict;

use super::Case;
use super::rig::Counters;
use crate::reference::connections::Row;
use crate::reference::turn::{Arrivals, Outcome, Room};
use crate::reference::{Counts, Director, Traffic, copies};

/// How many ways are tried in which a turn may have gone that no reference foretells.
const TRIES: usize = 1000;

/// The script after this one, where so many could be chosen from each time; `None` after the last.
fn next_script(mut script: Vec<usize>, asked: &[usize]) -> Option<Vec<usize>> {
    script.resize(asked.len(), 0);
    while let Some(last) = script.pop() {
        if last + 1 < asked[script.len()] {
            script.push(last + 1);
            return Some(script);
        }
    }
    None
}

impl Case<'_> {
    /// A turn of one worker, on both sides.
    pub(super) fn turn(&mut self, worker: usize, arrivals: &Arrivals, starve: Option<usize>) {
        let room = self.bench.feed(worker, arrivals, starve);
        let scheduled = self.world.scheduled();
        self.bench.turn(worker);
        self.directors[worker].seen =
            self.world.scheduled().into_iter().filter(|now| !scheduled.contains(now)).map(|(server, _)| server).collect();
        self.bench.hold_all_but(None);
        let (sent, kernel) = self.bench.collect(worker);
        let after = self.bench.counters();
        let before = std::mem::replace(&mut self.counters, after.clone());
        let moved = |of: fn(&Counters) -> u64| of(&after) - of(&before);
        let verdict = |(at, verdict): (usize, &Verdict)| (verdict.label(), after.verdicts[at] - before.verdicts[at]);
        let seen = Outcome {
            verdicts: Verdict::ALL.iter().enumerate().map(verdict).filter(|(_, new)| *new != 0).collect(),
            sent,
            kernel,
            icmp_errors: moved(|c| c.icmp_errors),
            resets: moved(|c| c.resets),
            fragments: moved(|c| c.fragments),
            injected: moved(|c| c.injected),
            handed_over: moved(|c| c.handed_over),
        };
        self.frames += arrivals.frames.len();
        if self.exact {
            self.outcome_agrees(worker, arrivals, &room, &seen);
        }
        self.adds_up(&seen, &before, &after);
        let plain = |frame: &&Vec<u8>| frame.len() > 60 && [[8, 0], [0x86, 0xdd]].contains(&[frame[12], frame[13]]);
        if let Some(frame) = seen.sent.iter().flatten().find(plain) {
            self.last_sent.clone_from(frame);
        }
        let own = [
            ("(icmp errors)", seen.icmp_errors),
            ("(resets)", seen.resets),
            ("(fragments)", seen.fragments),
            ("(injected)", seen.injected),
            ("(handed over)", seen.handed_over),
        ];
        for (name, count) in seen.verdicts.iter().map(|(name, count)| (*name, *count)).chain(own) {
            *self.tally.entry(name).or_default() += count;
        }
    }

    /// The reference director's word on a turn. Where it says that several outcomes are right, one of them must be what was seen.
    fn outcome_agrees(&mut self, worker: usize, arrivals: &Arrivals, room: &Room, seen: &Outcome) {
        let may_ask = self.directors[worker].may_choose(arrivals);
        let backup = may_ask.then(|| copies(&self.directors));
        let mut script = Vec::new();
        let mut first = None;
        let mut listed = None;
        for _ in 0..TRIES {
            let expected = self.directors[worker].turn(arrivals.clone(), room.clone());
            let asked = self.directors[worker].choose_by(Vec::new());
            if expected == *seen && (asked.is_empty() || backup.is_none() || self.chose_right(worker, &mut listed)) {
                return;
            }
            first.get_or_insert(expected);
            let Some((next, backup)) = next_script(script, &asked).zip(backup.as_ref()) else {
                self.differ(worker, arrivals, seen, &first.expect("at least one"));
            };
            self.directors = copies(backup);
            self.directors[worker].choose_by(next.clone());
            script = next;
        }
        // Too many ways to try them all: from here on only what holds whatever the way is checked.
        self.exact = false;
        *self.tally.entry("(cases not followed to their end)").or_default() += 1;
    }

    /// Whether counts and connections are as the reference has them after its choices. Of connections that are due only the worker's side has ended
    /// some, and has let templates live on. They are `listed` once, and only where the turns that this takes have nothing else to do.
    fn chose_right(&mut self, worker: usize, listed: &mut Option<Vec<Row>>) -> bool {
        let counts = self.difference().is_none();
        let director = &self.directors[worker];
        if director.frames_waiting() > 0 || director.fragments.are_due(self.bench.now.0) {
            return counts;
        }
        let (due, expected): (Vec<Row>, Vec<Row>) = director.rows().into_iter().partition(|row| row.expires_in == 0);
        let is_due = |row: &Row| row.expires_in == 0 || due.contains(&Row { expires_in: 0, ..row.clone() });
        let listed = listed.get_or_insert_with(|| self.bench.rows(worker));
        (counts || !due.is_empty()) && listed.iter().filter(|row| !is_due(row)).eq(&expected)
    }

    /// Conservation: every frame received has one verdict, every frame sent one reason.
    fn adds_up(&self, seen: &Outcome, before: &Counters, after: &Counters) {
        self.all_counted(after);
        for (port, sent) in seen.sent.iter().enumerate() {
            assert_eq!(after.sent[port] - before.sent[port], sent.len() as u64, "sent by port {port}");
        }
        let left: u64 = seen.sent.iter().map(|sent| sent.len() as u64).sum();
        let of = |name| seen.verdicts.get(name).copied().unwrap_or(0);
        let reasons = of("forwarded") + of("answered") + seen.icmp_errors + seen.resets + seen.fragments + seen.injected;
        assert_eq!(left, reasons, "sent, by reason");
    }

    #[cold]
    fn differ(&self, worker: usize, arrivals: &Arrivals, seen: &Outcome, expected: &Outcome) -> ! {
        let Arrivals { port, frames, .. } = arrivals;
        let of = self.workers();
        let mut text = format!("step {}, worker {worker} of {of}, port {port}, {} frames:\n", self.steps, frames.len());
        for frame in frames {
            let _ = writeln!(text, "  in     {}", hex(frame));
        }
        let _ = writeln!(text, "with {}", self.world);
        if let Some(difference) = self.difference() {
            let _ = writeln!(text, "{difference}");
        }
        for (whose, mine, other) in [("worker", seen, expected), ("reference", expected, seen)] {
            let _ = writeln!(text, "{whose}: {mine}");
            for (kind, mine, other) in [("port", &mine.sent, &other.sent), ("kernel", &mine.kernel, &other.kernel)] {
                for (n, (mine, other)) in mine.iter().zip(other).enumerate() {
                    for (at, frame) in mine.iter().enumerate().filter(|(at, frame)| other.get(*at) != Some(frame)) {
                        let _ = writeln!(text, "  {kind} {n} frame {at}: {}", hex(frame));
                    }
                }
            }
        }
        panic!("{text}");
    }

    /// Turns until no frame waits for a worker, and no fragment waits in vain.
    pub(super) fn quiesce(&mut self) {
        loop {
            let now = self.bench.now.0;
            let waits = |director: &Director| director.frames_waiting() > 0 || director.fragments.are_due(now);
            let Some(worker) = self.directors.iter().position(waits).filter(|_| self.exact) else { break };
            self.turn(worker, &Arrivals::default(), None);
        }
        // Where nobody foretells which frames wait: until none does.
        let mut left = if self.exact { 0 } else { 40 };
        while left > 0 {
            (0..self.workers()).for_each(|worker| self.turn(worker, &Arrivals::default(), None));
            let counters = self.bench.counters();
            left = if counters.handed_over == counters.taken_over { left.min(8) - 1 } else { left - 1 };
        }
    }

    /// Turns of one worker until no fragment waits in vain for it.
    pub(super) fn give_up_fragments(&mut self, worker: usize) {
        while self.exact && self.directors[worker].fragments.are_due(self.bench.now.0) {
            self.turn(worker, &Arrivals::default(), None);
        }
    }

    /// Every frame received has one verdict, or is on its way to another worker, or is a fragment that waits and has its buffer.
    pub(super) fn all_counted(&self, counters: &Counters) {
        let verdicts: u64 = counters.verdicts.iter().sum();
        let Counters { received, handed_over, taken_over, .. } = *counters;
        assert_eq!(verdicts + handed_over, received + taken_over, "step {}: one verdict each", self.steps);
        let waiting = self.frames as u64 + handed_over - received - taken_over;
        assert_eq!(u64::from(self.bench.rig.pool.in_use()), waiting, "step {}: buffers that are out", self.steps);
        let known = self.directors.iter().map(|director| (director.fragments.count() + director.frames_waiting()) as u64).sum::<u64>();
        assert!(!self.exact || waiting == known, "step {}: {waiting} frames wait, not {known}", self.steps);
    }

    pub(super) fn listed(&mut self) {
        self.quiesce();
        for worker in 0..self.workers() {
            let seen = self.bench.rows(worker);
            assert_eq!(self.bench.entries(worker), seen.len() as u64, "every entry is listed");
            if !self.exact {
                continue;
            }
            let expected = self.directors[worker].rows();
            if seen != expected {
                let count = |of: &[Row], row: &Row| of.iter().filter(|other| *other == row).count();
                let only = |a: &[Row], b: &[Row]| {
                    a.iter().filter(|row| count(a, row) > count(b, row)).fold(String::new(), |mut text, row| {
                        let _ = writeln!(text, "  {row:?}");
                        text
                    })
                };
                let (mine, theirs) = (only(&seen, &expected), only(&expected, &seen));
                panic!("step {}: worker {worker} alone has\n{mine}the reference alone has\n{theirs}", self.steps);
            }
            let half_open = self.bench.workers[worker].control.report().half_open.get();
            assert_eq!(half_open, self.directors[worker].half_open() as u64, "half-open entries of worker {worker}");
        }
    }

    /// What is counted otherwise than the reference has it.
    fn difference(&self) -> Option<String> {
        let common = self.directors[0].counts();
        let traffic = |sum: dataplane::stats::TrafficSum| Traffic {
            connections: sum.connections,
            packets: sum.in_packets,
            bytes: sum.in_bytes,
            out_packets: sum.out_packets,
            out_bytes: sum.out_bytes,
        };
        for (id, stats) in &self.world.server_stats {
            let seen = Counts {
                traffic: traffic(stats.sum()),
                active: stats.active(),
                inactive: stats.inactive(),
                persistent: stats.persistent(),
                overloaded: stats.is_overloaded(),
                complaints: stats.complaints(),
            };
            let expected = common.servers.get(id).copied().unwrap_or_default();
            if seen != expected {
                return Some(format!("real server {id} has {seen:?}, not {expected:?}"));
            }
        }
        for (id, stats) in &self.world.service_stats {
            let (seen, expected) = (traffic(stats.sum()), common.services.get(id).copied().unwrap_or_default());
            if seen != expected {
                return Some(format!("service {id} has {seen:?}, not {expected:?}"));
            }
        }
        None
    }

    pub(super) fn counts_agree(&mut self) {
        let counted = self.world.server_stats.values().map(|stats| u64::from(stats.connections() + stats.persistent())).sum::<u64>();
        let entries: Vec<u64> = (0..self.workers()).map(|worker| self.bench.entries(worker)).collect();
        assert_eq!(counted, entries.iter().sum::<u64>(), "step {}: entries, counted by real server", self.steps);
        assert!(entries.iter().all(|entries| *entries <= u64::from(self.capacity)), "more entries than places");
        if let Some(difference) = self.difference().filter(|_| self.exact) {
            // Says which entry it is, if it is one.
            self.listed();
            panic!("step {}: {difference}", self.steps);
        }
    }
}

/// The beginning of a frame, where all headers are.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(120).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
