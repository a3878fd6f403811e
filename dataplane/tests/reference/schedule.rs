//! Schedulers, word for word from their rules, one step after the other.

use std::net::IpAddr;

use dataplane::service::{Member, SchedulerKind, VirtualService};

/// What a scheduler may know of a member at the moment of a pick.
pub struct Candidate {
    pub server: u32,
    pub weight: u32,
    /// Whether it may be picked, its weight aside: it has a MAC and is not overloaded.
    pub open: bool,
    pub active: u32,
    pub inactive: u32,
}

impl Candidate {
    fn takes_new(&self) -> bool {
        self.open && self.weight > 0
    }

    fn load(&self) -> u64 {
        256 * u64::from(self.active) + u64::from(self.active + self.inactive)
    }
}

/// What `rr` and `wrr` remember.
#[derive(Default)]
pub struct Marks {
    /// The real server picked last; `None` for the head of the list.
    last: Option<u32>,
    /// The weight that this round asks for.
    level: i64,
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
        Self { last: None, level: levels(&service.members).1 }
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

    /// The real server for a new connection.
    pub fn pick(&mut self, service: &VirtualService, candidates: &[Candidate], client: IpAddr, client_port: u16) -> Option<u32> {
        match service.scheduler {
            SchedulerKind::RoundRobin => self.round_robin(candidates),
            SchedulerKind::WeightedRoundRobin => self.weighted_round_robin(service, candidates),
            SchedulerKind::LeastConnections => least(candidates, |_| 1),
            SchedulerKind::WeightedLeastConnections => least(candidates, |c| u64::from(c.weight)),
            SchedulerKind::SourceHash { port, fallback } => source_hash(candidates, client, if port { client_port } else { 0 }, fallback),
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

/// The least load for the weight; the first of equals.
fn least(candidates: &[Candidate], weight: impl Fn(&Candidate) -> u64) -> Option<u32> {
    let mut best: Option<&Candidate> = None;
    for c in candidates.iter().filter(|c| c.takes_new()) {
        if best.is_none_or(|b| u128::from(b.load()) * u128::from(weight(c)) > u128::from(c.load()) * u128::from(weight(b))) {
            best = Some(c);
        }
    }
    best.map(|c| c.server)
}

/// 256 buckets, given to the members in order, as many in a row as each one's weight says but at least one.
fn source_hash(candidates: &[Candidate], client: IpAddr, port: u16, fallback: bool) -> Option<u32> {
    if candidates.is_empty() {
        return None;
    }
    let mut buckets = Vec::new();
    while buckets.len() < 256 {
        for (at, c) in candidates.iter().enumerate() {
            for _ in 0..c.weight.clamp(1, 256) {
                buckets.push(at);
            }
        }
    }
    let folded = match client {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => v6.octets().chunks(4).fold(0, |fold, word| fold ^ u32::from_be_bytes([word[0], word[1], word[2], word[3]])),
    };
    // The top eight bits of the product with 2^32 times the golden ratio's inverse squared, as the kernel's hash_32 has it.
    let hash = |offset: u32| ((folded.wrapping_add(u32::from(port)).wrapping_mul(0x61c8_8647) >> 24) + offset) % 256;
    let open = |bucket: u32| Some(&candidates[buckets[bucket as usize]]).filter(|c| c.takes_new()).map(|c| c.server);
    let home = hash(0);
    open(home).or_else(|| if fallback { (0..256).find_map(|offset| open(hash((home + offset) % 256))) } else { None })
}
