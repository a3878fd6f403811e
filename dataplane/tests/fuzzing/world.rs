//! What an operator may do: services, real servers and settings that come, change and go, as the control plane tells workers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::address::Address;
use dataplane::command::{Batch, LocalAddresses};
use dataplane::connection::Replies;
use dataplane::marks::{MarkRule, Marks, Prefix};
use dataplane::routes::{Network, PortRoutes, Routes};
use dataplane::schedule::{Buckets, Seat};
use dataplane::service::*;
use dataplane::settings::{Mode, Settings, Timeouts, Ttl};
use dataplane::stats::{ServerStats, ServiceStats};

use super::choices::Choices;
use super::rig::MACS;
use crate::reference::marks::Rule;

/// Places for services, and for real servers in each.
const SERVICES: u32 = 6;
const SERVERS: u32 = 5;
const VIPS: [&str; 4] = ["10.10.24.88", "10.10.24.89", "fd00:10::88", "fd00:10::89"];
const DIPS: [(&str, u64); 4] = [("10.10.24.10", 1), ("fd00:10::10", 1), ("172.16.0.10", 2), ("fd00:16::10", 2)];

/// What the operator has set up.
pub struct World {
    single: bool,
    exact: bool,
    services: BTreeMap<u32, Service>,
    servers: BTreeMap<u32, Server>,
    settings: Settings,
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

#[derive(Clone, Debug)]
struct Server {
    address: Address,
    port: u16,
    method: Method,
    tunnel: Option<Tunnel>,
    available: bool,
    weight: u32,
    last_weight: u32,
    thresholds: Thresholds,
    next_hop: Option<NextHop>,
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
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
    pub fn new(single: bool, exact: bool) -> Self {
        Self {
            single,
            exact,
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
        let mut batch = Batch { locals: Some(Arc::new(locals(true))), routes: Some(Arc::new(routes(c))), ..Batch::default() };
        if !self.exact {
            batch.replies = Some(Replies::new(1_000).expect("memory"));
        }
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
                _ => batch.locals = Some(Arc::new(locals(!c.one_in(3)))),
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
            self.servers.get_mut(&place).expect("a member").available = false;
        } else {
            let known = self.servers.remove(&place);
            let server = new_server(c, service.key, n, known.as_ref(), !self.exact);
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
                server.last_weight = if server.weight == 0 { server.last_weight } else { server.weight };
            }
            2 => {
                let old = std::mem::replace(&mut server.thresholds, thresholds(c));
                let new = server.thresholds;
                self.relieve(place, old, new);
            }
            3 if server.address.is_v4() == key.address.is_v4() => {
                let tunnel = server.method == Method::DirectRouting;
                server.method = if tunnel { Method::Tunnel } else { Method::DirectRouting };
                let encapsulation = encapsulation(c);
                let source = address(if server.address.is_v4() { "10.10.24.10" } else { "fd00:10::10" });
                server.tunnel = tunnel.then_some(Tunnel { source, encapsulation });
            }
            3 => {}
            _ => {
                server.next_hop = next_hop(c, place);
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

    fn change_marks(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let network = |c: &mut Choices<'_>, of: &[(&str, u8)]| {
            let (text, bits) = c.pick(of);
            (address(text).ip(), bits)
        };
        let rules = 0..c.below(4);
        self.marks = rules
            .map(|_| Rule {
                destination: network(
                    c,
                    &[
                        ("10.10.24.88", 32),
                        ("10.10.24.0", 24),
                        ("10.99.0.0", 17),
                        ("10.123.4.5", 0),
                        ("fd00:10::88", 128),
                        ("fd00::", 17),
                        ("2001:db8:77::5", 0),
                    ],
                ),
                source: c.one_in(4).then(|| network(c, &[("198.51.100.0", 24), ("198.51.100.64", 26), ("2001:db8::", 32)])),
                protocol: c.one_in(2).then(|| c.pick(&[6, 17, 132])),
                ports: (0..c.below(3)).map(|_| c.pick(&[(80, 80), (80, 443), (53, 53), (0, 65535), (444, 81)])).collect(),
                mark: 1 + c.below(3) as u32,
            })
            .collect();
        let prefix = |(address, bits): (IpAddr, u8)| Prefix::new(address.into(), bits);
        let rule = |rule: &Rule| MarkRule {
            destination: prefix(rule.destination),
            source: rule.source.map(prefix),
            protocol: rule.protocol.map(|protocol| match protocol {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => Protocol::Sctp,
            }),
            ports: rule.ports.clone().into(),
            mark: rule.mark,
        };
        batch.marks = Some(Arc::new(Marks::new(self.marks.iter().map(rule).collect())));
    }

    fn change_settings(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let s = &mut self.settings;
        // When the table is short of places depends on more than the reference knows.
        let exact = self.exact;
        let mode = |c: &mut Choices<'_>| {
            if exact { c.pick(&[Mode::Never, Mode::Always]) } else { c.pick(&[Mode::Never, Mode::Automatic, Mode::Always]) }
        };
        match c.below(14) {
            // The reference director knows neither.
            11 if !exact => s.schedule_icmp = !s.schedule_icmp,
            12 if !exact => s.nat_icmp_send = !s.nat_icmp_send,
            8 => s.secure_tcp = mode(c),
            9 => (s.drop_packet, s.am_droprate) = (mode(c), c.pick(&[0, 1, 2, 5, 10])),
            10 if !exact => (s.drop_entry, s.amemthresh) = (mode(c), c.pick(&[0, 10, 50, 100])),
            10 => s.sloppy_sctp = !s.sloppy_sctp,
            0 => s.sloppy_tcp = !s.sloppy_tcp,
            1 => s.expire_nodest_conn = !s.expire_nodest_conn,
            2 => s.expire_quiescent_template = !s.expire_quiescent_template,
            3 => s.conn_reuse_mode = c.below(4) as u8,
            4 => s.timeouts = timeouts(c).unwrap_or_default(),
            5 => s.ttl = if s.ttl == Ttl::Preserve { Ttl::Decrement } else { Ttl::Preserve },
            6 => s.exception_rate = c.pick(&[1_000_000, 1_000_000, 10_000, 100, 5, 0]),
            _ => s.icmp_error_rate = c.pick(&[1_000_000, 1_000_000, 1_000, 20, 0]),
        }
        batch.settings = Some(*s);
    }

    fn members_changed(&mut self, id: u32, batch: &mut Batch) {
        self.revision += 1;
        if let Some(service) = self.services.get_mut(&id) {
            service.revision = self.revision;
        }
        self.put_service(id, batch);
    }

    fn put_service(&mut self, id: u32, batch: &mut Batch) {
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
            stats: Arc::clone(self.service_stats.entry(id).or_insert_with(|| Arc::new(ServiceStats::new(1)))),
        };
        batch.services.push((ServiceId(id), Some(Arc::new(snapshot))));
    }

    fn put_server(&mut self, id: u32, batch: &mut Batch) {
        let server = &self.servers[&id];
        let snapshot = RealServer {
            id: ServerId(id),
            address: server.address,
            port: server.port,
            protocol: self.services.get(&(id / 8)).map_or(Protocol::Tcp, |service| service.key.protocol),
            method: server.method,
            tunnel: server.tunnel,
            available: server.available,
            drain: dataplane::service::Drain::No,
            weight: server.weight,
            thresholds: server.thresholds,
            next_hop: server.next_hop,
            stats: Arc::clone(self.server_stats.entry(id).or_insert_with(|| Arc::new(ServerStats::new(1)))),
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

/// VIPs and DIPs.
pub fn our_addresses() -> Vec<IpAddr> {
    VIPS.iter().chain(DIPS.iter().map(|(dip, _)| dip)).map(|a| address(a).ip()).collect()
}

/// With all VIPs, or with one of them taken away.
fn locals(all: bool) -> LocalAddresses {
    let vips = &VIPS[..if all { VIPS.len() } else { VIPS.len() - 1 }];
    LocalAddresses {
        addresses: vips.iter().map(|vip| (*vip, 3)).chain(DIPS).map(|(a, ports)| (address(a), ports)).collect(),
        vips: vips.iter().map(|vip| address(vip)).collect(),
        probed: hashbrown::HashSet::new(),
        macs: MACS.to_vec(),
    }
}

/// What nobody can foretell within a burst: chance, and what is forgotten at some time.
const UNFORESEEN: [SchedulerKind; 3] =
    [SchedulerKind::TwoChoices, SchedulerKind::LocalityLeastConnections, SchedulerKind::LocalityReplicated];

fn scheduler(c: &mut Choices<'_>, single: bool) -> SchedulerKind {
    if single && c.one_in(5) {
        return c.pick(&UNFORESEEN);
    }
    c.pick(&[
        SchedulerKind::ShortestExpectedDelay,
        SchedulerKind::NeverQueue,
        SchedulerKind::Failover,
        SchedulerKind::Overflow,
        SchedulerKind::DestinationHash,
        SchedulerKind::Maglev { port: false, fallback: false },
        SchedulerKind::Maglev { port: true, fallback: false },
        SchedulerKind::Maglev { port: false, fallback: true },
        SchedulerKind::Maglev { port: true, fallback: true },
        SchedulerKind::RoundRobin,
        SchedulerKind::WeightedRoundRobin,
        SchedulerKind::LeastConnections,
        SchedulerKind::WeightedLeastConnections,
        SchedulerKind::SourceHash { port: false, fallback: false },
        SchedulerKind::SourceHash { port: true, fallback: false },
        SchedulerKind::SourceHash { port: false, fallback: true },
        SchedulerKind::SourceHash { port: true, fallback: true },
    ])
}

fn weight(c: &mut Choices<'_>) -> u32 {
    match c.below(12) {
        0..2 => 0,
        2..11 => 1 + c.below(6) as u32,
        _ => c.pick(&[100, 65_535, 1 << 10, (1 << 12) - 1]),
    }
}

fn thresholds(c: &mut Choices<'_>) -> Thresholds {
    if !c.one_in(3) {
        return Thresholds::default();
    }
    let upper = 1 + c.below(12) as u32;
    Thresholds { upper, lower: c.below(upper as usize + 1) as u32 }
}

fn timeouts(c: &mut Choices<'_>) -> Option<Timeouts> {
    let mut seconds = |usual| if c.one_in(2) { usual } else { c.pick(&[1, 2, 30, 60, 900, 86_400, 2_678_400]) };
    let timeouts = Timeouts { tcp: seconds(900), tcp_fin: seconds(120), udp: seconds(300) };
    c.one_in(3).then_some(timeouts)
}

fn persistence(c: &mut Choices<'_>, vip: Address) -> Persistence {
    let bits = if vip.is_v4() { 32 } else { 128 };
    let ignored = c.pick(&[0, 0, 8, 16, bits - 1]);
    Persistence { timeout: c.pick(&[1, 10, 60, 300, 360, 2_678_400]), mask: u128::MAX << ignored }
}

fn next_hop(c: &mut Choices<'_>, place: u32) -> Option<NextHop> {
    if c.one_in(10) {
        return None;
    }
    let mac = if c.one_in(24) { c.pick(&MACS) } else { [2, 0, 0, 1, 0, place as u8] };
    let port = if c.one_in(40) { 2 } else { u16::from(c.one_in(3)) };
    Some(NextHop { port, mac, mtu: c.pick(&[1500, 1500, 1500, 1500, 1280, 1300, 576, 68, 9000]) })
}

fn encapsulation(c: &mut Choices<'_>) -> Encapsulation {
    let checksum = c.one_in(2);
    match c.below(4) {
        0 | 1 => Encapsulation::IpIp,
        2 => Encapsulation::Gue { port: 6080, checksum },
        _ => Encapsulation::Gre { checksum },
    }
}

/// A real server's address of either family.
fn addresses(n: u32) -> [Address; 2] {
    [Address::v4(0x0a0a_1815 + n), Address(address("fd00:10::15").0 + u128::from(n))]
}

/// Its address of the service's family.
fn own_address(key: ServiceKey, n: u32) -> Address {
    addresses(n)[usize::from(!key.address.is_v4())]
}

/// Ways to clients: networks on the link, gateways, or neither.
fn routes(c: &mut Choices<'_>) -> Routes {
    let network = Network { prefix: address("10.10.24.0"), mask: u128::MAX << 8, own: address("10.10.24.10") };
    let mut port = |n: u8| {
        let gateway = c.one_in(2).then_some(NextHop { port: n.into(), mac: [2, 0, 0, 0, 7, n], mtu: 1500 });
        PortRoutes { networks: if n == 0 { vec![network] } else { Vec::new() }, gateways: [gateway; 2], mtu: 1500 }
    };
    Routes { ports: vec![port(0), port(1)] }
}

/// A way to reach a real server, with what belongs to it.
fn method(c: &mut Choices<'_>, key: ServiceKey, n: u32) -> (Method, Address, Option<Tunnel>) {
    let [v4, v6] = addresses(n);
    let own_family = own_address(key, n);
    match c.below(4) {
        0 | 1 => (Method::DirectRouting, own_family, None),
        2 => {
            let encapsulation = encapsulation(c);
            (Method::Tunnel, v4, (!c.one_in(12)).then(|| Tunnel { source: address("10.10.24.10"), encapsulation }))
        }
        _ => (Method::Tunnel, v6, Some(Tunnel { source: address("fd00:10::10"), encapsulation: encapsulation(c) })),
    }
}

fn new_server(c: &mut Choices<'_>, key: ServiceKey, n: u32, known: Option<&Server>, masquerading: bool) -> Server {
    let (method, address, tunnel) = match known {
        Some(old) => (old.method, old.address, old.tunnel),
        // The reference director does not masquerade.
        None if masquerading && c.one_in(3) => (Method::Masquerading, own_address(key, n), None),
        None => method(c, key, n),
    };
    let weight = weight(c);
    Server {
        last_weight: if weight == 0 { known.map_or(0, |old| old.last_weight) } else { weight },
        address,
        port: if method == Method::Masquerading { c.pick(&[key.port, 8080, 0]) } else { key.port },
        method,
        tunnel,
        available: true,
        weight,
        thresholds: thresholds(c),
        next_hop: next_hop(c, server_id(0, n) + 100),
    }
}
