//! `sed` and `nq`: the shortest expected delay, counting the connection that is to come; active connections alone count.

use crate::schedule::takes_new;
use crate::service::Member;

/// `sed`: the least (active connections + 1) for the weight, compared by multiplying across; the first of equals.
#[inline]
pub(super) fn pick(members: &[Member]) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (place, member) in members.iter().enumerate().filter(|(_, m)| takes_new(m)) {
        let (delay, weight) = (u64::from(member.stats.active()) + 1, u64::from(member.weight));
        if best.is_none_or(|(_, d, w)| d * weight > delay * w) {
            best = Some((place, delay, weight));
        }
    }
    best.map(|(place, ..)| place)
}

/// `nq`: the first without active connections, otherwise as [`pick`]. No one queues while another is idle.
#[inline]
pub(super) fn pick_idle(members: &[Member]) -> Option<usize> {
    members.iter().position(|m| takes_new(m) && m.stats.active() == 0).or_else(|| pick(members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::test_members::{busy, member, overloaded, unreachable};
    use proptest::prelude::*;

    #[test]
    fn the_connection_to_come_is_counted() {
        // (0 + 1) / 1 against (1 + 1) / 3.
        let list = [busy(0, 1, 0, 0), busy(1, 3, 1, 0)];
        assert_eq!((pick(&list), pick_idle(&list)), (Some(1), Some(0)));
    }

    #[test]
    fn inactive_connections_do_not_count() {
        let list = [busy(0, 1, 1, 0), busy(1, 1, 0, 1000)];
        assert_eq!((pick(&list), pick_idle(&list)), (Some(1), Some(1)));
    }

    #[test]
    fn first_of_equals_is_picked() {
        let list = [busy(0, 1, 1, 0), busy(1, 2, 3, 0), busy(2, 1, 1, 0)];
        assert_eq!((pick(&list), pick_idle(&list)), (Some(0), Some(0)));
    }

    #[test]
    fn who_takes_no_connections_is_passed_over_even_when_idle() {
        let list = [member(0, 0), unreachable(1, 9), overloaded(2, 9), busy(3, 1, 50, 0)];
        assert_eq!((pick(&list), pick_idle(&list)), (Some(3), Some(3)));
        assert_eq!((pick(&list[..3]), pick_idle(&list[..3])), (None, None));
        assert_eq!((pick(&[]), pick_idle(&[])), (None, None));
    }

    #[test]
    fn greatest_weights_do_not_overflow() {
        let list = [busy(0, u32::MAX >> 1, 3, 0), busy(1, u32::MAX >> 1, 2, 0)];
        assert_eq!(pick(&list), Some(1));
    }

    proptest! {
        #[test]
        fn nobody_makes_wait_less_than_the_picked(list in prop::collection::vec((0u32..6, 0u32..9), 1..12)) {
            let members: Vec<_> = (0u32..).zip(&list).map(|(id, (w, a))| busy(id, *w, *a, 1)).collect();
            let taking = || (0..list.len()).filter(|p| list[*p].0 > 0);
            let shortest = taking().min_by(|a, b| {
                let delay = |p: usize| f64::from(list[p].1 + 1) / f64::from(list[p].0);
                delay(*a).total_cmp(&delay(*b))
            });
            prop_assert_eq!(pick(&members), shortest);
            let idle = taking().find(|p| list[*p].1 == 0);
            prop_assert_eq!(pick_idle(&members), idle.or(shortest));
        }
    }
}
