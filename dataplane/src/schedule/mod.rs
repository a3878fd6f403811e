//! Which real server a new connection goes to: one file a scheduler, one arm a scheduler here.
//!
//! Order and ties are those of IPVS, so that rules moved from a kernel director spread connections the same way.

mod least_connections;
mod round_robin;
mod source_hash;
mod weighted_round_robin;

use crate::address::Address;
use crate::service::{Member, SchedulerKind, VirtualService};

use round_robin::RoundRobin;
use source_hash::SourceHash;
use weighted_round_robin::WeightedRoundRobin;

/// What a scheduler may look at.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The service's members, newest first; the list that the scheduler was last told of.
    pub members: &'a [Member],
    /// CIP.
    pub client: Address,
    /// cport.
    pub client_port: u16,
    /// VIP.
    pub virtual_address: Address,
}

/// A scheduler with what it remembers of one service on one worker.
#[derive(Debug)]
pub enum Scheduler {
    /// `rr`.
    RoundRobin(RoundRobin),
    /// `wrr`.
    WeightedRoundRobin(WeightedRoundRobin),
    /// `lc`.
    LeastConnections,
    /// `wlc`.
    WeightedLeastConnections,
    /// `sh`.
    SourceHash(SourceHash),
}

impl Scheduler {
    /// The scheduler that `service` asks for, at its beginning.
    pub fn new(service: &VirtualService) -> Self {
        match service.scheduler {
            SchedulerKind::RoundRobin => Self::RoundRobin(RoundRobin::default()),
            SchedulerKind::WeightedRoundRobin => Self::WeightedRoundRobin(WeightedRoundRobin::new(&service.members)),
            SchedulerKind::LeastConnections => Self::LeastConnections,
            SchedulerKind::WeightedLeastConnections => Self::WeightedLeastConnections,
            SchedulerKind::SourceHash { port, fallback } => Self::SourceHash(SourceHash::new(port, fallback, &service.members)),
        }
    }

    /// Follows a change of the service; must be called before the first [`pick`](Self::pick) from the new members.
    ///
    /// With another scheduler it begins anew; with an equal revision nothing changes.
    pub fn service_changed(&mut self, old: &VirtualService, new: &VirtualService) {
        if old.scheduler != new.scheduler {
            *self = Self::new(new);
        } else if old.revision != new.revision {
            match self {
                Self::RoundRobin(state) => state.members_changed(&old.members, &new.members),
                Self::WeightedRoundRobin(state) => state.members_changed(&new.members),
                Self::SourceHash(state) => state.members_changed(&new.members),
                Self::LeastConnections | Self::WeightedLeastConnections => {}
            }
        }
    }

    /// The place in `pick.members` of the real server for a new connection; `None` when none takes any.
    ///
    /// Cost: rr and sh a few members, the others one pass over the members (wrr at times two more).
    #[inline]
    pub fn pick(&mut self, pick: &Pick<'_>) -> Option<usize> {
        match self {
            Self::RoundRobin(state) => state.pick(pick.members),
            Self::WeightedRoundRobin(state) => state.pick(pick.members),
            Self::LeastConnections => least_connections::pick(pick.members),
            Self::WeightedLeastConnections => least_connections::pick_weighted(pick.members),
            Self::SourceHash(state) => state.pick(pick),
        }
    }
}

/// Whether a member takes new connections.
#[inline]
fn takes_new(member: &Member) -> bool {
    member.weight > 0 && member.reachable && !(member.limited && member.stats.is_overloaded())
}

#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
mod test_members;
