//! A director as one would write it who has all the time in the world: no tables but maps, no tricks, straight from the rules of
//! LVS. It shares nothing with the packet path but the types of commands and snapshots, and says of every frame what must become
//! of it.
//!
//! One file a feature; this one holds what they share: the rules in force, the connections, and the order of a burst.
#![allow(clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, missing_docs)]

pub mod answers;
pub mod connections;
pub mod encapsulation;
pub mod forward;
pub mod hashing;
pub mod limit;
pub mod locality;
pub mod marks;
pub mod reset;
pub mod schedule;
pub mod sctp;
pub mod tcp;
pub mod wire;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::address::Address;
use dataplane::command::{Batch, LocalAddresses};
use dataplane::service::{Method, RealServer, VirtualService};
use dataplane::settings::{Mode, Settings};

use connections::{Connection, Key};
use forward::Cause;
use limit::Bucket;
use schedule::{Candidate, Marks, Request};
use wire::{Kind, Packet};

/// What passed, as `--stats` counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
}

impl Traffic {
    fn packet(&mut self, packet: &Packet) {
        self.packets += 1;
        self.bytes += packet.length as u64;
    }
}

/// What is counted of a real server; outlives its snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub traffic: Traffic,
    pub active: u32,
    pub inactive: u32,
    pub persistent: u32,
    pub overloaded: bool,
}

struct Service {
    snapshot: Arc<VirtualService>,
    marks: Marks,
}

struct Server {
    snapshot: Arc<RealServer>,
    /// Whether its MAC is one of our own.
    loops: bool,
    /// The last weight that was not 0.
    last_weight: u32,
}

/// What must become of a frame, as far as is known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    Undecided,
    /// Bound for this real server, by this method.
    Server(u32, Method),
    Send(u16, &'static str),
    Kernel,
    Drop(&'static str),
}

struct Lane {
    frame: Vec<u8>,
    packet: Option<Packet>,
    fate: Fate,
}

/// What the ports and buffers can take during a burst.
#[derive(Clone, Debug)]
pub struct Room {
    /// Buffers for frames of our own.
    pub buffers: usize,
    /// Frames that each port still takes.
    pub ports: Vec<usize>,
    /// Frames that the way to the kernel still takes.
    pub kernel: usize,
}

/// What must have come of a burst.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How many frames got each verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Frames sent, by port, in order.
    pub sent: Vec<Vec<Vec<u8>>>,
    /// Frames handed to the kernel, in order.
    pub kernel: Vec<Vec<u8>>,
    pub icmp_errors: u64,
    pub resets: u64,
    pub fragments: u64,
    pub injected: u64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verdicts, icmp_errors, resets, fragments, injected, .. } = self;
        write!(f, "{verdicts:?}, {icmp_errors} errors, {resets} resets, {fragments} fragments, {injected} injected")
    }
}

pub struct Director {
    now: u32,
    macs: Vec<[u8; 6]>,
    services: BTreeMap<u32, Service>,
    servers: BTreeMap<u32, Server>,
    locals: Arc<LocalAddresses>,
    settings: Settings,
    /// Mark rules in force.
    pub marks: Vec<marks::Rule>,
    connections: HashMap<Key, Connection>,
    icmp: Bucket,
    kernel: Bucket,
    kernel_neighbours: Bucket,
    last_id: u32,
    /// Whether `secure_tcp` is in force.
    secure: bool,
    /// `drop_packet`: every so many-th, and how many are still to pass.
    drop_rate: u32,
    drop_counter: u32,
    templates_aside: u32,
    /// Real servers that were seen to get a new connection in this burst: what is drawn by lot is not foretold.
    pub seen: Vec<u32>,
    pub service_counts: BTreeMap<u32, Traffic>,
    pub server_counts: BTreeMap<u32, Counts>,
}

impl Director {
    /// For a single worker on ports with these MACs, whose table is never full: what goes when it is, is chosen by chance.
    pub fn new(macs: &[[u8; 6]]) -> Self {
        let settings = Settings::default();
        Self {
            now: 0,
            macs: macs.to_vec(),
            services: BTreeMap::new(),
            servers: BTreeMap::new(),
            locals: Arc::default(),
            icmp: Bucket::new(settings.icmp_error_rate),
            kernel: Bucket::new(settings.exception_rate),
            kernel_neighbours: Bucket::new(2000),
            settings,
            marks: Vec::new(),
            connections: HashMap::new(),
            last_id: 0,
            secure: false,
            drop_rate: 0,
            drop_counter: 0,
            templates_aside: 0,
            seen: Vec::new(),
            service_counts: BTreeMap::new(),
            server_counts: BTreeMap::new(),
        }
    }

    /// Puts a change in force.
    pub fn apply(&mut self, batch: &Batch) {
        if let Some(locals) = &batch.locals {
            self.locals = Arc::clone(locals);
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
                    self.servers.insert(id.0, Server { snapshot: Arc::clone(new), loops, last_weight });
                    self.server_counts.entry(id.0).or_default();
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
                self.service_counts.entry(id.0).or_default();
            }
        }
        if let Some(settings) = &batch.settings {
            self.settings = *settings;
            self.icmp.set_rate(settings.icmp_error_rate);
            self.kernel.set_rate(settings.exception_rate);
            self.secure = settings.secure_tcp == Mode::Always;
            self.drop_rate = if settings.drop_packet == Mode::Always { settings.am_droprate } else { 0 };
        }
        if left && self.settings.expire_nodest_conn {
            self.end_orphans();
        }
    }

    /// The control plane's word that a real server may be given connections again.
    pub fn relieve(&mut self, server: u32) {
        self.server_counts.entry(server).or_default().overloaded = false;
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

    /// Whether this frame is a fragment that the worker is to place. This director knows nothing of those: it is not to be given any.
    pub fn is_placed(&self, frame: &[u8], port: usize) -> bool {
        let fragment = wire::read(frame, self.macs[port]).is_ok_and(|p| p.kind == Kind::Fragment && self.is_served(p.destination.ip()));
        fragment && frame[..6] == self.macs[port]
    }

    /// A burst that comes by `port`, behind frames of the kernel's own that leave there.
    ///
    /// Frames of known connections come before first packets, and what is no connection's before both; everything else is in
    /// the order of the burst.
    pub fn burst(&mut self, port: usize, injected: Vec<Vec<u8>>, frames: Vec<Vec<u8>>, room: &Room) -> Outcome {
        let mut lanes: Vec<Lane> = frames.into_iter().map(|frame| Lane { frame, packet: None, fate: Fate::Undecided }).collect();
        for lane in &mut lanes {
            match wire::read(&lane.frame, self.macs[port]) {
                Ok(packet) => {
                    if !packet.is_flow() {
                        lane.fate = self.other(&mut lane.frame, &packet, port);
                    }
                    lane.packet = Some(packet);
                }
                Err(verdict) => lane.fate = Fate::Drop(verdict),
            }
        }
        for lane in &mut lanes {
            if let Some(packet) = lane.packet.as_ref().filter(|_| lane.fate == Fate::Undecided) {
                lane.fate = self.known(packet).unwrap_or(Fate::Undecided);
            }
        }
        let mut errors = Vec::new();
        for (at, lane) in lanes.iter_mut().enumerate() {
            if let Some(packet) = lane.packet.as_ref().filter(|_| lane.fate == Fate::Undecided) {
                lane.fate = self.known(packet).unwrap_or_else(|| self.first(packet));
                if lane.fate == Fate::Drop("no_real_server") {
                    errors.extend(self.refusal(packet).map(|cause| (at, cause)));
                }
            }
        }
        let mut later = Vec::new();
        // What of the kernel's frames finds no room is freed before anything else.
        let mut buffers = room.buffers + injected.len().saturating_sub(room.ports[port]);
        for tunnels in [false, true] {
            for (at, lane) in lanes.iter_mut().enumerate() {
                if let Fate::Server(server, method) = lane.fate
                    && (method == Method::Tunnel) == tunnels
                    && let Some(packet) = &lane.packet
                {
                    lane.fate = match self.forward((server, method), &mut lane.frame, packet, &mut later, &mut buffers) {
                        Ok(out) => Fate::Send(out, "forwarded"),
                        Err((verdict, cause)) => {
                            errors.extend(cause.filter(|_| packet.is_flow()).map(|cause| (at, cause)));
                            Fate::Drop(verdict)
                        }
                    };
                }
            }
        }
        self.dispatch(port, injected, lanes, errors, later, buffers, room)
    }

    /// Everything leaves: the kernel's frames, ICMP errors, the burst in its order, later fragments.
    #[expect(clippy::too_many_arguments, reason = "all that a burst gathered")]
    fn dispatch(
        &mut self,
        port: usize,
        injected: Vec<Vec<u8>>,
        lanes: Vec<Lane>,
        errors: Vec<(usize, Cause)>,
        later: Vec<(u16, Vec<u8>)>,
        mut buffers: usize,
        room: &Room,
    ) -> Outcome {
        let mut outcome = Outcome { sent: vec![Vec::new(); self.macs.len()], ..Outcome::default() };
        let mut left = room.ports.clone();
        let mut send = |outcome: &mut Outcome, port: usize, frame: Vec<u8>| {
            let fits = left[port] > 0;
            if fits {
                left[port] -= 1;
                outcome.sent[port].push(frame);
            }
            fits
        };
        for frame in injected {
            outcome.injected += u64::from(send(&mut outcome, port, frame));
        }
        for (lane, cause) in errors {
            if self.icmp.take() && buffers > 0 {
                let Lane { frame, packet: Some(packet), .. } = &lanes[lane] else { continue };
                buffers -= 1;
                if cause == Cause::Reset {
                    outcome.resets += u64::from(send(&mut outcome, port, reset::write(frame, packet, self.macs[port])));
                } else {
                    let error = forward::icmp_error(frame, packet, self.macs[port], cause);
                    outcome.icmp_errors += u64::from(send(&mut outcome, port, error));
                }
            }
        }
        let mut to_kernel = room.kernel;
        for lane in lanes {
            let verdict = match lane.fate {
                Fate::Send(out, _) if usize::from(out) >= self.macs.len() => "no_next_hop",
                Fate::Send(out, verdict) => {
                    if send(&mut outcome, out.into(), lane.frame) {
                        verdict
                    } else {
                        "tx_full"
                    }
                }
                Fate::Kernel => {
                    let neighbour = lane.packet.as_ref().is_some_and(|p| matches!(p.kind, Kind::Arp | Kind::Discovery));
                    let bucket = if neighbour { &mut self.kernel_neighbours } else { &mut self.kernel };
                    if !bucket.take() {
                        "exception_rate"
                    } else if to_kernel == 0 {
                        "exception_full"
                    } else {
                        to_kernel -= 1;
                        outcome.kernel.push(lane.frame);
                        "exception"
                    }
                }
                Fate::Drop(verdict) => verdict,
                Fate::Undecided | Fate::Server(..) => panic!("a frame without a verdict"),
            };
            *outcome.verdicts.entry(verdict).or_default() += 1;
        }
        for (out, frame) in later {
            outcome.fragments += u64::from(send(&mut outcome, out.into(), frame));
        }
        outcome
    }

    /// What is no packet of a connection.
    fn other(&mut self, frame: &mut Vec<u8>, packet: &Packet, port: usize) -> Fate {
        let our_mac = self.macs[port];
        if matches!(packet.kind, Kind::Icmp | Kind::Icmpv6)
            && let Some(fate) = self.about_connection(frame, packet)
        {
            return fate;
        }
        let local = |address: IpAddr| self.is_local(address, port);
        let destination = packet.destination.ip();
        let answer = match packet.kind {
            Kind::Arp => answers::arp(frame, our_mac, local, |address| self.is_vip(address)),
            Kind::Icmp | Kind::Icmpv6 => {
                if packet.kind == Kind::Icmpv6 {
                    answers::icmpv6(frame, packet, our_mac, local)
                } else if local(destination) {
                    answers::echo(frame, packet, our_mac)
                } else {
                    answers::Answer::Kernel
                }
            }
            Kind::Discovery => answers::icmpv6(frame, packet, our_mac, local),
            _ => answers::Answer::Kernel,
        };
        match answer {
            answers::Answer::Send(reply) => {
                *frame = reply;
                Fate::Send(port as u16, "answered")
            }
            answers::Answer::Kernel => Fate::Kernel,
            answers::Answer::Drop(verdict) => Fate::Drop(verdict),
        }
    }

    /// What becomes of an ICMP error (destination unreachable, source quench, time exceeded, packet too big, parameter problem)
    /// that was sent to whom the packet that it quotes came from, where that was a service.
    fn about_connection(&mut self, frame: &[u8], packet: &Packet) -> Option<Fate> {
        let message = &frame[packet.l4..wire::L3 + packet.length];
        let kinds: &[u8] = if packet.is_v4() { &[3, 4, 11] } else { &[1, 2, 3, 4] };
        if !kinds.contains(message.first()?) {
            return None;
        }
        let (protocol, virtual_, client) = wire::quoted(message, packet.is_v4())?;
        if virtual_.ip() != packet.destination.ip() {
            return None;
        }
        let key = Key { template: false, aside: 0, protocol, client, virtual_ };
        let Some((server, service, method)) = self.connections.get(&key).map(|c| (c.server, c.service, c.method)) else {
            let request = Packet { source: client, destination: virtual_, protocol, ..*packet };
            return self.service_of(&request).map(|_| Fate::Drop("unrelated_icmp_error"));
        };
        let sum = if packet.is_v4() {
            wire::checksum(message)
        } else {
            wire::checksum_with(packet.source.ip(), packet.destination.ip(), 58, message)
        };
        if sum != 0 {
            return Some(Fate::Drop("bad_checksum"));
        }
        if self.servers.get(&server).is_some_and(|target| target.snapshot.available) {
            self.count(server, service, packet, false);
        }
        Some(Fate::Server(server, method))
    }

    /// The scheduler's word.
    fn schedule(&mut self, service: u32, packet: &Packet) -> Option<u32> {
        let Service { snapshot, marks } = self.services.get_mut(&service)?;
        let candidates: Vec<Candidate> = snapshot
            .members
            .iter()
            .map(|member| {
                let counts = self.server_counts.get(&member.server.0).copied().unwrap_or_default();
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
        marks.pick(snapshot, &candidates, &request)
    }
}
