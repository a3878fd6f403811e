//! What an operator may do: services, real servers and settings that come, change and go, as the control plane tells workers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::command::Batch;
use dataplane::schedule::{Buckets, Seat};
use dataplane::service::*;
use dataplane::settings::{Settings, Timeouts};
use dataplane::stats::{ServerStats, ServiceStats};

use super::choices::Choices;
use super::kinds::{Server, UNFORESEEN, encapsulation, new_server, persistence, scheduler, thresholds, timeouts, weight};
use super::network::{Network, VIPS, address};
use crate::reference::marks::Rule;

/// Places for services, and for real servers in each.
const SERVICES: u32 = 6;
const SERVERS: u32 = 5;
/// What the operator has set up.
pub struct World {
    /// Whether frames come one at a time to a worker alone, so that what is left to chance is seen.
    single: bool,
    pub(super) exact: bool,
    workers: usize,
    pub network: Network,
    services: BTreeMap<u32, Service>,
    servers: BTreeMap<u32, Server>,
    pub(super) settings: Settings,
    pub marks: Vec<Rule>,
    revision: u64,
    version: u64,
    /// Keys of the services that places were last for.
    remembered: BTreeMap<u32, ServiceKey>,
    /// Real servers that new thresholds have just relieved.
    pub relieved: Vec<u32>,
    pub server_stats: BTreeMap<u32, Arc<ServerStats>>,
    pub service_stats: BTreeMap<u32, Arc<ServiceStats>>,
}

#[derive(Clone)]
struct Service {
    key: ServiceKey,
    scheduler: SchedulerKind,
    one_packet: bool,
    no_real_server: NoRealServer,
    persistence: Option<Persistence>,
    timeouts: Option<Timeouts>,
    revision: u64,
    /// Oldest first, as they were added.
    members: Vec<u32>,
}

/// Whether a real server is in a batch already: a weight that was never sent is one that only the control plane saw.
fn is_in(batch: &Batch, place: u32) -> bool {
    batch.servers.iter().any(|(id, _)| id.0 == place)
}

fn server_id(service: u32, n: u32) -> u32 {
    service * 8 + n
}

impl World {
    /// `single`: frames come one at a time. `exact`: nothing is to be left to chance.
    pub fn new(network: Network, workers: usize, single: bool, exact: bool) -> Self {
        Self {
            single: single && workers == 1,
            exact,
            workers,
            network,
            services: BTreeMap::new(),
            servers: BTreeMap::new(),
            settings: Settings::default(),
            marks: Vec::new(),
            revision: 0,
            version: 0,
            remembered: BTreeMap::new(),
            relieved: Vec::new(),
            server_stats: BTreeMap::new(),
            service_stats: BTreeMap::new(),
        }
    }

    /// Addresses, and a few services to begin with.
    pub fn begin(&mut self, c: &mut Choices<'_>) -> Batch {
        let (locals, routes) = (self.network.locals(true), self.network.routes(c));
        let mut batch = Batch { locals: Some(Arc::new(locals)), routes: Some(Arc::new(routes)), ..Batch::default() };
        if c.one_in(2) {
            self.change_marks(c, &mut batch);
        }
        for _ in 0..=c.below(SERVICES as usize) {
            let id = c.below(SERVICES as usize) as u32;
            if !self.services.contains_key(&id) {
                self.add_service(c, id, &mut batch);
            }
        }
        self.finish(batch)
    }

    /// How many connections were scheduled to each real server, where the reference needs to be told.
    pub fn scheduled(&self) -> Vec<(u32, u64)> {
        if self.services.values().all(|service| !UNFORESEEN.contains(&service.scheduler)) {
            return Vec::new();
        }
        self.server_stats.iter().map(|(id, stats)| (*id, stats.sum().connections)).collect()
    }

    /// The ends of the services that there are.
    pub fn services(&self) -> Vec<(u8, SocketAddr)> {
        let plain = self.services.values().map(|s| s.key).filter(|key| !key.is_marked());
        let plain = plain.map(|key| (key.protocol as u8, SocketAddr::new(key.address.ip(), key.port)));
        let marked = self.marks.iter().map(|rule| {
            let port = rule.ports.first().map_or(0, |(first, _)| *first);
            (rule.protocol.unwrap_or(6), SocketAddr::new(rule.destination.0, port))
        });
        plain.chain(marked).collect()
    }

    /// One command, or a few at once.
    pub fn change(&mut self, c: &mut Choices<'_>) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..if c.one_in(4) { 1 + c.below(4) } else { 1 } {
            let id = c.below(SERVICES as usize) as u32;
            match c.below(16) {
                0..3 if self.services.contains_key(&id) => self.remove_service(id, &mut batch),
                0..3 => self.add_service(c, id, &mut batch),
                3..5 => self.edit_service(c, id, &mut batch),
                5..8 => self.add_or_remove_server(c, id, &mut batch),
                8..13 => self.edit_server(c, id, &mut batch),
                13 => self.forget(c, &mut batch),
                14 if c.one_in(3) => self.change_marks(c, &mut batch),
                14 => self.change_settings(c, &mut batch),
                _ if c.one_in(2) => batch.routes = Some(Arc::new(self.network.routes(c))),
                _ => batch.locals = Some(Arc::new(self.network.locals(!c.one_in(3)))),
            }
        }
        self.finish(batch)
    }

    fn finish(&mut self, mut batch: Batch) -> Batch {
        // The last word on a place is the one that counts, as in the control plane's outbox.
        let services: BTreeMap<_, _> = batch.services.drain(..).collect();
        let servers: BTreeMap<_, _> = batch.servers.drain(..).collect();
        batch.services = services.into_iter().collect();
        batch.servers = servers.into_iter().collect();
        self.version += 1;
        batch.version = self.version;
        batch
    }

    fn add_service(&mut self, c: &mut Choices<'_>, id: u32, batch: &mut Batch) {
        let mut key = ServiceKey {
            protocol: c.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
            address: address(c.pick(&VIPS)),
            port: c.pick(&[80, 80, 53, 443, 0]),
        };
        if c.one_in(5) {
            key = ServiceKey::marked(1 + c.below(3) as u32, c.one_in(2));
        }
        // A place is for its service alone until nobody refers to it.
        if (0..SERVERS).any(|n| self.servers.contains_key(&server_id(id, n))) {
            let Some(old) = self.remembered.get(&id) else { return };
            key = *old;
        }
        if self.services.values().any(|s| s.key == key) {
            return;
        }
        let persistence = (key.takes_every_port() || c.one_in(3)).then(|| persistence(c, key.address));
        let service = Service {
            key,
            scheduler: scheduler(c, self.single),
            one_packet: matches!(key.protocol, Protocol::Udp | Protocol::Ip) && c.one_in(4),
            no_real_server: c.pick(&[NoRealServer::Icmp, NoRealServer::Icmp, NoRealServer::Drop, NoRealServer::Reset]),
            persistence,
            timeouts: timeouts(c),
            revision: 0,
            members: Vec::new(),
        };
        self.remembered.insert(id, key);
        self.services.insert(id, service);
        for _ in 0..if c.one_in(8) { 0 } else { 1 + c.below(4) } {
            self.add_or_remove_server(c, id, batch);
        }
        self.members_changed(id, batch);
    }

    fn remove_service(&mut self, id: u32, batch: &mut Batch) {
        let Some(service) = self.services.remove(&id) else { return };
        for member in service.members {
            self.servers.get_mut(&member).expect("a member").available = false;
            self.put_server(member, batch);
        }
        batch.services.push((ServiceId(id), None));
    }

    fn edit_service(&mut self, c: &mut Choices<'_>, id: u32, batch: &mut Batch) {
        let Some(service) = self.services.get_mut(&id) else { return };
        match c.below(4) {
            0 | 1 => service.scheduler = scheduler(c, self.single),
            2 => service.timeouts = timeouts(c),
            _ => {
                let wanted = service.key.takes_every_port() || c.one_in(2);
                service.persistence = wanted.then(|| persistence(c, service.key.address));
            }
        }
        self.put_service(id, batch);
    }

    fn add_or_remove_server(&mut self, c: &mut Choices<'_>, id: u32, batch: &mut Batch) {
        let n = c.below(SERVERS as usize) as u32;
        let place = server_id(id, n);
        if is_in(batch, place) {
            return;
        }
        let Some(service) = self.services.get_mut(&id) else { return };
        if service.members.contains(&place) {
            service.members.retain(|member| *member != place);
            let server = self.servers.get_mut(&place).expect("a member");
            (server.available, server.drain) = (false, c.pick(&[Drain::No, Drain::No, Drain::Reset, Drain::Reschedule]));
        } else {
            let known = self.servers.remove(&place);
            let server = new_server(c, &self.network, service.key, n, known.as_ref());
            service.members.push(place);
            if let Some(known) = known {
                self.relieve(place, known.thresholds, server.thresholds);
            }
            self.servers.insert(place, server);
        }
        self.put_server(place, batch);
        self.members_changed(id, batch);
    }

    /// With a greater upper threshold, or none, a real server is overloaded no more.
    fn relieve(&mut self, place: u32, old: Thresholds, new: Thresholds) {
        if (new.upper == 0 || new.upper > old.upper)
            && let Some(stats) = self.server_stats.get(&place)
        {
            stats.set_overloaded(false);
            self.relieved.push(place);
        }
    }

    fn edit_server(&mut self, c: &mut Choices<'_>, id: u32, batch: &mut Batch) {
        let Some(service) = self.services.get(&id) else { return };
        if service.members.is_empty() {
            return;
        }
        let place = c.pick(&service.members);
        if is_in(batch, place) {
            return;
        }
        let key = service.key;
        let server = self.servers.get_mut(&place).expect("a member");
        match c.below(5) {
            0 | 1 => {
                server.weight = weight(c);
                server.drain = if server.weight == 0 && c.one_in(2) { Drain::Wait } else { Drain::No };
                server.last_weight = if server.weight == 0 { server.last_weight } else { server.weight };
            }
            2 => {
                let old = std::mem::replace(&mut server.thresholds, thresholds(c));
                let new = server.thresholds;
                self.relieve(place, old, new);
            }
            3 if server.address.is_v4() == key.address.is_v4() => {
                let methods = [Method::DirectRouting, Method::Tunnel, Method::Masquerading];
                let at = methods.iter().position(|method| *method == server.method).expect("one of them");
                server.method = methods[(at + 1 + c.below(2)) % 3];
                let tunnel = server.method == Method::Tunnel;
                let encapsulation = encapsulation(c);
                let source = address(if server.address.is_v4() { "10.10.24.10" } else { "fd00:10::10" });
                server.tunnel = tunnel.then_some(Tunnel { source, encapsulation });
            }
            3 => {}
            _ => {
                server.next_hop = self.network.next_hop(c, place);
                self.put_server(place, batch);
                // A MAC alone does not disturb the order.
                self.put_service(id, batch);
                return;
            }
        }
        self.put_server(place, batch);
        self.members_changed(id, batch);
    }

    /// Whether any entry refers to a real server.
    fn is_referred_to(&self, id: u32) -> bool {
        self.server_stats.get(&id).is_some_and(|stats| stats.connections() + stats.persistent() > 0)
    }

    /// Places that nobody refers to any more are given up.
    fn forget(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let gone: Vec<u32> =
            self.servers.iter().filter(|(id, server)| !server.available && !self.is_referred_to(**id)).map(|(id, _)| *id).collect();
        for id in gone {
            if c.one_in(2) {
                self.servers.remove(&id);
                batch.servers.push((ServerId(id), None));
            }
        }
    }

    fn members_changed(&mut self, id: u32, batch: &mut Batch) {
        self.revision += 1;
        if let Some(service) = self.services.get_mut(&id) {
            service.revision = self.revision;
        }
        self.put_service(id, batch);
    }

    fn put_service(&mut self, id: u32, batch: &mut Batch) {
        let workers = self.workers;
        let Some(service) = self.services.get(&id) else { return };
        let members = service.members.iter().rev().map(|member| {
            let server = &self.servers[member];
            Member {
                server: ServerId(*member),
                weight: server.weight,
                reachable: server.next_hop.is_some(),
                limited: server.thresholds.upper != 0,
                stats: Arc::clone(&self.server_stats[member]),
            }
        });
        let seats: Vec<Seat> = service
            .members
            .iter()
            .rev()
            .map(|member| {
                let server = &self.servers[member];
                Seat { address: server.address, port: server.port, weight: server.weight, last_weight: server.last_weight }
            })
            .collect();
        let snapshot = VirtualService {
            buckets: Buckets::new(service.scheduler, !service.key.address.is_v4(), &seats),
            id: ServiceId(id),
            key: service.key,
            scheduler: service.scheduler,
            one_packet: service.one_packet,
            no_real_server: service.no_real_server,
            persistence: service.persistence,
            revision: service.revision,
            members: members.collect(),
            timeouts: service.timeouts,
            stats: Arc::clone(self.service_stats.entry(id).or_insert_with(|| Arc::new(ServiceStats::new(workers)))),
        };
        batch.services.push((ServiceId(id), Some(Arc::new(snapshot))));
    }

    fn put_server(&mut self, id: u32, batch: &mut Batch) {
        let workers = self.workers;
        let server = &self.servers[&id];
        let snapshot = RealServer {
            id: ServerId(id),
            service: ServiceId(id / 8),
            address: server.address,
            port: server.port,
            protocol: self.services.get(&(id / 8)).map_or(Protocol::Tcp, |service| service.key.protocol),
            drain: server.drain,
            method: server.method,
            tunnel: server.tunnel,
            available: server.available,
            weight: server.weight,
            thresholds: server.thresholds,
            next_hop: server.next_hop,
            stats: Arc::clone(self.server_stats.entry(id).or_insert_with(|| Arc::new(ServerStats::new(workers)))),
        };
        batch.servers.push((ServerId(id), Some(Arc::new(snapshot))));
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}", self.settings)?;
        for (id, service) in &self.services {
            let Service { key, scheduler, one_packet, persistence, timeouts, members, .. } = service;
            writeln!(f, "service {id}: {key:?} {scheduler:?} {one_packet} {persistence:?} {timeouts:?}")?;
            for member in members {
                let stats = &self.server_stats[member];
                let counts = (stats.active(), stats.inactive(), stats.persistent(), stats.is_overloaded());
                writeln!(f, "  {member} {:?} {counts:?}", self.servers[member])?;
            }
        }
        Ok(())
    }
}
