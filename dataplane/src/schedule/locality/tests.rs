use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::address::Address;
use crate::schedule::test_members::{busy, member, members, overloaded, unreachable};
use crate::schedule::{Buckets, least_connections};

const DAY: u32 = 86_400;

fn memory() -> Localities {
    Localities::new([1, 2], Expirations { lblc: DAY, lblcr: DAY })
}

type Scheduler = fn(Owner, &Pick<'_>, &mut Localities) -> Option<usize>;
const LBLC: Scheduler = pick;
const LBLCR: Scheduler = pick_replicated;

/// One service with its scheduler.
struct Service {
    memory: Localities,
    owner: Owner,
    scheduler: Scheduler,
    revision: u64,
    now: Tick,
}

impl Service {
    fn new(scheduler: Scheduler) -> Self {
        let mut memory = memory();
        let owner = memory.owner();
        Self { memory, owner, scheduler, revision: 0, now: Tick(5) }
    }

    /// The id of the real server for a connection to address `n`.
    fn to(&mut self, n: u32, members: &[Member]) -> Option<u32> {
        let buckets = Buckets::default();
        let address = Address::v4(n);
        let pick = Pick {
            members,
            buckets: &buckets,
            revision: self.revision,
            client: Address::v4(1),
            client_port: 1,
            virtual_address: address,
            now: self.now,
        };
        (self.scheduler)(self.owner, &pick, &mut self.memory).map(|place| members[place].server.0)
    }

    fn changed(&mut self) {
        self.revision += 1;
    }

    fn pass(&mut self, seconds: u32) {
        self.now = self.now.after_seconds(seconds);
    }

    /// Turns until a sweep is through.
    fn sweep(&mut self) {
        (0..2000).for_each(|_| self.memory.sweep(self.now));
    }
}

fn connect(member: &Member, active: u32) {
    (0..active).for_each(|_| member.stats.share(0).active.increment());
}

#[test]
fn an_address_stays_with_its_server_though_another_is_less_busy() {
    for scheduler in [LBLC, LBLCR] {
        let list = members(&[9, 9]);
        let mut service = Service::new(scheduler);
        assert_eq!(service.to(1, &list), Some(0));
        connect(&list[0], 9);
        assert_eq!((service.to(1, &list), service.to(2, &list)), (Some(0), Some(1)));
    }
}

#[test]
fn a_crowded_server_is_left_while_another_is_less_than_half_full() {
    for scheduler in [LBLC, LBLCR] {
        let list = members(&[2, 4]);
        let mut service = Service::new(scheduler);
        assert_eq!(service.to(1, &list), Some(0));
        connect(&list[0], 3);
        connect(&list[1], 2);
        assert_eq!(service.to(1, &list), Some(0), "3 of 2, but the other has 2 of 4");
        list[1].stats.share(0).active.decrement();
        assert_eq!(service.to(1, &list), Some(1));
    }
}

#[test]
fn lblc_forgets_the_server_that_it_left_and_lblcr_keeps_both() {
    for (scheduler, then) in [(LBLC, 1), (LBLCR, 0)] {
        let list = members(&[2, 9]);
        let mut service = Service::new(scheduler);
        service.to(1, &list);
        connect(&list[0], 3);
        assert_eq!(service.to(1, &list), Some(1));
        (0..3).for_each(|_| list[0].stats.share(0).active.decrement());
        connect(&list[1], 1);
        assert_eq!(service.to(1, &list), Some(then));
    }
}

#[test]
fn server_that_is_gone_quiescent_or_unreachable_is_replaced() {
    for scheduler in [LBLC, LBLCR] {
        for list in [vec![member(0, 0), member(1, 1)], vec![unreachable(0, 1), member(1, 1)], vec![member(1, 1)]] {
            let mut service = Service::new(scheduler);
            assert_eq!(service.to(1, &members(&[1, 1])), Some(0));
            service.changed();
            assert_eq!(service.to(1, &list), Some(1));
        }
        assert_eq!(Service::new(scheduler).to(1, &[member(0, 0)]), None);
        assert_eq!(Service::new(scheduler).to(1, &[]), None);
    }
}

#[test]
fn threshold_holds_for_lblcr_and_for_new_addresses() {
    let list = [overloaded(0, 1), member(1, 1)];
    for (scheduler, expected) in [(LBLC, 0), (LBLCR, 1)] {
        let mut service = Service::new(scheduler);
        assert_eq!(service.to(1, &members(&[1, 1])), Some(0));
        assert_eq!(service.to(1, &list), Some(expected), "lblc does not ask, as in IPVS");
        assert_eq!(service.to(2, &list), Some(1));
    }
}

#[test]
fn places_are_found_again_after_any_change_of_members() {
    let mut service = Service::new(LBLC);
    let all = members(&[1; 9]);
    assert_eq!(service.to(1, &all), Some(0));
    for list in [&all[..], &[&all[3..], &all[..3]].concat(), &[&all[1..], &all[..1]].concat(), &all[..1], &all] {
        service.changed();
        assert_eq!(service.to(1, list), Some(0));
    }
}

#[test]
fn set_that_did_not_change_for_a_day_loses_its_busiest() {
    let list = members(&[1, 1]);
    let mut service = Service::new(LBLCR);
    service.to(1, &list);
    connect(&list[0], 2);
    assert_eq!(service.to(1, &list), Some(1));
    connect(&list[1], 1);
    list[0].stats.share(0).active.decrement();
    list[0].stats.share(0).active.decrement();
    service.pass(DAY);
    assert_eq!(service.to(1, &list), Some(0), "a day is not more than a day");
    service.pass(1);
    assert_eq!(service.to(1, &list), Some(0), "and the busier one goes");
    let id = service.memory.find(service.owner, Address::v4(1), &list, service.revision, service.now).unwrap();
    assert_eq!(service.memory.count(id).0, 1);
}

#[test]
fn unused_address_is_forgotten_after_its_time_and_a_used_one_is_not() {
    for scheduler in [LBLC, LBLCR] {
        let mut service = Service::new(scheduler);
        let list = members(&[1]);
        service.to(1, &list);
        service.to(2, &list);
        service.pass(DAY - 10);
        service.to(2, &list);
        service.sweep();
        assert_eq!(service.memory.len(), 2);
        service.pass(1800);
        service.sweep();
        assert_eq!(service.memory.len(), 1);
        service.pass(DAY);
        service.sweep();
        assert_eq!(service.memory.len(), 0);
    }
}

#[test]
fn full_memory_forgets_what_was_not_used_for_six_minutes_and_nothing_else() {
    let list = members(&[1, 1]);
    let mut service = Service::new(LBLC);
    for n in 0..20_000 {
        assert!(service.to(n, &list).is_some());
    }
    assert_eq!(service.memory.len(), 16_384);
    service.pass(360);
    for n in (0..100).chain(30_000..30_100) {
        service.to(n, &list);
    }
    connect(&list[0], 1);
    let stays = (0..100).chain(30_000..30_100).all(|n| service.to(n, &list) == Some(0));
    assert!(stays, "those used since, and those that came");
    assert_eq!(service.memory.len(), 16_384);
}

#[test]
fn services_do_not_see_what_others_remember() {
    let list = members(&[1, 1]);
    let mut service = Service::new(LBLC);
    service.to(1, &list);
    connect(&list[0], 1);
    service.owner = service.memory.owner();
    assert_eq!(service.to(1, &list), Some(1));
}

/// The rules, over lists that grow as they like.
#[derive(Default)]
struct Model {
    sets: HashMap<u32, (Vec<u32>, u32)>,
}

impl Model {
    fn crowded(member: &Member, members: &[Member]) -> bool {
        member.stats.active() > member.weight && members.iter().any(|m| m.stats.active() * 2 < m.weight)
    }

    fn lblc(&mut self, n: u32, members: &[Member]) -> Option<u32> {
        let was = self.sets.get(&n).and_then(|(set, _)| members.iter().find(|m| m.server.0 == set[0]));
        if let Some(member) = was.filter(|m| m.weight > 0 && !Self::crowded(m, members)) {
            return Some(member.server.0);
        }
        let new = members[least_connections::pick_weighted(members)?].server.0;
        self.sets.insert(n, (vec![new], 0));
        Some(new)
    }

    fn lblcr(&mut self, n: u32, members: &[Member], second: u32) -> Option<u32> {
        let Some((set, changed)) = self.sets.get_mut(&n) else {
            let new = members[least_connections::pick_weighted(members)?].server.0;
            self.sets.insert(n, (vec![new], second));
            return Some(new);
        };
        let in_set: Vec<Member> = set.iter().filter_map(|s| members.iter().find(|m| m.server.0 == *s)).cloned().collect();
        let least = least_connections::pick_weighted(&in_set).map(|place| in_set[place].clone());
        if set.len() > 1 && second > *changed + DAY {
            let gone = set.iter().find(|s| in_set.iter().all(|m| m.server.0 != **s)).copied();
            let busyness = |m: &Member| f64::from(m.stats.active()) / f64::from(m.weight);
            let weighty = in_set.iter().filter(|m| m.weight > 0).rev();
            let busiest = weighty.max_by(|a, b| busyness(a).total_cmp(&busyness(b))).map(|m| m.server.0);
            if let Some(leaves) = gone.or(busiest) {
                set.retain(|s| *s != leaves);
                *changed = second;
            }
        }
        if let Some(least) = least.filter(|m| !Self::crowded(m, members)) {
            return Some(least.server.0);
        }
        let new = members[least_connections::pick_weighted(members)?].server.0;
        if !set.contains(&new) {
            set.insert(0, new);
            *changed = second;
        }
        Some(new)
    }
}

proptest! {
    #[test]
    fn picks_are_those_of_the_rules(
        steps in prop::collection::vec((prop::collection::vec((0u32..6, 0u32..4, 0u32..5), 0..6), 0u32..3, any::<bool>()), 1..60),
        replicated in any::<bool>(),
    ) {
        let mut service = Service::new(if replicated { LBLCR } else { LBLC });
        let mut model = Model::default();
        let mut second = 0;
        for (list, address, late) in steps {
            let mut seen = std::collections::HashSet::new();
            let list: Vec<_> = list.into_iter().filter(|(id, ..)| seen.insert(*id)).map(|(id, w, a)| busy(id, w, a, 0)).collect();
            if late {
                service.pass(DAY + 1);
                second += DAY + 1;
            }
            service.changed();
            let expected = if replicated { model.lblcr(address, &list, second) } else { model.lblc(address, &list) };
            prop_assert_eq!(service.to(address, &list), expected);
        }
    }
}
