use crate::address::Address;
use crate::connection::entry::{TEMPLATE, flags};
use crate::connection::{ConnectionTable, EntryId, Key, NewEntry};
use crate::service::{ServerId, ServiceId};
use crate::tcp::State;
use crate::tick::Tick;

const SECOND: u32 = Tick::PER_SECOND;

fn insert(table: &mut ConnectionTable, n: u32, protocol: u8, seconds: u32) -> EntryId {
    let key = Key { client: Address::v4(n), virtual_: Address::v4(1), client_port: 0, virtual_port: 80, protocol };
    let timeout_ticks = seconds * SECOND;
    let new = NewEntry { server: ServerId(3), service: ServiceId(1), state: State::None as u8, flags: flags::NO_OUTPUT, timeout_ticks };
    table.insert(table.hash(&key), &key, new, Tick(0)).unwrap()
}

fn table() -> ConnectionTable {
    ConnectionTable::new(10, 10, [1, 2, 3, 4]).unwrap()
}

fn ended(table: &mut ConnectionTable, seconds: u32) -> u32 {
    let mut ended = 0;
    table.expire(Tick(seconds * SECOND + 50), usize::MAX, &mut |_, _| ended += 1);
    ended
}

#[test]
fn template_outlives_its_connections_a_minute_at_a_time() {
    let mut table = table();
    let template = insert(&mut table, 1, TEMPLATE | 6, 10);
    let connection = insert(&mut table, 2, 6, 65);
    table.set_template(connection, template);
    assert_eq!((table.template(connection), table.template(template)), (Some(template), None));
    assert!(!table.may_remove(template) && table.may_remove(connection));
    assert_eq!(ended(&mut table, 10), 0, "its connection still lives");
    assert_eq!(ended(&mut table, 66), 1, "the connection");
    assert!(table.may_remove(template));
    assert_eq!(ended(&mut table, 69), 0);
    assert_eq!(ended(&mut table, 71), 1, "sixty seconds after it was due");
    assert!(table.is_empty());
}

#[test]
fn removed_connection_frees_its_template() {
    let mut table = table();
    let template = insert(&mut table, 1, TEMPLATE | 0x11, 300);
    let connections = [2, 3].map(|n| insert(&mut table, n, 17, 300));
    for connection in connections {
        table.set_template(connection, template);
    }
    table.remove(connections[0]);
    assert!(!table.may_remove(template));
    table.remove(connections[1]);
    assert!(table.may_remove(template));
    let another = insert(&mut table, 4, 17, 300);
    assert_eq!(table.template(another), None, "what was noted of a place ends with the entry in it");
}

#[test]
fn assured_template_gives_its_half_open_place_back_once() {
    let mut table = table();
    let template = insert(&mut table, 1, TEMPLATE | 6, 300);
    assert_eq!(table.half_open(), 1);
    table.assure(template);
    table.assure(template);
    assert_eq!((table.half_open(), table.entry(template).state_name()), (0, "ASSURED"));
    table.remove(template);
    assert_eq!(table.half_open(), 0);
}

#[test]
fn adopted_templates_control_nothing() {
    let mut table = table();
    let template = insert(&mut table, 1, TEMPLATE | 6, 300);
    let connection = insert(&mut table, 2, 17, 900);
    table.set_template(connection, template);
    assert_eq!(table.rebuild_index(Tick(0), Tick(0)), 2);
    assert!(table.may_remove(template));
    assert_eq!(table.template(connection), None);
    assert_eq!(table.half_open(), 1);
}

#[test]
fn redirected_template_keeps_its_connections_and_its_state() {
    let mut table = table();
    let template = insert(&mut table, 1, TEMPLATE | 6, 300);
    let connection = insert(&mut table, 2, 6, 900);
    table.set_template(connection, template);
    table.assure(template);
    table.redirect(template, ServerId(9), ServiceId(7));
    let entry = table.entry(template);
    assert_eq!((entry.server(), entry.service(), entry.in_packets, entry.state_name()), (ServerId(9), ServiceId(7), 1, "ASSURED"));
}

#[test]
fn template_put_aside_is_not_found_but_keeps_its_time_and_its_connections() {
    let mut table = table();
    let key = Key { client: Address::v4(1), virtual_: Address::v4(1), client_port: 0, virtual_port: 80, protocol: TEMPLATE | 6 };
    let template = insert(&mut table, 1, TEMPLATE | 6, 10);
    let connection = insert(&mut table, 2, 6, 65);
    table.set_template(connection, template);
    assert!(table.invalidate(template) && !table.invalidate(template), "once");
    assert_eq!(table.find(table.hash(&key), &key), None);
    let next = insert(&mut table, 1, TEMPLATE | 6, 300);
    assert!(table.invalidate(next), "several of one client");
    assert_eq!((table.len(), table.template(connection)), (3, Some(template)));
    assert_eq!(ended(&mut table, 80), 1, "the connection, before its template");
    assert_eq!(ended(&mut table, 301), 2);
    assert!(table.is_empty());
}
