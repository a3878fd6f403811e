//! Memory of a connection table, all of it, for each connection that it accepts: what the process has more of once the table is full.

use dataplane::address::Address;
use dataplane::connection::{ConnectionTable, Key, NewEntry};
use dataplane::service::{ServerId, ServiceId};
use dataplane::tcp::State;
use dataplane::tick::Tick;
use serde_json::{Value, json};

use crate::Options;
use crate::frames::client;

/// Bytes of memory that this process has, in huge pages and others (proc(5)).
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(": 0 kB");
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().expect("kB")
    };
    (kib("VmRSS") + kib("HugetlbPages")) * 1024
}

fn fill(capacity: u32, v4: bool) -> Value {
    let before = resident();
    let mut table = ConnectionTable::new(capacity, capacity, [1, 2, 3, 4]).expect("memory");
    let vip = if v4 { Address::v4(0x0a0a_1858) } else { Address(0xfd00 << 112 | 0x88) };
    let new = NewEntry { server: ServerId(0), service: ServiceId(0), state: State::SynRecv as u8, flags: 0, timeout_ticks: 6000 };
    let mut accepted = 0_u32;
    loop {
        let from = client(accepted, v4);
        let key = Key { client: from.address, virtual_: vip, virtual_port: 80, client_port: from.port, protocol: 6 };
        if table.insert(table.hash(&key), &key, new, Tick(1)).is_err() {
            break;
        }
        accepted += 1;
    }
    let bytes = resident() - before;
    json!({ "connections": accepted, "bytes": bytes, "bytes_each": bytes as f64 / f64::from(accepted) })
}

pub fn run(options: &Options) -> Value {
    let capacity = options.number("connections", 4_000_000);
    json!({ "ipv4": fill(capacity, true), "ipv6": fill(capacity, false) })
}
