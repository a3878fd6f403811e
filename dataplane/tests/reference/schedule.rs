//! Schedulers, word for word from their rules, one step after the other.

use std::net::IpAddr;

use dataplane::service::{Member, SchedulerKind, VirtualService};
use dataplane::settings::Settings;

use super::hashing;
use super::locality::{self, Localities};

/// What a scheduler may know of a member at the moment of a pick.
pub struct Candidate {
    pub server: u32,
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
    /// The last weight that it had and that was not 0.
    pub last_weight: u32,
    /// Whether it has a MAC.
    pub reachable: bool,
    /// Whether it may be picked, its weight aside: it has a MAC and is not overloaded.
    pub open: bool,
    pub active: u32,
    pub inactive: u32,
}

impl Candidate {
    pub fn takes_new(&self) -> bool {
        self.open && self.weight > 0
    }

    pub fn load(&self) -> u64 {
        256 * u64::from(self.active) + u64::from(self.active + self.inactive)
    }
}

/// A new connection that wants a real server.
pub struct Request<'a> {
    pub client: IpAddr,
    pub client_port: u16,
    pub vip: IpAddr,
    pub now: u32,
    pub settings: &'a Settings,
    /// Real servers that were seen to get a new connection, for what is drawn by lot or forgotten at some time.
    pub seen: &'a [u32],
}

/// What schedulers remember.
#[derive(Clone, Default)]
pub struct Marks {
    /// The real server picked last; `None` for the head of the list.
    last: Option<u32>,
    /// The weight that this round asks for.
    level: i64,
    localities: Localities,
    /// `mh`'s buckets, and the revision that they are of.
    maglev: Option<(u64, Vec<usize>)>,
}

/// Distance between levels, and the highest.
fn levels(members: &[Member]) -> (i64, i64) {
    let gcd = |a: i64, b: i64| {
        let (mut a, mut b) = (a, b);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let weights = || members.iter().map(|m| i64::from(m.weight));
    let step = weights().fold(0, gcd).max(1);
    (step, (weights().max().unwrap_or(0) - (step - 1)).max(0))
}

impl Marks {
    pub fn new(service: &VirtualService) -> Self {
        Self { level: levels(&service.members).1, ..Self::default() }
    }

    /// Follows a change of the members.
    pub fn follow(&mut self, old: &VirtualService, new: &VirtualService) {
        if old.scheduler != new.scheduler {
            *self = Self::new(new);
        } else if old.revision != new.revision {
            match new.scheduler {
                SchedulerKind::RoundRobin => self.step_back(old, new),
                SchedulerKind::WeightedRoundRobin => {
                    let (step, top) = levels(&new.members);
                    self.last = None;
                    if self.level > top || self.level == 0 {
                        self.level = top;
                    } else if step > 1 {
                        self.level = self.level / step * step + 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// A removed member hands the mark to the one before it.
    fn step_back(&mut self, old: &VirtualService, new: &VirtualService) {
        while let Some(last) = self.last
            && new.members.iter().all(|m| m.server.0 != last)
        {
            let at = old.members.iter().position(|m| m.server.0 == last).expect("was a member");
            self.last = at.checked_sub(1).map(|before| old.members[before].server.0);
        }
    }

    /// Whether what is remembered may have been forgotten by now.
    pub fn may_forget(&self, service: &VirtualService, now: u32, settings: &Settings) -> bool {
        match service.scheduler {
            SchedulerKind::LocalityLeastConnections => self.localities.may_forget(now, settings.lblc_expiration),
            SchedulerKind::LocalityReplicated => self.localities.may_forget(now, settings.lblcr_expiration),
            _ => false,
        }
    }

    /// The real server for a new connection; `choose` says which of so many, where several are as right.
    pub fn pick(
        &mut self,
        service: &VirtualService,
        candidates: &[Candidate],
        request: &Request<'_>,
        choose: &mut dyn FnMut(usize) -> usize,
    ) -> Option<u32> {
        let port = |counts: bool| if counts { request.client_port } else { 0 };
        let weight = |c: &Candidate| u64::from(c.weight);
        let delay = |c: &Candidate| u64::from(c.active) + 1;
        let seen = request.seen.iter().find(|server| candidates.iter().any(|c| c.server == **server)).copied();
        let local = |expiration| locality::Pick { candidates, vip: request.vip, now: request.now, expiration, seen };
        match service.scheduler {
            SchedulerKind::RoundRobin => self.round_robin(candidates),
            SchedulerKind::WeightedRoundRobin => self.weighted_round_robin(service, candidates),
            SchedulerKind::LeastConnections => least(candidates, Candidate::load, |_| 1),
            SchedulerKind::WeightedLeastConnections => least(candidates, Candidate::load, weight),
            SchedulerKind::ShortestExpectedDelay => least(candidates, delay, weight),
            SchedulerKind::NeverQueue => {
                let idle = candidates.iter().find(|c| c.takes_new() && c.active == 0).map(|c| c.server);
                idle.or_else(|| least(candidates, delay, weight))
            }
            SchedulerKind::Failover => heaviest(candidates, |_| true),
            SchedulerKind::Overflow => heaviest(candidates, |c| c.active <= c.weight),
            SchedulerKind::TwoChoices => {
                // Any of them may be drawn twice.
                let taking: Vec<u32> = candidates.iter().filter(|c| c.takes_new()).map(|c| c.server).collect();
                seen.filter(|server| taking.contains(server)).or(taking.first().copied())
            }
            SchedulerKind::LocalityLeastConnections => self.localities.pick(&local(request.settings.lblc_expiration), false, choose),
            SchedulerKind::LocalityReplicated => self.localities.pick(&local(request.settings.lblcr_expiration), true, choose),
            SchedulerKind::DestinationHash => hashing::destination(candidates, request.vip),
            SchedulerKind::Maglev { port: with_port, fallback } => {
                if self.maglev.as_ref().is_none_or(|(revision, _)| *revision != service.revision) {
                    self.maglev = Some((service.revision, hashing::maglev_table(candidates, request.client.is_ipv6())));
                }
                let (_, table) = self.maglev.as_ref()?;
                hashing::maglev(candidates, table, request.client, port(with_port), fallback)
            }
            SchedulerKind::SourceHash { port: with_port, fallback } => {
                hashing::source(candidates, request.client, port(with_port), fallback)
            }
        }
    }

    fn round_robin(&mut self, candidates: &[Candidate]) -> Option<u32> {
        let after = self.last.and_then(|last| candidates.iter().position(|c| c.server == last)).map_or(0, |at| at + 1);
        let picked = (after..candidates.len()).chain(0..after).find(|at| candidates[*at].takes_new()).map(|at| candidates[at].server);
        self.last = picked.or(self.last);
        picked
    }

    /// Walks on from the member picked last; at the list's end the level sinks by a step, from the lowest to the top. Ends in
    /// vain when all members were looked at on the lowest level; those after the mark may have been looked at first, on that
    /// level, before the top came round again.
    fn weighted_round_robin(&mut self, service: &VirtualService, candidates: &[Candidate]) -> Option<u32> {
        let (step, top) = levels(&service.members);
        if top == 0 {
            return None;
        }
        let start = self.last.and_then(|last| candidates.iter().position(|c| c.server == last));
        let mut from = start.map_or(0, |at| at + 1);
        let (mut lowest, mut came_round, mut stop) = (false, false, None);
        loop {
            for (at, candidate) in candidates.iter().enumerate().skip(from) {
                if candidate.open && i64::from(candidate.weight) >= self.level {
                    self.last = Some(candidate.server);
                    return self.last;
                }
                if stop == Some(at) {
                    self.last = Some(candidate.server);
                    return None;
                }
            }
            from = 0;
            self.level -= step;
            if self.level <= 0 {
                self.level = top;
                if lowest || start.is_none() {
                    self.last = None;
                    return None;
                }
                came_round = true;
            }
            lowest = self.level <= step;
            if lowest && came_round && start.is_some() {
                stop = start;
            }
        }
    }
}

/// The least of something for the weight, compared by multiplying across; the first of equals.
pub fn least(candidates: &[Candidate], of: impl Fn(&Candidate) -> u64, weight: impl Fn(&Candidate) -> u64) -> Option<u32> {
    let mut best: Option<&Candidate> = None;
    for c in candidates.iter().filter(|c| c.takes_new()) {
        if best.is_none_or(|b| u128::from(of(b)) * u128::from(weight(c)) > u128::from(of(c)) * u128::from(weight(b))) {
            best = Some(c);
        }
    }
    best.map(|c| c.server)
}

/// The greatest weight among those that fit; the first of equals.
fn heaviest(candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool) -> Option<u32> {
    let mut best: Option<&Candidate> = None;
    for c in candidates.iter().filter(|c| c.takes_new() && fits(c)) {
        if best.is_none_or(|b| c.weight > b.weight) {
            best = Some(c);
        }
    }
    best.map(|c| c.server)
}
