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
    ///
    /// IPVS does so at each change; when several come in one step, servers added in that step do not count.
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

    /// A linked list with a position in it, as IPVS keeps it: ids, newest first, and the id last picked.
    #[derive(Default)]
    struct LinkedList {
        list: Vec<(u32, u32)>,
        last: Option<u32>,
    }

    impl LinkedList {
        fn pick(&mut self) -> Option<u32> {
            let after =
                self.list.iter().skip_while(|(id, _)| self.last.is_some_and(|last| *id != last)).skip(usize::from(self.last.is_some()));
            let picked = after.chain(&self.list).find(|(_, weight)| *weight > 0).map(|(id, _)| *id);
            self.last = picked.or(self.last);
            picked
        }

        fn remove(&mut self, id: u32) {
            if let Some(at) = self.list.iter().position(|(i, _)| *i == id) {
                if self.last == Some(id) {
                    self.last = at.checked_sub(1).map(|before| self.list[before].0);
                }
                self.list.remove(at);
            }
        }

        fn members(&self) -> Vec<Member> {
            self.list.iter().map(|(id, weight)| member(*id, *weight)).collect()
        }
    }

    proptest! {
        /// Servers come and go between picks, one at a time.
        #[test]
        fn picks_are_those_of_a_linked_list(
            steps in prop::collection::vec((0usize..6, prop::option::of((any::<bool>(), 0u32..6, 0u32..3))), 0..60),
        ) {
            let (mut rr, mut model, mut list) = (RoundRobin::default(), LinkedList::default(), Vec::new());
            for (count, change) in steps {
                if let Some((add, id, weight)) = change {
                    if !add {
                        model.remove(id);
                    } else if model.list.iter().all(|(i, _)| *i != id) {
                        model.list.insert(0, (id, weight));
                    }
                }
                let new = model.members();
                rr.members_changed(&list, &new);
                list = new;
                for _ in 0..count {
                    let picked = rr.pick(&list).map(|place| list[place].server.0);
                    prop_assert_eq!(picked, model.pick());
                }
            }
        }

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
