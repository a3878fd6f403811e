use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::schedule::test_members::{Hashed, members, seat};
use crate::service::{Member, SchedulerKind};

const MH: SchedulerKind = SchedulerKind::Maglev { port: false, fallback: false };

fn shares(owners: &[u32]) -> HashMap<u32, u32> {
    owners.iter().fold(HashMap::new(), |mut shares, owner| {
        *shares.entry(*owner).or_default() += 1;
        shares
    })
}

fn clients(port: bool, fallback: bool, hashed: &Hashed<'_>) -> Vec<Option<usize>> {
    (0..2000).map(|n| pick(port, fallback, &hashed.pick(Address::v4(0xc633_0000 + n), 1000))).collect()
}

#[test]
fn shares_follow_the_weights() {
    let seats = [seat(0, 1), seat(1, 2), seat(2, 5)];
    let shares = shares(&fill(false, &seats));
    for (place, weight) in [(0, 1), (1, 2), (2, 5)] {
        assert!(shares[&place].abs_diff(BUCKETS * weight / 8) <= weight, "{shares:?}");
    }
}

#[test]
fn great_weights_are_scaled_and_small_ones_keep_a_share() {
    let heavy = fill(false, &[seat(0, 1 << 26), seat(1, 1)]);
    assert_eq!(shares(&heavy)[&1], BUCKETS / 33, "32 turns against one");
    assert_eq!(fill(false, &[seat(0, 300), seat(1, 600)]), fill(false, &[seat(0, 1), seat(1, 2)]));
}

#[test]
fn without_any_weight_nobody_has_a_bucket() {
    assert!(fill(false, &[seat(0, 0), seat(1, 0)]).iter().chain(&fill(false, &[])).all(|owner| *owner == NOBODY));
    let list = members(&[0, 0]);
    assert!(clients(false, true, &Hashed::new(MH, &list)).iter().all(Option::is_none));
}

#[test]
fn of_more_servers_than_buckets_the_oldest_have_one_each() {
    let seats: Vec<Seat> = (0..BUCKETS + 7).map(|n| seat(n, 1)).collect();
    let mut owners = fill(false, &seats);
    owners.sort_unstable();
    assert!(owners.into_iter().eq(7..BUCKETS + 7));
}

#[test]
fn quiescence_moves_nobody_else() {
    let before = fill(false, &[seat(0, 1), seat(1, 2), seat(2, 1)]);
    let quiet = Seat { weight: 0, ..seat(1, 2) };
    assert_eq!(fill(false, &[seat(0, 1), quiet, seat(2, 1)]), before);
    let list = members(&[1, 2, 1]);
    let quiescent = [list[0].clone(), Member { weight: 0, ..list[1].clone() }, list[2].clone()];
    let buckets = Hashed::new(MH, &list).buckets;
    let (all, rest) = (Hashed { members: &list, buckets: buckets.clone() }, Hashed { members: &quiescent, buckets });
    let (before, strict, relaxed) = (clients(false, false, &all), clients(false, false, &rest), clients(false, true, &rest));
    for ((before, strict), relaxed) in before.into_iter().zip(strict).zip(relaxed) {
        if before == Some(1) {
            assert!(strict.is_none() && matches!(relaxed, Some(0 | 2)));
        } else {
            assert!(strict == before && relaxed == before);
        }
    }
}

#[test]
fn port_counts_only_with_mh_port() {
    let list = members(&[1, 1, 1]);
    let hashed = Hashed::new(MH, &list);
    let spread = |port| {
        let picks = (0..100).filter_map(|n| pick(port, false, &hashed.pick(Address::v4(7), n)));
        picks.collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!((spread(false), spread(true)), (1, 3));
}

#[test]
fn addresses_of_the_other_family_are_read_as_the_services() {
    let v6 = Address(0xfd00_0010_0000_0000_0000_0000_0000_0021);
    assert_eq!(word(false, v6), 0xfd00_0010);
    assert_eq!(word(true, v6), 0xfd00_0010 ^ 0x21);
    assert_eq!((word(true, Address::v4(9)), word(false, Address::v4(9))), (9, 9));
}

/// The paper's way: each real server's whole order of preference, and who takes what when.
fn by_preference(seats: &[Seat]) -> Vec<u32> {
    let size = BUCKETS as usize;
    let divisor = (1..=seats.iter().map(|s| s.last_weight).max().unwrap_or(1)).rev().find(|d| seats.iter().all(|s| s.last_weight % d == 0));
    let divisor = divisor.unwrap_or(1);
    let mut greatest = seats.iter().map(|s| s.last_weight / divisor).max().unwrap_or(0);
    let mut scale = 1;
    while greatest >= 64 {
        (greatest, scale) = (greatest / 2, scale * 2);
    }
    let preferences: Vec<Vec<usize>> = seats
        .iter()
        .map(|s| {
            let word = s.address.as_v4().unwrap().wrapping_add(s.port.into());
            let (offset, skip) = (hash(WHERE, word) as usize % size, hash(STEP, word) as usize % (size - 1) + 1);
            (0..size).map(|j| (offset + j * skip) % size).collect()
        })
        .collect();
    let mut owners: Vec<Option<u32>> = vec![None; BUCKETS as usize];
    while owners.contains(&None) && seats.iter().any(|s| s.last_weight > 0) {
        for (place, seat) in seats.iter().enumerate() {
            for _ in 0..if seat.last_weight == 0 { 0 } else { (seat.last_weight / divisor / scale).max(1) } {
                let wanted = preferences[place].iter().find(|bucket| owners[**bucket].is_none());
                if let Some(bucket) = wanted {
                    owners[*bucket] = Some(u32::try_from(place).unwrap());
                }
            }
        }
    }
    owners.into_iter().map(|owner| owner.unwrap_or(NOBODY)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn buckets_are_those_of_the_orders_of_preference(weights in prop::collection::vec((0u32..9, 1u32..90), 0..9)) {
        let seats: Vec<Seat> = (0..).zip(weights).map(|(n, (weight, times))| seat(n, weight * times)).collect();
        prop_assert_eq!(fill(false, &seats), by_preference(&seats));
    }

    #[test]
    fn picks_are_those_of_the_owners_table(
        list in prop::collection::vec((0u32..4, any::<bool>()), 0..8),
        (client, port) in (any::<u32>(), any::<u16>()),
        (use_port, fallback) in (any::<bool>(), any::<bool>()),
    ) {
        let quiescent = |(n, (weight, quiet)): (u32, &(u32, bool))| crate::schedule::test_members::member(n, if *quiet { 0 } else { *weight });
        let members: Vec<Member> = (0..).zip(&list).map(quiescent).collect();
        let seats: Vec<Seat> = (0..).zip(&list).map(|(n, (weight, _))| seat(n, *weight)).collect();
        let hashed = Hashed { members: &members, buckets: crate::schedule::Buckets::new(MH, false, &seats) };
        let owners = fill(false, &seats);
        let word = client.wrapping_add(if use_port { port.into() } else { 0 });
        let owner = |word| owners[(hash(WHERE, word) % BUCKETS) as usize];
        let taking = |word| members.get(owner(word) as usize).filter(|m| m.weight > 0).map(|m| m.server.0 as usize);
        let home = hash(WHERE, word) % BUCKETS;
        let further = || (home..BUCKETS).chain(0..home).find_map(|offset| taking(word.wrapping_add(offset)));
        let expected = taking(word).or_else(|| if fallback { further() } else { None });
        prop_assert_eq!(pick(use_port, fallback, &hashed.pick(Address::v4(client), port)), expected);
    }

    #[test]
    fn one_that_leaves_moves_few_clients_of_others(count in 3u32..12, gone in 0u32..12) {
        let gone = gone % count;
        let all: Vec<Seat> = (0..count).map(|n| seat(n, 1)).collect();
        let rest: Vec<Seat> = all.iter().enumerate().filter(|(n, _)| *n != gone as usize).map(|(_, s)| *s).collect();
        let after: Vec<u32> = fill(false, &rest).into_iter().map(|owner| owner + u32::from(owner >= gone)).collect();
        let moved = fill(false, &all).into_iter().zip(after).filter(|(was, is)| *was != gone && was != is).count();
        prop_assert!(moved < BUCKETS as usize / 8, "{}", moved);
    }
}
