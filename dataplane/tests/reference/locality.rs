//! `lblc` and `lblcr`: what is remembered of each destination address.
//!
//! When something is forgotten that was not used for long, nobody can foretell to the turn. So there may be several memories that
//! it is possible to have; those that do not explain what is seen are given up. Where none is seen to get a connection, it may be
//! that none was picked, or that one was for which there was no room: both ways are tried.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::schedule::{Candidate, least};

#[derive(Clone)]
pub struct Localities(Vec<Memory>);

type Memory = BTreeMap<IpAddr, Locality>;

/// An address's real servers, the newest first, when they last changed and when they were last used.
#[derive(Clone, PartialEq, Eq)]
struct Locality {
    servers: Vec<u32>,
    changed: u32,
    used: u32,
}

impl Locality {
    fn may_be_forgotten(&self, now: u32, expiration: u32) -> bool {
        now.wrapping_sub(self.used) / 100 >= expiration
    }
}

/// Memories that are kept apart at most.
const MOST: usize = 32;

/// Enough of a member's surroundings.
pub struct Pick<'a> {
    pub candidates: &'a [Candidate],
    pub vip: IpAddr,
    pub now: u32,
    /// Seconds after which what is not used may be forgotten.
    pub expiration: u32,
    /// Where a new connection was seen to go.
    pub seen: Option<u32>,
}

impl Pick<'_> {
    fn candidate(&self, server: u32) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.server == server)
    }

    /// More active connections than its weight, while some member has fewer than half of its own.
    fn is_crowded(&self, c: &Candidate) -> bool {
        c.active > c.weight && self.candidates.iter().any(|c| c.reachable && c.active * 2 < c.weight)
    }

    fn least_of_all(&self) -> Option<u32> {
        least(self.candidates, Candidate::load, |c| u64::from(c.weight))
    }

    /// `lblc`: the real server that the address had, or the least busy one.
    fn one(&self, memory: &mut Memory) -> Option<u32> {
        if let Some(known) = memory.get_mut(&self.vip) {
            known.used = self.now;
            let good = known.servers.first().and_then(|server| self.candidate(*server));
            if let Some(good) = good.filter(|c| c.weight > 0 && c.reachable && !self.is_crowded(c)) {
                return Some(good.server);
            }
        }
        let server = self.least_of_all()?;
        memory.insert(self.vip, Locality { servers: vec![server], changed: self.now, used: self.now });
        Some(server)
    }

    /// `lblcr`: the least busy of the real servers that the address has, or of all, which is added to them.
    fn several(&self, memory: &mut Memory) -> Option<u32> {
        if let Some(known) = memory.get_mut(&self.vip) {
            known.used = self.now;
            let its: Vec<&Candidate> = known.servers.iter().filter_map(|server| self.candidate(*server)).collect();
            let mut best: Option<&Candidate> = None;
            for c in its.into_iter().filter(|c| c.takes_new()) {
                if best.is_none_or(|b| is_busier(b, c)) {
                    best = Some(c);
                }
            }
            let good = best.filter(|c| !self.is_crowded(c)).map(|c| c.server);
            if known.servers.len() > 1 && self.now.wrapping_sub(known.changed) > self.expiration * 100 {
                self.lose(known);
            }
            if good.is_some() {
                return good;
            }
        }
        let server = self.least_of_all()?;
        let new = Locality { servers: Vec::new(), changed: self.now, used: self.now };
        let known = memory.entry(self.vip).or_insert(new);
        if !known.servers.contains(&server) {
            known.servers.insert(0, server);
            known.changed = self.now;
        }
        Some(server)
    }

    /// A set loses one that is no member any more, or else the busiest.
    fn lose(&self, known: &mut Locality) {
        let mut most: Option<&Candidate> = None;
        let mut gone = known.servers.iter().find(|server| self.candidate(**server).is_none()).copied();
        for c in known.servers.iter().filter_map(|server| self.candidate(*server)).filter(|c| c.weight > 0) {
            if most.is_none_or(|m| is_busier(c, m)) {
                most = Some(c);
            }
        }
        gone = gone.or(most.map(|c| c.server));
        if let Some(server) = gone {
            known.servers.retain(|other| *other != server);
            known.changed = self.now;
        }
    }
}

/// Whether `a` has a greater load for its weight than `b`.
fn is_busier(a: &Candidate, b: &Candidate) -> bool {
    u128::from(a.load()) * u128::from(b.weight) > u128::from(b.load()) * u128::from(a.weight)
}

impl Default for Localities {
    fn default() -> Self {
        Self(vec![Memory::new()])
    }
}

impl Localities {
    /// Whether something that is known may have been forgotten by now.
    pub fn may_forget(&self, now: u32, expiration: u32) -> bool {
        self.0.iter().flat_map(Memory::values).any(|known| known.may_be_forgotten(now, expiration))
    }

    /// The real server for a connection; `choose` says which of so many picks, where several are possible.
    pub fn pick(&mut self, pick: &Pick<'_>, replicated: bool, choose: &mut dyn FnMut(usize) -> usize) -> Option<u32> {
        let mut possible = self.0.clone();
        for memory in &self.0 {
            if memory.get(&pick.vip).is_some_and(|known| known.may_be_forgotten(pick.now, pick.expiration)) {
                let mut without = memory.clone();
                without.remove(&pick.vip);
                possible.push(without);
            }
        }
        let mut outcomes: Vec<(Option<u32>, Memory)> = Vec::new();
        for mut memory in possible {
            let server = if replicated { pick.several(&mut memory) } else { pick.one(&mut memory) };
            if !outcomes.contains(&(server, memory.clone())) {
                outcomes.push((server, memory));
            }
        }
        if outcomes.iter().any(|(server, _)| pick.seen.is_some() && *server == pick.seen) {
            outcomes.retain(|(server, _)| *server == pick.seen);
        }
        let mut servers: Vec<Option<u32>> = Vec::new();
        for (server, _) in &outcomes {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        let server = if servers.len() > 1 { servers[choose(servers.len())] } else { servers[0] };
        outcomes.retain(|(other, _)| *other == server);
        outcomes.truncate(MOST);
        self.0 = outcomes.into_iter().map(|(_, memory)| memory).collect();
        server
    }
}
