//! The desired state: the only truth that changes, and what each change touches.
//!
//! Everything here is synchronous and takes what validation let through. A change marks what it touched; `snapshot.rs`
//! makes of that what the workers get.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dataplane::service::NextHop;

use super::drains::Drains;
use super::health::Standing;
use super::neighbours::{Hop, Neighbours};
use super::places::Places;
use super::records::{Accepted, ServerFields, ServerKey, ServerRecord, ServiceFields, ServiceRecord};
use super::routes::hop_for;
use super::snapshot::Change;
use super::vips::Vips;
use super::{Limits, Link, marks};
use crate::model::{MarkRule, Method, ServiceKey, Settings, What};

/// Stands among the real servers that wait for a neighbour's MAC for the ways to clients: no real server has this place.
const GATEWAY: u32 = u32::MAX;

/// What a change touched since it was last taken.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each says of one part of a batch whether it is sent")]
pub(super) struct Touched {
    pub(super) services: BTreeSet<u32>,
    pub(super) servers: BTreeSet<u32>,
    /// VIPs that came or went, or that checks go to or no longer do.
    pub(super) vips: HashSet<IpAddr>,
    pub(super) hops: HashSet<Hop>,
    pub(super) marks: bool,
    pub(super) settings: bool,
    /// The ways to clients.
    pub(super) routes: bool,
    /// Something that the document shows: the revision grows.
    pub(super) document: bool,
    /// Services that the document shows otherwise than before.
    pub(super) rewritten_services: BTreeSet<u32>,
    /// Real servers that the document shows otherwise than before.
    pub(super) rewritten_servers: BTreeSet<u32>,
    /// Real servers that were added or must be asked for their MAC: whoever changed them waits a moment for it.
    pub(super) awaited: Vec<u32>,
}

/// The desired state. A copy is as good as the original until either is given to workers.
#[derive(Clone, Debug)]
pub(super) struct Desired {
    pub(super) links: Arc<[Link]>,
    pub(super) workers: usize,
    pub(super) services: Places<ServiceKey, ServiceRecord>,
    pub(super) servers: Places<ServerKey, ServerRecord>,
    /// Services in the order in which they were added.
    pub(super) order: BTreeMap<u64, u32>,
    /// Every VIP with the number of services and mark rules that have it.
    pub(super) vips: HashMap<IpAddr, u32>,
    /// The real servers that are being drained.
    pub(super) drains: Drains,
    /// Which VIPs are ours, and who else speaks for them.
    pub(super) guard: Vips,
    /// Every VIP that checks take the clients' path to, with the number of services for which they do.
    pub(super) probed: HashMap<IpAddr, u32>,
    /// Every real server's address with the number of real servers that have it.
    pub(super) addresses: HashMap<IpAddr, u32>,
    /// Whose MAC depends on which neighbour.
    pub(super) hops: HashMap<Hop, BTreeSet<u32>>,
    pub(super) neighbours: Neighbours,
    pub(super) settings: Settings,
    marks: Vec<MarkRule>,
    /// The revision in which the settings last became others.
    pub(super) settings_changed: u64,
    /// The revision in which the mark rules last became others.
    pub(super) marks_changed: u64,
    pub(super) touched: Touched,
    /// What is to be told of as an event, with its reason.
    pub(super) happened: Vec<(What, String)>,
    /// Real servers that start slowly.
    pub(super) ramping: BTreeSet<u32>,
    /// Services that refuse nobody for the moment, because a real server may still answer for its MAC.
    pub(super) patient: BTreeSet<u32>,
    /// Whether the gateways' MACs are asked for, because real servers' answers need them: masquerading ones', and those of IPv6.
    gateways_asked: bool,
    /// The number that the next change gets.
    pub(super) next_change: u64,
    last_order: u64,
    last_list_revision: u64,
}

impl Desired {
    pub(super) fn new(links: Arc<[Link]>, workers: usize, limits: Limits) -> Self {
        let own = links.iter().map(|l| l.mac).collect();
        Self {
            links,
            workers,
            services: Places::new(limits.services),
            servers: Places::new(limits.real_servers),
            order: BTreeMap::new(),
            vips: HashMap::new(),
            drains: Drains::new(),
            guard: Vips::default(),
            probed: HashMap::new(),
            addresses: HashMap::new(),
            hops: HashMap::new(),
            neighbours: Neighbours::new(own, limits.real_servers as usize + 65_536),
            settings: Settings::default(),
            marks: Vec::new(),
            settings_changed: 0,
            marks_changed: 0,
            touched: Touched { settings: true, routes: true, ..Touched::default() },
            happened: Vec::new(),
            ramping: BTreeSet::new(),
            patient: BTreeSet::new(),
            gateways_asked: false,
            next_change: 1,
            last_order: 0,
            last_list_revision: 0,
        }
    }

    /// Adds a service that is not there, or makes an existing one what `accepted` says; `false` when no place is free.
    ///
    /// What stays the same is not touched, so connections and counters go on. Cost: linear in the old and new members.
    pub(super) fn put_service(&mut self, accepted: &Accepted<'_>) -> bool {
        let key = accepted.spec.key();
        let Some(id) = self.services.find(&key).or_else(|| self.add_service(key)) else { return false };
        self.edit_service(id, ServiceFields::of(accepted.spec));
        let old = self.services.get(id).and_then(|record| self.servers.place(record.sorry?)).map(|place| place.key);
        if old.is_some() && old != accepted.sorry.as_ref().map(|(key, _)| *key) {
            // It may be a member from now on.
            self.put_sorry(id, None);
        }
        let complete = self.put_members(id, &accepted.servers);
        self.put_sorry(id, accepted.sorry.as_ref()) && complete
    }

    fn add_service(&mut self, key: ServiceKey) -> Option<u32> {
        let workers = self.workers;
        let id = self.services.claim(key, |_| ServiceRecord::new(workers))?;
        self.last_order += 1;
        let record = self.services.get_mut(id)?;
        record.order = self.last_order;
        record.added = self.last_order;
        record.members.clear();
        record.below_quorum = false;
        record.meter.zero(record.stats.sum());
        self.order.insert(self.last_order, id);
        if key.mark().is_none() && count(&mut self.vips, key.address) {
            self.touched.vips.insert(key.address);
        }
        self.rewritten(id);
        self.list_changed(id);
        Some(id)
    }

    pub(super) fn remove_service(&mut self, id: u32) {
        let Some(place) = self.services.place(id) else { return };
        let (key, order) = (place.key, place.record.order);
        let members = self.services.get_mut(id).map(|r| std::mem::take(&mut r.members)).unwrap_or_default();
        for server in members {
            self.server_leaves(server);
        }
        self.put_sorry(id, None);
        self.services.leave(id, self.next_change);
        self.order.remove(&order);
        if key.mark().is_none() && discount(&mut self.vips, key.address) {
            self.touched.vips.insert(key.address);
        }
        self.touched.services.insert(id);
        self.touched.document = true;
    }

    /// Changes a service's own settings. The scheduler starts anew only when it is another, as in the kernel.
    pub(super) fn edit_service(&mut self, id: u32, fields: ServiceFields) {
        let Some(record) = self.services.get_mut(id) else { return };
        if record.fields == fields {
            return;
        }
        let old = std::mem::replace(&mut record.fields, fields);
        let another = old.scheduler != record.fields.scheduler;
        if old.persistence.is_some() != record.fields.persistence.is_some() {
            // It decides whether packets to them keep their port.
            self.touched.servers.extend(record.members.iter().copied());
        }
        if another {
            self.list_changed(id);
        }
        self.rewritten(id);
    }

    /// Makes `wanted` the service's real servers, in this order; `false` when no place is free for one of them.
    fn put_members(&mut self, id: u32, wanted: &[(ServerKey, ServerFields)]) -> bool {
        let old = self.services.get_mut(id).map(|r| std::mem::take(&mut r.members)).unwrap_or_default();
        let keys: HashSet<&ServerKey> = wanted.iter().map(|(key, _)| key).collect();
        for &server in &old {
            if self.servers.place(server).is_some_and(|p| !keys.contains(&p.key)) {
                self.server_leaves(server);
            }
        }
        let mut members = Vec::with_capacity(wanted.len());
        let (mut complete, mut edited) = (true, false);
        for (key, fields) in wanted {
            if let Some(server) = self.servers.find(key) {
                edited |= self.edit_fields(server, fields.clone());
                members.push(server);
            } else if let Some(server) = self.server_comes(id, *key, fields.clone()) {
                members.push(server);
            } else {
                complete = false;
            }
        }
        if edited || members != old {
            self.list_changed(id);
            self.rewritten(id);
        }
        if let Some(record) = self.services.get_mut(id) {
            record.members = members;
        }
        complete
    }

    /// Makes `wanted` the service's sorry server, or leaves it without one; `false` when no place is free.
    pub(super) fn put_sorry(&mut self, id: u32, wanted: Option<&(ServerKey, ServerFields)>) -> bool {
        let old = self.services.get(id).and_then(|record| record.sorry);
        let same = old.and_then(|old| self.servers.place(old)).is_some_and(|place| wanted.is_some_and(|(key, _)| *key == place.key));
        if let (Some(old), true, Some((_, fields))) = (old, same, wanted) {
            self.edit_fields(old, fields.clone());
            return true;
        }
        if let Some(old) = old {
            self.server_leaves(old);
        }
        let new = wanted.and_then(|(key, fields)| self.server_comes(id, *key, fields.clone()));
        if let Some(record) = self.services.get_mut(id) {
            record.sorry = new;
        }
        if old != new {
            self.list_changed(id);
        }
        new.is_some() == wanted.is_some()
    }

    /// Adds a real server that is not there; `false` when no place is free.
    pub(super) fn add_server(&mut self, service: u32, key: ServerKey, fields: ServerFields) -> bool {
        let Some(server) = self.server_comes(service, key, fields) else { return false };
        if let Some(record) = self.services.get_mut(service) {
            record.members.push(server);
        }
        self.list_changed(service);
        self.rewritten(service);
        true
    }

    /// Sets a real server's fields. The scheduler notices even if they are what they were, as it does in the kernel (`ipvsadm -e`).
    pub(super) fn edit_server(&mut self, server: u32, fields: ServerFields) {
        let service = self.servers.get(server).map(|r| r.service);
        let edited = self.edit_fields(server, fields);
        if let Some(service) = service {
            self.list_changed(service);
            if edited {
                self.rewritten(service);
            }
        }
    }

    pub(super) fn remove_server(&mut self, server: u32) {
        let Some(service) = self.servers.get(server).map(|r| r.service) else { return };
        if let Some(record) = self.services.get_mut(service) {
            record.members.retain(|m| *m != server);
        }
        self.server_leaves(server);
        self.list_changed(service);
        self.rewritten(service);
    }

    pub(super) fn set_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.touched.settings = true;
            // What a service leaves out of its own timeouts is as in the settings.
            let own = self.order.values().filter(|id| self.services.get(**id).is_some_and(|record| record.fields.timeouts.is_some()));
            self.touched.services.extend(own);
            self.touched.document = true;
        }
    }

    /// The mark rules, in order.
    pub(super) fn marks(&self) -> &[MarkRule] {
        &self.marks
    }

    /// Makes these all mark rules. VIPs that only they have come and go with them.
    pub(super) fn set_marks(&mut self, rules: &[MarkRule]) {
        if self.marks == rules {
            return;
        }
        let old = std::mem::replace(&mut self.marks, rules.to_vec());
        for vip in marks::vips(rules).filter(|vip| count(&mut self.vips, *vip)) {
            self.touched.vips.insert(vip);
        }
        for vip in marks::vips(&old).filter(|vip| discount(&mut self.vips, *vip)) {
            self.touched.vips.insert(vip);
        }
        self.touched.marks = true;
        self.touched.document = true;
    }

    /// Puts the services into the order of `keys`, all of which are present; whether that is another.
    pub(super) fn reorder(&mut self, keys: impl Iterator<Item = ServiceKey>) -> bool {
        let ids: Vec<u32> = keys.filter_map(|k| self.services.find(&k)).collect();
        if self.order.values().eq(ids.iter()) {
            return false;
        }
        self.order.clear();
        for id in ids {
            self.last_order += 1;
            self.order.insert(self.last_order, id);
            if let Some(record) = self.services.get_mut(id) {
                record.order = self.last_order;
            }
        }
        self.touched.document = true;
        true
    }

    /// Notes what the kernel told about a neighbour.
    pub(super) fn set_neighbour(&mut self, hop: Hop, told: Option<[u8; 6]>, now: SystemTime) {
        let hops = &self.hops;
        if !self.neighbours.set(hop, told, now, |h| hops.contains_key(h)) {
            return;
        }
        let mac = self.neighbours.mac(&hop);
        self.touched.routes |= self.hops.get(&hop).is_some_and(|waiting| waiting.contains(&GATEWAY));
        for server in self.hops.get(&hop).into_iter().flatten().copied().collect::<Vec<_>>() {
            self.set_next_hop(server, mac);
        }
    }

    /// Whether a real server that would take new connections may still answer for its MAC at `now`.
    pub(super) fn awaits_mac(&self, service: &ServiceRecord, now: SystemTime) -> bool {
        let awaited = |server: &ServerRecord| {
            server.next_hop.is_none() && self.worker_weight(server) != 0 && self.neighbours.is_asked(&server.hop, now)
        };
        self.effective_members(service).any(|server| self.servers.get(server).is_some_and(awaited))
    }

    /// Lets services refuse clients again whose real servers have had their time to answer.
    pub(super) fn lose_patience(&mut self, now: SystemTime) {
        let waits = |id: &u32| self.services.get(*id).is_some_and(|service| self.awaits_mac(service, now));
        let over: Vec<u32> = self.patient.iter().copied().filter(|id| !waits(id)).collect();
        self.touched.services.extend(over);
    }

    /// A port gets or loses its link, and with it everybody who is reached by it.
    pub(super) fn set_link(&mut self, port: u16, up: bool, now: SystemTime) {
        if !self.neighbours.set_link(port, up, now) {
            return;
        }
        self.touched.routes = true;
        for server in 0..self.servers.len() {
            let Some(record) = self.servers.get(server).filter(|record| record.hop.0 == port) else { continue };
            let mac = if up { record.fields.mac.or_else(|| self.neighbours.mac(&record.hop)) } else { None };
            self.set_next_hop(server, mac);
        }
    }

    fn server_comes(&mut self, service: u32, key: ServerKey, fields: ServerFields) -> Option<u32> {
        let hop = hop_for(&self.links, key.address).unwrap_or((0, key.address));
        let (workers, method) = (self.workers, fields.method);
        let added = self.services.get(service)?.added;
        let server = self.servers.claim(key, |_| ServerRecord::new(service, fields.clone(), hop, workers))?;
        let record = self.servers.get_mut(server)?;
        record.service = service;
        if std::mem::replace(&mut record.service_added, added) != added {
            record.meter.zero(record.stats.sum());
        }
        record.last_weight = fields.weight;
        record.replace_fields(fields);
        record.health = None;
        record.standing = Standing::default();
        record.quarantine = None;
        record.drain = None;
        record.hop = hop;
        record.dismissed = None;
        count(&mut self.addresses, key.address);
        self.touched.servers.insert(server);
        self.touched.rewritten_servers.insert(server);
        self.touched.awaited.push(server);
        self.find_next_hop(server);
        if method == Method::Masquerading || key.service.address.is_ipv6() {
            self.find_gateways();
        }
        Some(server)
    }

    fn server_leaves(&mut self, server: u32) {
        let Some(place) = self.servers.place(server) else { return };
        let (address, hop, asked) = (place.key.address, place.record.hop, place.record.fields.mac.is_none());
        if asked {
            self.stop_asking(server, hop);
        }
        discount(&mut self.addresses, address);
        self.servers.leave(server, self.next_change);
        self.touched.servers.insert(server);
    }

    /// Whether that changed anything.
    fn edit_fields(&mut self, server: u32, fields: ServerFields) -> bool {
        let Some(record) = self.servers.get_mut(server) else { return false };
        let old = record.replace_fields(fields);
        let hop = record.hop;
        if old == record.fields {
            return false;
        }
        let (other_mac, method) = (old.mac != record.fields.mac, record.fields.method);
        self.touched.servers.insert(server);
        self.touched.rewritten_servers.insert(server);
        if method == Method::Masquerading {
            self.find_gateways();
        }
        if other_mac {
            if old.mac.is_none() {
                self.stop_asking(server, hop);
            }
            self.touched.awaited.push(server);
            self.find_next_hop(server);
        }
        true
    }

    /// Takes the static MAC, or asks for it.
    fn find_next_hop(&mut self, server: u32) {
        let Some(record) = self.servers.get(server) else { return };
        let hop = record.hop;
        let mac =
            if let Some(given) = record.fields.mac { self.neighbours.has_link(hop.0).then_some(given) } else { self.ask_for(hop, server) };
        self.set_next_hop(server, mac);
    }

    /// Asks for the gateways' MACs from the first real server on whose answers may pass us: they leave by them.
    fn find_gateways(&mut self) {
        if std::mem::replace(&mut self.gateways_asked, true) {
            return;
        }
        self.touched.routes = true;
        let links = Arc::clone(&self.links);
        for (port, link) in (0_u16..).zip(links.iter()) {
            for gateway in &link.gateways {
                let hop = (port, *gateway);
                self.ask_for(hop, GATEWAY);
            }
        }
    }

    /// Has a neighbour's MAC asked for on behalf of `whom`; the MAC, if it is known already.
    fn ask_for(&mut self, hop: Hop, whom: u32) -> Option<[u8; 6]> {
        let waiting = self.hops.entry(hop).or_default();
        let first = waiting.is_empty();
        waiting.insert(whom);
        self.touched.hops.insert(hop);
        self.neighbours.ask(hop, first, SystemTime::now())
    }

    fn stop_asking(&mut self, server: u32, hop: Hop) {
        if let Some(waiting) = self.hops.get_mut(&hop) {
            waiting.remove(&server);
            if waiting.is_empty() {
                self.hops.remove(&hop);
                self.touched.hops.insert(hop);
            }
        }
    }

    fn set_next_hop(&mut self, server: u32, mac: Option<[u8; 6]>) {
        let Some(record) = self.servers.get_mut(server) else { return };
        let port = record.hop.0;
        let mtu = self.links.get(usize::from(port)).map_or(0, |l| l.mtu);
        let next_hop = mac.map(|mac| NextHop { port, mac, mtu });
        if record.next_hop != next_hop {
            record.next_hop = next_hop;
            self.touched.servers.insert(server);
            self.touched.services.insert(record.service);
        }
    }

    /// The document shows the service otherwise than before.
    fn rewritten(&mut self, service: u32) {
        self.touched.rewritten_services.insert(service);
        self.touched.services.insert(service);
        self.touched.document = true;
    }

    /// Notes that what `change` rewrote is as it is since `revision`.
    pub(super) fn stamp(&mut self, change: &Change, revision: u64) {
        for id in &change.rewritten_services {
            if let Some(record) = self.services.get_mut(*id) {
                record.changed = revision;
            }
        }
        for id in &change.rewritten_servers {
            if let Some(record) = self.servers.get_mut(*id) {
                record.changed = revision;
            }
        }
        if change.settings.is_some() {
            self.settings_changed = revision;
        }
        if change.marks.is_some() {
            self.marks_changed = revision;
        }
    }

    pub(super) fn list_changed(&mut self, service: u32) {
        self.last_list_revision += 1;
        if let Some(record) = self.services.get_mut(service) {
            record.list_revision = self.last_list_revision;
        }
        self.touched.services.insert(service);
    }
}

/// One more; whether it is the first.
pub(super) fn count(counts: &mut HashMap<IpAddr, u32>, address: IpAddr) -> bool {
    let n = counts.entry(address).or_default();
    *n += 1;
    *n == 1
}

/// One fewer; whether it was the last.
pub(super) fn discount(counts: &mut HashMap<IpAddr, u32>, address: IpAddr) -> bool {
    if let Some(n) = counts.get_mut(&address) {
        *n -= 1;
        if *n > 0 {
            return false;
        }
    }
    counts.remove(&address).is_some()
}
