//! Several workers: frames whose connection another one may have visit each of them once at most.

use std::collections::VecDeque;
use std::net::SocketAddr;

use dataplane::address::Address;
use dataplane::connection::Hasher;
use dataplane::connection::Key as WorkerKey;

use super::affinity::Affinity;
use super::limit::Bucket;
use super::{Director, Fate};

/// ICMP errors, and first fragments without a hint, that a worker hands over in a second.
pub const ERROR_RATE: u32 = 10_000;
pub const FRAGMENT_RATE: u32 = 50_000;

/// Where a frame has been, and is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Journey {
    pub port: usize,
    pub first: usize,
    hint: Option<usize>,
    pub under_way: bool,
}

impl Journey {
    pub fn begin(port: usize, worker: usize) -> Self {
        Self { port, first: worker, hint: None, under_way: false }
    }

    /// The worker that it came to first, the one that was named, all others in turn.
    fn order(&self, workers: usize) -> Vec<usize> {
        let others = (self.first + 1..workers).chain(0..self.first).filter(|worker| Some(*worker) != self.hint);
        [self.first].into_iter().chain(self.hint).chain(others).collect()
    }
}

/// Frames that one worker handed to another, in order.
type OnTheirWay = VecDeque<(Vec<u8>, Journey)>;

/// What workers share beside counters. Which place something falls into is a secret that this director is told.
#[derive(Clone)]
pub struct House {
    hasher: Hasher,
    owners: Vec<Option<usize>>,
    pub affinity: Affinity,
    /// Frames on their way, by worker that they come from and that they go to.
    pub rings: Vec<Vec<OnTheirWay>>,
}

impl House {
    pub fn new(workers: usize, connections: usize, seed: [u64; 4]) -> Self {
        let places = (workers * connections * 2).next_power_of_two().min(1 << 24);
        Self {
            hasher: Hasher::new(seed),
            owners: vec![None; places],
            affinity: Affinity::new(workers * connections, seed),
            rings: vec![vec![VecDeque::new(); workers]; workers],
        }
    }

    fn owner(&mut self, protocol: u8, source: SocketAddr, destination: SocketAddr) -> &mut Option<usize> {
        let key = WorkerKey {
            client: Address::from(source.ip()),
            virtual_: Address::from(destination.ip()),
            client_port: source.port(),
            virtual_port: destination.port(),
            protocol,
        };
        let place = (self.hasher.hash(&key) >> 32) as usize % self.owners.len();
        &mut self.owners[place]
    }
}

/// How often a worker may ask others.
#[derive(Clone)]
pub struct Shares {
    pub errors: Bucket,
    pub fragments: Bucket,
    /// When they last grew.
    pub grown: u32,
}

impl Director {
    /// Lets other workers find whose packets from here to there are.
    pub(super) fn note(&mut self, protocol: u8, source: SocketAddr, destination: SocketAddr) {
        if let Some(house) = &mut self.common.borrow_mut().house {
            *house.owner(protocol, source, destination) = Some(self.index);
        }
    }

    /// Who may have the connection of a packet; `None` when nobody ever noted one.
    pub(super) fn owner(&self, protocol: u8, source: SocketAddr, destination: SocketAddr) -> Option<usize> {
        *self.common.borrow_mut().house.as_mut()?.owner(protocol, source, destination)
    }

    /// The next worker that a frame visits; `None` when it has seen all.
    pub(super) fn elsewhere(&self, journey: &mut Journey, hint: Option<usize>) -> Option<Fate> {
        if self.workers < 2 {
            return None;
        }
        if !journey.under_way {
            journey.under_way = true;
            journey.hint = hint.filter(|hint| *hint != self.index);
        }
        let order = journey.order(self.workers);
        let here = order.iter().position(|worker| *worker == self.index)?;
        order.get(here + 1).map(|next| Fate::HandOver(*next))
    }

    /// As that, for an ICMP error.
    pub(super) fn error_elsewhere(&mut self, journey: &mut Journey, hint: Option<usize>) -> Option<Fate> {
        if self.workers < 2 || !self.shares.errors.take() {
            return None;
        }
        self.elsewhere(journey, hint)
    }

    /// As that, for the first fragment of a packet from here to there.
    pub(super) fn fragment_elsewhere(&mut self, journey: &mut Journey, protocol: u8, ends: (SocketAddr, SocketAddr)) -> Option<Fate> {
        if self.workers < 2 {
            return None;
        }
        let hint = self.owner(protocol, ends.0, ends.1);
        if !journey.under_way && hint.is_none_or(|hint| hint == self.index) && !self.shares.fragments.take() {
            return None;
        }
        self.elsewhere(journey, hint)
    }

    /// How many frames wait for this worker.
    pub fn frames_waiting(&self) -> usize {
        let waiting = |house: &House| house.rings.iter().map(|from| from[self.index].len()).sum();
        self.common.borrow().house.as_ref().map_or(0, waiting)
    }

    /// What others handed to this one, 64 at most, those of each in their order.
    pub(super) fn take_over(&mut self) -> Vec<(Vec<u8>, Journey)> {
        let passed = self.now.wrapping_sub(std::mem::replace(&mut self.shares.grown, self.now));
        self.shares.errors.pass(passed);
        self.shares.fragments.pass(passed);
        let mut taken = Vec::new();
        if let Some(house) = &mut self.common.borrow_mut().house {
            for from in &mut house.rings {
                let ring = &mut from[self.index];
                taken.extend(ring.drain(..ring.len().min(64 - taken.len())));
            }
        }
        taken
    }
}
