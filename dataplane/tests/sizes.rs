//! What `dataplane::sizes` says is what the tables take. A file of its own: other tests of the same process take memory, too.

use dataplane::connection::{ConnectionTable, Replies};
use dataplane::rules::Rules;
use dataplane::sizes;

/// Bytes of address space that this process has; `None` when the kernel does not say.
fn mapped() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// What is made, and the bytes that it takes. To be kept until all is made: the allocator does not give all back that is freed.
fn taken<T>(make: impl FnOnce() -> T) -> (T, u64) {
    let before = mapped();
    let made = make();
    let after = mapped();
    (made, after.zip(before).map_or(0, |(after, before)| after - before))
}

#[test]
fn tables_take_what_is_said_of_them() {
    const PLACES: u32 = 1 << 20;
    // Whole pages, and what the allocator adds.
    const ROUNDING: u64 = 3 << 20;
    let places = u64::from(PLACES);

    let (_table, table) = taken(|| ConnectionTable::new(PLACES, PLACES / 4, [1; 4]).unwrap());
    let said = places * (sizes::CONNECTION + sizes::ADDRESSES_V6);
    assert!((said..said + 6 * ROUNDING).contains(&table), "connections: {said} said, {table} taken");

    let (_replies, replies) = taken(|| Replies::new(PLACES).unwrap());
    let said = places * sizes::MASQUERADING;
    assert!((said..said + 2 * ROUNDING).contains(&replies), "masquerading: {said} said, {replies} taken");

    let mut all = Vec::new();
    for (services, servers) in [(1 << 18, 1), (1, 1 << 20), (16_384, 131_072)] {
        let (made, rules) = taken(|| Rules::new(0, services, servers, Vec::new(), [2; 4]).unwrap());
        let said = sizes::rules(services, servers);
        // Hash tables have powers of two.
        assert!((said / 2..said + ROUNDING).contains(&rules), "{services} services, {servers} real servers: {said} said, {rules} taken");
        all.push(made);
    }
}
