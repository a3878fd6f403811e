//! `twos`: of two real servers drawn by lot, each by its weight, the one that is less busy for its weight (Mitzenmacher's power of
//! two choices).

use crate::schedule::least_connections::load;
use crate::schedule::takes_new;
use crate::service::Member;

/// Numbers that look random: `SplitMix64` (Steele, Lea, Flood 2014). The same seed gives the same numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One of 0 to `most`.
    fn up_to(&mut self, most: u64) -> u64 {
        // The high half of the product lies below `most + 1`.
        ((u128::from(self.next()) * (u128::from(most) + 1)) >> 64) as u64
    }
}

/// The less busy of two draws; of equals the one that was drawn first.
///
/// As in IPVS a draw goes from 0 to the sum of the weights, both included, so that the first member has a share of one more than
/// its weight.
#[inline]
pub(super) fn pick(members: &[Member], random: &mut Random) -> Option<usize> {
    let sum: u64 = members.iter().filter(|m| takes_new(m)).map(|m| u64::from(m.weight)).sum();
    if sum == 0 {
        return None;
    }
    let draws = [random.up_to(sum), random.up_to(sum)];
    let mut drawn = [None; 2];
    let mut passed = 0;
    for (place, member) in members.iter().enumerate().filter(|(_, m)| takes_new(m)) {
        passed += u64::from(member.weight);
        for (choice, draw) in drawn.iter_mut().zip(draws) {
            if choice.is_none() && draw <= passed {
                *choice = Some((place, load(member), u64::from(member.weight)));
            }
        }
        if drawn.iter().all(Option::is_some) {
            break;
        }
    }
    // A member may have become overloaded, by what other workers do, between the two passes: then a draw may have fallen on nobody.
    match drawn {
        [Some((first, load, weight)), Some((second, other_load, other_weight))] => {
            Some(if other_weight.saturating_mul(load) > weight.saturating_mul(other_load) { second } else { first })
        }
        [one, other] => one.or(other).map(|(place, ..)| place).or_else(|| members.iter().position(takes_new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::test_members::{busy, member, members, overloaded, unreachable};
    use proptest::prelude::*;

    fn counts(list: &[Member], n: usize) -> Vec<usize> {
        let mut random = Random::new(7);
        let mut counts = vec![0; list.len()];
        (0..n).filter_map(|_| pick(list, &mut random)).for_each(|place| counts[place] += 1);
        counts
    }

    #[test]
    fn idle_servers_are_drawn_by_their_weights() {
        let got = counts(&members(&[1, 2, 7]), 11_000);
        for (got, expected) in got.into_iter().zip([2000, 2000, 7000]) {
            assert!(got.abs_diff(expected) < 300, "{got} instead of {expected}");
        }
    }

    #[test]
    fn less_busy_of_the_two_is_picked() {
        // The busy one gets a connection only if both draws fall on it: 50 of 101 draws each.
        let got = counts(&[busy(0, 50, 50, 0), member(1, 50)], 10_000);
        assert!(got[0].abs_diff(2550) < 200, "{got:?}");
    }

    #[test]
    fn who_takes_no_connections_is_never_drawn() {
        let list = [member(0, 0), unreachable(1, 9), overloaded(2, 9), member(3, 1)];
        assert_eq!(counts(&list, 100), [0, 0, 0, 100]);
        assert_eq!(counts(&list[..3], 100), [0, 0, 0]);
        assert_eq!(pick(&[], &mut Random::new(1)), None);
    }

    #[test]
    fn draws_are_spread_evenly_over_their_whole_range() {
        let mut random = Random::new(1);
        let mut seen = [0; 5];
        (0..5000).for_each(|_| seen[usize::try_from(random.up_to(4)).unwrap()] += 1);
        assert!(seen.iter().all(|n| (900..1100).contains(n)), "{seen:?}");
        assert_eq!(Random::new(3).up_to(0), 0);
    }

    proptest! {
        #[test]
        fn picks_are_those_of_a_drum_of_lots(list in prop::collection::vec((0u32..6, 0u32..5), 1..8), seed in any::<u64>()) {
            let members: Vec<_> = (0u32..).zip(&list).map(|(id, (w, a))| busy(id, *w, *a, 0)).collect();
            // One lot for each unit of weight, and the first member's extra one.
            let mut drum: Vec<usize> = (0..list.len()).flat_map(|p| (0..list[p].0).map(move |_| p)).collect();
            if let Some(first) = drum.first().copied() {
                drum.insert(0, first);
            }
            let mut random = Random::new(seed);
            let mut lots = random;
            let expected = (!drum.is_empty()).then(|| {
                let [one, other] = [0; 2].map(|_| drum[usize::try_from(lots.up_to(drum.len() as u64 - 1)).unwrap()]);
                let busyness = |p: usize| f64::from(list[p].1) / f64::from(list[p].0);
                if busyness(other) < busyness(one) { other } else { one }
            });
            prop_assert_eq!(pick(&members, &mut random), expected);
        }
    }
}
