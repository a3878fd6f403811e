//! How entries begin and end, what is counted of them, and how they are listed.

use dataplane::command::ConnectionFilter;
use dataplane::settings::Timeouts;

use super::connections::{Connection, Key, Row, SECOND};
use super::wire::Packet;
use super::{Director, sctp, tcp};

/// How much longer a template lives that has connections left.
const MINUTE: u32 = 60 * SECOND;

/// Entries end with the 0.32 s that they end in: whether those of `expires` are over.
fn is_over(expires: u32, now: u32) -> bool {
    let slot = |moment: u32| moment / 32;
    (1..1 << 26).contains(&(slot(now).wrapping_sub(slot(expires)) % (1 << 27)))
}

impl Director {
    /// With `expire_nodest_conn` connections end with their real server, and templates that only those needed.
    pub(super) fn end_orphans(&mut self) {
        let is_orphan = |server: u32| !self.servers.get(&server).is_some_and(|target| target.snapshot.available);
        let mut orphans: Vec<Key> = self.connections.iter().filter(|(_, entry)| is_orphan(entry.server)).map(|(key, _)| *key).collect();
        // Connections before templates.
        orphans.sort();
        for key in orphans {
            let template = self.connections.get(&key).and_then(|entry| entry.template);
            self.end(&key);
            if let Some(template) = template {
                self.end(&template);
            }
        }
    }

    pub(super) fn insert(&mut self, key: Key, connection: Connection) {
        let upper = self.servers.get(&connection.server).filter(|_| !key.template).map_or(0, |target| target.snapshot.thresholds.upper);
        self.counts_of(connection.server, |counts| {
            if key.template {
                counts.persistent += 1;
            } else if connection.is_active(&key) {
                counts.active += 1;
            } else {
                counts.inactive += 1;
            }
            counts.overloaded |= upper != 0 && counts.active + counts.inactive >= upper;
        });
        if connection.is_half_open(&key) || key.protocol == 17 || connection.by_datagram {
            self.places.enlist(&key, &connection);
        }
        let alike =
            |(k, c): (&Key, &Connection)| (k.protocol, k.client, c.masqueraded) == (key.protocol, key.client, connection.masqueraded);
        self.twins |= connection.masqueraded.is_some() && self.connections.iter().any(alike);
        let old = self.connections.insert(key, connection);
        assert!(old.is_none(), "two of {key:?}");
    }

    /// Ends an entry before its time; a template only if it has no connections. Whether it did.
    pub(super) fn end(&mut self, key: &Key) -> bool {
        let server = self.connections.get(key).map(|entry| entry.server);
        let ended = self.remove(key);
        if let Some(server) = server.filter(|_| ended && key.template) {
            self.withdraw(key, server);
        }
        ended
    }

    /// Ends an entry; a template only if it has no connections. Whether it did.
    fn remove(&mut self, key: &Key) -> bool {
        if self.connections.get(key).is_none_or(|entry| entry.children > 0) {
            return false;
        }
        let Some(entry) = self.connections.remove(key) else { return false };
        self.places.delist(key);
        if let Some(template) = entry.template.and_then(|t| self.connections.get_mut(&t)) {
            template.children -= 1;
        }
        let Some(target) = self.servers.get(&entry.server) else { return true };
        let thresholds = target.snapshot.thresholds;
        self.counts_of(entry.server, |counts| {
            if key.template {
                counts.persistent -= 1;
            } else if entry.is_active(key) {
                counts.active -= 1;
            } else {
                counts.inactive -= 1;
            }
            let left = u64::from(counts.active + counts.inactive);
            let (lower, upper) = (u64::from(thresholds.lower), u64::from(thresholds.upper));
            if upper != 0 && if lower != 0 { left < lower } else { left * 4 < upper * 3 } {
                counts.overloaded = false;
            }
        });
        true
    }

    pub(super) fn count(&mut self, server: u32, service: u32, packet: &Packet, first: bool) {
        self.traffic(server, service, |traffic| {
            traffic.connections += u64::from(first);
            traffic.packets += 1;
            traffic.bytes += packet.length as u64;
        });
    }

    /// A connection's state has changed.
    pub(super) fn recount(&self, server: u32, was_active: bool, is_active: bool) {
        self.counts_of(server, |counts| match (was_active, is_active) {
            (false, true) => (counts.inactive, counts.active) = (counts.inactive - 1, counts.active + 1),
            (true, false) => (counts.inactive, counts.active) = (counts.inactive + 1, counts.active - 1),
            _ => {}
        });
    }

    pub(super) fn timeouts(&self, service: u32) -> Timeouts {
        self.services.get(&service).and_then(|s| s.snapshot.timeouts).unwrap_or(self.settings.timeouts)
    }

    pub fn half_open(&self) -> usize {
        self.places.open.len()
    }

    pub fn knows(&self, key: &Key) -> bool {
        self.connections.contains_key(key)
    }

    /// Ends what is over by now. Gives the entries of which nobody can tell: those whose moment has come but whose 0.32 s are not
    /// over, and templates whose last connection may have ended before them or after them.
    pub fn expire(&mut self) -> Vec<Key> {
        let now = self.now;
        let due = |entry: &Connection| now.wrapping_sub(entry.expires) < 1 << 31;
        let mut due: Vec<(Key, bool)> = self
            .connections
            .iter()
            .filter(|(_, entry)| due(entry))
            .map(|(key, entry)| (*key, is_over(entry.expires, now) && entry.children == 0))
            .collect();
        // Connections before templates.
        due.sort();
        let mut unsure = Vec::new();
        for (key, ends) in due {
            if ends {
                self.remove(&key);
                continue;
            }
            let entry = self.connections.get_mut(&key).expect("ends later than its connections");
            if is_over(entry.expires, now) {
                entry.expires = now.wrapping_add(MINUTE);
            }
            unsure.push(key);
        }
        unsure
    }

    /// A template that has connections lives on; others need not know of one that was put aside.
    fn rearm(&mut self, key: &Key) {
        let entry = self.connections.get_mut(key).expect("of a template");
        entry.expires = self.now.wrapping_add(MINUTE);
        let server = entry.server;
        if key.aside == 0 {
            self.keep(key, server, MINUTE);
        }
    }

    /// Takes a listing's word on an entry of which nobody could tell.
    pub fn settle(&mut self, key: &Key, listed: &[Row]) {
        let row = self.row(key, &ConnectionFilter::default()).expect("of a known real server");
        let same = |other: &&Row| Row { expires_in: 0, ..(*other).clone() } == Row { expires_in: 0, ..row.clone() };
        match listed.iter().find(same) {
            None => assert!(self.remove(key), "{key:?} has connections, but ended"),
            Some(other) if key.template && other.expires_in == MINUTE => self.rearm(key),
            Some(_) => {}
        }
    }

    /// Ends what the filter means; how many. Templates come last.
    pub fn flush(&mut self, filter: &ConnectionFilter) -> u64 {
        let mut meant: Vec<Key> = self.connections.keys().filter(|key| self.row(key, filter).is_some()).copied().collect();
        meant.sort();
        meant.iter().map(|key| u64::from(self.end(key))).sum()
    }

    /// Everything there is, in order.
    pub fn rows(&self) -> Vec<Row> {
        let everything = ConnectionFilter::default();
        let mut rows: Vec<Row> = self.connections.keys().filter_map(|key| self.row(key, &everything)).collect();
        rows.sort();
        rows
    }

    fn row(&self, key: &Key, filter: &ConnectionFilter) -> Option<Row> {
        let entry = self.connections.get(key)?;
        let server = &self.servers.get(&entry.server)?.snapshot;
        let service = self.services.get(&entry.service).map(|s| s.snapshot.key);
        let marked = service.filter(|service| service.protocol as u8 == 0);
        let plain = service.filter(|service| service.protocol as u8 != 0);
        let by_service = if filter.protocol.is_some_and(|p| p as u8 == 0) {
            marked.is_some_and(|service| filter.virtual_address.is_none_or(|a| a == service.address))
        } else {
            filter.protocol.is_none_or(|p| p as u8 == key.protocol)
                && filter.virtual_address.is_none_or(|a| a.ip() == key.virtual_.ip())
                && filter.virtual_port.is_none_or(|p| p == key.virtual_.port() || plain.is_some_and(|service| service.port == p))
        };
        let meant = filter.server_id.is_none_or(|id| id.0 == entry.server)
            && by_service
            && filter.client.is_none_or(|a| a.ip() == key.client.ip())
            && filter.server.is_none_or(|a| a == server.address);
        let port = if server.port == 0 || key.aside > 0 { key.virtual_.port() } else { server.port };
        let state = match (key.template, key.protocol) {
            (true, _) => {
                if entry.assured {
                    "ASSURED"
                } else {
                    "NONE"
                }
            }
            (false, 6) => tcp::name(entry.state),
            (false, 132) => sctp::name(entry.state),
            _ => "UDP",
        };
        let ahead = entry.expires.wrapping_sub(self.now);
        meant.then(|| Row {
            protocol: key.protocol,
            client: key.client,
            virtual_: key.virtual_,
            server: (server.address.ip(), port).into(),
            state,
            expires_in: if ahead > u32::MAX / 2 { 0 } else { ahead },
            packets: entry.packets,
        })
    }
}
