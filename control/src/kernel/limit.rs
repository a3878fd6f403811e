//! A bound on log lines that others can cause by sending frames.

use std::time::{Duration, Instant};

/// Lines a second of one kind.
const LINES: u32 = 10;

/// Lets ten lines a second through and counts the rest.
#[derive(Debug)]
pub(super) struct LogLimit {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    pub(super) const fn new() -> Self {
        Self { since: None, lines: 0, suppressed: 0 }
    }

    /// Whether a line may be written now: `Some` with how many were not written since the last one that was.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_pass_and_the_rest_are_counted() {
        let mut limit = LogLimit::new();
        let start = Instant::now();
        let passed = (0..25).filter(|_| limit.pass(start).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(15));
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(0));
    }
}
