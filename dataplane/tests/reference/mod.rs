//! A director as one would write it who has all the time in the world: no tables but maps, no tricks, straight from the rules of
//! LVS. It shares nothing with the packet path but the types of commands and snapshots, and the secret hashes that only chance
//! is made of; it says of every frame what must become of it.
//!
//! One file a feature; this one holds what they share: the rules in force, the connections, the counts.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

pub mod affinity;
pub mod answers;
pub mod connections;
pub mod encapsulation;
pub mod errors;
pub mod forward;
pub mod fragments;
pub mod handover;
pub mod hashing;
pub mod lifetimes;
pub mod limit;
pub mod locality;
pub mod marks;
pub mod masquerade;
pub mod notices;
pub mod recycle;
pub mod reset;
pub mod schedule;
pub mod sctp;
pub mod tcp;
pub mod templates;
pub mod translate;
pub mod turn;
pub mod vlans;
pub mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use dataplane::address::Address;
use dataplane::command::{Batch, LocalAddresses};
use dataplane::routes::Routes;
use dataplane::service::{Method, RealServer, VirtualService};
use dataplane::settings::{Mode, Settings};

use connections::{Connection, Key, Learned};
use fragments::Fragments;
use handover::{House, Shares};
use limit::Bucket;
use notices::Path;
use recycle::Places;
use schedule::{Candidate, Marks, Request};
use turn::{Arrivals, Fate, Lane};
use vlans::Vlan;
use wire::{Kind, Packet};

/// What passed, as `--stats` counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
    pub out_packets: u64,
    pub out_bytes: u64,
}

/// What is counted of a real server; outlives its snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub traffic: Traffic,
    pub active: u32,
    pub inactive: u32,
    pub persistent: u32,
    pub overloaded: bool,
    /// SYNs that came again, and resets of connections that were not over.
    pub complaints: (u32, u32),
}

/// What all workers of a director have together.
#[derive(Clone, Default)]
pub struct Common {
    pub services: BTreeMap<u32, Traffic>,
    pub servers: BTreeMap<u32, Counts>,
    /// `None` for a worker alone.
    pub house: Option<House>,
}

#[derive(Clone)]
struct Service {
    snapshot: Arc<VirtualService>,
    marks: Marks,
}

#[derive(Clone)]
struct Server {
    snapshot: Arc<RealServer>,
    /// Whether its MAC is one of our own.
    loops: bool,
    /// The last weight that was not 0.
    last_weight: u32,
    /// Whether it masquerades, or did: connections keep the method that they were made with.
    masqueraded: bool,
}

/// One worker's part of the director.
#[derive(Clone)]
pub struct Director {
    index: usize,
    workers: usize,
    now: u32,
    /// Those of ports, and then those of VLANs.
    macs: Vec<[u8; 6]>,
    ports: usize,
    vlans: Vec<Vlan>,
    services: BTreeMap<u32, Service>,
    servers: BTreeMap<u32, Server>,
    locals: Arc<LocalAddresses>,
    routes: Arc<Routes>,
    settings: Settings,
    /// Mark rules in force.
    pub marks: Vec<marks::Rule>,
    connections: HashMap<Key, Connection>,
    places: Places,
    pub fragments: Fragments,
    paths: Vec<Path>,
    icmp: Bucket,
    kernel: Bucket,
    kernel_neighbours: Bucket,
    shares: Shares,
    last_id: u32,
    /// Whether `secure_tcp` is in force.
    secure: bool,
    /// `drop_packet`: every so many-th, and how many are still to pass.
    drop_rate: u32,
    drop_counter: u32,
    templates_aside: u32,
    /// Real servers that were seen to get a new connection in this turn: what is drawn by lot is not foretold.
    pub seen: Vec<u32>,
    /// Connections that ended in this burst for others in their places.
    replaced: Vec<Key>,
    /// Which one to take where several are as right, and how many there were each time: nobody can foretell that either.
    script: Vec<usize>,
    asked: Vec<usize>,
    /// Whether there may be connections that the same packets answer.
    twins: bool,
    common: Rc<RefCell<Common>>,
}

/// All workers of a director on ports with these MACs, with so many places for connections each, and so many of them for half-open
/// ones. Worker `n` makes its secrets from `seeds[n]`, and all together theirs from `shared`.
pub fn directors(
    macs: &[[u8; 6]],
    vlans: &[Vlan],
    (connections, half_open): (u32, u32),
    seeds: &[[u64; 4]],
    shared: [u64; 4],
) -> Vec<Director> {
    let settings = Settings::default();
    let workers = seeds.len();
    let house = (workers > 1).then(|| House::new(workers, connections as usize, shared));
    let common = Rc::new(RefCell::new(Common { house, ..Common::default() }));
    let of_vlans = vlans.iter().map(|vlan| macs[vlan.port]);
    let macs_of_all: Vec<_> = macs.iter().copied().chain(of_vlans).collect();
    let one = |(index, seed): (usize, &[u64; 4])| Director {
        index,
        workers,
        now: 0,
        macs: macs_of_all.clone(),
        ports: macs.len(),
        vlans: vlans.to_vec(),
        services: BTreeMap::new(),
        servers: BTreeMap::new(),
        locals: Arc::default(),
        routes: Arc::default(),
        icmp: Bucket::new(settings.icmp_error_rate),
        kernel: Bucket::new(settings.exception_rate),
        kernel_neighbours: Bucket::new(2000),
        shares: Shares { errors: Bucket::new(handover::ERROR_RATE), fragments: Bucket::new(handover::FRAGMENT_RATE), grown: 0 },
        settings,
        marks: Vec::new(),
        connections: HashMap::new(),
        places: Places::new(connections, half_open, *seed),
        fragments: Fragments::new(*seed),
        paths: Vec::new(),
        last_id: index as u32,
        secure: false,
        drop_rate: 0,
        drop_counter: 0,
        templates_aside: 0,
        seen: Vec::new(),
        replaced: Vec::new(),
        script: Vec::new(),
        asked: Vec::new(),
        twins: false,
        common: Rc::clone(&common),
    };
    seeds.iter().enumerate().map(one).collect()
}

/// The same directors once more, with nothing in common with these.
pub fn copies(directors: &[Director]) -> Vec<Director> {
    let common = directors.first().map_or_else(Rc::default, |first| Rc::new(RefCell::new(first.common.borrow().clone())));
    directors.iter().map(|director| Director { common: Rc::clone(&common), ..director.clone() }).collect()
}

/// What `script` says to the next question, which is for one of so many.
fn choose(script: &[usize], asked: &mut Vec<usize>, many: usize) -> usize {
    let chosen = script.get(asked.len()).copied().unwrap_or(0);
    asked.push(many);
    chosen
}

impl Director {
    /// What is counted, by real server and by service.
    pub fn counts(&self) -> Common {
        self.common.borrow().clone()
    }

    fn counts_of<T>(&self, server: u32, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(self.common.borrow_mut().servers.entry(server).or_default())
    }

    /// Counts with what is a real server's, and with its service's if there is one.
    fn traffic(&self, server: u32, service: u32, change: impl Fn(&mut Traffic)) {
        self.traffic_if(Some(server), Some(service), change);
    }

    fn traffic_if(&self, server: Option<u32>, service: Option<u32>, change: impl Fn(&mut Traffic)) {
        if let Some(server) = server {
            self.counts_of(server, |counts| change(&mut counts.traffic));
        }
        if let Some(service) = service.filter(|service| self.services.contains_key(service)) {
            change(self.common.borrow_mut().services.entry(service).or_default());
        }
    }

    /// One of so many that are as right as the others.
    fn choose(&mut self, many: usize) -> usize {
        choose(&self.script, &mut self.asked, many)
    }

    /// Has choices made as `script` says from now on; gives how many there were to choose from at each one since.
    pub fn choose_by(&mut self, script: Vec<usize>) -> Vec<usize> {
        self.script = script;
        std::mem::take(&mut self.asked)
    }

    /// Whether there may be a choice in a turn: something comes from or to a real server that two connections' packets come from alike, a
    /// scheduler may have forgotten something, or a connection may not know the way to its client.
    pub fn may_choose(&mut self, arrivals: &Arrivals) -> bool {
        if self.connections.values().any(|connection| matches!(connection.way, Learned::Hearsay(..))) {
            return true;
        }
        if self.services.values().any(|service| service.marks.may_forget(&service.snapshot, self.now, &self.settings)) {
            return true;
        }
        // What comes later in the same turn may be alike to what begins in it.
        let in_parts =
            arrivals.frames.len() > turn::BURST || !self.vlans.is_empty() || self.frames_waiting() > 0 || self.fragments.count() > 0;
        if !self.has_twins() && !in_parts {
            return false;
        }
        let about = |address: IpAddr, frame: &[u8]| match address {
            IpAddr::V4(v4) => frame.windows(4).any(|bytes| bytes == v4.octets()),
            IpAddr::V6(v6) => frame.windows(16).any(|bytes| bytes == v6.octets()),
        };
        let masqueraded = self.servers.values().filter(|server| server.masqueraded);
        let addresses: BTreeSet<IpAddr> = masqueraded.map(|server| server.snapshot.address.ip()).collect();
        let comes = arrivals.frames.iter().any(|frame| addresses.iter().any(|address| about(*address, frame)));
        comes || self.frames_waiting() > 0 || self.fragments.count() > 0
    }

    /// Whether two connections may be answered by the same packets.
    fn has_twins(&mut self) -> bool {
        if self.twins {
            let mut ends: Vec<_> = self.connections.iter().filter_map(|(k, c)| Some((k.protocol, k.client, c.masqueraded?))).collect();
            ends.sort();
            self.twins = ends.windows(2).any(|pair| pair[0] == pair[1]);
        }
        self.twins
    }

    /// Puts a change in force.
    pub fn apply(&mut self, batch: &Batch) {
        if let Some(locals) = &batch.locals {
            self.locals = Arc::clone(locals);
        }
        if let Some(routes) = &batch.routes {
            self.routes = Arc::clone(routes);
        }
        let mut left = false;
        for (id, change) in &batch.servers {
            let was = self.servers.get(&id.0).is_some_and(|old| old.snapshot.available);
            left |= was && !change.as_ref().is_some_and(|new| new.available);
            match change {
                Some(new) => {
                    let loops = new.next_hop.is_some_and(|hop| self.locals.macs.contains(&hop.mac));
                    let before = self.servers.get(&id.0).map_or(0, |old| old.last_weight);
                    let last_weight = if new.weight == 0 { before } else { new.weight };
                    let end = |server: &RealServer| (server.address, server.port);
                    let did = self.servers.get(&id.0).is_some_and(|old| old.masqueraded && end(&old.snapshot) == end(new));
                    let masqueraded = did || new.method == Method::Masquerading;
                    self.servers.insert(id.0, Server { snapshot: Arc::clone(new), loops, last_weight, masqueraded });
                }
                None => drop(self.servers.remove(&id.0)),
            }
        }
        for (id, change) in &batch.services {
            let old = self.services.remove(&id.0);
            if let Some(new) = change {
                let marks = match old {
                    Some(Service { snapshot, mut marks }) => {
                        marks.follow(&snapshot, new);
                        marks
                    }
                    None => Marks::new(new),
                };
                self.services.insert(id.0, Service { snapshot: Arc::clone(new), marks });
            }
        }
        if let Some(settings) = &batch.settings {
            self.settings = *settings;
            self.icmp.set_rate(settings.icmp_error_rate);
            self.kernel.set_rate(settings.exception_rate);
        }
        if left && self.settings.expire_nodest_conn {
            self.end_orphans();
        }
    }

    /// What settings have in force at the end of a turn.
    fn defend(&mut self) {
        self.secure = self.settings.secure_tcp == Mode::Always;
        self.drop_rate = if self.settings.drop_packet == Mode::Always { self.settings.am_droprate } else { 0 };
    }

    /// The control plane's word that a real server may be given connections again.
    pub fn relieve(&mut self, server: u32) {
        self.counts_of(server, |counts| counts.overloaded = false);
    }

    /// Time goes on to `now`. What ends by that is said by [`expire`](Self::expire).
    pub fn pass(&mut self, now: u32) {
        let ticks = now.wrapping_sub(self.now);
        self.now = now;
        for bucket in [&mut self.icmp, &mut self.kernel, &mut self.kernel_neighbours] {
            bucket.pass(ticks);
        }
    }

    fn is_local(&self, address: IpAddr, port: usize) -> bool {
        self.locals.addresses.get(&Address::from(address)).is_some_and(|ports| ports >> port & 1 == 1)
    }

    /// Whether this is one of our own addresses.
    fn is_own(&self, address: IpAddr) -> bool {
        self.locals.addresses.contains_key(&Address::from(address))
    }

    fn is_vip(&self, address: IpAddr) -> bool {
        self.locals.vips.contains(&Address::from(address))
    }

    /// Whether fragments to this address may be of a service's packets.
    fn is_served(&self, address: IpAddr) -> bool {
        self.is_vip(address) || (!self.is_own(address) && self.marks.iter().any(|rule| rule.covers(address)))
    }

    /// The scheduler's word.
    fn schedule(&mut self, service: u32, packet: &Packet) -> Option<u32> {
        let Service { snapshot, marks } = self.services.get_mut(&service)?;
        let common = self.common.borrow();
        let candidates: Vec<Candidate> = snapshot
            .members
            .iter()
            .map(|member| {
                let counts = common.servers.get(&member.server.0).copied().unwrap_or_default();
                let Some(server) = self.servers.get(&member.server.0) else { panic!("a member that is no real server") };
                Candidate {
                    server: member.server.0,
                    address: server.snapshot.address.ip(),
                    port: server.snapshot.port,
                    last_weight: server.last_weight,
                    reachable: member.reachable,
                    weight: member.weight,
                    open: member.reachable && !(member.limited && counts.overloaded),
                    active: counts.active,
                    inactive: counts.inactive,
                }
            })
            .collect();
        let request = Request {
            client: packet.source.ip(),
            client_port: packet.source.port(),
            vip: packet.destination.ip(),
            now: self.now,
            settings: &self.settings,
            seen: &self.seen,
        };
        let (script, asked) = (&self.script, &mut self.asked);
        marks.pick(snapshot, &candidates, &request, &mut |many| choose(script, asked, many))
    }
}
