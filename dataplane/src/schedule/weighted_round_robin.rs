//! `wrr`: round after round, each for the real servers whose weight reaches a level that sinks from round to round.

use crate::schedule::takes_new;
use crate::service::Member;

/// Where the rounds stand.
///
/// The levels are `top`, `top - step`, ... down to 1: `step` is the greatest common divisor of the weights, and `top` is that much
/// less one below the greatest weight. All of them leave 1 as remainder when divided by `step`, as long as `step` is not 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WeightedRoundRobin {
    /// The member picked last; `None` before the first of the list.
    last: Option<usize>,
    /// The weight that a member must have to be picked in this round; 0 only if all weights are 0.
    level: u32,
    /// The first round's level.
    top: u32,
    /// How far the level sinks from round to round.
    step: u32,
}

pub(super) const fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Step and top for these members, whether or not they can be reached.
fn levels(members: &[Member]) -> (u32, u32) {
    let step = members.iter().fold(0, |gcd, m| greatest_common_divisor(gcd, m.weight)).max(1);
    let greatest = members.iter().map(|m| m.weight).max().unwrap_or(0);
    (step, greatest.saturating_sub(step - 1))
}

impl WeightedRoundRobin {
    pub(super) fn new(members: &[Member]) -> Self {
        let (step, top) = levels(members);
        Self { last: None, level: top, top, step }
    }

    /// Begins a round at the present level, or at the nearest one that the new weights have.
    pub(super) fn members_changed(&mut self, members: &[Member]) {
        (self.step, self.top) = levels(members);
        self.last = None;
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    /// The next member in list order whose weight reaches the level; at the list's end the level sinks and the next round begins.
    ///
    /// Levels that no member reaches are skipped in one step, so a pick takes three passes over the members at most, whatever
    /// the weights.
    #[inline]
    pub(super) fn pick(&mut self, members: &[Member]) -> Option<usize> {
        let reaches = |level| move |m: &Member| takes_new(m) && m.weight >= level;
        if self.top == 0 {
            return None;
        }
        let start = self.last.map_or(0, |last| last + 1);
        let rest = members.get(start..).unwrap_or_default();
        if let Some(ahead) = rest.iter().position(reaches(self.level)) {
            self.last = Some(start + ahead);
            return self.last;
        }
        let mut level = if self.level > self.step { self.level - self.step } else { self.top };
        let picked = members.iter().position(reaches(level)).or_else(|| {
            let greatest = members.iter().filter(|m| takes_new(m)).map(|m| m.weight).max()?;
            level = greatest.saturating_sub(self.step - 1);
            members.iter().position(reaches(level))
        });
        if picked.is_some() {
            (self.last, self.level) = (picked, level);
        } else if self.last.is_none() || self.level > self.step {
            // Every level was tried in vain and the next pick begins at the top; from within the last round it would stay there.
            (self.last, self.level) = (None, self.top);
        }
        picked
    }
}

#[cfg(test)]
mod tests;
