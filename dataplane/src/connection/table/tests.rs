use std::collections::HashMap;

use super::*;
use crate::address::Address;
use crate::service::{Method, Protocol};
use proptest::prelude::*;

const SEED: [u64; 4] = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321, 0xdead_beef_cafe_f00d, 0x0123_3210_4567_7654];
const SECOND: u32 = Tick::PER_SECOND;

fn table(capacity: u32, half_open: u32) -> ConnectionTable {
    ConnectionTable::new(capacity, half_open, SEED).unwrap()
}

fn client(n: u32) -> Key {
    Key { client: Address::v4(n), virtual_: Address::v4(0x0a0a_1858), client_port: 10_000, virtual_port: 80, protocol: 6 }
}

fn new(state: State, seconds: u32) -> NewEntry {
    NewEntry { server: ServerId(3), service: ServiceId(1), state: state as u8, flags: flags::NO_OUTPUT, timeout_ticks: seconds * SECOND }
}

fn insert(table: &mut ConnectionTable, key: &Key, state: State, seconds: u32, now: Tick) -> Result<EntryId, InsertError> {
    table.insert(table.hash(key), key, new(state, seconds), now)
}

fn find(table: &ConnectionTable, key: &Key) -> Option<EntryId> {
    let hash = table.hash(key);
    table.prefetch_bucket(hash);
    let _ = table.prefetch_entry(hash);
    table.find(hash, key)
}

/// What the short way finds at `place` for an established TCP connection with this key.
fn guess(table: &mut ConnectionTable, place: EntryId, key: &Key) -> Option<EntryId> {
    let addresses = key.addresses();
    let v4 = matches!(addresses, Addresses::V4(_));
    let word = table.hasher().word(addresses);
    let found = table.plain(place, Plain::new(Protocol::Tcp, State::Established, Method::DirectRouting, v4), word, key.ports());
    found.map(|_| place)
}

fn expire(table: &mut ConnectionTable, now: Tick) -> Vec<Key> {
    let mut ended = Vec::new();
    table.expire(now, usize::MAX, &mut |key, _| ended.push(*key));
    ended
}

#[test]
fn entry_holds_what_was_put_in() {
    let mut table = table(10, 10);
    let id = insert(&mut table, &client(7), State::SynRecv, 60, Tick(500)).unwrap();
    let entry = table.entry(id);
    assert_eq!(table.key(id), client(7));
    assert_eq!((entry.server(), entry.service(), entry.state()), (ServerId(3), ServiceId(1), State::SynRecv));
    assert_eq!(entry.flags, flags::NO_OUTPUT | flags::LIVE | flags::TENTATIVE);
    assert_eq!((entry.expires(), entry.in_packets), (Tick(6_500), 1));
    assert_eq!(find(&table, &client(7)), Some(id));
    assert_eq!(find(&table, &client(8)), None);
    assert_eq!((table.len(), table.half_open(), table.capacity()), (1, 1, 10));
}

#[test]
fn capacity_of_nothing_or_too_much_is_refused() {
    assert_eq!(ConnectionTable::new(0, 0, SEED).unwrap_err(), TableError::Capacity(0));
    let nothing = ConnectionTable::over(HugeArray::anonymous(0).unwrap(), HugeArray::anonymous(0).unwrap(), 0, SEED);
    assert_eq!(nothing.unwrap_err().to_string(), "a connection table of 0 entries: allowed are 1 to 2147483647");
}

#[test]
fn full_table_takes_no_more_and_a_removed_place_is_used_again() {
    let mut table = table(3, 3);
    let ids: Vec<_> = (0..3).map(|n| insert(&mut table, &client(n), State::Established, 900, Tick(0)).unwrap()).collect();
    assert_eq!(insert(&mut table, &client(3), State::Established, 900, Tick(0)), Err(InsertError::TableFull));
    assert_eq!(find(&table, &client(3)), None);
    assert_eq!(table.key(ids[1]), client(1));
    table.remove(ids[1]);
    assert_eq!(find(&table, &client(1)), None);
    assert_eq!(insert(&mut table, &client(3), State::Established, 900, Tick(0)), Ok(ids[1]));
    assert_eq!((table.len(), find(&table, &client(0)), find(&table, &client(3))), (3, Some(ids[0]), Some(ids[1])));
}

#[test]
fn guess_at_a_removed_entry_finds_nothing() {
    let mut table = table(3, 3);
    let id = insert(&mut table, &client(0), State::Established, 900, Tick(0)).unwrap();
    table.remove(id);
    assert_eq!(table.key(id), client(0), "the place still holds the bytes");
    assert_eq!(guess(&mut table, id, &client(0)), None);
}

#[test]
fn short_way_finds_an_entry_where_it_is_and_nowhere_else() {
    let mut table = table(3, 3);
    let v6 = Key { client: Address(0x2001_0db8 << 96 | 1), virtual_: Address(0xfd00 << 112 | 0x88), ..client(0) };
    for key in [client(0), v6] {
        let id = insert(&mut table, &key, State::Established, 900, Tick(0)).unwrap();
        assert_eq!(guess(&mut table, id, &key), Some(id));
        let places = [EntryId(2), EntryId(7), EntryId(u32::MAX)];
        assert!(places.into_iter().all(|place| guess(&mut table, place, &key).is_none()));
        let others = [Key { client: Address(key.client.0 ^ 1), ..key }, Key { client_port: 1, ..key }, Key { virtual_port: 1, ..key }];
        assert!(others.iter().all(|other| guess(&mut table, id, other).is_none()));
        table.set_state(id, State::FinWait, Tick(1), 100);
        assert_eq!(guess(&mut table, id, &key), None, "a state in which a packet may change something");
    }
}

#[test]
fn half_open_connections_leave_the_rest_of_the_table_alone() {
    let mut table = table(10, 2);
    let first = insert(&mut table, &client(0), State::SynRecv, 60, Tick(0)).unwrap();
    insert(&mut table, &client(1), State::SynAck, 60, Tick(0)).unwrap();
    assert_eq!(insert(&mut table, &client(2), State::SynRecv, 60, Tick(0)), Err(InsertError::HalfOpenLimit));
    assert!(insert(&mut table, &client(3), State::Established, 900, Tick(0)).is_ok());
    let udp = Key { protocol: 17, ..client(4) };
    assert!(insert(&mut table, &udp, State::None, 300, Tick(0)).is_ok());
    assert_eq!((table.len(), table.half_open()), (4, 2));

    table.set_state(first, State::Established, Tick(1), 900 * SECOND);
    assert_eq!(table.half_open(), 1);
    insert(&mut table, &client(2), State::SynRecv, 60, Tick(1)).unwrap();
    assert_eq!(expire(&mut table, Tick(61 * SECOND)).len(), 2);
    assert_eq!((table.len(), table.half_open()), (3, 0));
}

#[test]
fn every_packet_counts_and_prolongs() {
    let mut table = table(4, 4);
    let id = insert(&mut table, &client(0), State::Established, 900, Tick(0)).unwrap();
    for second in 1..=2_000 {
        table.touch(id, Tick(second * SECOND), 900 * SECOND);
        assert_eq!(expire(&mut table, Tick(second * SECOND)), []);
    }
    assert_eq!((table.entry(id).in_packets, table.entry(id).expires()), (2_001, Tick(2_900 * SECOND)));
    assert_eq!(expire(&mut table, Tick(2_900 * SECOND - 1)), []);
    assert_eq!(expire(&mut table, Tick(2_900 * SECOND + 32)), [client(0)]);
}

#[test]
fn shorter_timeout_counts_at_once() {
    let mut table = table(4, 4);
    let now = Tick(100 * SECOND);
    let id = insert(&mut table, &client(0), State::Established, 900, now).unwrap();
    table.set_state(id, State::Close, now, 10 * SECOND);
    assert_eq!(expire(&mut table, Tick(110 * SECOND - 1)), []);
    assert_eq!(expire(&mut table, Tick(110 * SECOND + 32)), [client(0)]);
    assert_eq!((table.len(), find(&table, &client(0))), (0, None));
}

#[test]
fn expiry_is_spread_over_calls_by_the_budget() {
    let mut table = table(1_000, 0);
    for n in 0..1_000 {
        insert(&mut table, &client(n), State::Established, 1, Tick(0)).unwrap();
    }
    let (mut ended, mut calls) = (0, 0);
    while !table.is_empty() {
        let before = ended;
        table.expire(Tick(SECOND * 2), 50, &mut |_, _| ended += 1);
        assert!(ended - before <= 50);
        calls += 1;
    }
    assert_eq!(ended, 1_000);
    assert!((20..30).contains(&calls), "{calls}");
}

#[test]
fn table_used_long_after_it_was_made_ends_entries_on_time() {
    let mut table = table(4, 4);
    for start in [Tick(3_000_000_000), Tick(700)] {
        insert(&mut table, &client(0), State::Established, 60, start).unwrap();
        assert_eq!(expire(&mut table, start.after_seconds(59)), []);
        table.expire(start.after_seconds(61), 300, &mut |_, _| {});
        assert_eq!(table.len(), 0);
        table.expire(Tick(start.0.wrapping_add(1 << 31)), 1, &mut |_, _| {});
    }
}

#[test]
fn listing_by_pages_shows_every_entry_once() {
    let mut table = table(100, 100);
    let ids: Vec<_> = (0..50).map(|n| insert(&mut table, &client(n), State::Established, 9, Tick(0)).unwrap()).collect();
    for id in ids.iter().step_by(3) {
        table.remove(*id);
    }
    let mut seen = Vec::new();
    for from in (0..table.extent()).step_by(8) {
        seen.extend(table.scan(from, 8).map(|(id, _)| (id, table.key(id))));
    }
    let left: Vec<_> = (0..50).filter(|n| n % 3 != 0).map(|n| (ids[n as usize], client(n))).collect();
    assert_eq!(seen, left);
    assert_eq!(table.scan(50, u32::MAX).count(), 0);
    assert_eq!(table.scan(u32::MAX, 1).count(), 0);
}

#[test]
fn restarted_director_adopts_entries_with_the_time_they_had_left() {
    let mut old = table(64, 64);
    for n in 0..40 {
        let state = if n % 2 == 0 { State::SynRecv } else { State::Established };
        insert(&mut old, &client(n), state, n + 1, Tick(9_000)).unwrap();
    }
    for n in 0..10 {
        old.remove(find(&old, &client(n)).unwrap());
    }

    let mut adopted = ConnectionTable::over(old.entries, old.v6, 64, [9, 8, 7, 6]).unwrap();
    assert_eq!(adopted.rebuild_index(Tick(9_500), Tick(50)), 30);
    assert_eq!((adopted.len(), adopted.half_open()), (30, 15));
    for n in 0..40 {
        let entry = find(&adopted, &client(n)).map(|id| *adopted.entry(id));
        assert_eq!(entry.map(|e| Tick(50).until(e.expires())), (n >= 10).then(|| (n + 1) * SECOND - 500));
    }
    assert_eq!(expire(&mut adopted, Tick(50 + 15 * SECOND + 32)).len(), 10);
    for n in 100..144 {
        insert(&mut adopted, &client(n), State::Established, 9, Tick(4_000)).unwrap();
    }
    assert_eq!(insert(&mut adopted, &client(99), State::Established, 9, Tick(4_000)), Err(InsertError::TableFull));
}

#[test]
fn adopted_garbage_is_harmless() {
    let mut entries = HugeArray::<Entry>::anonymous(50).unwrap();
    let mut v6 = HugeArray::<[u64; 4]>::anonymous(50).unwrap();
    for (n, (entry, addresses)) in (0u32..).zip(entries.iter_mut().zip(v6.iter_mut())) {
        *entry = Entry { flags: u16::MAX, state: 200, expires: n << 27, addresses: n.into(), ..*entry };
        addresses[2] = u64::from(n / 2);
    }
    let mut table = ConnectionTable::over(entries, v6, 9, SEED).unwrap();
    assert_eq!(table.rebuild_index(Tick(0), Tick(0)), 25, "one entry for each key");
    let ended = expire(&mut table, Tick(1 << 27)).len();
    assert_eq!(ended + table.len() as usize, 25);
}

/// What may happen to a table, on one of a few keys.
#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(State),
    Touch,
    SetState(State),
    Remove,
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let state = (0u8..11).prop_map(State::from_value);
    prop_oneof![
        4 => state.clone().prop_map(Step::Insert),
        2 => Just(Step::Touch),
        1 => state.prop_map(Step::SetState),
        1 => Just(Step::Remove),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn table_agrees_with_a_hash_map(
        capacity in 1u32..40,
        half_open in 0u32..40,
        start in any::<u32>(),
        steps in prop::collection::vec((step(), 0u32..50, 0u32..100_000, 0u32..3_000), 0..300),
    ) {
        let mut table = table(capacity, half_open);
        let mut model = HashMap::<Key, (State, u32, u32)>::new();
        let mut now = Tick(start);
        for (step, n, timeout, advance) in steps {
            now = Tick(now.0.wrapping_add(advance));
            let key = if n % 2 == 0 { client(n) } else { Key { client: Address(u128::from(n) << 90), ..client(n) } };
            let hash = table.hash(&key);
            let found = table.find(hash, &key);
            prop_assert_eq!(found.is_some(), model.contains_key(&key));
            let expires = now.0.wrapping_add(timeout);
            match (step, found) {
                (Step::Insert(state), None) => {
                    let half = model.values().filter(|(s, ..)| s.is_half_open()).count();
                    let expected = if model.len() == capacity as usize {
                        Err(InsertError::TableFull)
                    } else if state.is_half_open() && half >= half_open as usize {
                        Err(InsertError::HalfOpenLimit)
                    } else {
                        model.insert(key, (state, expires, 1));
                        Ok(())
                    };
                    let new = NewEntry { timeout_ticks: timeout, ..new(state, 0) };
                    prop_assert_eq!(table.insert(hash, &key, new, now).map(|_| ()), expected);
                }
                (Step::Touch, Some(id)) => {
                    table.touch(id, now, timeout);
                    let held = model.get_mut(&key).unwrap();
                    *held = (held.0, expires, held.2 + 1);
                }
                (Step::SetState(state), Some(id)) => {
                    table.set_state(id, state, now, timeout);
                    let held = model.get_mut(&key).unwrap();
                    *held = (state, expires, held.2);
                }
                (Step::Remove, Some(id)) => {
                    prop_assert_eq!(table.key(id), key);
                    table.remove(id);
                    model.remove(&key);
                }
                (Step::Expire, _) => {
                    for key in expire(&mut table, now) {
                        let (_, moment, _) = model.remove(&key).expect("an entry ends once");
                        prop_assert!(now.has_reached(Tick(moment)));
                    }
                    prop_assert!(model.values().all(|(_, m, _)| !Tick(now.0.wrapping_sub(32)).has_reached(Tick(*m))));
                }
                _ => {}
            }
            prop_assert_eq!(table.len() as usize, model.len());
            prop_assert_eq!(table.half_open() as usize, model.values().filter(|(s, ..)| s.is_half_open()).count());
        }
        let held: HashMap<_, _> =
            table.scan(0, capacity).map(|(id, e)| (table.key(id), (e.state(), e.expires, e.in_packets))).collect();
        prop_assert_eq!(held, model);
    }
}
