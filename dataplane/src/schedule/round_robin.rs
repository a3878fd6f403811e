//! `rr`: one after the other; the weight only says whether a real server takes part.

use crate::schedule::takes_new;
use crate::service::Member;

/// Where the round stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RoundRobin {
    /// The member picked last; `None` before the first of the list.
    last: Option<usize>,
}

impl RoundRobin {
    /// The next member in list order after the last one picked, coming back to that one itself at the end.
    #[inline]
    pub(super) fn pick(&mut self, members: &[Member]) -> Option<usize> {
        let start = self.last.map_or(0, |last| last + 1).min(members.len());
        let (before, after) = members.split_at(start);
        let picked = match after.iter().position(takes_new) {
            Some(ahead) => start + ahead,
            None => before.iter().position(takes_new)?,
        };
        self.last = Some(picked);
        Some(picked)
    }

    /// Stays at the member picked last or, if that was removed, at the nearest one before it that is left.
    pub(super) fn members_changed(&mut self, old: &[Member], new: &[Member]) {
        let Some(last) = self.last else { return };
        let upto = old.get(..=last).unwrap_or(old);
        self.last = upto.iter().rev().find_map(|was| new.iter().position(|is| is.server == was.server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::test_members::{member, members, unreachable};
    use proptest::prelude::*;

    fn picks(rr: &mut RoundRobin, members: &[Member], n: usize) -> Vec<Option<usize>> {
        (0..n).map(|_| rr.pick(members)).collect()
    }

    #[test]
    fn begins_with_the_first_and_goes_round() {
        let list = members(&[1, 1, 1]);
        assert_eq!(picks(&mut RoundRobin::default(), &list, 4), [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn quiescent_and_unreachable_servers_are_passed_over() {
        let list = [member(0, 0), member(1, 5), unreachable(2, 5), member(3, 1)];
        assert_eq!(picks(&mut RoundRobin::default(), &list, 3), [Some(1), Some(3), Some(1)]);
        assert_eq!(RoundRobin::default().pick(&members(&[0, 0])), None);
        assert_eq!(RoundRobin::default().pick(&[]), None);
    }

    #[test]
    fn only_server_is_picked_every_time() {
        assert_eq!(picks(&mut RoundRobin::default(), &members(&[0, 1]), 2), [Some(1), Some(1)]);
    }

    #[test]
    fn server_added_in_front_waits_for_the_next_round() {
        let mut rr = RoundRobin::default();
        let old = [member(2, 1), member(1, 1)];
        assert_eq!(rr.pick(&old), Some(0));
        let new = [member(3, 1), member(2, 1), member(1, 1)];
        rr.members_changed(&old, &new);
        assert_eq!(picks(&mut rr, &new, 2), [Some(2), Some(0)]);
    }

    #[test]
    fn removing_the_last_picked_goes_on_with_the_one_after_it() {
        let old = [member(3, 1), member(2, 1), member(1, 1)];
        let mut rr = RoundRobin::default();
        picks(&mut rr, &old, 2);
        let new = [member(3, 1), member(1, 1)];
        rr.members_changed(&old, &new);
        assert_eq!(rr.pick(&new), Some(1));

        let mut rr = RoundRobin::default();
        picks(&mut rr, &old, 2);
        let new = [member(1, 1)];
        rr.members_changed(&old, &new);
        assert_eq!(rr, RoundRobin::default());
    }

    proptest! {
        /// Seen from any moment, each member that takes new connections gets one of the next that many.
        #[test]
        fn every_server_gets_its_turn(weights in prop::collection::vec(0u32..3, 0..20), warm_up in 0usize..50) {
            let list = members(&weights);
            let mut rr = RoundRobin::default();
            picks(&mut rr, &list, warm_up);
            let taking: Vec<_> = (0..weights.len()).filter(|i| weights[*i] > 0).collect();
            let mut got: Vec<_> = picks(&mut rr, &list, taking.len()).into_iter().flatten().collect();
            got.sort_unstable();
            prop_assert_eq!(got, taking);
        }
    }
}
