//! Who goes when there is no room for a new connection, and where packets go that get no entry.

use dataplane::address::Address;
use dataplane::connection::{Hasher, Key as Hashed};

use super::connections::{Connection, Key};
use super::wire::Packet;
use super::{Director, Fate};

/// Entries that nothing has confirmed yet, oldest first: half open ones, and those of a single datagram.
#[derive(Debug, Default)]
pub struct Waiting([Vec<Key>; 2]);

/// Which of the two an entry waits in: templates as what made them.
fn queue(key: &Key, connection: &Connection) -> usize {
    usize::from(if key.template { !connection.handshake } else { key.protocol == 17 })
}

impl Waiting {
    fn contains(&self, key: &Key) -> bool {
        self.0.iter().any(|queue| queue.contains(key))
    }

    pub fn half_open(&self) -> usize {
        self.0[0].len()
    }

    pub fn remove(&mut self, key: &Key) {
        self.0.iter_mut().for_each(|queue| queue.retain(|waiting| waiting != key));
    }

    pub fn add(&mut self, key: Key, connection: &Connection) {
        if !self.contains(&key) {
            self.0[queue(&key, connection)].push(key);
        }
    }

    pub fn rename(&mut self, old: &Key, new: Key) {
        self.0.iter_mut().flatten().filter(|waiting| *waiting == old).for_each(|waiting| *waiting = new);
    }
}

impl Director {
    /// Puts an entry in; when there is no room, in the place of the oldest unconfirmed one, if that is not `keep`.
    pub(super) fn admit(&mut self, key: Key, connection: &Connection, keep: Option<Key>) -> Result<(), &'static str> {
        match self.insert(key, connection.clone()) {
            Err(verdict) if self.make_room(verdict, keep) => self.insert(key, connection.clone()),
            result => result,
        }
    }

    fn make_room(&mut self, verdict: &str, keep: Option<Key>) -> bool {
        let [half_open, single] = &self.waiting.0;
        let which = usize::from(verdict == "table_full" && half_open.len() <= single.len());
        for _ in 0..4 {
            let Some(oldest) = self.waiting.0[which].first().copied() else { return false };
            let template = self.connections[&oldest].template;
            if Some(oldest) != keep && self.end(&oldest) {
                if let Some(template) = template.filter(|t| Some(*t) != keep && self.waiting.contains(t)) {
                    self.end(&template);
                }
                return true;
            }
            self.waiting.0[which].rotate_left(1);
        }
        false
    }

    /// A packet without an entry goes where its keyed hash points, each real server having a part as large as its weight.
    pub(super) fn without_entry(&mut self, service: u32, packet: &Packet, begins: bool) -> Fate {
        let snapshot = std::sync::Arc::clone(&self.services[&service].snapshot);
        let (client, virtual_) = (packet.source, packet.destination);
        let mut hashed = Hashed {
            client: client.ip().into(),
            virtual_: virtual_.ip().into(),
            client_port: client.port(),
            virtual_port: virtual_.port(),
            protocol: packet.protocol,
        };
        if let Some(persistence) = snapshot.persistence {
            hashed = Hashed { client: Address(hashed.client.0 & persistence.mask), client_port: 0, virtual_port: 0, ..hashed };
        }
        let fit = snapshot.members.iter().filter(|m| {
            let overloaded = self.server_counts.get(&m.server.0).is_some_and(|counts| counts.overloaded);
            m.reachable && !(m.limited && overloaded)
        });
        let tickets: Vec<(u32, u64)> = fit.map(|m| (m.server.0, u64::from(m.weight))).filter(|(_, weight)| *weight > 0).collect();
        let all: u64 = tickets.iter().map(|(_, weight)| weight).sum();
        let mut point = (u128::from(Hasher::new(self.secret).hash(&hashed)) * u128::from(all)) >> 64;
        for (server, weight) in tickets {
            if point < u128::from(weight) {
                if begins {
                    self.overflows_until = Some(self.now.wrapping_add(self.settings.timeouts.tcp * 100));
                }
                self.count(server, service, packet, begins);
                return Fate::Server(server);
            }
            point -= u128::from(weight);
        }
        Fate::Drop("table_full")
    }

    /// Whether segments may come of connections that got no entry.
    pub(super) fn overflows(&mut self) -> bool {
        let now = self.now;
        self.overflows_until = self.overflows_until.filter(|until| now.wrapping_sub(*until) > u32::MAX / 2);
        self.overflows_until.is_some()
    }
}
