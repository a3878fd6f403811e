//! What checks found, and what workers are to make of it. The operator's configuration is never changed by it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use super::desired::{Desired, count, discount};
use super::neighbours::utc;
use super::records::{ServerRecord, ServiceRecord};
use super::routes::source_towards;
use super::snapshot::encapsulation_for_workers;
use super::{Director, Inner};
use crate::health::check::{Check, Path, Place, Way, merged};
use crate::model::{Health, HealthState, OnFailure, Panic, Quorum, ServiceKey, What};
use tokio::sync::watch;

/// A real server whose check is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Subject {
    /// Its service.
    pub service: ServiceKey,
    /// RIP and rport.
    pub server: SocketAddr,
}

/// A check that is wanted.
#[derive(Clone, Debug)]
pub struct WantedCheck {
    /// Whose.
    pub subject: Subject,
    /// The check.
    pub check: Check,
    /// The real server's MAC, or that of the way to it, when known.
    pub mac: Option<[u8; 6]>,
    /// What is known of its health: that it is up, or why it is down.
    pub known: Option<Result<(), String>>,
}

impl WantedCheck {
    /// The way, where it is the clients'.
    pub fn path(&self) -> Option<Path> {
        match &self.check.way {
            Way::Path { path, .. } => Some(*path),
            Way::Direct(_) => None,
        }
    }
}

/// What a check found, once it is sure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// Why it is down; `None` when it is up.
    reason: Option<String>,
    since: SystemTime,
}

/// What a real server gets of its service's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Standing {
    /// What its weight says.
    #[default]
    In,
    /// It keeps what it has.
    Quiescent,
    /// Nothing, as if it were removed.
    Out,
}

impl Director {
    /// Changes whenever other checks may be wanted than before, or another MAC is known.
    pub fn checks_changed(&self) -> watch::Receiver<()> {
        self.0.checks.subscribe()
    }

    /// All checks that are wanted. Cost: linear in all real servers.
    pub fn checks(&self) -> Vec<WantedCheck> {
        let inner = self.lock();
        let services = inner.desired.order.values().filter_map(|id| inner.desired.services.place(*id));
        let members = services.flat_map(|place| place.record.members.iter().map(move |member| (&place.record, *member)));
        members.filter_map(|(service, member)| inner.desired.wanted_check(service, member)).collect()
    }

    /// Notes what `check` found of real servers at `now`: why it is down, or that it is up. Nothing of one that is checked so no more.
    pub fn set_health(&self, subjects: &[Subject], check: &Check, reason: Option<&str>, now: SystemTime) {
        let mut inner = self.lock();
        for subject in subjects {
            inner.desired.set_health(subject, check, reason, now);
        }
        self.commit(&mut inner);
    }
}

impl Desired {
    fn wanted_check(&self, service: &ServiceRecord, member: u32) -> Option<WantedCheck> {
        let place = self.servers.place(member)?;
        let record = &place.record;
        let spec = merged(service.fields.health.as_deref(), record.fields.health.as_deref())?;
        let check = Check::new(&spec, &self.place_of(member)?)?;
        let subject = Subject { service: place.key.service, server: place.key.socket() };
        let known = record.health.as_ref().map(|found| found.reason.clone().map_or(Ok(()), Err));
        Some(WantedCheck { subject, check, mac: record.next_hop.map(|hop| hop.mac), known })
    }

    fn place_of(&self, member: u32) -> Option<Place> {
        let place = self.servers.place(member)?;
        let (key, record) = (place.key, &place.record);
        let (link, neighbour) = record.hop;
        let port = self.links.get(usize::from(link))?;
        let towards = if key.service.address.is_ipv4() == neighbour.is_ipv4() { neighbour } else { key.service.address };
        let own = source_towards(port, towards).filter(|own| own.is_ipv4() == key.service.address.is_ipv4());
        Some(Place {
            service: key.service,
            server: key.socket(),
            method: record.fields.method,
            link,
            neighbour,
            fixed: record.fields.mac,
            own,
            tunnel: source_towards(port, neighbour).map(|source| (source, encapsulation_for_workers(record.fields.tunnel))),
        })
    }

    fn set_health(&mut self, subject: &Subject, check: &Check, reason: Option<&str>, now: SystemTime) {
        let key = super::records::ServerKey { service: subject.service, address: subject.server.ip(), port: subject.server.port() };
        let Some(server) = self.servers.find(&key) else { return };
        let Some(service) = self.servers.get(server).map(|record| record.service) else { return };
        let wanted = self.services.get(service).and_then(|record| self.wanted_check(record, server));
        if wanted.is_none_or(|wanted| wanted.check != *check) {
            return;
        }
        let Some(record) = self.servers.get_mut(server) else { return };
        let since = match &record.health {
            Some(found) if found.reason.as_deref() == reason => return,
            // A new reason is no new failure.
            Some(found) if found.reason.is_some() && reason.is_some() => found.since,
            _ => now,
        };
        let from = state(record.health.as_ref());
        record.health = Some(Found { reason: reason.map(str::to_owned), since });
        let to = state(record.health.as_ref());
        if from != to {
            let what = What::HealthChanged { service: subject.service.to_string(), real_server: subject.server, from, to };
            self.happened.push((what, reason.map_or_else(|| format!("{check} succeeds"), str::to_owned)));
            if from == HealthState::Down {
                self.start_slowly(server, Instant::now());
            } else {
                self.end_ramp(server);
            }
        }
        self.touched.services.insert(service);
    }

    /// Decides what every real server of a service gets, after anything about it has changed; notes what workers must be told.
    ///
    /// Cost: linear in the members.
    pub(super) fn judge(&mut self, id: u32) {
        self.count_probed(id);
        self.forget_unchecked(id);
        if !self.services.is_present(id) {
            return;
        }
        let Some(place) = self.services.place(id) else { return };
        let (service, key) = (&place.record, place.key);
        let quorum = self.quorum(service);
        let met = quorum.as_ref().is_none_or(|quorum| quorum.met);
        let of_sorry = if met { Standing::Out } else { Standing::In };
        let members = service.members.iter().filter_map(|member| Some((*member, standing(service, self.servers.get(*member)?, met))));
        let standings: Vec<(u32, Standing)> = members.chain(service.sorry.map(|sorry| (sorry, of_sorry))).collect();
        let mut changed = false;
        for (server, standing) in standings {
            if let Some(record) = self.servers.get_mut(server)
                && record.standing != standing
            {
                record.standing = standing;
                self.touched.servers.insert(server);
                changed = true;
            }
        }
        if let Some(record) = self.services.get_mut(id)
            && record.below_quorum == met
        {
            record.below_quorum = !met;
            let weight = quorum.map_or(0, |quorum| quorum.weight);
            let service = key.to_string();
            let what = if met { What::QuorumBack { service } } else { What::QuorumLost { service } };
            self.happened.push((what, format!("the healthy real servers' weights add up to {weight}")));
        }
        if changed {
            self.list_changed(id);
        }
    }

    /// What was found of a real server is forgotten when it is checked no more.
    fn forget_unchecked(&mut self, id: u32) {
        let Some(service) = self.services.get(id) else { return };
        let judged = service.members.iter().filter(|member| self.servers.get(**member).is_some_and(|server| server.health.is_some()));
        let stale: Vec<u32> = judged.filter(|member| self.wanted_check(service, **member).is_none()).copied().collect();
        for member in stale {
            if let Some(server) = self.servers.get_mut(member) {
                server.health = None;
            }
        }
    }

    /// How the healthy real servers of a service compare with its quorum.
    pub(super) fn quorum(&self, record: &ServiceRecord) -> Option<Quorum> {
        let spec = record.fields.health.as_ref()?;
        let healthy = record.members.iter().filter_map(|m| self.servers.get(*m)).filter(|server| !server.is_down());
        let weight = healthy.map(|server| u64::from(server.fields.weight)).sum();
        let wanted = spec.quorum.unwrap_or(1);
        let hysteresis = spec.quorum_hysteresis.unwrap_or_default();
        let least =
            if record.below_quorum { u64::from(wanted) + u64::from(hysteresis) } else { u64::from(wanted.saturating_sub(hysteresis)) };
        let met = weight >= least;
        Some(Quorum { met, weight, wanted, sorry: !met && record.sorry.is_some() })
    }

    /// Counts the VIPs that checks take the clients' path to: workers let answers from those through to the kernel.
    pub(super) fn count_probed(&mut self, id: u32) {
        let Some(place) = self.services.place(id) else { return };
        let record = &place.record;
        let present = self.services.is_present(id);
        let on_path = |member: &u32| {
            let wanted = self.wanted_check(record, *member).and_then(|wanted| wanted.path());
            wanted.is_some_and(|path| path.vip == place.key.address)
        };
        let vip: Option<IpAddr> = record.members.iter().any(on_path).then_some(place.key.address).filter(|_| present);
        let old = record.probed;
        if old == vip {
            return;
        }
        if let Some(vip) = vip {
            count(&mut self.probed, vip);
        }
        if let Some(old) = old {
            discount(&mut self.probed, old);
        }
        self.touched.vips.extend(vip.into_iter().chain(old));
        if let Some(record) = self.services.get_mut(id) {
            record.probed = vip;
        }
    }
}

fn state(found: Option<&Found>) -> HealthState {
    match found {
        None => HealthState::Unknown,
        Some(Found { reason: None, .. }) => HealthState::Up,
        Some(Found { reason: Some(_), .. }) => HealthState::Down,
    }
}

fn standing(service: &ServiceRecord, server: &ServerRecord, quorum_met: bool) -> Standing {
    let spec = service.fields.health.as_deref();
    match &server.drain {
        Some(drain) if drain.is_ending() => return Standing::Out,
        // What the operator wants comes before what a service would do in need.
        Some(_) if !server.is_down() => return Standing::Quiescent,
        _ => {}
    }
    if !quorum_met && spec.is_some_and(|spec| spec.panic == Some(Panic::Keep)) {
        return Standing::In;
    }
    let on_failure = spec.and_then(|spec| spec.on_failure).unwrap_or_default();
    match (server.is_down(), on_failure) {
        (true, OnFailure::Remove) => Standing::Out,
        (true, OnFailure::Quiesce | OnFailure::Inhibit) => Standing::Quiescent,
        _ if server.quarantine.is_some() => Standing::Quiescent,
        // The sorry server gets everything new; connections that work stay where they are.
        _ if !quorum_met && service.sorry.is_some() => Standing::Quiescent,
        _ => Standing::In,
    }
}

impl ServerRecord {
    pub(super) fn is_down(&self) -> bool {
        self.health.as_ref().is_some_and(|found| found.reason.is_some())
    }

    /// What its checks say; `None` where nothing checks it.
    pub(super) fn check_state(&self, service: &ServiceRecord) -> Option<HealthState> {
        let checked = service.fields.health.is_some() || self.fields.health.is_some();
        checked.then(|| state(self.health.as_ref()))
    }

    /// The weight that workers go by.
    pub(super) fn effective_weight(&self) -> u32 {
        if self.standing == Standing::In { self.fields.weight } else { 0 }
    }

    /// Why it is down.
    pub(super) fn failure(&self) -> Option<&str> {
        self.health.as_ref()?.reason.as_deref()
    }
}

impl Inner {
    /// A real server's health as listings show it.
    pub(super) fn health_view(&self, service: &ServiceRecord, member: u32) -> Option<Health> {
        let wanted = self.desired.wanted_check(service, member)?;
        let check = wanted.check.to_string();
        let record = self.desired.servers.get(member)?;
        let (found, slow_start) = (record.health.as_ref(), record.ramp.map(|ramp| ramp.percent()));
        let (since, reason) = (found.map(|found| utc(found.since)), found.and_then(|found| found.reason.clone()));
        Some(Health { state: state(found), since, reason, check, slow_start })
    }
}

#[cfg(test)]
mod tests;
