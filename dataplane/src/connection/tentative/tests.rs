use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::address::Address;
use crate::connection::{Key, NewEntry};
use crate::service::{ServerId, ServiceId};
use crate::tcp::State;
use crate::tick::Tick;

const NOW: Tick = Tick(0);

fn table() -> ConnectionTable {
    ConnectionTable::new(64, 64, [1, 2, 3, 4]).unwrap()
}

fn insert(table: &mut ConnectionTable, n: u32, protocol: u8) -> EntryId {
    let key = Key { client: Address::v4(n), virtual_: Address::v4(1), client_port: 1, virtual_port: 80, protocol };
    let state = if protocol == 6 { State::SynRecv } else { State::None };
    let new = NewEntry { server: ServerId(0), service: ServiceId(0), state: state as u8, flags: flags::NO_OUTPUT, timeout_ticks: 6000 };
    table.insert(table.hash(&key), &key, new, NOW).unwrap()
}

#[test]
fn the_oldest_comes_first_of_each_kind() {
    let mut table = table();
    let (a, b) = (insert(&mut table, 1, 6), insert(&mut table, 2, 17));
    let (c, d) = (insert(&mut table, 3, 6), insert(&mut table, 4, 17));
    assert_eq!((table.oldest(Tentative::HalfOpen), table.oldest(Tentative::SecondPacket)), (Some(a), Some(b)));
    table.set_state(a, State::Established, NOW, 100);
    table.confirm(b);
    assert_eq!((table.oldest(Tentative::HalfOpen), table.oldest(Tentative::SecondPacket)), (Some(c), Some(d)));
    assert_eq!(table.larger_part(), Tentative::SecondPacket, "a draw goes to what costs least");
    table.remove(c);
    table.remove(d);
    assert_eq!((table.oldest(Tentative::HalfOpen), table.oldest(Tentative::SecondPacket)), (None, None));
    table.set_state(a, State::SynRecv, NOW, 100);
    assert_eq!(table.oldest(Tentative::HalfOpen), Some(a), "half open again");
    assert_eq!(table.half_open(), 1);
}

#[test]
fn a_confirmed_datagram_confirms_its_template() {
    let mut table = table();
    let template = insert(&mut table, 1, TEMPLATE | 0x11);
    let entry = insert(&mut table, 2, 17);
    table.set_template(entry, template);
    assert!(table.is_tentative(template) && table.is_tentative(entry));
    table.confirm(entry);
    assert!(!table.is_tentative(template) && !table.is_tentative(entry));
    assert_eq!(table.oldest(Tentative::SecondPacket), None);
}

proptest! {
    /// Inserting, confirming, sparing and removing in any order: both queues hold what a deque holds.
    #[test]
    fn queues_are_as_deques_are(steps in prop::collection::vec((0u8..5, 0usize..8), 1..200)) {
        let mut table = table();
        let mut model: VecDeque<EntryId> = VecDeque::new();
        let mut confirmed: Vec<EntryId> = Vec::new();
        for (n, (what, which)) in (0u32..).zip(steps) {
            match what {
                0 | 1 if model.len() + confirmed.len() < 64 => model.push_back(insert(&mut table, n, 6)),
                2 if !model.is_empty() => {
                    let id = model.remove(which % model.len()).unwrap();
                    table.set_state(id, State::Established, NOW, 100);
                    confirmed.push(id);
                }
                3 if !model.is_empty() => {
                    let id = model.remove(which % model.len()).unwrap();
                    table.spare(id);
                    model.push_back(id);
                }
                4 if !model.is_empty() => {
                    let id = model.remove(which % model.len()).unwrap();
                    table.remove(id);
                }
                _ => if let Some(id) = confirmed.pop() { table.remove(id); },
            }
            prop_assert_eq!(table.oldest(Tentative::HalfOpen), model.front().copied());
            prop_assert_eq!(table.half_open() as usize, model.len());
        }
        let mut order = Vec::new();
        while let Some(id) = table.oldest(Tentative::HalfOpen) {
            order.push(id);
            table.remove(id);
        }
        prop_assert_eq!(order, Vec::from(model));
    }
}
