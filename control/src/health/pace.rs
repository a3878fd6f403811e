//! Whether checks begin when they should: a control core with too much to do shows here first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Classes by powers of two of a microsecond; the last one has all that is later than 8 s.
const CLASSES: usize = 24;

/// How late checks began, in classes that double.
#[derive(Debug, Default)]
pub struct Pace {
    classes: [AtomicU64; CLASSES],
    /// Their sum, in microseconds.
    sum: AtomicU64,
}

impl Pace {
    /// Notes that a check began `late`.
    pub(super) fn note(&self, late: Duration) {
        let microseconds = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        let class = usize::try_from(u64::BITS - microseconds.leading_zeros()).unwrap_or(CLASSES).min(CLASSES - 1);
        if let Some(count) = self.classes.get(class) {
            count.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(microseconds, Relaxed);
    }

    /// The bound of each class, and the checks in it: later than the bound before, and at most so late.
    pub fn classes(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.classes.iter().enumerate().map(|(class, count)| (Duration::from_micros(1 << class), count.load(Relaxed)))
    }

    /// How many checks began.
    pub fn count(&self) -> u64 {
        self.classes.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The sum of their delays.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Relaxed))
    }

    /// By how much `percent` of them were late at most, to the next power of two.
    pub fn percentile(&self, percent: u64) -> Duration {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut passed = 0;
        let mut classes = self.classes();
        let found = classes.find(|(_, count)| {
            passed += count;
            passed >= wanted
        });
        found.map_or(Duration::ZERO, |(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_counted_by_powers_of_two() {
        let pace = Pace::default();
        for late in [0, 1, 3, 700, 9_000_000_000] {
            pace.note(Duration::from_micros(late));
        }
        assert_eq!((pace.count(), pace.sum()), (5, Duration::from_micros(9_000_000_704)));
        assert_eq!(pace.percentile(50), Duration::from_micros(4));
        assert_eq!(pace.percentile(80), Duration::from_micros(1_024));
        assert_eq!(pace.classes().last().unwrap().1, 1, "what is too late for all others");
    }
}
