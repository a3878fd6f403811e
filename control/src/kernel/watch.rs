//! The watch over VIPs: before one is taken it is probed for (RFC 5227), from then on it is asked for again and again, and whoever else
//! speaks for one is noticed, told to the director and answered with an announcement of ours.
//!
//! No socket and no clock here: [`Watch`] says which frames are due and what there is to tell, [`Sight`] is where the pump leaves what it saw.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::claim::{Claim, claimed, may_claim};
use super::message::Mac;
use crate::model::ProbeMode;

/// Probes for a VIP before it is taken (RFC 5227 section 1.1: `PROBE_NUM`).
const PROBES: u8 = 3;
/// Time between two quick probes, and after the last one. Whoever is on the link answers within a millisecond or two.
const QUICK: Duration = Duration::from_millis(50);
/// `PROBE_WAIT`, `PROBE_MIN` and what `PROBE_MAX` adds, in milliseconds, and `ANNOUNCE_WAIT` of RFC 5227.
const PROBE_WAIT: u64 = 1_000;
const PROBE_MIN: u64 = 1_000;
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// The least time between two announcements against others' claims to a VIP (RFC 5227 section 1.1: `DEFEND_INTERVAL`).
const DEFEND: Duration = Duration::from_secs(10);
/// VIPs that are probed for at a time; the others wait.
const MOST_PROBED: usize = 256;
/// The least time between two rounds of questions, and how many VIPs are asked for in one at most: 500 a second.
const ROUND: Duration = Duration::from_millis(100);
const MOST_ASKED: usize = 50;
/// Different claims that are remembered, between pump and watch and by each; beyond, claims are not noticed until there is room.
const MOST_CLAIMS: usize = 1_024;
/// A claim is told to the director once in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// News that wait for the director.
const MOST_NEWS: usize = 256;

/// How VIPs are watched.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// How often each VIP is asked for.
    pub interval: Duration,
    /// How a VIP is probed for before it is taken.
    pub probe: ProbeMode,
    /// Who is told.
    pub news: mpsc::Sender<VipNews>,
}

/// What the watch found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VipNews {
    /// Nobody answered for this VIP: it may be taken.
    Free(IpAddr),
    /// Somebody else speaks for it.
    Claimed(Claim),
}

/// Frames to send about a VIP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// A question without a sender.
    Probe(IpAddr),
    /// A question from each port's own address.
    Ask(IpAddr),
    /// That it is ours.
    Announce(IpAddr),
}

/// What the pump goes by and what it saw, shared with the keeper. The lock is held for moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    vips: HashSet<IpAddr>,
    own: BTreeSet<Mac>,
    claims: BTreeSet<Claim>,
}

impl Sight {
    /// Claims by these MACs are our own.
    pub(super) fn new(own: BTreeSet<Mac>) -> Self {
        let sight = Self::default();
        sight.lock().own = own;
        sight
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, vips: &BTreeSet<IpAddr>) {
        self.lock().vips = vips.iter().copied().collect();
    }

    /// Whether a frame from the wire is about a VIP, and so nothing for the kernel, to which VIPs are its own; notes who speaks for it.
    pub(super) fn notice(&self, port: u16, frame: &[u8]) -> bool {
        if !may_claim(frame) {
            return false;
        }
        let Some((vip, mac)) = claimed(frame) else { return false };
        let mut seen = self.lock();
        if !seen.vips.contains(&vip) {
            return false;
        }
        let another = mac[0] & 1 == 0 && mac != [0; 6] && !seen.own.contains(&mac);
        if another && seen.claims.len() < MOST_CLAIMS && seen.claims.insert(Claim { vip, port, mac }) {
            drop(seen);
            self.0.news.notify_one();
        }
        true
    }

    /// Returns once there is a claim to take.
    pub(super) async fn noticed(&self) {
        self.0.news.notified().await;
    }

    fn take(&self) -> BTreeSet<Claim> {
        std::mem::take(&mut self.lock().claims)
    }
}

/// One VIP's probes.
#[derive(Debug)]
struct Round {
    left: u8,
    next: Instant,
    heard: bool,
}

/// The state of the watch.
#[derive(Debug)]
pub(super) struct Watch {
    plan: WatchPlan,
    sight: Sight,
    /// VIPs that are ours, each asked for once an interval.
    held: BTreeSet<IpAddr>,
    /// The VIP that was asked for last, and when the next ones are.
    asked: Option<IpAddr>,
    next_ask: Instant,
    /// VIPs that are to be taken: those probed for, those that wait for it, and those that somebody has, with the time of the next attempt.
    probed: BTreeMap<IpAddr, Round>,
    waiting: BTreeSet<IpAddr>,
    contested: BTreeMap<IpAddr, Instant>,
    /// When each VIP was announced against a claim, and whether it is to be again.
    defended: BTreeMap<IpAddr, (Instant, bool)>,
    told: BTreeMap<Claim, Instant>,
    news: VecDeque<VipNews>,
}

impl Watch {
    pub(super) fn new(plan: WatchPlan, sight: Sight, now: Instant) -> Self {
        Self {
            plan,
            sight,
            held: BTreeSet::new(),
            asked: None,
            next_ask: now,
            probed: BTreeMap::new(),
            waiting: BTreeSet::new(),
            contested: BTreeMap::new(),
            defended: BTreeMap::new(),
            told: BTreeMap::new(),
            news: VecDeque::new(),
        }
    }

    pub(super) fn sight(&self) -> Sight {
        self.sight.clone()
    }

    /// Where news go.
    pub(super) fn told(&self) -> mpsc::Sender<VipNews> {
        self.plan.news.clone()
    }

    /// Takes over which VIPs there are, and which of them are taken; the others are probed for.
    pub(super) fn follow(&mut self, vips: &BTreeSet<IpAddr>, taken: &BTreeSet<IpAddr>, now: Instant) {
        self.sight.watch(vips);
        if !taken.is_subset(&self.held) {
            // A new one is asked for soon.
            self.next_ask = self.next_ask.min(now + Duration::from_secs(1));
        }
        self.held.clone_from(taken);
        let open = |vip: &IpAddr| vips.contains(vip) && !taken.contains(vip);
        self.probed.retain(|vip, _| open(vip));
        self.contested.retain(|vip, _| open(vip));
        self.defended.retain(|vip, _| vips.contains(vip));
        self.waiting =
            vips.difference(taken).filter(|vip| !self.probed.contains_key(vip) && !self.contested.contains_key(vip)).copied().collect();
        self.begin(now);
    }

    fn begin(&mut self, now: Instant) {
        while self.probed.len() < MOST_PROBED {
            let Some(vip) = self.waiting.pop_first() else { return };
            let next = now + if self.plan.probe == ProbeMode::Rfc5227 { up_to(PROBE_WAIT) } else { Duration::ZERO };
            self.probed.insert(vip, Round { left: PROBES, next, heard: false });
        }
    }

    /// Takes what the pump saw.
    pub(super) fn hear(&mut self, now: Instant) {
        for claim in self.sight.take() {
            if let Some(round) = self.probed.get_mut(&claim.vip) {
                round.heard = true;
            }
            if self.held.contains(&claim.vip) {
                self.defended
                    .entry(claim.vip)
                    .and_modify(|(_, again)| *again = true)
                    .or_insert((now.checked_sub(DEFEND).unwrap_or(now), true));
            }
            if self.told.len() >= MOST_CLAIMS {
                self.told.retain(|_, told| now.duration_since(*told) < TELL_EVERY);
            }
            let news = self.told.get(&claim).is_none_or(|told| now.duration_since(*told) >= TELL_EVERY);
            if news && self.news.len() < MOST_NEWS && self.told.len() < MOST_CLAIMS {
                self.told.insert(claim, now);
                self.news.push_back(VipNews::Claimed(claim));
            }
        }
    }

    /// What is to be sent now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (vip, (since, again)) in &mut self.defended {
            if *again && now.duration_since(*since) >= DEFEND {
                (*since, *again) = (now, false);
                due.push(Due::Announce(*vip));
            }
        }
        for (vip, at) in &self.contested {
            if *at <= now {
                self.waiting.insert(*vip);
            }
        }
        self.contested.retain(|_, at| *at > now);
        self.probe(now, &mut due);
        self.begin(now);
        if self.next_ask <= now && !self.held.is_empty() {
            self.ask(now, &mut due);
        }
        due
    }

    fn probe(&mut self, now: Instant, due: &mut Vec<Due>) {
        let rfc = self.plan.probe == ProbeMode::Rfc5227;
        let (news, contested, again) = (&mut self.news, &mut self.contested, now + self.plan.interval);
        self.probed.retain(|vip, round| {
            if round.next > now {
                return true;
            }
            if round.left > 0 && !round.heard {
                due.push(Due::Probe(*vip));
                round.left -= 1;
                round.next = now
                    + match (rfc, round.left) {
                        (false, _) => QUICK,
                        (true, 0) => ANNOUNCE_WAIT,
                        (true, _) => Duration::from_millis(PROBE_MIN) + up_to(PROBE_MIN),
                    };
                return true;
            }
            if round.heard {
                contested.insert(*vip, again);
            } else {
                news.push_back(VipNews::Free(*vip));
            }
            false
        });
    }

    /// Asks for so many VIPs that all have their turn within an interval, as far as the bound allows.
    fn ask(&mut self, now: Instant, due: &mut Vec<Due>) {
        let all = self.held.len();
        let pause = (self.plan.interval / u32::try_from(all).unwrap_or(u32::MAX)).max(ROUND);
        let share = all as u128 * pause.as_micros() / self.plan.interval.as_micros().max(1);
        let number = usize::try_from(share).unwrap_or(MOST_ASKED).clamp(1, MOST_ASKED);
        let after: Vec<IpAddr> = match self.asked {
            Some(last) => self.held.iter().filter(|vip| **vip > last).take(number).copied().collect(),
            None => Vec::new(),
        };
        let turn = if after.is_empty() { self.held.iter().take(number).copied().collect() } else { after };
        self.asked = turn.last().copied();
        due.extend(turn.into_iter().map(Due::Ask));
        self.next_ask = now + pause;
    }

    /// When [`Self::due`] has something to give, if ever.
    pub(super) fn next(&self) -> Option<Instant> {
        let asks = Some(self.next_ask).filter(|_| !self.held.is_empty());
        let probes = self.probed.values().map(|round| round.next).min();
        let contested = self.contested.values().min().copied();
        let defences = self.defended.values().filter(|(_, again)| *again).map(|(since, _)| *since + DEFEND).min();
        [asks, probes, contested, defences].into_iter().flatten().min()
    }

    /// Whether [`Self::tell`] would give something.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The oldest news.
    pub(super) fn tell(&mut self) -> Option<VipNews> {
        self.news.pop_front()
    }
}

/// A random time of at most so many milliseconds.
fn up_to(milliseconds: u64) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    Duration::from_millis(random % (milliseconds + 1))
}

#[cfg(test)]
mod tests;
