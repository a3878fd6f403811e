use super::*;

const OWN: Mac = [2, 0, 0, 0, 0, 1];
const A: Mac = [2, 0, 0, 0, 0, 0x21];
const B: Mac = [2, 0, 0, 0, 0, 0x22];

fn rip(last: u8) -> IpAddr {
    IpAddr::from([10, 10, 24, last])
}

fn neighbours() -> Neighbours {
    let names = BTreeMap::from([(0, "lan".to_owned()), (1, "wan".to_owned())]);
    Neighbours::new(names, BTreeSet::from([OWN]), [((1, rip(9)), B)])
}

fn wanting(keys: &[Key]) -> Neighbours {
    let mut all = neighbours();
    all.want(&keys.iter().copied().collect());
    while all.tell().is_some() {}
    all
}

fn entry(address: IpAddr, state: NeighbourState, mac: Option<Mac>) -> Entry {
    Entry { link: 5, address, state, mac, managed: true }
}

#[derive(Debug, PartialEq)]
enum Told {
    Nothing,
    Found(Mac),
    Lost,
}

fn see(all: &mut Neighbours, state: NeighbourState, mac: Option<Mac>) -> Told {
    all.saw(0, &entry(rip(21), state, mac), Instant::now());
    match all.tell() {
        None => Told::Nothing,
        Some(NeighbourEvent { port: 0, address, mac }) if address == rip(21) => mac.map_or(Told::Lost, Told::Found),
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_given_neighbour_is_told_at_once_and_never_asked_for() {
    let mut all = neighbours();
    assert_eq!(all.tell(), Some(NeighbourEvent { port: 1, address: rip(9), mac: Some(B) }));
    assert_eq!(all.tell(), None);
    assert_eq!(all.want(&BTreeSet::from([(1, rip(9))])), Difference::default());
    all.saw(1, &entry(rip(9), NeighbourState::Failed, None), Instant::now());
    assert_eq!((all.tell(), all.due(1)), (None, vec![]));
    assert_eq!(all.list()[0].state, "static");
}

#[test]
fn a_neighbour_is_told_when_found_changed_and_lost() {
    use NeighbourState::{Delay, Failed, Incomplete, Probe, Reachable, Stale};
    let mut all = wanting(&[(0, rip(21))]);
    for (state, mac, told) in [
        (Incomplete, None, Told::Nothing),
        (Reachable, Some(A), Told::Found(A)),
        (Stale, Some(A), Told::Nothing),
        (Delay, Some(A), Told::Nothing),
        (Probe, Some(A), Told::Nothing),
        (Reachable, Some(B), Told::Found(B)),
        (Failed, Some(B), Told::Lost),
        (Incomplete, None, Told::Nothing),
        (Reachable, Some(A), Told::Found(A)),
    ] {
        assert_eq!(see(&mut all, state, mac), told, "{state:?} {mac:?}");
    }
}

#[test]
fn a_neighbour_that_changed_twice_is_told_once_as_it_is() {
    let mut all = wanting(&[(0, rip(21))]);
    let now = Instant::now();
    all.saw(0, &entry(rip(21), NeighbourState::Reachable, Some(A)), now);
    all.saw(0, &entry(rip(21), NeighbourState::Reachable, Some(B)), now);
    assert_eq!(all.tell().map(|event| event.mac), Some(Some(B)));
    all.saw(0, &entry(rip(21), NeighbourState::Failed, None), now);
    all.saw(0, &entry(rip(21), NeighbourState::Reachable, Some(B)), now);
    assert_eq!(all.tell(), None);
}

#[test]
fn macs_that_no_other_machine_can_have_are_not_used() {
    for bad in [OWN, [0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        let mut all = wanting(&[(0, rip(21))]);
        assert_eq!(see(&mut all, NeighbourState::Reachable, Some(bad)), Told::Nothing, "{bad:?}");
        assert_eq!(all.list()[0].mac, None);
        assert_eq!(see(&mut all, NeighbourState::Reachable, Some(A)), Told::Found(A));
        assert_eq!(see(&mut all, NeighbourState::Reachable, Some(bad)), Told::Lost, "{bad:?}");
    }
}

#[test]
fn a_neighbour_wanted_no_more_is_told_as_unknown_and_found_again_later() {
    let mut all = wanting(&[(0, rip(21)), (0, rip(22))]);
    assert_eq!(see(&mut all, NeighbourState::Reachable, Some(A)), Told::Found(A));
    let difference = all.want(&BTreeSet::from([(0, rip(22))]));
    assert_eq!(difference, Difference { added: vec![], removed: vec![(0, rip(21))] });
    assert_eq!(all.tell(), Some(NeighbourEvent { port: 0, address: rip(21), mac: None }));
    assert_eq!(see(&mut all, NeighbourState::Reachable, Some(A)), Told::Nothing);
    assert_eq!(all.want(&BTreeSet::from([(0, rip(21)), (0, rip(22))])).added, [(0, rip(21))]);
    assert_eq!(see(&mut all, NeighbourState::Reachable, Some(A)), Told::Found(A));
}

#[test]
fn a_port_that_does_not_exist_is_passed_over() {
    assert_eq!(neighbours().want(&BTreeSet::from([(7, rip(21))])), Difference::default());
}

#[test]
fn what_the_kernel_gave_up_is_asked_for_again() {
    use NeighbourState::{Delay, Failed, Incomplete, Probe, Reachable, Stale};
    let mut all = wanting(&[(0, rip(21))]);
    assert_eq!(all.due(0), [rip(21)]);
    for (state, managed, due) in [
        (Incomplete, true, false),
        (Failed, true, true),
        (Reachable, false, false),
        (Stale, true, false),
        (Stale, false, true),
        (Delay, false, false),
        (Probe, false, false),
        (Failed, false, true),
    ] {
        all.saw(0, &Entry { managed, ..entry(rip(21), state, Some(A)) }, Instant::now());
        assert_eq!(!all.due(0).is_empty(), due, "{state:?}, managed {managed}");
        assert_eq!(all.due(1), [] as [IpAddr; 0]);
    }
}

#[test]
fn after_lost_events_what_the_kernel_has_no_more_is_unknown() {
    let mut all = wanting(&[(0, rip(21)), (0, rip(22)), (1, rip(21))]);
    let now = Instant::now();
    for (port, last, mac) in [(0, 21, A), (0, 22, B), (1, 21, A)] {
        all.saw(port, &entry(rip(last), NeighbourState::Reachable, Some(mac)), now);
    }
    while all.tell().is_some() {}
    all.saw_all(&[(0, entry(rip(22), NeighbourState::Stale, Some(A))), (1, entry(rip(21), NeighbourState::Reachable, Some(A)))], now);
    assert_eq!(all.tell(), Some(NeighbourEvent { port: 0, address: rip(21), mac: None }));
    assert_eq!(all.tell(), Some(NeighbourEvent { port: 0, address: rip(22), mac: Some(A) }));
    assert_eq!(all.tell(), None);
}

#[test]
fn an_event_older_than_what_is_known_takes_no_mac_away_but_the_whole_table_does() {
    for state in [NeighbourState::None, NeighbourState::Incomplete] {
        let mut all = wanting(&[(0, rip(21))]);
        assert_eq!(see(&mut all, NeighbourState::Reachable, Some(A)), Told::Found(A));
        assert_eq!(see(&mut all, state, None), Told::Nothing, "{state:?}");
        all.saw_all(&[(0, entry(rip(21), state, None))], Instant::now());
        assert_eq!(all.tell().map(|event| event.mac), Some(None), "{state:?}");
    }
}

#[test]
fn a_neighbour_given_to_the_kernel_by_hand_is_settled() {
    let mut all = wanting(&[(0, rip(21))]);
    assert!(!all.is_settled((0, rip(21))));
    assert_eq!(see(&mut all, NeighbourState::Permanent, Some(A)), Told::Found(A));
    assert!(all.is_settled((0, rip(21))) && all.due(0).is_empty());
}

#[test]
fn a_lost_port_takes_its_neighbours_along_but_not_the_given_ones() {
    let mut all = wanting(&[(0, rip(21)), (1, rip(21))]);
    let now = Instant::now();
    for port in [0, 1] {
        all.saw(port, &entry(rip(21), NeighbourState::Reachable, Some(A)), now);
    }
    while all.tell().is_some() {}
    all.lost_port(1, now);
    assert_eq!(all.tell(), Some(NeighbourEvent { port: 1, address: rip(21), mac: None }));
    assert_eq!(all.tell(), None);
    assert_eq!(all.list().iter().filter_map(|row| row.mac.as_deref()).collect::<Vec<_>>(), [show(A), show(B)]);
}
