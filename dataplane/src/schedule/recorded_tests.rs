//! Schedulers, TCP states and the table against what the kernel's IPVS did: the recordings in `tests/oracle`.
//!
//! A director without frames: it reads the recorded packets' headers, keeps entries and counts as a worker does, and is compared
//! pick by pick and listing by listing. Services that need what it lacks (other schedulers, persistence, masquerading) are left out.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use crate::address::Address;
use crate::connection::{ConnectionTable, EntryId, Key, NewEntry, entry};
use crate::schedule::{Buckets, Memory, Pick, Scheduler, Seat};
use crate::service::{Member, Protocol, SchedulerKind, ServerId, ServiceId, ServiceKey, VirtualService};
use crate::settings::{Settings, Timeouts};
use crate::stats::{ServerStats, ServiceStats};
use crate::tcp::{self, State};
use crate::tick::Tick;

/// The real server that a packet was sent to, by its last octet; `None` if it was dropped or answered.
type Sent = Option<u8>;

struct Service {
    now: VirtualService,
    scheduler: Scheduler,
    /// Counters by real server, also of those removed.
    stats: HashMap<ServerId, Arc<ServerStats>>,
    last_weights: HashMap<ServerId, u32>,
    addresses: HashMap<ServerId, Address>,
}

struct Director {
    services: HashMap<ServiceKey, Service>,
    memory: Memory,
    table: ConnectionTable,
    now: Tick,
    sloppy_tcp: bool,
    expire_nodest_conn: bool,
    conn_reuse_mode: bool,
    /// Packets and listings compared so far.
    compared: usize,
}

/// A recorded TCP or UDP packet.
struct Packet {
    service: ServiceKey,
    key: Key,
    flags: u8,
}

fn parse(hex: &str) -> Option<Packet> {
    let frame: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let ip = &frame[14..];
    let wide = |at| Address(u128::from_be_bytes(ip[at..at + 16].try_into().unwrap()));
    let narrow = |at| Address::v4(u32::from_be_bytes(ip[at..at + 4].try_into().unwrap()));
    let (number, client, virtual_, start) = match ip[0] >> 4 {
        4 => (ip[9], narrow(12), narrow(16), usize::from(ip[0] & 15) * 4),
        _ => (ip[6], wide(8), wide(24), 40),
    };
    let protocol = match number {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let l4 = &ip[start..];
    let port = |at| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let key = Key { client, virtual_, client_port: port(0), virtual_port: port(2), protocol: number };
    let service = ServiceKey { protocol, address: virtual_, port: port(2) };
    Some(Packet { service, key, flags: if protocol == Protocol::Tcp { l4[13] } else { 0 } })
}

fn service_key(protocol: &str, address: &str) -> ServiceKey {
    let address: SocketAddr = address.parse().unwrap();
    let protocol = if matches!(protocol, "-u" | "UDP") { Protocol::Udp } else { Protocol::Tcp };
    ServiceKey { protocol, address: address.ip().into(), port: address.port() }
}

/// Real servers are 10.10.24.21 and on, and `fd00:10::21` and on: 21 for both.
fn server_id(address: &str) -> ServerId {
    match address.parse::<SocketAddr>().unwrap().ip() {
        IpAddr::V4(v4) => ServerId(u32::from(v4.octets()[3])),
        IpAddr::V6(v6) => ServerId(format!("{:x}", v6.octets()[15]).parse().unwrap()),
    }
}

/// The scheduler that an `ipvsadm -A` names, if it is built and nothing else is asked for.
fn scheduler(words: &[&str]) -> Option<SchedulerKind> {
    let flag = |name| words.contains(&name);
    if flag("-p") || flag("-o") {
        return None;
    }
    match words.iter().position(|w| *w == "-s").map_or("wlc", |at| words[at + 1]) {
        "rr" => Some(SchedulerKind::RoundRobin),
        "wrr" => Some(SchedulerKind::WeightedRoundRobin),
        "lc" => Some(SchedulerKind::LeastConnections),
        "wlc" => Some(SchedulerKind::WeightedLeastConnections),
        "sed" => Some(SchedulerKind::ShortestExpectedDelay),
        "nq" => Some(SchedulerKind::NeverQueue),
        "lblc" => Some(SchedulerKind::LocalityLeastConnections),
        "lblcr" => Some(SchedulerKind::LocalityReplicated),
        "fo" => Some(SchedulerKind::Failover),
        "ovf" => Some(SchedulerKind::Overflow),
        "dh" => Some(SchedulerKind::DestinationHash),
        "mh" => Some(SchedulerKind::Maglev { port: flag("mh-port"), fallback: flag("mh-fallback") }),
        "sh" => Some(SchedulerKind::SourceHash { port: flag("sh-port"), fallback: flag("sh-fallback") }),
        _ => None,
    }
}

impl Service {
    fn new(id: u32, key: ServiceKey, scheduler: SchedulerKind, memory: &mut Memory) -> Self {
        let stats = Arc::new(ServiceStats::new(1));
        let id = ServiceId(id);
        let now = VirtualService {
            id,
            key,
            scheduler,
            one_packet: false,
            persistence: None,
            revision: 0,
            members: Vec::new(),
            no_real_server: crate::service::NoRealServer::Icmp,
            buckets: Buckets::default(),
            timeouts: None,
            stats,
        };
        Self {
            scheduler: Scheduler::new(&now, memory),
            now,
            stats: HashMap::new(),
            last_weights: HashMap::new(),
            addresses: HashMap::new(),
        }
    }

    fn change(&mut self, what: &str, id: ServerId, address: Address, weight: u32, memory: &mut Memory) {
        let mut members = self.now.members.clone();
        match (what, members.iter().position(|m| m.server == id)) {
            ("-a", None) => {
                let stats = self.stats.entry(id).or_insert_with(|| Arc::new(ServerStats::new(1)));
                members.insert(0, Member { server: id, weight, reachable: true, limited: false, stats: Arc::clone(stats) });
            }
            ("-e", Some(at)) => members[at].weight = weight,
            ("-d", Some(at)) => drop(members.remove(at)),
            unexpected => panic!("{unexpected:?}"),
        }
        if what == "-a" || weight != 0 {
            self.last_weights.insert(id, weight);
        }
        self.addresses.insert(id, address);
        let VirtualService { key, scheduler, .. } = self.now;
        let seat = |m: &Member| Seat {
            address: self.addresses[&m.server],
            port: key.port,
            weight: m.weight,
            last_weight: self.last_weights[&m.server],
        };
        let buckets = Buckets::new(scheduler, !key.address.is_v4(), &members.iter().map(seat).collect::<Vec<_>>());
        let next = VirtualService { members, buckets, revision: self.now.revision + 1, stats: Arc::clone(&self.now.stats), ..self.now };
        self.scheduler.service_changed(&self.now, &next, memory);
        self.now = next;
    }

    fn member(&self, id: ServerId) -> Option<&Member> {
        self.now.members.iter().find(|m| m.server == id)
    }
}

impl Director {
    fn new(sysctl: &Value) -> Self {
        let set = |name: &str, default| sysctl.get(name).and_then(Value::as_i64).unwrap_or(default) != 0;
        Self {
            services: HashMap::new(),
            memory: Memory::new([0; 4], &Settings::default()),
            table: ConnectionTable::new(1000, 1000, [1, 2, 3, 4]).unwrap(),
            now: Tick(0),
            sloppy_tcp: set("sloppy_tcp", 0),
            expire_nodest_conn: set("expire_nodest_conn", 0),
            conn_reuse_mode: set("conn_reuse_mode", 1),
            compared: 0,
        }
    }

    fn command(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ["ipvsadm", what, option @ ("-t" | "-u"), address, rest @ ..] = &words[..] else { return };
        let key = service_key(option, address);
        let option = |name| rest.iter().position(|w| *w == name).map(|at| rest[at + 1]);
        let unknown_to_us = ["-m", "-x", "-y"].iter().any(|o| rest.contains(o));
        if *what == "-A" {
            let id = u32::try_from(self.services.len()).unwrap();
            self.services.extend(scheduler(rest).map(|kind| (key, Service::new(id, key, kind, &mut self.memory))));
        } else if *what == "-D" || unknown_to_us {
            self.services.remove(&key);
        } else if let Some(service) = self.services.get_mut(&key) {
            let weight = option("-w").map_or(1, |w| w.parse().unwrap());
            let server = option("-r").unwrap();
            let address = server.parse::<SocketAddr>().unwrap().ip().into();
            service.change(what, server_id(server), address, weight, &mut self.memory);
        }
    }

    /// What becomes of a packet of a service that is compared.
    fn packet(&mut self, packet: &Packet) -> Sent {
        let hash = self.table.hash(&packet.key);
        let syn = packet.flags & (tcp::SYN | tcp::RST) == tcp::SYN;
        if let Some(id) = self.table.find(hash, &packet.key) {
            let entry = *self.table.entry(id);
            let server = self.services[&packet.service].member(entry.server());
            let ended = matches!(entry.state(), State::TimeWait | State::Close);
            let quiescent = self.expire_nodest_conn && server.is_some_and(|m| m.weight == 0);
            let again = syn && (quiescent || self.conn_reuse_mode && ended);
            if server.is_none() && !self.expire_nodest_conn && !again {
                return None;
            }
            if server.is_some() && !again {
                self.seen(id, packet);
                return sent_to(entry.server());
            }
            let entry = self.table.remove(id);
            let stats = &self.services[&packet.service].stats[&entry.server()];
            if entry.counts_as_active() { stats.share(0).active.decrement() } else { stats.share(0).inactive.decrement() }
        }
        if packet.service.protocol == Protocol::Tcp && !syn && !self.sloppy_tcp {
            return None;
        }
        let service = self.services.get_mut(&packet.service)?;
        let pick = Pick::new(&service.now, &packet.key, self.now);
        let member = &service.now.members[service.scheduler.pick(&pick, &mut self.memory)?];
        member.stats.share(0).inactive.increment();
        let new = NewEntry {
            server: member.server,
            service: service.now.id,
            state: State::None as u8,
            flags: entry::flags::NO_OUTPUT,
            timeout_ticks: tcp::FRESH_TIMEOUT * Tick::PER_SECOND,
        };
        let id = self.table.insert(hash, &packet.key, new, self.now).unwrap();
        self.seen(id, packet);
        sent_to(new.server)
    }

    /// Follows a packet of an entry: state, timeout and counts.
    fn seen(&mut self, id: EntryId, packet: &Packet) {
        let before = *self.table.entry(id);
        let timeouts = Timeouts::default();
        let (state, seconds) = if packet.service.protocol == Protocol::Tcp {
            let state = tcp::next(tcp::Table::InputOnly, before.state(), packet.flags);
            (state, state.timeout(&timeouts))
        } else {
            (State::None, timeouts.udp)
        };
        self.table.set_state(id, state, self.now, seconds * Tick::PER_SECOND);
        let share = self.services[&packet.service].stats[&before.server()].share(0);
        match (before.counts_as_active(), self.table.entry(id).counts_as_active()) {
            (false, true) => {
                share.inactive.decrement();
                share.active.increment();
            }
            (true, false) => {
                share.active.decrement();
                share.inactive.increment();
            }
            _ => {}
        }
    }

    /// Compares what a listing says about the services that are compared, line by line in any order.
    fn listing(&mut self, name: &str, command: &str, recorded: &str) {
        let (ours, theirs) = match command {
            "ipvsadm -Ln" => (self.servers(), self.recorded_servers(recorded)),
            "ipvsadm -Lnc" => (self.connections(), self.recorded_connections(recorded)),
            _ => return,
        };
        assert_eq!(ours, theirs, "{name}: {command}");
        self.compared += 1;
    }

    fn servers(&self) -> BTreeSet<String> {
        let members = self.services.iter().flat_map(|(key, s)| s.now.members.iter().map(move |m| (key, m)));
        members.map(|(key, m)| format!("{key:?} {} {} {} {}", m.server.0, m.weight, m.stats.active(), m.stats.inactive())).collect()
    }

    fn recorded_servers(&self, listing: &str) -> BTreeSet<String> {
        let mut rows = BTreeSet::new();
        let mut key = service_key("-t", "0.0.0.0:0");
        for line in listing.lines().skip(3) {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["->", server, _, weight, active, inactive] if self.services.contains_key(&key) => {
                    rows.insert(format!("{key:?} {} {weight} {active} {inactive}", server_id(server).0));
                }
                [protocol @ ("TCP" | "UDP"), address, ..] => key = service_key(protocol, address),
                _ => {}
            }
        }
        rows
    }

    fn connections(&self) -> BTreeSet<String> {
        let entries = self.table.scan(0, u32::MAX).map(|(id, entry)| {
            let key = self.table.key(id);
            let (client, vip) = (SocketAddr::new(key.client.ip(), key.client_port), SocketAddr::new(key.virtual_.ip(), key.virtual_port));
            let seconds = self.now.until(entry.expires()) / Tick::PER_SECOND;
            format!("{} {} {client} {vip} {} {}", key.protocol, entry.state_name(), entry.server().0, about(seconds))
        });
        entries.collect()
    }

    fn recorded_connections(&self, listing: &str) -> BTreeSet<String> {
        let mut rows = BTreeSet::new();
        for line in listing.lines().skip(2) {
            let [protocol, expire, state, client, vip, server] = line.split_whitespace().collect::<Vec<_>>()[..] else { continue };
            let key = service_key(protocol, vip);
            if self.services.contains_key(&key) {
                let (minutes, seconds) = expire.split_once(':').unwrap();
                let seconds = about(minutes.parse::<u32>().unwrap() * 60 + seconds.parse::<u32>().unwrap());
                rows.insert(format!("{} {state} {client} {vip} {} {seconds}", key.protocol as u8, server_id(server).0));
            }
        }
        rows
    }
}

/// The recorder's clock went on by some seconds that are not recorded; timeouts differ by more.
fn about(seconds: u32) -> u32 {
    (seconds + 15) / 20
}

fn sent_to(server: ServerId) -> Sent {
    u8::try_from(server.0).ok()
}

/// Plays a scenario; returns how many packets and listings were compared.
fn play(scenario: &Value) -> usize {
    let name = scenario["name"].as_str().unwrap();
    let mut director = Director::new(&scenario["sysctl"]);
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        if let Some(command) = step["cmd"].as_str() {
            match step["out"].as_str().unwrap() {
                "" => director.command(command),
                listing => director.listing(name, command, listing),
            }
        } else if let Some(packet) = step["pkt"].as_str().and_then(parse)
            && director.services.contains_key(&packet.service)
        {
            // Destination MAC 02:00:00:00:00:15 and on: a real server. Anything else is an answer to the client.
            let out = step["out"].as_array().unwrap().first().and_then(Value::as_str);
            let recorded = out.and_then(|hex| u8::from_str_radix(&hex[10..12], 16).ok()).filter(|octet| *octet > 20);
            assert_eq!(director.packet(&packet), recorded, "{name}, step {number}: {}", step["note"]);
            director.compared += 1;
        }
    }
    director.compared
}

fn recordings(file: &str) -> Vec<Value> {
    let path = format!("{}/../tests/oracle/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).unwrap()
}

/// Plays the scenarios whose names begin with one of `prefixes`; there must be some, each with something to compare.
fn play_all(file: &str, prefixes: &[&str]) {
    let recordings = recordings(file);
    for prefix in prefixes {
        let meant = recordings.iter().filter(|s| s["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
        let played: Vec<usize> = meant.map(play).collect();
        assert!(!played.is_empty() && played.iter().all(|compared| *compared > 1), "{prefix}: {played:?}");
    }
}

#[test]
fn round_robin_picks_as_the_kernel_did() {
    play_all("base.json", &["rr", "udp-rr", "quiesce", "rs-removed", "all-weight-zero"]);
    play_all("more.json", &["v6-rr"]);
}

#[test]
fn weighted_round_robin_picks_as_the_kernel_did() {
    play_all("base.json", &["wrr"]);
    play_all("more.json", &["v6-wrr"]);
}

#[test]
fn least_connections_picks_as_the_kernel_did() {
    play_all("base.json", &["lc-"]);
}

#[test]
fn weighted_least_connections_picks_as_the_kernel_did() {
    play_all("base.json", &["wlc-"]);
}

#[test]
fn source_hash_picks_as_the_kernel_did() {
    play_all("base.json", &["sh"]);
    play_all("more.json", &["v6-sh"]);
}

#[test]
fn expected_delay_and_never_queue_pick_as_the_kernel_did() {
    play_all("base.json", &["sed-", "nq-"]);
}

#[test]
fn failover_and_overflow_pick_as_the_kernel_did() {
    play_all("base.json", &["fo", "ovf"]);
}

#[test]
fn destination_hash_picks_as_the_kernel_did() {
    play_all("base.json", &["dh"]);
}

#[test]
fn maglev_picks_as_the_kernel_did() {
    play_all("base.json", &["mh"]);
    play_all("more.json", &["v6-mh"]);
}

#[test]
fn locality_picks_as_the_kernel_did() {
    play_all("base.json", &["lblc"]);
}

#[test]
fn tcp_states_and_timeouts_are_those_of_the_kernel() {
    play_all("base.json", &["tcp-states-dr", "no-conn-ack"]);
}

#[test]
fn random_mixes_are_scheduled_as_the_kernel_did() {
    let mixes = recordings("more.json");
    let played: Vec<usize> = mixes.iter().filter(|s| s["name"].as_str().unwrap().starts_with("random-")).map(play).collect();
    assert!(played.iter().filter(|compared| **compared > 20).count() >= 5, "{played:?}");
}
