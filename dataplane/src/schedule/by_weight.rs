//! `fo` and `ovf`: the heaviest real server gets everything, for `ovf` until it has more active connections than its weight.

use crate::schedule::takes_new;
use crate::service::Member;

/// `fo`: the greatest weight; the first of equals.
#[inline]
pub(super) fn pick(members: &[Member]) -> Option<usize> {
    heaviest(members, |_| true)
}

/// `ovf`: the greatest weight among those with no more active connections than their weight says; the first of equals.
///
/// UDP entries are never active, so that for a UDP service it is the same as `fo` (ipvsadm(8)).
#[inline]
pub(super) fn pick_with_room(members: &[Member]) -> Option<usize> {
    heaviest(members, |member| member.stats.active() <= member.weight)
}

#[inline]
fn heaviest(members: &[Member], fits: impl Fn(&Member) -> bool) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for (place, member) in members.iter().enumerate() {
        if best.is_none_or(|(_, weight)| member.weight > weight) && takes_new(member) && fits(member) {
            best = Some((place, member.weight));
        }
    }
    best.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::test_members::{busy, member, members, overloaded, unreachable};
    use proptest::prelude::*;

    #[test]
    fn heaviest_gets_everything_and_the_first_of_equals_is_it() {
        assert_eq!(pick(&members(&[1, 5, 5, 3])), Some(1));
        assert_eq!(pick(&[busy(0, 5, 900, 900), member(1, 4)]), Some(0));
    }

    #[test]
    fn next_heaviest_stands_in_for_one_that_takes_no_connections() {
        let list = [member(0, 1), unreachable(1, 9), overloaded(2, 8), member(3, 2), member(4, 0)];
        assert_eq!((pick(&list), pick_with_room(&list)), (Some(3), Some(3)));
        assert_eq!((pick(&list[4..]), pick_with_room(&list[4..]), pick(&[])), (None, None, None));
    }

    #[test]
    fn ovf_goes_on_when_active_connections_exceed_the_weight() {
        assert_eq!(pick_with_room(&[busy(0, 2, 0, 0), busy(1, 5, 5, 99)]), Some(1), "5 of 5 is not more");
        assert_eq!(pick_with_room(&[busy(0, 2, 0, 0), busy(1, 5, 6, 0)]), Some(0));
        assert_eq!(pick_with_room(&[busy(0, 2, 3, 0), busy(1, 5, 6, 0)]), None, "all are full");
    }

    proptest! {
        #[test]
        fn picks_are_those_of_a_stable_sort_by_weight(list in prop::collection::vec((0u32..5, 0u32..8), 0..10)) {
            let members: Vec<_> = (0u32..).zip(&list).map(|(id, (w, a))| busy(id, *w, *a, 0)).collect();
            let mut order: Vec<usize> = (0..list.len()).filter(|p| list[*p].0 > 0).collect();
            order.sort_by_key(|p| std::cmp::Reverse(list[*p].0));
            prop_assert_eq!(pick(&members), order.first().copied());
            prop_assert_eq!(pick_with_room(&members), order.into_iter().find(|p| list[*p].1 <= list[*p].0));
        }
    }
}
