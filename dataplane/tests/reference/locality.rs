//! `lblc` and `lblcr`: what is remembered of each destination address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::schedule::{Candidate, least};

/// Addresses with their real servers, the newest first, when they last changed and when they were last used.
#[derive(Default)]
pub struct Localities(BTreeMap<IpAddr, Locality>);

struct Locality {
    servers: Vec<u32>,
    changed: u32,
    used: u32,
    /// It may have been forgotten, and nothing was seen since that tells.
    doubtful: bool,
}

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

    fn seconds_since(&self, moment: u32) -> u32 {
        self.now.wrapping_sub(moment) / 100
    }
}

impl Localities {
    /// What nobody asked for in so long is forgotten sooner or later: it is, if that alone explains what was seen.
    fn forget(&mut self, pick: &Pick<'_>, would_be: Option<u32>) {
        let Some(known) = self.0.get_mut(&pick.vip) else { return };
        known.doubtful |= pick.seconds_since(known.used) >= pick.expiration;
        if known.doubtful && pick.seen.is_some() {
            known.doubtful = false;
            if pick.seen != would_be {
                self.0.remove(&pick.vip);
            }
        }
    }

    pub fn one(&mut self, pick: &Pick<'_>) -> Option<u32> {
        let server = self.0.get(&pick.vip).and_then(|known| known.servers.first().copied());
        let good = server
            .and_then(|server| pick.candidate(server))
            .filter(|c| c.weight > 0 && c.reachable && !pick.is_crowded(c))
            .map(|c| c.server);
        self.forget(pick, good.or_else(|| pick.least_of_all()));
        if let Some(known) = self.0.get_mut(&pick.vip) {
            known.used = pick.now;
            if good.is_some() {
                return good;
            }
        }
        let server = pick.least_of_all()?;
        self.0.insert(pick.vip, Locality { servers: vec![server], changed: pick.now, used: pick.now, doubtful: false });
        Some(server)
    }

    pub fn several(&mut self, pick: &Pick<'_>) -> Option<u32> {
        let busy = |c: &Candidate| u128::from(c.load());
        let good = |known: &Locality| {
            let mut best: Option<&Candidate> = None;
            for c in known.servers.iter().filter_map(|server| pick.candidate(*server)).filter(|c| c.takes_new()) {
                if best.is_none_or(|b| busy(b) * u128::from(c.weight) > busy(c) * u128::from(b.weight)) {
                    best = Some(c);
                }
            }
            best.filter(|c| !pick.is_crowded(c)).map(|c| c.server)
        };
        let would_be = self.0.get(&pick.vip).and_then(good).or_else(|| pick.least_of_all());
        self.forget(pick, would_be);
        if let Some(known) = self.0.get_mut(&pick.vip) {
            known.used = pick.now;
            let good = good(known);
            if known.servers.len() > 1 && pick.now.wrapping_sub(known.changed) > pick.expiration * 100 {
                let mut most: Option<&Candidate> = None;
                let mut gone = None;
                for server in &known.servers {
                    let Some(c) = pick.candidate(*server) else {
                        gone = Some(*server);
                        break;
                    };
                    if c.weight > 0 && most.is_none_or(|m| busy(m) * u128::from(c.weight) < busy(c) * u128::from(m.weight)) {
                        most = Some(c);
                    }
                }
                if let Some(server) = gone.or(most.map(|c| c.server)) {
                    known.servers.retain(|other| *other != server);
                    known.changed = pick.now;
                }
            }
            if good.is_some() {
                return good;
            }
        }
        let server = pick.least_of_all()?;
        let known =
            self.0.entry(pick.vip).or_insert_with(|| Locality { servers: Vec::new(), changed: pick.now, used: pick.now, doubtful: false });
        if !known.servers.contains(&server) {
            known.servers.insert(0, server);
            known.changed = pick.now;
        }
        Some(server)
    }
}
