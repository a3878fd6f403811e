//! Members for the schedulers' tests.

use std::sync::Arc;

use crate::service::{Member, ServerId};
use crate::stats::ServerStats;

/// A member without connections.
pub(super) fn member(id: u32, weight: u32) -> Member {
    Member { server: ServerId(id), weight, reachable: true, limited: false, stats: Arc::new(ServerStats::new(2)) }
}

/// A member whose MAC is not known.
pub(super) fn unreachable(id: u32, weight: u32) -> Member {
    Member { reachable: false, limited: false, ..member(id, weight) }
}

/// A member with connections, spread over two workers.
pub(super) fn busy(id: u32, weight: u32, active: u32, inactive: u32) -> Member {
    let member = member(id, weight);
    (0..active).for_each(|n| member.stats.share(n as usize % 2).active.increment());
    (0..inactive).for_each(|n| member.stats.share(n as usize % 2).inactive.increment());
    member
}

/// Members with these weights and ids from 0 on.
pub(super) fn members(weights: &[u32]) -> Vec<Member> {
    (0u32..).zip(weights).map(|(id, weight)| member(id, *weight)).collect()
}
