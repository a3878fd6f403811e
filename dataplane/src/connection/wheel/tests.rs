use super::*;
use proptest::prelude::*;
use zerocopy::FromZeros;

const NOBODY: [u32; 0] = [];

fn entries(expires: &[u32]) -> Vec<Entry> {
    expires.iter().map(|e| Entry { expires: *e, ..Entry::new_zeroed() }).collect()
}

fn linked(now: Tick, entries: &[Entry]) -> Wheel {
    let mut wheel = Wheel::new(entries.len()).unwrap();
    wheel.start(now);
    (0u32..).take(entries.len()).for_each(|id| wheel.link(entries, id));
    wheel
}

fn ended(wheel: &mut Wheel, entries: &[Entry], now: Tick) -> Vec<u32> {
    let mut budget = usize::MAX;
    let mut ids: Vec<u32> = std::iter::from_fn(|| wheel.pop(entries, now, &mut budget)).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn entry_ends_within_a_slot_and_never_early() {
    for expires in [0u32, 1, 31, 32, 33, 6_000, 90_000] {
        let list = entries(&[expires]);
        let mut wheel = linked(Tick(0), &list);
        for now in 0..expires {
            assert_eq!(ended(&mut wheel, &list, Tick(now)), NOBODY, "{now} of {expires}");
        }
        let in_time = (expires..=expires + (1 << SLOT_BITS)).any(|now| ended(&mut wheel, &list, Tick(now)) == [0]);
        assert!(in_time, "{expires}");
    }
}

#[test]
fn longest_timeout_outlasts_many_turns_of_the_wheel() {
    let month = 31 * 86_400 * Tick::PER_SECOND;
    let list = entries(&[month]);
    let mut wheel = linked(Tick(0), &list);
    for second in 0..31 * 86_400 {
        assert_eq!(ended(&mut wheel, &list, Tick(second * Tick::PER_SECOND)), NOBODY);
    }
    assert_eq!(ended(&mut wheel, &list, Tick(month + 32)), [0]);
}

#[test]
fn clock_may_wrap() {
    let now = Tick(u32::MAX - 500);
    let list = entries(&[u32::MAX - 100, 100, 20_000]);
    let mut wheel = linked(now, &list);
    assert_eq!(ended(&mut wheel, &list, Tick(u32::MAX - 101)), NOBODY);
    assert_eq!(ended(&mut wheel, &list, Tick(0)), [0]);
    assert_eq!(ended(&mut wheel, &list, Tick(99)), NOBODY);
    assert_eq!(ended(&mut wheel, &list, Tick(150)), [1]);
    assert_eq!(ended(&mut wheel, &list, Tick(20_032)), [2]);
}

#[test]
fn budget_bounds_a_call_and_the_next_call_goes_on() {
    let list = entries(&[40; 100]);
    let mut wheel = linked(Tick(0), &list);
    let mut got = 0;
    for call in 0..11 {
        let mut budget = 10;
        let found = std::iter::from_fn(|| wheel.pop(&list, Tick(1_000), &mut budget)).count();
        assert!(found <= 10);
        assert!(budget == 0 || call == 10);
        got += found;
    }
    assert_eq!(got, 100);
}

#[test]
fn unlinked_entry_never_ends_wherever_it_stood() {
    for out in 0..3 {
        let list = entries(&[64; 3]);
        let mut wheel = linked(Tick(0), &list);
        wheel.unlink(out);
        let left: Vec<u32> = (0..3).filter(|id| *id != out).collect();
        assert_eq!(ended(&mut wheel, &list, Tick(1_000)), left);
    }
}

#[test]
fn time_that_stands_still_or_steps_back_ends_nothing() {
    let list = entries(&[5_000]);
    let mut wheel = linked(Tick(4_000), &list);
    assert_eq!(ended(&mut wheel, &list, Tick(4_000)), NOBODY);
    assert_eq!(ended(&mut wheel, &list, Tick(100)), NOBODY);
    assert_eq!(ended(&mut wheel, &list, Tick(5_100)), [0]);
}

proptest! {
    /// Against a list of moments: entries are moved later without the wheel being told, sooner with, and all that has ended is
    /// out a slot later.
    #[test]
    fn wheel_agrees_with_a_list(
        start in any::<u32>(),
        timeouts in prop::collection::vec(0u32..300_000, 1..40),
        steps in prop::collection::vec((1u32..40_000, 0u32..40, 0u32..300_000), 0..60),
    ) {
        let mut now = Tick(start);
        let moments: Vec<u32> = timeouts.iter().map(|t| start.wrapping_add(*t)).collect();
        let mut list = entries(&moments);
        let mut wheel = linked(now, &list);
        let mut model: Vec<Option<u32>> = moments.into_iter().map(Some).collect();
        for (advance, which, timeout) in steps {
            now = Tick(now.0.wrapping_add(advance));
            for id in ended(&mut wheel, &list, now) {
                let moment = model[id as usize].take().expect("an entry ends once");
                prop_assert!(now.has_reached(Tick(moment)));
            }
            for moment in model.iter().flatten() {
                prop_assert!(!Tick(now.0.wrapping_sub(1 << SLOT_BITS)).has_reached(Tick(*moment)), "left behind");
            }
            if let Some(Some(moment)) = model.get_mut(which as usize) {
                let sooner = Tick(*moment).until(Tick(now.0.wrapping_add(timeout))) == 0;
                *moment = now.0.wrapping_add(timeout);
                list[which as usize].expires = *moment;
                if sooner {
                    wheel.unlink(which);
                    wheel.link(&list, which);
                }
            }
        }
        let left: Vec<u32> = (0u32..).zip(&model).filter(|(_, m)| m.is_some()).map(|(id, _)| id).collect();
        // Time may not jump by more than half its range, nor does it need to.
        prop_assert_eq!(ended(&mut wheel, &list, Tick(now.0.wrapping_add(300_064))), left);
    }
}
