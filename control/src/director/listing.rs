//! The desired state as documents, listings and metrics show it.

use std::net::SocketAddr;

use dataplane::service::Thresholds;
use dataplane::stats::TrafficSum;

use super::health::Standing;
use super::records::{ServerFields, ServerKey, ServerRecord, ServiceRecord};
use super::{Director, Error, Inner, mac};
use crate::model::{
    Document, HealthState, Method, RealServer, RealServerSpec, RealServerState, Service, ServiceKey, ServiceSpec, Services, Tunnel,
};

/// A virtual service's counters, never zeroed, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSample {
    /// Which.
    pub key: ServiceKey,
    /// What passed.
    pub sum: TrafficSum,
}

/// A real server's counters, never zeroed, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct ServerSample {
    /// Its service.
    pub service: ServiceKey,
    /// RIP and rport.
    pub server: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// What it is fit for.
    pub state: RealServerState,
    /// What its checks say, where it is checked.
    pub health: Option<HealthState>,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// What passed.
    pub sum: TrafficSum,
}

/// Everything that metrics tell about services.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Services, at most as many as asked for.
    pub services: Vec<ServiceSample>,
    /// Real servers of those, at most as many as asked for.
    pub servers: Vec<ServerSample>,
    /// Services and real servers that were left out.
    pub left_out: u64,
}

impl Director {
    /// The whole configuration. Cost: a copy of it.
    pub fn document(&self) -> Document {
        self.lock().document()
    }

    /// All virtual services as they are.
    pub fn services(&self) -> Services {
        let inner = self.lock();
        Services { revision: inner.revision, services: inner.desired.order.values().filter_map(|id| inner.service_view(*id)).collect() }
    }

    /// One virtual service as it is.
    pub fn service(&self, key: ServiceKey) -> Result<Service, Error> {
        let inner = self.lock();
        let id = inner.find_service(key)?;
        inner.service_view(id).ok_or(Error::NoSuchService(key))
    }

    /// One real server as it is.
    pub fn real_server(&self, service: ServiceKey, server: SocketAddr) -> Result<RealServer, Error> {
        let inner = self.lock();
        inner.find_service(service)?;
        let key = ServerKey { service, address: server.ip(), port: server.port() };
        let found = inner.desired.servers.find(&key).and_then(|id| {
            let service = inner.desired.services.get(inner.desired.servers.get(id)?.service)?;
            service.members.contains(&id).then(|| inner.server_view(service, id))?
        });
        found.ok_or(Error::NoSuchRealServer(service, server))
    }

    /// The counters of at most `most` services and `most` real servers.
    pub fn observe(&self, most: usize) -> Observation {
        let inner = self.lock();
        let mut all = Observation::default();
        for place in inner.desired.order.values().filter_map(|id| inner.desired.services.place(*id)) {
            if all.services.len() >= most {
                all.left_out += 1 + place.record.members.len() as u64;
                continue;
            }
            all.services.push(ServiceSample { key: place.key, sum: place.record.stats.sum() });
            for member in place.record.members.iter().filter_map(|id| inner.desired.servers.place(*id)) {
                if all.servers.len() >= most {
                    all.left_out += 1;
                    continue;
                }
                let record = &member.record;
                all.servers.push(ServerSample {
                    service: place.key,
                    server: member.key.socket(),
                    weight: record.fields.weight,
                    state: state(record),
                    health: record.check_state(&place.record),
                    active: record.stats.active(),
                    inactive: record.stats.inactive(),
                    sum: record.stats.sum(),
                });
            }
        }
        all
    }
}

impl Inner {
    pub(super) fn document(&self) -> Document {
        let services = self.desired.order.values().filter_map(|id| self.service_spec(*id)).collect();
        Document { revision: self.revision, settings: self.desired.settings, marks: self.desired.marks().to_vec(), services }
    }

    pub(super) fn service_spec(&self, id: u32) -> Option<ServiceSpec> {
        let place = self.desired.services.place(id)?;
        let members = place.record.members.iter().filter_map(|m| self.desired.servers.place(*m));
        Some(ServiceSpec {
            protocol: place.key.protocol,
            address: place.key.address,
            port: place.key.port,
            scheduler: place.record.fields.scheduler,
            flags: place.record.fields.flags.clone(),
            persistence: place.record.fields.persistence,
            one_packet: place.record.fields.one_packet,
            health: place.record.fields.health.as_deref().cloned(),
            no_real_server: place.record.fields.no_real_server,
            timeouts: place.record.fields.timeouts,
            real_servers: members.map(|m| server_spec(&m.key, &m.record.fields)).collect(),
        })
    }

    fn service_view(&self, id: u32) -> Option<Service> {
        let place = self.desired.services.place(id)?;
        let (vip, conflicts) = self.vip_view(place.key);
        Some(Service {
            id: place.key.to_string(),
            protocol: place.key.protocol,
            address: place.key.address,
            port: place.key.port,
            mark: place.key.mark(),
            scheduler: place.record.fields.scheduler,
            flags: place.record.fields.flags.clone(),
            persistence: place.record.fields.persistence,
            one_packet: place.record.fields.one_packet,
            health: place.record.fields.health.as_deref().cloned(),
            quorum: self.desired.quorum(&place.record),
            no_real_server: place.record.fields.no_real_server,
            timeouts: place.record.fields.timeouts,
            vip,
            conflicts,
            stats: place.record.meter.stats(place.record.stats.sum()),
            rates: place.record.meter.rates(),
            real_servers: place.record.members.iter().filter_map(|m| self.server_view(&place.record, *m)).collect(),
        })
    }

    fn server_view(&self, service: &ServiceRecord, id: u32) -> Option<RealServer> {
        let place = self.desired.servers.place(id)?;
        let record = &place.record;
        let link = self.desired.links.get(usize::from(record.hop.0)).map(|l| l.name.clone());
        let state = state(record);
        Some(RealServer {
            id: place.key.socket().to_string(),
            address: place.key.address,
            port: place.key.port,
            weight: record.fields.weight,
            upper_threshold: record.fields.thresholds.upper,
            lower_threshold: record.fields.thresholds.lower,
            method: record.fields.method,
            tunnel: (record.fields.method == Method::Tunnel).then_some(record.fields.tunnel),
            mac: record.next_hop.map(|h| mac::format(h.mac)),
            state,
            reason: match state {
                RealServerState::Ready => None,
                RealServerState::Down => record.failure().map(str::to_owned),
                RealServerState::Draining => record.drain_reason(),
                RealServerState::Quarantined => record.quarantine.map(|quarantine| quarantine.reason()),
                RealServerState::Quiescent if record.fields.weight != 0 => {
                    Some("the service is below its quorum: it keeps its connections, and new ones go to the sorry server".to_owned())
                }
                RealServerState::Quiescent => Some("its weight is 0: it keeps its connections and gets no new ones".to_owned()),
                RealServerState::Overloaded => Some(overload(record.fields.thresholds)),
                RealServerState::NoMac => Some(self.desired.neighbours.reason(&record.hop, link.as_deref().unwrap_or("?"))),
            },
            link,
            health: self.health_view(service, id),
            drain: self.drain_view(id),
            active_connections: record.stats.active(),
            inactive_connections: record.stats.inactive(),
            persistent_connections: record.stats.persistent(),
            stats: record.meter.stats(record.stats.sum()),
            rates: record.meter.rates(),
        })
    }
}

/// The spec that a real server was, or might have been, made from.
pub(super) fn server_spec(key: &ServerKey, fields: &ServerFields) -> RealServerSpec {
    RealServerSpec {
        address: key.address,
        port: Some(key.port),
        weight: fields.weight,
        upper_threshold: fields.thresholds.upper,
        lower_threshold: fields.thresholds.lower,
        method: fields.method,
        tunnel: Some(fields.tunnel).filter(|tunnel| fields.method == Method::Tunnel && *tunnel != Tunnel::default()),
        mac: fields.mac.map(mac::format),
        health: fields.health.as_deref().cloned(),
    }
}

fn overload(Thresholds { upper, lower }: Thresholds) -> String {
    let below = if lower == 0 { "three quarters of that".to_owned() } else { lower.to_string() };
    format!("it has reached its upper threshold of {upper} connections: it gets new ones again below {below}")
}

fn state(record: &ServerRecord) -> RealServerState {
    match (&record.next_hop, record.effective_weight()) {
        _ if record.is_down() && record.standing != Standing::In => RealServerState::Down,
        _ if record.drain.is_some() => RealServerState::Draining,
        _ if record.quarantine.is_some() && record.standing != Standing::In => RealServerState::Quarantined,
        (None, _) => RealServerState::NoMac,
        (Some(_), 0) => RealServerState::Quiescent,
        _ if record.fields.thresholds.upper != 0 && record.stats.is_overloaded() => RealServerState::Overloaded,
        _ => RealServerState::Ready,
    }
}
