//! Connections and templates: what is remembered of each, and what their packets do.

use std::net::{IpAddr, SocketAddr};

use dataplane::address::Address;
use dataplane::command::ConnectionFilter;
use dataplane::service::{Drain, Method, RealServer};
use dataplane::settings::Timeouts;

use super::recycle::Short;
use super::tcp::{self, State};
use super::wire::{Kind, Packet};
use super::{Director, Fate, sctp};

pub(super) const SECOND: u32 = 100;
/// How much longer a template lives that has connections left.
const MINUTE: u32 = 60 * SECOND;
/// Seconds that an entry lives that no packet of its own has reached.
const FRESH: u32 = 3;

/// How a connection begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beginning {
    /// With a part of a packet, or with an ICMP error: the rest may come to another worker.
    pub apart: bool,
    /// In the place of another one that was ended for that: whatever the flags say.
    pub anew: bool,
}

/// What packets of a connection are found by; of a template with the client's network and without its port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Key {
    pub template: bool,
    /// Of a template that no connection follows any more: which one, from 1; there may be several of one client.
    pub aside: u32,
    pub protocol: u8,
    pub client: SocketAddr,
    pub virtual_: SocketAddr,
}

impl Key {
    /// That of the connection that a packet is of.
    pub fn of(packet: &Packet) -> Self {
        Self { template: false, aside: 0, protocol: packet.protocol, client: packet.source, virtual_: packet.destination }
    }
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub server: u32,
    pub service: u32,
    /// Kept as long as it lives, whatever is the real server's by then.
    pub method: Method,
    pub state: State,
    pub expires: u32,
    pub packets: u32,
    /// The template that it was made through.
    pub template: Option<Key>,
    /// Of a template: connections of its own.
    pub children: u32,
    /// Of a template: whether one of them was established.
    pub assured: bool,
    /// Of a template: whether a datagram made it, so that no handshake is waited for.
    pub by_datagram: bool,
    /// Where its real server answers from, whose answers pass the director.
    pub masqueraded: Option<SocketAddr>,
    /// The port or VLAN, and the MAC, that the client's latest request came from; of a masqueraded one.
    pub way: Option<(usize, [u8; 6])>,
}

impl Connection {
    pub(super) fn is_half_open(&self, key: &Key) -> bool {
        match key.protocol {
            _ if key.template => !self.by_datagram && !self.assured,
            6 => tcp::is_half_open(self.state),
            132 => sctp::is_half_open(self.state),
            _ => false,
        }
    }

    pub(super) fn is_active(&self, key: &Key) -> bool {
        match key.protocol {
            _ if key.template => false,
            6 => tcp::is_active(self.state),
            132 => self.state == "ES",
            _ => false,
        }
    }
}

/// An entry as a listing shows it.
#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Row {
    pub protocol: u8,
    pub client: SocketAddr,
    pub virtual_: SocketAddr,
    pub server: SocketAddr,
    pub state: &'static str,
    pub expires_in: u32,
    pub packets: u32,
}

/// The state after a packet by a table ("input", "output", "input only"), and seconds that it lasts.
pub(super) fn advance(table: &str, state: State, packet: &Packet, secure: bool, timeouts: &Timeouts) -> (State, u32) {
    match packet.kind {
        Kind::Tcp { flags } => {
            let next = tcp::next(table, state, flags, secure);
            (next, tcp::seconds(next, timeouts))
        }
        Kind::Sctp { event, .. } => {
            let next = sctp::next(table, state, event);
            (next, sctp::seconds(next))
        }
        _ => (state, timeouts.udp),
    }
}

/// Entries end with the 0.32 s that they end in: whether those of `expires` are over.
fn is_over(expires: u32, now: u32) -> bool {
    let slot = |moment: u32| moment / 32;
    (1..1 << 26).contains(&(slot(now).wrapping_sub(slot(expires)) % (1 << 27)))
}

impl Director {
    /// What a packet of a known connection does; `None` when there is none, or it ended and another is to begin in its place.
    pub(super) fn known(&mut self, packet: &Packet) -> Option<Fate> {
        let key = Key::of(packet);
        let connection = self.connections.get(&key)?.clone();
        let Some(target) = self.servers.get(&connection.server) else { return Some(Fate::Drop("real_server_removed")) };
        let (available, quiescent) = (target.snapshot.available, target.snapshot.weight == 0);
        let settings = self.settings;
        if !available && target.snapshot.drain.ends_connections() {
            // Until its turn comes among those that begin connections.
            return None;
        }
        if packet.opens() {
            let mode = settings.conn_reuse_mode;
            let over = connection.template.is_none()
                && match (key.protocol, connection.state) {
                    (6, "TW" | "CL") | (132, "CL") => mode != 0,
                    (6, "FW") => mode & 2 != 0 && connection.masqueraded.is_none(),
                    _ => false,
                };
            if over || (settings.expire_nodest_conn && quiescent) {
                self.end(&key);
                return None;
            }
        }
        if !available {
            if settings.expire_nodest_conn {
                self.end(&key);
                return None;
            }
            return Some(Fate::Drop("real_server_removed"));
        }
        self.count(connection.server, connection.service, packet, false);
        let timeouts = self.timeouts(connection.service);
        let (now, secure) = (self.now, self.secure);
        let table = if connection.masqueraded.is_some() { "input" } else { "input only" };
        let (next, seconds) = advance(table, connection.state, packet, secure, &timeouts);
        let entry = self.connections.get_mut(&key)?;
        entry.packets += 1;
        entry.state = next;
        entry.expires = now.wrapping_add(seconds * SECOND);
        let is_active = entry.is_active(&key);
        // A second datagram says as much of the client as a handshake.
        self.confirm(&key);
        if next == "ES" && connection.state != "ES" {
            self.assure(connection.template);
        }
        self.recount(connection.server, connection.is_active(&key), is_active);
        Some(Fate::Server(connection.server, connection.method))
    }

    /// Ends the connection of a packet if its drained real server is to have none; what is to become of the packet: `None` for what would
    /// have become of it anyway.
    pub(super) fn drained(&mut self, packet: &Packet) -> Option<Drain> {
        let key = Key::of(packet);
        let RealServer { available, drain, .. } = *self.servers.get(&self.connections.get(&key)?.server)?.snapshot;
        if available || !drain.ends_connections() || !self.end(&key) {
            return None;
        }
        Some(drain).filter(|drain| *drain == Drain::Reschedule || !(packet.opens() || packet.aborts()))
    }

    /// What the first packet of a connection does.
    ///
    /// An ICMP error that is to begin one comes here with the ends of the packet that it quotes.
    pub(super) fn first(&mut self, packet: &Packet, Beginning { apart, anew }: Beginning) -> Fate {
        let is_quote = !packet.is_flow();
        if self.is_own(packet.source.ip()) {
            return Fate::Drop("own_source");
        }
        let Some((id, service)) = self.service_of(packet) else { return Fate::Kernel };
        let sloppy = match packet.protocol {
            6 => self.settings.sloppy_tcp,
            132 => self.settings.sloppy_sctp,
            _ => true,
        };
        if packet.aborts() || !(packet.opens() || sloppy || anew || is_quote) {
            return if self.is_overflowing() { self.without_entry(id, &service, packet, false) } else { Fate::Kernel };
        }
        if self.drops_packet() {
            return Fate::Drop("drop_packet");
        }
        if packet.source.port() == 20 {
            return Fate::Kernel;
        }
        let client = packet.source.ip();
        let mut fresh = false;
        let (server, template) = match service.persistence {
            Some(persistence) => {
                let network = Address(Address::from(client).0 & persistence.mask).ip();
                let marked = service.key.protocol as u8 == 0;
                // A mark stands in the VIP's place, for all protocols.
                let (vip, protocol) = if marked { (service.key.address.ip(), 0) } else { (packet.destination.ip(), packet.protocol) };
                let vip = SocketAddr::new(vip, service.key.port);
                let key = Key { template: true, aside: 0, protocol, client: (network, 0).into(), virtual_: vip };
                match self.template(key, id, persistence.timeout, packet) {
                    Ok((server, is_fresh)) => {
                        fresh = is_fresh;
                        (server, Some(key))
                    }
                    Err("table_full") => return self.without_entry(id, &service, packet, true),
                    Err(verdict) => return Fate::Drop(verdict),
                }
            }
            None => match self.choose_server(packet, id, apart.then_some(if is_quote { FRESH } else { self.settings.timeouts.udp })) {
                Some(server) => (server, None),
                None => return Fate::Drop("no_real_server"),
            },
        };
        let Some(method) = self.servers.get(&server).map(|target| target.snapshot.method) else { return Fate::Drop("real_server_removed") };
        if !service.one_packet || packet.protocol != 17 {
            let masquerades = method == Method::Masquerading;
            let table = if masquerades { "input" } else { "input only" };
            let (state, seconds) = if is_quote { ("NO", FRESH) } else { advance(table, "NO", packet, self.secure, &self.timeouts(id)) };
            let key = Key::of(packet);
            let masqueraded = self.real_end(server, packet.destination.port()).filter(|_| masquerades);
            let expires = self.now.wrapping_add(seconds * SECOND);
            let connection = Connection {
                server,
                service: id,
                method,
                state,
                expires,
                packets: 1,
                template,
                children: 0,
                assured: false,
                by_datagram: false,
                masqueraded,
                way: None,
            };
            if let Err(short) = self.admits(&key, &connection, template) {
                if let Some(template) = template.filter(|_| fresh) {
                    self.end(&template);
                }
                return match short {
                    Short::Places => self.without_entry(id, &service, packet, true),
                    Short::HalfOpen => Fate::Drop("half_open_limit"),
                };
            }
            self.insert(key, connection);
            if let Some(from) = masqueraded {
                self.note(key.protocol, from, key.client);
            }
            if let Some(template) = template.and_then(|t| self.connections.get_mut(&t)) {
                template.children += 1;
            }
            if state == "ES" {
                self.assure(template);
            }
        }
        self.count(server, id, packet, true);
        Fate::Server(server, method)
    }

    /// The service of a packet: that of its mark, which nothing to a DIP has; that of its port; the one of every port.
    pub(super) fn service_of(&self, packet: &Packet) -> Option<(u32, std::sync::Arc<dataplane::service::VirtualService>)> {
        let destination = packet.destination.ip();
        let with = |protocol: u8, address: IpAddr, port: u16| {
            self.services.iter().find(|(_, s)| {
                let key = s.snapshot.key;
                (key.protocol as u8, key.address.ip(), key.port) == (protocol, address, port)
            })
        };
        let may_be_marked = self.is_vip(destination) || !self.is_own(destination);
        let mark = super::marks::mark(&self.marks, packet).filter(|_| may_be_marked);
        mark.and_then(|mark| with(0, super::marks::address(mark, packet.is_v4()), 0))
            .or_else(|| with(packet.protocol, destination, packet.destination.port()))
            .or_else(|| with(packet.protocol, destination, 0))
            .map(|(id, s)| (*id, std::sync::Arc::clone(&s.snapshot)))
    }

    /// Where a client of a persistent service goes.
    fn template(&mut self, key: Key, service: u32, timeout: u32, packet: &Packet) -> Result<(u32, bool), &'static str> {
        let expires = self.now.wrapping_add(timeout * SECOND);
        let followed = self.connections.get(&key).filter(|old| old.service == service && self.may_be_followed(old.server));
        if let Some(server) = followed.map(|old| old.server) {
            self.connections.get_mut(&key).expect("just seen").expires = expires;
            self.agree(&key, server, service, timeout * SECOND);
            return Ok((server, false));
        }
        // One that is not followed any more stays for its time, and its connections with it.
        self.put_aside(&key);
        let server = self.said(&key, service).or_else(|| self.schedule(service, packet)).ok_or("no_real_server")?;
        let mut template = Connection {
            server,
            service,
            method: Method::DirectRouting,
            state: "NO",
            expires,
            packets: 0,
            template: None,
            children: 0,
            assured: false,
            by_datagram: packet.protocol == 17,
            masqueraded: None,
            way: None,
        };
        self.admits(&key, &template, None).map_err(|short| match short {
            Short::Places => "table_full",
            Short::HalfOpen => "half_open_limit",
        })?;
        template.server = self.agree(&key, server, service, timeout * SECOND);
        let server = template.server;
        self.insert(key, template);
        Ok((server, true))
    }

    /// A connection of a template was established.
    pub(super) fn assure(&mut self, template: Option<Key>) {
        if let Some(key) = template {
            self.connections.get_mut(&key).expect("of a connection").assured = true;
            self.places.delist(&key);
        }
    }

    /// What a packet says of its connection, and of the template that it was made through.
    pub(super) fn confirm(&mut self, key: &Key) {
        let entry = &self.connections[key];
        if key.protocol != 17 {
            if entry.is_half_open(key) {
                self.places.enlist(key, entry);
            } else {
                self.places.delist(key);
            }
        } else if self.places.is_tentative(key) {
            self.places.delist(key);
            if let Some(template) = entry.template {
                self.places.delist(&template);
            }
        }
    }

    /// Whether new connections may follow a template to this real server.
    pub(super) fn may_be_followed(&self, server: u32) -> bool {
        self.servers.get(&server).is_some_and(|target| {
            let RealServer { available, drain, weight, .. } = *target.snapshot;
            available && drain == Drain::No && !(weight == 0 && self.settings.expire_quiescent_template)
        })
    }

    /// Puts a template where no connection finds it: it is listed with port 65535.
    fn put_aside(&mut self, key: &Key) {
        let Some(template) = self.connections.remove(key) else { return };
        self.templates_aside += 1;
        let aside = Key { aside: self.templates_aside, virtual_: (key.virtual_.ip(), u16::MAX).into(), ..*key };
        for connection in self.connections.values_mut().filter(|connection| connection.template == Some(*key)) {
            connection.template = Some(aside);
        }
        self.connections.insert(aside, template);
        self.places.rename(key, aside);
    }

    /// Whether `drop_packet` gives up this first packet: the first one, and then every so many-th.
    fn drops_packet(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        let drops = self.drop_counter <= 1;
        self.drop_counter = if drops { self.drop_rate } else { self.drop_counter - 1 };
        drops
    }

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
