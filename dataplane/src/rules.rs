//! The rules that a worker obeys: its copy of the control plane's snapshots, changed only by whole batches.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crossbeam_utils::CachePadded;
use dpdk::DpdkError;
use hashbrown::HashMap;

use crate::address::Address;
use crate::command::{Batch, LocalAddresses};
use crate::connection::Key;
use crate::marks::Marks;
use crate::masqueraders::Masqueraders;
use crate::routes::Routes;
use crate::schedule::{Memory, Pick, Scheduler};
use crate::service::{Drain, Method, NextHop, RealServer, ServerId, ServiceId, ServiceKey, Thresholds, VirtualService};
use crate::settings::{Settings, Timeouts};
use crate::stats::{ServerShare, Traffic};
use crate::tick::Tick;
use crate::ways::Ways;

/// A service with this worker's scheduler for it.
#[derive(Debug)]
pub struct ServiceRules {
    /// This worker's share of its counters.
    pub traffic: Arc<CachePadded<Traffic>>,
    /// Timeouts of its own.
    pub timeouts: Option<Timeouts>,
    /// The snapshot.
    pub service: Arc<VirtualService>,
    /// The scheduler with its position.
    pub scheduler: Scheduler,
}

/// A real server with what every packet to it needs beside it, so that forwarding touches one line.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct ServerRules {
    /// Where frames leave; `None` while unknown, and never one of our own MACs.
    pub next_hop: Option<NextHop>,
    /// Whether its MAC is one of our own, so that it has no next hop.
    pub loops: bool,
    /// Whether it is a member of its service.
    pub available: bool,
    /// Whether its weight is 0.
    pub quiescent: bool,
    /// Whether it is being drained.
    pub drain: Drain,
    /// How many connections it is given at most.
    pub thresholds: Thresholds,
    /// How requests of new connections reach it.
    pub method: Method,
    /// Whether it masquerades, or did in this place, so that connections of it may be masqueraded.
    pub masqueraded: bool,
    /// This worker's share of its counters.
    pub share: Arc<CachePadded<ServerShare>>,
    /// The snapshot.
    pub server: Arc<RealServer>,
}

impl ServerRules {
    /// Notes that a connection came, which may overload it. Cost for a real server with thresholds: a fence and one line a worker.
    ///
    /// Of workers that count a connection at once, the last one to pass its fence sees what all of them counted. So a real server
    /// gets no more connections beyond its upper threshold than there are other workers: one each, picked before the flag was set.
    #[inline]
    pub fn connection_came(&self) {
        if self.thresholds.upper != 0 {
            fence(Ordering::SeqCst);
            if self.thresholds.are_reached(self.server.stats.connections()) {
                self.server.stats.set_overloaded(true);
            }
        }
    }

    /// Notes that a connection ended, which may relieve it. Cost: as for one that came, while it is overloaded.
    #[inline]
    pub fn connection_ended(&self) {
        let stats = &self.server.stats;
        if self.thresholds.upper != 0 && stats.is_overloaded() && self.thresholds.are_relieved(stats.connections()) {
            stats.set_overloaded(false);
            // Another worker's connection may have come since the counts were read, when the flag was still set.
            self.connection_came();
        }
    }
}

/// All rules of one worker.
#[derive(Debug)]
pub struct Rules {
    worker: usize,
    services: Vec<Option<ServiceRules>>,
    by_key: HashMap<ServiceKey, ServiceId>,
    /// What was found last, since the services changed.
    latest: Option<(ServiceKey, ServiceId)>,
    /// Services among them that take every port.
    any_port: u32,
    servers: Vec<Option<ServerRules>>,
    locals: Arc<LocalAddresses>,
    /// Bits for the low six bits of all our addresses, so that an address of somebody else is mostly known for that without a lookup.
    own: u64,
    /// For the low twelve bits of an address 1 if a service may have one that ends so.
    served: [u64; 64],
    /// Ways to clients, for replies of masquerading real servers.
    pub routes: Arc<Routes>,
    /// Real servers that masquerade or did.
    pub masqueraders: Masqueraders,
    /// Whether a batch took a real server out of its service; for whoever looks to put back.
    pub servers_left: bool,
    /// What this worker's schedulers share.
    pub memory: Memory,
    marks: Arc<Marks>,
    /// What the established stage needs of all this.
    pub ways: Ways,
    /// Settings in force.
    pub settings: Settings,
    /// The version of the configuration in force.
    pub version: u64,
}

impl Rules {
    /// No rules for worker `worker` of ports with these MACs, with room for so many services and real servers; nothing is
    /// allocated later. The worker's secret `seed` decides what its schedulers draw by lot. Errors: those of [`Ways::new`].
    pub fn new(worker: usize, services: u32, servers: u32, macs: Vec<[u8; 6]>, seed: [u64; 4]) -> Result<Self, DpdkError> {
        let empty = |n: u32| n as usize;
        Ok(Self {
            worker,
            services: std::iter::repeat_with(|| None).take(empty(services)).collect(),
            // Twice the room: a hash table that is at most half full never rehashes on the packet path.
            by_key: HashMap::with_capacity(2 * empty(services)),
            latest: None,
            any_port: 0,
            servers: std::iter::repeat_with(|| None).take(empty(servers)).collect(),
            locals: Arc::new(LocalAddresses::default()),
            own: 0,
            served: [0; 64],
            routes: Arc::new(Routes::default()),
            masqueraders: Masqueraders::new(servers),
            servers_left: false,
            memory: Memory::new(seed, &Settings::default()),
            marks: Arc::new(Marks::default()),
            ways: Ways::new(services, servers, macs)?,
            settings: Settings::default(),
            version: 0,
        })
    }

    /// Puts a batch in force, whole, and leaves in it what it replaced. Cost: proportional to the batch; no allocation.
    pub fn apply(&mut self, batch: &mut Batch) {
        let worker = self.worker;
        if let Some(locals) = &mut batch.locals {
            std::mem::swap(locals, &mut self.locals);
            self.own = self.locals.addresses.keys().fold(0, |bits, address| bits | low_bits(*address));
        }
        if let Some(marks) = &mut batch.marks {
            std::mem::swap(marks, &mut self.marks);
        }
        if batch.locals.is_some() || batch.marks.is_some() {
            // Mark rules may be about any address.
            self.served = [if self.marks.is_empty() { 0 } else { u64::MAX }; 64];
            for address in self.locals.addresses.keys().chain(&self.locals.vips) {
                self.served[word_of(*address)] |= low_bits(*address);
            }
        }
        for (id, change) in &mut batch.servers {
            let Some(slot) = self.servers.get_mut(id.0 as usize) else { continue };
            let macs = &self.locals.macs;
            let new = change.take().map(|server| ServerRules {
                next_hop: server.next_hop.filter(|hop| !macs.contains(&hop.mac)),
                loops: server.next_hop.is_some_and(|hop| macs.contains(&hop.mac)),
                available: server.available,
                quiescent: server.weight == 0,
                drain: server.drain,
                thresholds: server.thresholds,
                method: server.method,
                masqueraded: server.method == Method::Masquerading || kept(slot.as_ref(), &server),
                share: Arc::clone(server.stats.share(worker)),
                server,
            });
            if let Some(old) = slot.as_ref().filter(|old| old.masqueraded) {
                self.masqueraders.leave(&old.server);
            }
            if let Some(new) = new.as_ref().filter(|new| new.masqueraded) {
                self.masqueraders.enter(&new.server);
            }
            self.servers_left |= slot.as_ref().is_some_and(|old| old.available) && !new.as_ref().is_some_and(|new| new.available);
            self.ways.lead(*id, new.as_ref());
            *change = std::mem::replace(slot, new).map(|old| old.server);
        }
        self.latest = None;
        for (id, change) in &mut batch.services {
            let Some(slot) = self.services.get_mut(id.0 as usize) else { continue };
            // The key may already belong to a service that this very batch put elsewhere.
            if let Some(old) = slot.as_ref()
                && self.by_key.get(&old.service.key) == Some(id)
            {
                self.by_key.remove(&old.service.key);
                self.any_port -= u32::from(old.service.key.takes_every_port());
            }
            let new = change.take().map(|service| {
                let known = self.by_key.insert(service.key, *id);
                self.any_port += u32::from(service.key.takes_every_port() && known.is_none());
                let scheduler = match slot.take() {
                    Some(mut old) => {
                        old.scheduler.service_changed(&old.service, &service, &mut self.memory);
                        *change = Some(old.service);
                        old.scheduler
                    }
                    None => Scheduler::new(&service, &mut self.memory),
                };
                ServiceRules { traffic: Arc::clone(service.stats.share(worker)), timeouts: service.timeouts, service, scheduler }
            });
            self.ways.agree(*id, new.as_ref(), &self.settings.timeouts);
            if let Some(gone) = std::mem::replace(slot, new) {
                *change = Some(gone.service);
            }
        }
        if let Some(settings) = &mut batch.settings {
            std::mem::swap(settings, &mut self.settings);
            self.memory.settings_changed(&self.settings);
            for (id, service) in (0..).map(ServiceId).zip(&self.services) {
                self.ways.agree(id, service.as_ref(), &self.settings.timeouts);
            }
        }
        if let Some(routes) = &mut batch.routes {
            std::mem::swap(routes, &mut self.routes);
        }
        self.version = batch.version;
    }

    /// The service that a packet is for: that of its vport or, failing that, the one that takes every port. Cost: one hash
    /// lookup, a second one for what is not found while there are services of every port.
    #[inline]
    pub fn find(&self, key: &ServiceKey) -> Option<ServiceId> {
        let exact = self.by_key.get(key).copied();
        if exact.is_some() || self.any_port == 0 {
            return exact;
        }
        self.by_key.get(&ServiceKey { port: 0, ..*key }).copied()
    }

    /// As [`find`](Self::find), for first packets, of which many in a row are for one service. Cost for those: a comparison.
    #[inline]
    pub fn find_again(&mut self, key: &ServiceKey) -> Option<ServiceId> {
        if let Some((latest, id)) = &self.latest
            && latest == key
        {
            return Some(*id);
        }
        let found = self.find(key);
        self.latest = found.map(|id| (*key, id));
        found
    }

    /// The service by mark that a first packet is for, which comes before any of its VIP. Packets to a DIP get no mark: a wide
    /// rule would take the director's own traffic away. Cost: one load without mark rules; with them, that of [`Marks::of`] and
    /// three hash lookups.
    #[inline]
    pub fn find_marked(&self, key: &Key) -> Option<ServiceId> {
        if self.marks.is_empty() { None } else { self.look_up_mark(key) }
    }

    #[inline(never)]
    fn look_up_mark(&self, key: &Key) -> Option<ServiceId> {
        let mark = self.marks.of(key)?;
        if self.is_own(key.virtual_) && !self.locals.vips.contains(&key.virtual_) {
            return None;
        }
        self.by_key.get(&ServiceKey::marked(mark, key.virtual_.is_v4())).copied()
    }

    /// The service at a place.
    #[inline]
    pub fn service(&mut self, id: ServiceId) -> Option<&mut ServiceRules> {
        self.services.get_mut(id.0 as usize)?.as_mut()
    }

    /// The service at a place, to read.
    #[inline]
    pub fn service_ref(&self, id: ServiceId) -> Option<&ServiceRules> {
        self.services.get(id.0 as usize)?.as_ref()
    }

    /// The real server for a new connection of service `id`; `None` when none takes any. Cost: that of the scheduler.
    #[inline]
    pub fn schedule(&mut self, id: ServiceId, key: &Key, now: Tick) -> Option<ServerId> {
        let ServiceRules { service, scheduler, .. } = self.services.get_mut(id.0 as usize)?.as_mut()?;
        let at = scheduler.pick(&Pick::new(service, key, now), &mut self.memory)?;
        service.members.get(at).map(|member| member.server)
    }

    /// The real server at a place.
    #[inline]
    pub fn server(&self, id: ServerId) -> Option<&ServerRules> {
        self.servers.get(id.0 as usize)?.as_ref()
    }

    /// Whether we answer for this address on this port.
    #[inline]
    pub fn is_local(&self, address: Address, port: u16) -> bool {
        self.locals.addresses.get(&address).is_some_and(|ports| ports >> port & 1 != 0)
    }

    /// Whether this is an address of ours on any port.
    #[inline]
    pub fn is_own(&self, address: Address) -> bool {
        self.own & low_bits(address) != 0 && self.locals.addresses.contains_key(&address)
    }

    /// Whether a packet to this address may be for a service that there is; for most others it is `false`. Cost: one bit looked at.
    #[inline(always)]
    pub const fn may_be_served(&self, address: Address) -> bool {
        self.served[word_of(address)] & low_bits(address) != 0
    }

    /// Whether this is a VIP, also one that is not answered for yet because another machine may have it.
    #[inline]
    pub fn is_vip(&self, address: Address) -> bool {
        self.locals.vips.contains(&address)
    }

    /// Whether a packet from an address of our own to another is a real server's answer to a health check of ours.
    pub fn answers_check(&self, source: Address, destination: Address) -> bool {
        self.locals.probed.contains(&source) && self.is_own(destination) && !self.locals.vips.contains(&destination)
    }

    /// Whether this is a VIP, or an address that mark rules are about. Cost: that of all mark rules for what is no VIP.
    #[inline]
    pub fn is_service_address(&self, address: Address) -> bool {
        self.locals.vips.contains(&address) || (self.marks.cover(address) && !self.is_own(address))
    }
}

/// Whether the real server in this place is the same one, and connections of it may be masqueraded.
fn kept(place: Option<&ServerRules>, server: &RealServer) -> bool {
    let same = |old: &ServerRules| (old.server.address, old.server.port) == (server.address, server.port);
    place.is_some_and(|old| old.masqueraded && same(old))
}

/// One place of 64, by the six bits of an address above its low six.
#[inline]
const fn word_of(address: Address) -> usize {
    (address.0 >> 6 & 63) as usize
}

/// One bit of 64, by an address's low six.
#[inline]
const fn low_bits(address: Address) -> u64 {
    1 << (address.0 & 63)
}
