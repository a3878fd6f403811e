//! Connections and templates: what is remembered of each, and what their packets do.

use std::net::{IpAddr, SocketAddr};

use dataplane::address::Address;
use dataplane::service::{Drain, Method, RealServer};
use dataplane::settings::Timeouts;

use super::recycle::Short;
use super::tcp::{self, State};
use super::wire::{Kind, Packet};
use super::{Director, Fate, sctp};

pub(super) const SECOND: u32 = 100;
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
    /// Whether an answer passed the director that need not have.
    pub answered: bool,
    /// The port or VLAN, and the MAC, that the client's latest request came from; of a masqueraded one.
    pub way: Learned,
}

/// What a connection knows of where its client sends from: a port or VLAN, and a MAC.
#[derive(Clone, Copy, Debug)]
pub enum Learned {
    Nothing,
    Way(usize, [u8; 6]),
    /// Or nothing: it was a packet of the connection before it in the same burst.
    Hearsay(usize, [u8; 6]),
}

impl Connection {
    /// The table by which a client's packets move its state.
    fn table(&self) -> &'static str {
        if self.masqueraded.is_some() || self.answered { "input" } else { "input only" }
    }

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
                    (6, "FW") => mode & 2 != 0 && connection.table() == "input only",
                    _ => false,
                };
            if over || (settings.expire_nodest_conn && quiescent) {
                self.replaced.push(key);
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
        self.complain(&connection, packet);
        let (next, seconds) = advance(connection.table(), connection.state, packet, secure, &timeouts);
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

    /// Counts what a client's segment says of a real server that does not answer, or not well.
    fn complain(&self, connection: &Connection, packet: &Packet) {
        let Kind::Tcp { flags } = packet.kind else { return };
        let [opens, resets, acknowledges] = [0x02, 0x04, 0x10].map(|flag| flags & flag != 0);
        let (waits, lives) = (matches!(connection.state, "SR" | "SA"), matches!(connection.state, "SR" | "SA" | "ES"));
        let repeated = u32::from(waits && opens && !resets && !acknowledges);
        self.counts_of(connection.server, |counts| {
            counts.complaints.0 += repeated;
            counts.complaints.1 += u32::from(lives && resets);
        });
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
                answered: false,
                way: Learned::Nothing,
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

    /// Whether `drop_packet` gives up this first packet: the first one, and then every so many-th.
    fn drops_packet(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        let drops = self.drop_counter <= 1;
        self.drop_counter = if drops { self.drop_rate } else { self.drop_counter - 1 };
        drops
    }
}
