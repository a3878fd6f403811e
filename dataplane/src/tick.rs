//! Time as the packet path sees it.

/// A moment, in hundredths of a second since the director started; wraps after 497 days, so only differences mean anything.
///
/// Read once a turn by whoever drives the worker and passed down: tests and replays own the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 100;

    /// The moment `seconds` later; at most 248 days, beyond which a moment would seem to be in the past.
    #[inline]
    #[must_use]
    pub const fn after_seconds(self, seconds: u32) -> Self {
        Self(self.0.wrapping_add(seconds.saturating_mul(Self::PER_SECOND)))
    }

    /// Ticks from `self` until `later`; zero when `later` has passed.
    #[inline]
    pub const fn until(self, later: Self) -> u32 {
        let ahead = later.0.wrapping_sub(self.0);
        if ahead > u32::MAX / 2 { 0 } else { ahead }
    }

    /// Whether `moment` is now or has passed.
    #[inline]
    pub const fn has_reached(self, moment: Self) -> bool {
        self.0.wrapping_sub(moment.0) <= u32::MAX / 2
    }
}
