//! The workers as they are: whether they turn, what they run, what they counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dataplane::command::WorkerReport;
use dataplane::stats::Counter;
use dataplane::verdict::{Verdict, VerdictCounters};

use super::Director;
use crate::model::{What, Worker};

/// A worker that has not turned for this long is taken to be stuck: it turns many times a second even without traffic.
const STUCK: Duration = Duration::from_secs(2);

/// How long a worker may be behind before the director is not ready.
const BEHIND: Duration = Duration::from_secs(1);

/// What was seen of a worker when it was last looked at.
#[derive(Debug)]
pub(super) struct Pulse {
    turns: u64,
    turned_at: Instant,
    busy_cycles: u64,
    idle_cycles: u64,
    busy: f64,
    defences: u64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { turns: 0, turned_at: Instant::now(), busy_cycles: 0, idle_cycles: 0, busy: 0.0, defences: 0 }
    }

    fn look(&mut self, report: &WorkerReport) {
        let (turns, busy, idle) = (report.turns.get(), report.busy_cycles.get(), report.idle_cycles.get());
        if turns != self.turns {
            self.turns = turns;
            self.turned_at = Instant::now();
        }
        let (busier, idler) = (busy.wrapping_sub(self.busy_cycles), idle.wrapping_sub(self.idle_cycles));
        self.busy = share(busier, idler);
        self.busy_cycles = busy;
        self.idle_cycles = idle;
    }
}

/// `part` of `part + rest`, 0 to 1; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a share to some digits")]
fn share(part: u64, rest: u64) -> f64 {
    let whole = part.saturating_add(rest);
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Director {
    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.lock().outboxes.len()
    }

    /// Every worker as it is; `cores[i]` is worker i's, and `all` includes verdicts that never happened.
    pub fn workers(&self, cores: &[u32], all: bool) -> Vec<Worker> {
        let inner = self.lock();
        let workers = (0_u32..).zip(inner.outboxes.iter().zip(&inner.pulses));
        workers
            .map(|(id, (outbox, pulse))| {
                let report = outbox.end().report();
                let mut verdicts = BTreeMap::new();
                report.verdicts.iter().for_each(|port| add_verdicts(&mut verdicts, port, all));
                Worker {
                    id,
                    core: cores.get(id as usize).copied().unwrap_or_default(),
                    version: report.version.get(),
                    connections: report.connections.get(),
                    half_open: report.half_open.get(),
                    capacity: u64::from(self.0.limits.connections),
                    received: report.received.iter().map(Counter::get).sum(),
                    sent: report.sent.iter().map(Counter::get).sum(),
                    icmp_errors: report.icmp_errors.get(),
                    resets: report.resets.get(),
                    recycled: report.recycled.get(),
                    without_entry: report.without_entry.get(),
                    dropped_entries: report.dropped_entries.get(),
                    unshared_templates: report.unshared_templates.get(),
                    defences: defences(report.defences.get()),
                    fragments: report.fragments.get(),
                    handed_over: report.handed_over.get(),
                    taken_over: report.taken_over.get(),
                    sent_by_others: report.sent_by_others.get(),
                    sent_for_others: report.sent_for_others.get(),
                    injected: report.injected.get(),
                    verdicts,
                    busy: pulse.busy,
                }
            })
            .collect()
    }

    /// Frames of one port by verdict, over all workers; only verdicts that happened.
    pub fn port_verdicts(&self, port: usize) -> BTreeMap<String, u64> {
        let mut verdicts = BTreeMap::new();
        for report in self.lock().outboxes.iter().map(|o| o.end().report()) {
            report.verdicts.get(port).into_iter().for_each(|counters| add_verdicts(&mut verdicts, counters, false));
        }
        verdicts
    }

    /// Calls `see` with each worker's number and report.
    pub fn for_each_worker(&self, mut see: impl FnMut(usize, &WorkerReport)) {
        // The ends are cheap to copy; what `see` does must not hold up the others.
        let ends: Vec<_> = self.lock().outboxes.iter().map(|o| o.end().clone()).collect();
        for (index, end) in ends.iter().enumerate() {
            see(index, end.report());
        }
    }

    /// The workers that have stopped turning, in words; empty while all live.
    pub fn stuck_workers(&self) -> Vec<String> {
        let inner = self.lock();
        let stuck = inner.pulses.iter().enumerate().filter(|(_, pulse)| pulse.turned_at.elapsed() > STUCK);
        stuck.map(|(id, pulse)| format!("worker {id} has not turned for {} s", pulse.turned_at.elapsed().as_secs())).collect()
    }

    /// The workers that do not run what they are to run, in words; empty while all do.
    pub fn late_workers(&self) -> Vec<String> {
        let inner = self.lock();
        let late = inner.outboxes.iter().enumerate().filter_map(|(id, outbox)| {
            let never = outbox.applied() == 0;
            let behind = outbox.behind_since().is_some_and(|since| since.elapsed() > BEHIND);
            (never || behind).then(|| {
                format!("worker {id} runs version {} of the configuration, not {}", outbox.end().report().version.get(), inner.revision)
            })
        });
        late.collect()
    }

    pub(super) fn look_at_workers(&self) {
        let mut inner = self.lock();
        let super::Inner { outboxes, pulses, .. } = &mut *inner;
        for (worker, (outbox, pulse)) in (0_u32..).zip(outboxes.iter().zip(pulses)) {
            let report = outbox.end().report();
            pulse.look(report);
            let (before, now) = (pulse.defences, report.defences.get());
            pulse.defences = now;
            match (before, now) {
                _ if before == now => {}
                (_, 0) => self.events().raise(What::OverloadOver { worker }, "no defence is in force any more"),
                _ => self.events().raise(What::Overload { worker }, format!("in force: {}", defences(now).join(", "))),
            }
        }
    }
}

/// The names of the defences that these bits mean.
fn defences(bits: u64) -> Vec<String> {
    let names = ["drop_entry", "drop_packet", "secure_tcp"].into_iter().enumerate();
    names.filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| name.to_owned()).collect()
}

fn add_verdicts(sums: &mut BTreeMap<String, u64>, counters: &VerdictCounters, all: bool) {
    for verdict in Verdict::ALL {
        let n = counters.get(*verdict);
        if n > 0 || all {
            *sums.entry(verdict.label().to_owned()).or_default() += n;
        }
    }
}
