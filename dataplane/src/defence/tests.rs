use super::*;
use zerocopy::FromZeros;

fn defence() -> Defence {
    Defence::new(0x0123_4567_89ab_cdef)
}

#[test]
fn automatic_modes_follow_the_free_places() {
    let settings = Settings {
        drop_entry: Mode::Automatic,
        drop_packet: Mode::Automatic,
        secure_tcp: Mode::Automatic,
        amemthresh: 10,
        ..Settings::default()
    };
    let mut defence = defence();
    for (free, in_force, rate) in [(500, 0, 0), (100, 0, 0), (99, 7, 100), (90, 7, 10), (50, 7, 2), (0, 7, 1), (100, 0, 0)] {
        defence.check(&settings, free, 1000, 1000, Tick(0));
        assert_eq!((defence.in_force(), defence.drop_rate), (in_force, rate), "{free} places of 1000 free");
    }
}

#[test]
fn defences_are_off_by_default_however_full_the_table_is() {
    let mut defence = defence();
    defence.check(&Settings::default(), 0, 1000, 1000, Tick(0));
    assert_eq!((defence.in_force(), defence.samples), (0, 0));
    assert!(!defence.drops_packet());
}

#[test]
fn mode_3_drops_every_tenth_first_packet() {
    let mut defence = defence();
    defence.check(&Settings { drop_packet: Mode::Always, ..Settings::default() }, 1000, 1000, 0, Tick(0));
    let dropped: Vec<usize> = (0..31).filter(|_| defence.drops_packet()).collect();
    assert_eq!(dropped, [0, 10, 20, 30]);
}

#[test]
fn idle_entries_of_few_packets_go_first() {
    let mut defence = defence();
    let now = Tick(1_000_000);
    let entry = |in_packets, idle: u32| {
        let mut entry = Entry::new_zeroed();
        (entry.in_packets, entry.expires) = (in_packets, now.0 + 30_000 - idle * 100);
        entry
    };
    let mut dropped = |packets, idle| (0..40).filter(|_| defence.drops_idle(&entry(packets, idle), 30_000, now)).count();
    assert_eq!([1, 2, 4, 8].map(|packets| dropped(packets, 60)), [40, 20, 10, 5], "one in as many as it had packets");
    assert_eq!([0, 9, u32::MAX].map(|packets| dropped(packets, 200)), [0; 3]);
    assert_eq!(dropped(1, 59), 0, "a packet within the last minute");
}

#[test]
fn random_places_are_all_places() {
    let mut defence = defence();
    let mut seen = [0; 10];
    (0..10_000).for_each(|_| seen[defence.random_below(10) as usize] += 1);
    assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
}
