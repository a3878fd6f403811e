//! Members for the schedulers' tests.

use std::sync::Arc;

use crate::address::Address;
use crate::schedule::{Buckets, Pick, Seat};
use crate::service::{Member, SchedulerKind, ServerId};
use crate::stats::ServerStats;
use crate::tick::Tick;

/// A member without connections.
pub(super) fn member(id: u32, weight: u32) -> Member {
    Member { server: ServerId(id), weight, reachable: true, limited: false, stats: Arc::new(ServerStats::new(2)) }
}

/// A member whose MAC is not known.
pub(super) fn unreachable(id: u32, weight: u32) -> Member {
    Member { reachable: false, limited: false, ..member(id, weight) }
}

/// A member that has reached its upper threshold.
pub(super) fn overloaded(id: u32, weight: u32) -> Member {
    let member = Member { limited: true, ..member(id, weight) };
    member.stats.set_overloaded(true);
    member
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

/// The seat of real server 10.10.0.0 plus `n`, port 80.
pub(super) fn seat(n: u32, weight: u32) -> Seat {
    Seat { address: Address::v4(0x0a0a_0000 + n), port: 80, weight, last_weight: weight }
}

/// Members with the buckets that a hashing scheduler gives them.
pub(super) struct Hashed<'a> {
    pub(super) members: &'a [Member],
    pub(super) buckets: Buckets,
}

impl<'a> Hashed<'a> {
    pub(super) fn new(kind: SchedulerKind, members: &'a [Member]) -> Self {
        let seats: Vec<Seat> = members.iter().map(|m| seat(m.server.0, m.weight)).collect();
        Self { members, buckets: Buckets::new(kind, false, &seats) }
    }

    pub(super) fn pick(&self, client: Address, client_port: u16) -> Pick<'_> {
        let Self { members, buckets } = self;
        Pick { members, buckets, revision: 0, client, client_port, virtual_address: Address::v4(1), now: Tick(0) }
    }
}
