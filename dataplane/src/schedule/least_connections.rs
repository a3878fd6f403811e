//! `lc` and `wlc`: the real server with the fewest connections, by itself or for its weight.

use crate::schedule::takes_new;
use crate::service::Member;

/// How busy a member is: 257 for each active connection and 1 for each inactive one, over all workers.
///
/// IPVS (Linux 6.1) adds up 256 times the active and all connections.
#[inline]
pub(super) fn load(member: &Member) -> u64 {
    let (active, inactive) = member.stats.active_and_inactive();
    u64::from(active) * 257 + u64::from(inactive)
}

/// `lc`: the least load; the first of equals.
#[inline]
pub(super) fn pick(members: &[Member]) -> Option<usize> {
    let taking = members.iter().enumerate().filter(|(_, m)| takes_new(m));
    // `min_by_key` returns the first of equals.
    taking.min_by_key(|(_, m)| load(m)).map(|(place, _)| place)
}

/// `wlc`: the least load for the weight, compared by multiplying across; the first of equals.
#[inline]
pub(super) fn pick_weighted(members: &[Member]) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (place, member) in members.iter().enumerate().filter(|(_, m)| takes_new(m)) {
        let (load, weight) = (load(member), u64::from(member.weight));
        // Loads stay below 2^41 and weights below 2^32: saturation needs more connections than memory could hold.
        if best.is_none_or(|(_, l, w)| l.saturating_mul(weight) > load.saturating_mul(w)) {
            best = Some((place, load, weight));
        }
    }
    best.map(|(place, ..)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::test_members::{busy, member, unreachable};
    use proptest::prelude::*;

    #[test]
    fn first_of_equals_is_picked() {
        let idle = [member(0, 1), member(1, 1)];
        assert_eq!(pick(&idle), Some(0));
        assert_eq!(pick_weighted(&idle), Some(0));
        let equal_for_their_weight = [busy(0, 2, 4, 0), busy(1, 1, 2, 0)];
        assert_eq!(pick_weighted(&equal_for_their_weight), Some(0));
    }

    #[test]
    fn weight_counts_for_wlc_alone() {
        let list = [busy(0, 1, 3, 0), busy(1, 4, 8, 0)];
        assert_eq!(pick(&list), Some(0));
        assert_eq!(pick_weighted(&list), Some(1));
    }

    #[test]
    fn one_active_connection_weighs_as_257_inactive_ones() {
        assert_eq!(pick(&[busy(0, 1, 1, 0), busy(1, 1, 0, 256)]), Some(1));
        assert_eq!(pick(&[busy(0, 1, 1, 0), busy(1, 1, 0, 257)]), Some(0));
        assert_eq!(pick(&[busy(0, 1, 1, 0), busy(1, 1, 0, 258)]), Some(0));
        assert_eq!(pick(&[busy(0, 1, 0, 257), busy(1, 1, 1, 0)]), Some(0));
    }

    #[test]
    fn quiescent_and_unreachable_servers_are_passed_over() {
        let list = [member(0, 0), unreachable(1, 9), busy(2, 1, 1000, 1000)];
        assert_eq!(pick(&list), Some(2));
        assert_eq!(pick_weighted(&list), Some(2));
        assert_eq!(pick(&list[..2]), None);
        assert_eq!(pick_weighted(&list[..2]), None);
        assert_eq!(pick_weighted(&[]), None);
    }

    proptest! {
        #[test]
        fn nobody_is_less_loaded_than_the_picked(list in prop::collection::vec((0u32..5, 0u32..40, 0u32..2000), 1..12)) {
            let members: Vec<_> = (0u32..).zip(&list).map(|(id, (w, a, i))| busy(id, *w, *a, *i)).collect();
            let load = |place: usize| u128::from(list[place].1) * 257 + u128::from(list[place].2);
            let weight = |place: usize| u128::from(list[place].0);
            let taking: Vec<_> = (0..list.len()).filter(|p| weight(*p) > 0).collect();
            prop_assert_eq!(pick(&members).is_some(), !taking.is_empty());
            if let (Some(plain), Some(weighted)) = (pick(&members), pick_weighted(&members)) {
                for other in taking {
                    let (l, o) = (load(plain), load(other));
                    prop_assert!(l < o || (l == o && plain <= other));
                    let (l, o) = (load(weighted) * weight(other), load(other) * weight(weighted));
                    prop_assert!(l < o || (l == o && weighted <= other));
                }
            }
        }
    }
}
