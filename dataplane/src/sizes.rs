//! What a worker's tables take in memory, known before they are made. `dataplane/tests/sizes.rs` holds them against what they do take.

use crate::affinity::Affinity;
use crate::handover::Directory;

/// Bytes of each place of a connection table: 32 for the entry, 8 each for index, wheel and queues, 4 for its template.
pub const CONNECTION: u64 = 60;
/// Bytes more of each place that an IPv6 connection was in: taken when the first one comes.
pub const ADDRESSES_V6: u64 = 32;
/// Bytes more of each place once there is a masquerading real server: 16 beside the entry, 8 for the second index.
pub const MASQUERADING: u64 = 24;
/// Bytes of each place for a virtual service, on each worker.
pub const SERVICE: u64 = 292;
/// Bytes of each place for a real server, on each worker.
pub const REAL_SERVER: u64 = 552;

/// Bytes that one worker's tables take from the start: connections, services and real servers.
pub fn worker(connections: u32, services: u32, real_servers: u32) -> u64 {
    u64::from(connections) * CONNECTION + rules(services, real_servers)
}

/// Bytes of one worker's tables of services and real servers.
pub fn rules(services: u32, real_servers: u32) -> u64 {
    u64::from(services) * SERVICE + u64::from(real_servers) * REAL_SERVER
}

/// Bytes that `workers` share whose tables hold `connections` each; none for one alone.
pub fn between_workers(workers: usize, connections: u32) -> u64 {
    if workers < 2 {
        return 0;
    }
    let together = workers.saturating_mul(connections as usize);
    (Directory::places(together) + 8 * Affinity::places(together)) as u64
}
