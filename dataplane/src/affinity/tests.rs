use std::sync::Barrier;
use std::thread;

use super::*;
use crate::address::Address;

const SEED: [u64; 4] = [1, 2, 3, 4];
const MINUTE: u32 = 60 * Tick::PER_SECOND;
const ONE: ServerId = ServerId(1);
const OTHER: ServerId = ServerId((1 << SERVER_BITS) - 1);

fn key(client: u32) -> Key {
    Key { client: Address::v4(client), virtual_: Address::v4(1), client_port: 0, virtual_port: 80, protocol: 6 }
}

#[test]
fn first_word_counts_for_as_long_as_it_is_good() {
    let table = Affinity::new(1024, SEED);
    let now = Tick(5);
    assert_eq!(table.server(&key(1), now), None);
    assert_eq!(table.agree(&key(1), OTHER, now, MINUTE, |_| true), Some(OTHER));
    assert_eq!(table.agree(&key(1), ONE, now, MINUTE, |_| true), Some(OTHER));
    assert_eq!((table.server(&key(1), now), table.server(&key(2), now)), (Some(OTHER), None));
    assert_eq!(table.agree(&key(1), ONE, now, MINUTE, |server| server != OTHER), Some(ONE));
    assert_eq!(table.server(&key(1), now), Some(ONE));
}

#[test]
fn a_slot_ends_after_its_time_also_where_ticks_wrap() {
    for start in [0, 127, 128, u32::MAX - 1000, u32::MAX] {
        let table = Affinity::new(1024, SEED);
        let now = Tick(start);
        let after = |ticks: u32| Tick(start.wrapping_add(ticks));
        table.agree(&key(1), ONE, now, MINUTE, |_| true);
        // The worker whose template it is may let it live on that late.
        assert_eq!(table.server(&key(1), after(MINUTE + 32)), Some(ONE));
        let over = MINUTE + 192;
        assert_eq!(table.server(&key(1), after(over)), None);
        assert_eq!(table.agree(&key(1), OTHER, after(over), MINUTE, |_| true), Some(OTHER));
        table.keep(&key(1), OTHER, after(over), 1);
        assert_eq!(table.server(&key(1), after(over + MINUTE)), Some(OTHER), "never shorter");
        table.keep(&key(1), OTHER, after(over), 2 * MINUTE);
        assert_eq!(table.server(&key(1), after(over + 2 * MINUTE)), Some(OTHER));
    }
}

#[test]
fn withdrawal_ends_only_what_names_that_server() {
    let table = Affinity::new(1024, SEED);
    table.agree(&key(1), ONE, Tick(0), MINUTE, |_| true);
    table.withdraw(&key(1), OTHER);
    assert_eq!(table.server(&key(1), Tick(0)), Some(ONE));
    table.withdraw(&key(1), ONE);
    assert_eq!(table.server(&key(1), Tick(0)), None);
}

#[test]
fn a_full_table_shares_no_more_until_times_are_up() {
    let table = Affinity::new(1, SEED);
    let now = Tick(0);
    let shared = (0..100).filter(|n| table.agree(&key(*n), ONE, now, MINUTE, |_| true).is_some()).count();
    assert_eq!(shared, WINDOW, "the whole table is every key's window");
    assert_eq!(table.agree(&key(200), ONE, now, MINUTE, |_| true), None);
    assert_eq!(table.agree(&key(200), ONE, Tick(2 * MINUTE), MINUTE, |_| true), Some(ONE));
}

#[test]
fn of_workers_that_say_something_at_once_all_follow_one() {
    let table = Affinity::new(4096, SEED);
    for client in 0..300 {
        let begin = Barrier::new(4);
        let said: Vec<_> = thread::scope(|scope| {
            let (table, begin) = (&table, &begin);
            let say = |worker| {
                scope.spawn(move || {
                    begin.wait();
                    table.agree(&key(client), ServerId(worker), Tick(0), MINUTE, |_| true)
                })
            };
            let threads: Vec<_> = (0..4).map(say).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(said[0].is_some() && said.iter().all(|server| *server == said[0]), "{said:?}");
        assert_eq!(table.server(&key(client), Tick(0)), said[0]);
    }
}
