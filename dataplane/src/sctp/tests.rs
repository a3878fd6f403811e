use proptest::prelude::*;

use super::*;

fn walk(table: Table, events: &[Event]) -> Vec<&'static str> {
    let mut state = State::None;
    let steps = events.iter().map(|event| {
        state = next(table, state, *event);
        state.name()
    });
    steps.collect()
}

/// A common header with these ports, and chunks of type and length, filled with zeros.
fn packet(chunks: &[(u8, u16)]) -> Vec<u8> {
    let mut bytes = vec![0x27, 0x10, 0x0b, 0x59, 0, 0, 0, 9, 1, 2, 3, 4];
    for (kind, length) in chunks {
        bytes.extend([*kind, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(length.saturating_sub(4)).next_multiple_of(4), 0);
    }
    bytes
}

#[test]
fn direct_routing_follows_the_client_from_init_to_shutdown() {
    use Event::{Abort, CookieEcho, Data, Init, Shutdown, ShutdownComplete};
    let only = |events: &[Event]| walk(Table::InputOnly, events);
    assert_eq!(only(&[Init, Init, CookieEcho, Data]), ["INIT1", "INIT", "ESTABLISHED", "ESTABLISHED"]);
    assert_eq!(only(&[Init, CookieEcho, Shutdown, ShutdownComplete, Init]), ["INIT1", "ESTABLISHED", "S-RECEIVED", "CLOSED", "INIT"]);
    assert_eq!(only(&[Init, Abort]), ["INIT1", "CLOSED"]);
    assert_eq!(only(&[Data]), ["ESTABLISHED"]);
}

#[test]
fn masquerading_sees_both_sides() {
    let mut state = State::None;
    let mut step = |table, event| {
        state = next(table, state, event);
        state.name()
    };
    assert_eq!(step(Table::Input, Event::Init), "INIT1");
    assert_eq!(step(Table::Output, Event::InitAck), "C-SENT");
    assert_eq!(step(Table::Input, Event::CookieEcho), "C-REPLIED");
    assert_eq!(step(Table::Output, Event::CookieAck), "ESTABLISHED");
    assert_eq!(step(Table::Output, Event::Shutdown), "S-SENT");
    assert_eq!(step(Table::Input, Event::ShutdownAck), "CLOSED");
    assert_eq!(next(Table::Output, State::Init1, Event::Abort).name(), "REJECTED");
}

#[test]
fn values_names_and_timeouts_are_those_of_ipvs() {
    for (value, state) in (0u8..).zip(ALL) {
        assert_eq!((state as u8, State::from_value(value)), (value, state));
    }
    for (value, event) in (0u8..).zip(EVENTS_BY_VALUE) {
        assert_eq!(event as u8, value);
    }
    assert_eq!(State::from_value(14), State::None);
    assert_eq!(ALL.map(State::timeout), [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61]);
    let half_open: Vec<_> = ALL.into_iter().filter(|state| state.is_half_open()).map(State::name).collect();
    assert_eq!(half_open, ["NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED"]);
}

#[test]
fn the_first_chunk_tells() {
    use Event::{Abort, CookieAck, CookieEcho, Data, Error, Init, InitAck, Shutdown, ShutdownAck, ShutdownComplete};
    let wanted = [
        Data,
        Init,
        InitAck,
        Data,
        Data,
        Data,
        Abort,
        Shutdown,
        ShutdownAck,
        Error,
        CookieEcho,
        CookieAck,
        Data,
        Data,
        ShutdownComplete,
        Data,
    ];
    for (kind, wanted) in (0u8..).zip(wanted).chain([(63, Data), (0xc1, Data), (255, Data)]) {
        let (source, destination, flags) = read(&packet(&[(kind, 4), (3, 16)])).unwrap();
        assert_eq!((source, destination, event(flags)), (10_000, 2905, wanted), "chunk type {kind}");
        assert_eq!(flags & tcp::SYN != 0, kind == 1, "INIT alone begins");
        assert_eq!(flags & tcp::RST != 0, kind == 6);
    }
}

#[test]
fn abort_behind_a_cookie_counts() {
    let behind = |chunks: &[(u8, u16)]| event(read(&packet(chunks)).unwrap().2);
    assert_eq!(behind(&[(10, 9), (6, 4)]), Event::Abort, "chunks are padded to four bytes");
    assert_eq!(behind(&[(11, 4), (6, 4)]), Event::Abort);
    assert_eq!(behind(&[(10, 8), (0, 16)]), Event::CookieEcho);
    assert_eq!(behind(&[(0, 16), (6, 4)]), Event::Data, "behind others it does not");
    for lie in [0, 3, 65_535] {
        let mut lies = packet(&[(10, 4), (6, 4)]);
        lies[14..16].copy_from_slice(&u16::to_be_bytes(lie));
        assert_eq!(event(read(&lies).unwrap().2), Event::CookieEcho);
    }
}

#[test]
fn a_packet_without_a_chunk_is_none() {
    let whole = packet(&[(1, 4)]);
    assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
    assert!(read(&whole).is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(read(&bytes).is_some(), bytes.len() >= 16);
    }
}
