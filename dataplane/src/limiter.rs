//! A token bucket without division or clock.

use crate::tick::Tick;

/// Lets so many frames a second pass, and a tenth of a second's worth at once.
#[derive(Debug)]
pub struct Limiter {
    per_second: u32,
    /// Hundredths of a frame.
    tokens: u64,
    last: Tick,
}

impl Limiter {
    /// A full bucket.
    pub fn new(per_second: u32, now: Tick) -> Self {
        let mut limiter = Self { per_second, tokens: 0, last: now };
        limiter.tokens = limiter.depth();
        limiter
    }

    /// A burst of a tenth of a second's worth, at least one frame unless the rate is 0.
    fn depth(&self) -> u64 {
        let tenth = u64::from(self.per_second) * u64::from(Tick::PER_SECOND) / 10;
        if self.per_second == 0 { 0 } else { tenth.max(u64::from(Tick::PER_SECOND)) }
    }

    /// Changes the rate; what has gathered stays as far as the new rate allows.
    pub fn set_rate(&mut self, per_second: u32) {
        self.per_second = per_second;
        self.tokens = self.tokens.min(self.depth());
    }

    /// Adds what time has earned; once a turn. Cost: a compare when no tick has passed.
    #[inline]
    pub fn refill(&mut self, now: Tick) {
        let elapsed = self.last.until(now);
        if elapsed != 0 {
            self.last = now;
            self.tokens = (self.tokens + u64::from(elapsed) * u64::from(self.per_second)).min(self.depth());
        }
    }

    /// Takes one frame's worth, if there is one.
    #[inline]
    pub fn take(&mut self) -> bool {
        let one = u64::from(Tick::PER_SECOND);
        let enough = self.tokens >= one;
        if enough {
            self.tokens -= one;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_ten_seconds_whatever_is_asked() {
        let mut limiter = Limiter::new(50, Tick(0));
        let mut passed = 0;
        for tick in 0..1000 {
            limiter.refill(Tick(tick));
            passed += (0..10).filter(|_| limiter.take()).count();
        }
        assert!((500..=505).contains(&passed), "{passed} of 500 and a burst of 5");
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_pass() {
        let mut limiter = Limiter::new(0, Tick(0));
        limiter.refill(Tick(1000));
        assert!(!limiter.take());
    }

    #[test]
    fn the_clock_may_wrap() {
        let mut limiter = Limiter::new(100, Tick(u32::MAX - 1));
        while limiter.take() {}
        limiter.refill(Tick(3));
        assert_eq!((0..100).filter(|_| limiter.take()).count(), 5);
    }
}
