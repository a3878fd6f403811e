use std::collections::HashMap;

use super::*;
use proptest::prelude::*;

/// A hash that looks random and is the same in every run.
fn scramble(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ n >> 32
}

/// What a model of the index holds: hash by id.
type Model = HashMap<u32, u64>;

fn assert_same(index: &Index, model: &Model) {
    for (id, hash) in model {
        assert_eq!(index.find(*hash, |found| found == *id), Some(*id));
    }
    let held = index.buckets.iter().flat_map(|b| b.tags).filter(|t| *t != EMPTY).count();
    assert_eq!(held, model.len());
    let passed: u64 = index.buckets.iter().map(|b| u64::from(b.passed)).sum();
    let steps: usize = model.iter().map(|(id, hash)| steps_from_home(index, *hash, *id)).sum();
    assert_eq!(passed, steps as u64, "every id is counted by the buckets that it passed, and by no other");
}

fn steps_from_home(index: &Index, hash: u64, id: u32) -> usize {
    let mut at = index.home(hash);
    let mut steps = 0;
    while !(0..SLOTS).any(|slot| index.buckets[at].ids[slot] == id && index.buckets[at].tags[slot] == tag(hash)) {
        at = index.after(at);
        steps += 1;
    }
    steps
}

#[test]
fn bucket_is_one_cache_line() {
    assert_eq!(size_of::<Bucket>(), 64);
    assert_eq!(align_of::<Bucket>(), 64);
}

#[test]
fn full_capacity_always_finds_room_and_few_ids_lie_outside_their_bucket() {
    const CAPACITY: u32 = 70_000;
    let mut index = Index::new(CAPACITY).unwrap();
    for id in 0..CAPACITY {
        index.insert(scramble(u64::from(id)), id).unwrap();
    }
    let astray = (0..CAPACITY).filter(|id| steps_from_home(&index, scramble(u64::from(*id)), *id) > 0).count();
    assert!(astray < CAPACITY as usize / 40, "{astray}");
    assert!((0..CAPACITY).all(|id| index.find(scramble(u64::from(id)), |found| found == id) == Some(id)));
    assert_eq!(index.find(scramble(u64::from(CAPACITY)), |_| false), None);
    let guessed = (0..CAPACITY).filter(|id| index.candidate(scramble(u64::from(*id))) == *id).count();
    assert!(guessed > CAPACITY as usize / 50 * 49, "{guessed}");
}

#[test]
fn long_churn_at_full_capacity_leaves_no_trace() {
    const CAPACITY: u32 = 7_000;
    let mut index = Index::new(CAPACITY).unwrap();
    let mut model: Model = (0..CAPACITY).map(|id| (id, scramble(u64::from(id)))).collect();
    for (id, hash) in &model {
        index.insert(*hash, *id).unwrap();
    }
    for round in 1..=200_000u64 {
        let id = u32::try_from(scramble(round) % u64::from(CAPACITY)).unwrap();
        let hash = scramble(round << 32);
        assert!(index.remove(model[&id], id));
        index.insert(hash, id).unwrap();
        model.insert(id, hash);
    }
    assert_same(&index, &model);
    for (id, hash) in &model {
        assert!(index.remove(*hash, *id));
    }
    assert_same(&index, &Model::new());
}

#[test]
fn equal_hashes_fill_every_slot_and_then_refuse() {
    let mut index = Index::new(16).unwrap();
    let all = 24;
    (0..all).for_each(|id| index.insert(7, id).unwrap());
    assert_eq!(index.insert(7, all), Err(IndexFull));
    assert_same(&index, &(0..all).map(|id| (id, 7)).collect());
    assert_eq!(index.find(7, |_| false), None);
}

#[test]
fn search_ends_although_every_bucket_was_passed() {
    let mut index = Index::new(10).unwrap();
    let slots = 12;
    let (first, second) = (0, u64::from(u32::MAX));
    assert_ne!(index.home(first), index.home(second));
    (0..slots + 4).for_each(|id| index.insert(first, id).unwrap());
    (0..slots).for_each(|id| assert!(index.remove(first, id)));
    (20..20 + slots).for_each(|id| index.insert(second, id).unwrap());
    assert!(index.buckets.iter().all(|b| b.passed > 0));
    assert_eq!(index.find(first, |_| false), None);
    assert!(!index.remove(second, 99));
}

#[test]
fn cleared_index_is_empty() {
    let mut index = Index::new(100).unwrap();
    (0..100).for_each(|id| index.insert(scramble(u64::from(id)), id).unwrap());
    index.clear();
    assert_same(&index, &Model::new());
}

proptest! {
    /// Any order of inserts and removes, hashes that collide often, filled to the capacity time and again.
    #[test]
    fn index_agrees_with_a_hash_map(
        capacity in 1u32..60,
        steps in prop::collection::vec((any::<bool>(), 0u32..60, 0u64..6, prop::sample::select(vec![0u64, 1, 1 << 48])), 0..400),
    ) {
        let mut index = Index::new(capacity).unwrap();
        let mut model = Model::new();
        for (put, id, home, extra) in steps {
            let hash = (home * 0x2aaa_aaaa) | extra << 8;
            if let Some(held) = model.get(&id).copied() {
                prop_assert_eq!(index.find(held, |found| found == id), Some(id));
                if !put {
                    prop_assert!(index.remove(held, id));
                    model.remove(&id);
                }
            } else if put && model.len() < capacity as usize {
                prop_assert_eq!(index.insert(hash, id), Ok(()));
                model.insert(id, hash);
            } else {
                prop_assert_eq!(index.find(hash, |found| found == id), None);
                prop_assert!(!index.remove(hash, id));
            }
        }
        assert_same(&index, &model);
    }
}
