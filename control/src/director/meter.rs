//! Zeroing and rates: what listings make of counters that only grow.

use dataplane::stats::TrafficSum;

use crate::model::{Rates, Stats};

/// Seconds between two calls of [`Meter::estimate`].
pub(super) const ESTIMATE_EVERY: u64 = 2;

/// A counter's history: what it was when it was zeroed, and its smoothed rates.
///
/// The estimator is IPVS's: every 2 seconds `average += (rate - average) / 4`, in fixed point, connections and packets in
/// 1/1024, bytes in 1/32, rounded when read.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    baseline: TrafficSum,
    last: TrafficSum,
    connections: Average<10>,
    in_packets: Average<10>,
    out_packets: Average<10>,
    in_bytes: Average<5>,
    out_bytes: Average<5>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Average<const FRACTION: u32>(i64);

impl<const FRACTION: u32> Average<FRACTION> {
    /// `delta` is what was counted in the last 2 seconds: shifting by one less than the fraction halves it.
    fn update(&mut self, delta: u64) {
        let rate = i64::try_from(delta).unwrap_or(i64::MAX >> FRACTION).min(i64::MAX >> FRACTION) << (FRACTION - 1);
        self.0 += (rate - self.0) >> 2;
    }

    fn read(self) -> u64 {
        u64::try_from((self.0 + (1 << (FRACTION - 1)) - 1) >> FRACTION).unwrap_or_default()
    }
}

impl Meter {
    /// Takes the present value as zero and forgets the rates (`ipvsadm -Z`); the workers' counters go on.
    pub(super) fn zero(&mut self, now: TrafficSum) {
        *self = Self { baseline: now, last: now, ..Self::default() };
    }

    /// One step of the estimator.
    pub(super) fn estimate(&mut self, now: TrafficSum) {
        self.connections.update(now.connections.wrapping_sub(self.last.connections));
        self.in_packets.update(now.in_packets.wrapping_sub(self.last.in_packets));
        self.out_packets.update(now.out_packets.wrapping_sub(self.last.out_packets));
        self.in_bytes.update(now.in_bytes.wrapping_sub(self.last.in_bytes));
        self.out_bytes.update(now.out_bytes.wrapping_sub(self.last.out_bytes));
        self.last = now;
    }

    /// What was counted since the last zeroing.
    pub(super) fn stats(&self, now: TrafficSum) -> Stats {
        Stats {
            connections: now.connections.wrapping_sub(self.baseline.connections),
            in_packets: now.in_packets.wrapping_sub(self.baseline.in_packets),
            out_packets: now.out_packets.wrapping_sub(self.baseline.out_packets),
            in_bytes: now.in_bytes.wrapping_sub(self.baseline.in_bytes),
            out_bytes: now.out_bytes.wrapping_sub(self.baseline.out_bytes),
        }
    }

    pub(super) fn rates(&self) -> Rates {
        Rates {
            connections: self.connections.read(),
            in_packets: self.in_packets.read(),
            out_packets: self.out_packets.read(),
            in_bytes: self.in_bytes.read(),
            out_bytes: self.out_bytes.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(connections: u64, in_bytes: u64) -> TrafficSum {
        TrafficSum { connections, in_bytes, ..TrafficSum::default() }
    }

    #[test]
    fn a_steady_flow_is_reached_by_quarters() {
        let mut meter = Meter::default();
        meter.estimate(sum(200, 2_000));
        assert_eq!((meter.rates().connections, meter.rates().in_bytes), (25, 250));
        meter.estimate(sum(400, 4_000));
        assert_eq!(meter.rates().connections, 44, "25 + (100 - 25) / 4 = 43.75");
        for step in 3..60 {
            meter.estimate(sum(200 * step, 2_000 * step));
        }
        assert_eq!((meter.rates().connections, meter.rates().in_bytes), (100, 1_000));
    }

    #[test]
    fn a_flow_that_stops_fades_to_nothing() {
        let mut meter = Meter::default();
        meter.estimate(sum(1_000, 0));
        for _ in 0..60 {
            meter.estimate(sum(1_000, 0));
        }
        assert_eq!(meter.rates(), Rates::default());
    }

    #[test]
    fn zeroing_hides_what_was_counted_and_keeps_what_comes() {
        let mut meter = Meter::default();
        meter.estimate(sum(10, 0));
        meter.zero(sum(12, 700));
        assert_eq!((meter.stats(sum(12, 700)), meter.rates()), (Stats::default(), Rates::default()));
        assert_eq!(meter.stats(sum(15, 800)), Stats { connections: 3, in_bytes: 100, ..Stats::default() });
    }
}
