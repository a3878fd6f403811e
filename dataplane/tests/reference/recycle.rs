//! New connections when there is no room: of those that nothing has confirmed the oldest makes room, and failing that a packet goes
//! to a real server without being remembered.

use dataplane::address::Address;
use dataplane::connection::{Hasher, Key as WorkerKey};
use dataplane::service::{Method, VirtualService};

use super::connections::{Connection, Key, SECOND};
use super::wire::Packet;
use super::{Director, Fate};

/// Entries that are looked at to make room for one.
const TRIES: usize = 4;

/// How many entries there may be, and those that nothing has confirmed, oldest first.
#[derive(Clone)]
pub struct Places {
    hasher: Hasher,
    pub all: usize,
    pub half_open: usize,
    /// Half-open ones.
    pub open: Vec<Key>,
    /// Of UDP, of a single packet.
    pub single: Vec<Key>,
    /// Until when packets of connections are expected that found no room.
    overflow: Option<u32>,
}

/// What there is no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Short {
    Places,
    HalfOpen,
}

impl Places {
    pub fn new(all: u32, half_open: u32, seed: [u64; 4]) -> Self {
        Self {
            hasher: Hasher::new(seed),
            all: all as usize,
            half_open: half_open as usize,
            open: Vec::new(),
            single: Vec::new(),
            overflow: None,
        }
    }

    /// The list that an entry stands in while it is not confirmed.
    fn list(&mut self, key: &Key, entry: &Connection) -> &mut Vec<Key> {
        if key.protocol == 17 || entry.by_datagram { &mut self.single } else { &mut self.open }
    }

    /// Notes that nothing confirms an entry, behind all others.
    pub fn enlist(&mut self, key: &Key, entry: &Connection) {
        let list = self.list(key, entry);
        if !list.contains(key) {
            list.push(*key);
        }
    }

    /// Notes that something did, or that it is gone.
    pub fn delist(&mut self, key: &Key) {
        self.open.retain(|other| other != key);
        self.single.retain(|other| other != key);
    }

    pub fn is_tentative(&self, key: &Key) -> bool {
        self.open.contains(key) || self.single.contains(key)
    }

    /// An entry has another key from now on.
    pub fn rename(&mut self, old: &Key, new: Key) {
        for key in self.open.iter_mut().chain(&mut self.single).filter(|key| *key == old) {
            *key = new;
        }
    }

    fn hash(&self, packet: &Packet, service: &VirtualService) -> u64 {
        let client = Address::from(packet.source.ip());
        let mut key = WorkerKey {
            client,
            virtual_: packet.destination.ip().into(),
            client_port: packet.source.port(),
            virtual_port: packet.destination.port(),
            protocol: packet.protocol,
        };
        if let Some(persistence) = service.persistence {
            key = WorkerKey { client: Address(client.0 & persistence.mask), client_port: 0, virtual_port: 0, ..key };
        }
        self.hasher.hash(&key)
    }
}

impl Director {
    /// Sees to it that there is room for an entry, if need be in the place of an older one, but not of `keep`.
    pub(super) fn admits(&mut self, key: &Key, entry: &Connection, keep: Option<Key>) -> Result<(), Short> {
        match self.has_room(key, entry) {
            Err(short) if self.makes_room(short, keep) => self.has_room(key, entry),
            result => result,
        }
    }

    fn has_room(&self, key: &Key, entry: &Connection) -> Result<(), Short> {
        if self.connections.len() >= self.places.all {
            return Err(Short::Places);
        }
        if entry.is_half_open(key) && self.places.open.len() >= self.places.half_open {
            return Err(Short::HalfOpen);
        }
        Ok(())
    }

    /// Ends the oldest entry that nothing confirmed, and its template if nothing else needs it.
    fn makes_room(&mut self, short: Short, keep: Option<Key>) -> bool {
        let half_open = short == Short::HalfOpen || self.places.open.len() > self.places.single.len();
        for _ in 0..TRIES {
            let list = if half_open { &self.places.open } else { &self.places.single };
            let Some(oldest) = list.first().copied() else { return false };
            let template = self.connections[&oldest].template.filter(|template| Some(*template) != keep);
            if Some(oldest) != keep && self.end(&oldest) {
                if let Some(template) = template.filter(|template| self.places.is_tentative(template)) {
                    self.end(&template);
                }
                return true;
            }
            // A template that is needed.
            let list = if half_open { &mut self.places.open } else { &mut self.places.single };
            list.rotate_left(1);
        }
        false
    }

    /// A packet without an entry and without room for one goes where its hash says, each real server having a share as large as its weight.
    pub(super) fn without_entry(&mut self, id: u32, service: &VirtualService, packet: &Packet, begins: bool) -> Fate {
        let hash = self.places.hash(packet, service);
        let common = self.common.borrow();
        let overloaded = |server: u32| common.servers.get(&server).is_some_and(|counts| counts.overloaded);
        let fit = service.members.iter().filter(|m| m.weight > 0 && m.reachable && !(m.limited && overloaded(m.server.0)));
        let cards: Vec<(u32, u64)> = fit.map(|member| (member.server.0, u64::from(member.weight))).collect();
        drop(common);
        let total: u64 = cards.iter().map(|(_, weight)| weight).sum();
        let mut left = (u128::from(hash) * u128::from(total)) >> 64;
        let mut chosen = None;
        for (server, weight) in cards {
            if left < u128::from(weight) {
                chosen = Some(server);
                break;
            }
            left -= u128::from(weight);
        }
        let method = chosen.and_then(|server| self.servers.get(&server)).map(|target| target.snapshot.method);
        let (Some(server), Some(method)) = (chosen, method.filter(|method| *method != Method::Masquerading)) else {
            return Fate::Drop("table_full");
        };
        self.count(server, id, packet, begins);
        if begins {
            self.places.overflow = Some(self.now.wrapping_add(self.settings.timeouts.tcp * SECOND));
        }
        Fate::Server(server, method)
    }

    /// Whether packets of connections are expected that found no room.
    pub(super) fn is_overflowing(&mut self) -> bool {
        let now = self.now;
        self.places.overflow = self.places.overflow.filter(|until| now.wrapping_sub(*until) >= 1 << 31);
        self.places.overflow.is_some()
    }
}
