//! Which real server a new connection goes to: one file a scheduler or a pair of them, one arm a scheduler here.
//!
//! Order and ties are those of IPVS, so that rules moved from a kernel director spread connections the same way.

mod buckets;
mod by_weight;
mod destination_hash;
mod expected_delay;
mod least_connections;
mod locality;
mod maglev;
mod round_robin;
mod siphash;
mod source_hash;
mod two_choices;
mod weighted_round_robin;

use crate::address::Address;
use crate::connection::Key;
use crate::service::{Member, SchedulerKind, VirtualService};
use crate::settings::Settings;
use crate::tick::Tick;

pub use buckets::{Buckets, Seat};
use locality::{Expirations, Localities, Owner};
use round_robin::RoundRobin;
use siphash::siphash13;
use two_choices::Random;
use weighted_round_robin::WeightedRoundRobin;

/// What a scheduler may look at.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The service's members, newest first; the list that the scheduler was last told of.
    pub members: &'a [Member],
    /// The members' buckets, for the hashing schedulers.
    pub buckets: &'a Buckets,
    /// The revision of the list of members.
    pub revision: u64,
    /// CIP.
    pub client: Address,
    /// cport.
    pub client_port: u16,
    /// VIP.
    pub virtual_address: Address,
    /// When.
    pub now: Tick,
}

impl<'a> Pick<'a> {
    /// The pick for the first packet of connection `key` of `service`.
    #[inline]
    pub fn new(service: &'a VirtualService, key: &Key, now: Tick) -> Self {
        Self {
            members: &service.members,
            buckets: &service.buckets,
            revision: service.revision,
            client: key.client,
            client_port: key.client_port,
            virtual_address: key.virtual_,
            now,
        }
    }
}

/// What the schedulers of one worker have in common: chance, and what `lblc` and `lblcr` remember.
///
/// About 1.5 MiB, allocated when it is made and never again.
#[derive(Debug)]
pub struct Memory {
    random: Random,
    localities: Localities,
}

impl Memory {
    /// An empty memory. The same secret gives the same course; it must be another one for each worker.
    pub fn new(secret: [u64; 4], settings: &Settings) -> Self {
        let [a, b, c, d] = secret;
        let derived = |n: u64| siphash13([a, b], &[c, d], 17 << 56 | n);
        let localities = Localities::new([derived(1), derived(2)], expirations(settings));
        Self { random: Random::new(derived(0)), localities }
    }

    /// Follows a change of settings (`lblc_expiration`, `lblcr_expiration`).
    pub fn settings_changed(&mut self, settings: &Settings) {
        self.localities.expirations = expirations(settings);
    }

    /// Forgets what was not used for long, a little each turn. Cost in nearly all turns: one comparison.
    #[inline]
    pub fn sweep(&mut self, now: Tick) {
        self.localities.sweep(now);
    }
}

const fn expirations(settings: &Settings) -> Expirations {
    Expirations { lblc: settings.lblc_expiration, lblcr: settings.lblcr_expiration }
}

/// A scheduler with what it remembers of one service on one worker.
#[derive(Clone, Copy, Debug)]
pub struct Scheduler(State);

#[derive(Clone, Copy, Debug)]
enum State {
    RoundRobin(RoundRobin),
    WeightedRoundRobin(WeightedRoundRobin),
    Locality(Owner),
    LocalityReplicated(Owner),
    /// One that remembers nothing.
    Plain(SchedulerKind),
}

impl Scheduler {
    /// The scheduler that `service` asks for, at its beginning. It allocates nothing.
    pub fn new(service: &VirtualService, memory: &mut Memory) -> Self {
        Self(match service.scheduler {
            SchedulerKind::RoundRobin => State::RoundRobin(RoundRobin::default()),
            SchedulerKind::WeightedRoundRobin => State::WeightedRoundRobin(WeightedRoundRobin::new(&service.members)),
            SchedulerKind::LocalityLeastConnections => State::Locality(memory.localities.owner()),
            SchedulerKind::LocalityReplicated => State::LocalityReplicated(memory.localities.owner()),
            plain => State::Plain(plain),
        })
    }

    /// Follows a change of the service; must be called before the first [`pick`](Self::pick) from the new members.
    ///
    /// With another scheduler it begins anew; with an equal revision nothing changes.
    pub fn service_changed(&mut self, old: &VirtualService, new: &VirtualService, memory: &mut Memory) {
        if old.scheduler != new.scheduler {
            *self = Self::new(new, memory);
        } else if old.revision != new.revision {
            match &mut self.0 {
                State::RoundRobin(state) => state.members_changed(&old.members, &new.members),
                State::WeightedRoundRobin(state) => state.members_changed(&new.members),
                // What is remembered of real servers finds their new places when it is used.
                State::Locality(_) | State::LocalityReplicated(_) | State::Plain(_) => {}
            }
        }
    }

    /// The place in `pick.members` of the real server for a new connection; `None` when none takes any.
    ///
    /// Cost: rr a few members; sh, dh and mh one load (with fallback more, see there); the others one pass over the members, twos
    /// two, wrr at times three. lblcr first passes over the real servers that it remembers.
    #[inline]
    pub fn pick(&mut self, pick: &Pick<'_>, memory: &mut Memory) -> Option<usize> {
        match &mut self.0 {
            State::RoundRobin(state) => state.pick(pick.members),
            State::WeightedRoundRobin(state) => state.pick(pick.members),
            State::Locality(owner) => locality::pick(*owner, pick, &mut memory.localities),
            State::LocalityReplicated(owner) => locality::pick_replicated(*owner, pick, &mut memory.localities),
            State::Plain(kind) => match *kind {
                SchedulerKind::LeastConnections => least_connections::pick(pick.members),
                SchedulerKind::ShortestExpectedDelay => expected_delay::pick(pick.members),
                SchedulerKind::NeverQueue => expected_delay::pick_idle(pick.members),
                SchedulerKind::SourceHash { port, fallback } => source_hash::pick(port, fallback, pick),
                SchedulerKind::DestinationHash => destination_hash::pick(pick),
                SchedulerKind::Maglev { port, fallback } => maglev::pick(port, fallback, pick),
                SchedulerKind::Failover => by_weight::pick(pick.members),
                SchedulerKind::Overflow => by_weight::pick_with_room(pick.members),
                SchedulerKind::TwoChoices => two_choices::pick(pick.members, &mut memory.random),
                // The other kinds have states of their own.
                SchedulerKind::WeightedLeastConnections
                | SchedulerKind::RoundRobin
                | SchedulerKind::WeightedRoundRobin
                | SchedulerKind::LocalityLeastConnections
                | SchedulerKind::LocalityReplicated => least_connections::pick_weighted(pick.members),
            },
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
