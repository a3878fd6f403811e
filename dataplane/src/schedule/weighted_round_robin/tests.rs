use super::*;
use crate::schedule::test_members::{member, members, unreachable};
use proptest::prelude::*;

fn picks(wrr: &mut WeightedRoundRobin, members: &[Member], n: usize) -> Vec<usize> {
    (0..n).filter_map(|_| wrr.pick(members)).collect()
}

/// The same rules, one level at a time, as IPVS walks them.
#[derive(Clone)]
struct StepByStep {
    last: Option<usize>,
    level: i64,
}

impl StepByStep {
    fn pick(&mut self, members: &[Member]) -> Option<usize> {
        let (step, top) = levels(members);
        let (step, top) = (i64::from(step), i64::from(top));
        let mut from = self.last.map_or(0, |last| last + 1);
        for _ in 0..=2 * top / step + 2 {
            let picked = (from..members.len()).find(|p| takes_new(&members[*p]) && i64::from(members[*p].weight) >= self.level);
            if picked.is_some() {
                self.last = picked;
                return picked;
            }
            from = 0;
            self.level -= step;
            if self.level <= 0 {
                self.level = top;
            }
        }
        None
    }
}

#[test]
fn heavier_servers_come_first_and_more_often() {
    let list = members(&[4, 3, 2]);
    let got = picks(&mut WeightedRoundRobin::new(&list), &list, 18);
    assert_eq!(got, [0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 0, 1, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn weights_count_by_their_ratio() {
    let (small, large) = (members(&[1, 2]), members(&[1_000_000_000, 2_000_000_000]));
    let expected = picks(&mut WeightedRoundRobin::new(&small), &small, 12);
    assert_eq!(picks(&mut WeightedRoundRobin::new(&large), &large, 12), expected);
}

#[test]
fn quiescent_and_unreachable_servers_are_passed_over() {
    let list = [member(0, 0), unreachable(1, 9), member(2, 1)];
    let mut wrr = WeightedRoundRobin::new(&list);
    assert_eq!(picks(&mut wrr, &list, 3), [2, 2, 2]);
    assert_eq!(WeightedRoundRobin::new(&[]).pick(&[]), None);
    let list = members(&[0, 0]);
    assert_eq!(WeightedRoundRobin::new(&list).pick(&list), None);
    let list = [unreachable(0, 3)];
    let mut wrr = WeightedRoundRobin::new(&list);
    assert_eq!(wrr.pick(&list), None);
    assert_eq!(wrr.pick(&[member(0, 3)]), Some(0), "reachable again");
}

#[test]
fn two_thousand_million_levels_that_nobody_reaches_cost_one_step() {
    let list = [unreachable(0, (1 << 31) - 1), member(1, 1), member(2, 2)];
    let mut wrr = WeightedRoundRobin::new(&list);
    assert_eq!(picks(&mut wrr, &list, 4), [2, 1, 2, 2]);
}

#[test]
fn change_begins_a_round_at_the_nearest_level_that_is_left() {
    let at = |level, weights: &[u32]| {
        let mut wrr = WeightedRoundRobin { last: Some(1), level, top: 100, step: 1 };
        wrr.members_changed(&members(weights));
        assert_eq!(wrr.last, None);
        wrr.level
    };
    assert_eq!(at(50, &[3, 6]), 4, "above the new top");
    assert_eq!(at(3, &[3, 6]), 4, "between two levels");
    assert_eq!(at(2, &[5, 7]), 2, "every level is there");
    assert_eq!(at(0, &[5, 7]), 7, "there was none");
    assert_eq!(at(5, &[0, 0]), 0, "there is none");
}

proptest! {
    #[test]
    fn picks_are_those_of_the_walk_level_by_level(
        lists in prop::collection::vec(prop::collection::vec((0u32..12, 1u32..4, any::<bool>()), 0..7), 1..4),
        count in 1usize..40,
    ) {
        let mut wrr = WeightedRoundRobin::new(&[]);
        let mut model = StepByStep { last: None, level: 0 };
        for list in lists {
            let list: Vec<_> = (0u32..)
                .zip(list)
                .map(|(id, (weight, times, up))| Member { reachable: up || id == 0, ..member(id, weight * times) })
                .collect();
            wrr.members_changed(&list);
            (model.last, model.level) = (wrr.last, i64::from(wrr.level));
            for _ in 0..count {
                let expected = model.pick(&list);
                prop_assert_eq!(wrr.pick(&list), expected);
                if expected.is_none() {
                    (model.last, model.level) = (wrr.last, i64::from(wrr.level));
                } else {
                    prop_assert_eq!(i64::from(wrr.level), model.level);
                }
            }
        }
    }

    #[test]
    fn each_cycle_gives_every_server_its_weight(weights in prop::collection::vec(0u32..20, 1..8)) {
        let list = members(&weights);
        let (step, _) = levels(&list);
        let cycle: u32 = weights.iter().map(|w| w / step).sum();
        let got = picks(&mut WeightedRoundRobin::new(&list), &list, 3 * cycle as usize);
        for (place, weight) in weights.iter().enumerate() {
            prop_assert_eq!(got.iter().filter(|p| **p == place).count(), 3 * (weight / step) as usize);
        }
    }
}
