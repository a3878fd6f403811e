//! Virtual services and real servers as the desired state holds them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::schedule::Buckets;
use dataplane::service::{NextHop, SchedulerKind, Thresholds};
use dataplane::stats::{ServerStats, ServiceStats};

use super::drains::Draining;
use super::health::{Found, Standing};
use super::hints::Seen;
use super::meter::Meter;
use super::neighbours::Hop;
use super::slow_start::Ramp;
use super::vips::Quarantine;
use crate::model::{
    HealthSpec, Method, NoRealServer, Persistence, RealServerSpec, Scheduler, SchedulerFlag, ServiceKey, ServiceSpec, ServiceTimeouts,
    Tunnel,
};

/// What a real server is the same by, whenever it returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ServerKey {
    pub(super) service: ServiceKey,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl ServerKey {
    /// The key of `spec` in `service`: a port that is left out is the service's.
    pub(super) fn new(service: ServiceKey, spec: &RealServerSpec) -> Self {
        Self { service, address: spec.address, port: spec.port.unwrap_or(service.port) }
    }

    /// `real server ... added`, for the history.
    pub(super) fn in_words(&self, what: &str) -> String {
        format!("real server {} of virtual service {} {what}", self.socket(), self.service)
    }

    pub(super) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What can be edited of a virtual service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ServiceFields {
    pub(super) scheduler: Scheduler,
    pub(super) flags: BTreeSet<SchedulerFlag>,
    pub(super) persistence: Option<Persistence>,
    pub(super) one_packet: bool,
    pub(super) health: Option<Arc<HealthSpec>>,
    pub(super) no_real_server: NoRealServer,
    pub(super) timeouts: Option<ServiceTimeouts>,
}

impl ServiceFields {
    pub(super) fn of(spec: &ServiceSpec) -> Self {
        Self {
            scheduler: spec.scheduler,
            flags: spec.flags.clone(),
            persistence: spec.persistence,
            one_packet: spec.one_packet,
            health: spec.health.clone().map(Arc::new),
            no_real_server: spec.no_real_server,
            timeouts: spec.timeouts,
        }
    }
}

/// A virtual service; its key is kept with its place.
#[derive(Clone, Debug)]
pub(super) struct ServiceRecord {
    pub(super) fields: ServiceFields,
    /// Its rank among the services, in the order in which they were added.
    pub(super) order: u64,
    /// The revision in which the document last showed it, or one of its real servers, otherwise than before.
    pub(super) changed: u64,
    /// When it was added, as a rank among all additions; another each time.
    pub(super) added: u64,
    /// Differs from every earlier value whenever a scheduler must notice a change; never used twice.
    pub(super) list_revision: u64,
    /// Its real servers' places, in the order in which they were added.
    pub(super) members: Vec<u32>,
    /// The place of the sorry server, if it has one.
    pub(super) sorry: Option<u32>,
    /// Too few of the members are healthy.
    pub(super) below_quorum: bool,
    /// The VIP, while checks take the clients' path to it.
    pub(super) probed: Option<IpAddr>,
    /// The buckets that workers were given last, and the list of members and the scheduler that they are for.
    pub(super) buckets: (Option<(u64, SchedulerKind)>, Buckets),
    pub(super) stats: Arc<ServiceStats>,
    pub(super) meter: Meter,
}

impl ServiceRecord {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            fields: ServiceFields::default(),
            order: 0,
            changed: 0,
            added: 0,
            list_revision: 0,
            members: Vec::new(),
            sorry: None,
            below_quorum: false,
            probed: None,
            buckets: (None, Buckets::default()),
            stats: Arc::new(ServiceStats::new(workers)),
            meter: Meter::default(),
        }
    }
}

/// What can be edited of a real server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ServerFields {
    pub(super) weight: u32,
    pub(super) thresholds: Thresholds,
    pub(super) method: Method,
    /// What counts where the method is `tunnel`.
    pub(super) tunnel: Tunnel,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) health: Option<Arc<HealthSpec>>,
}

/// A real server; its key is kept with its place.
#[derive(Clone, Debug)]
pub(super) struct ServerRecord {
    /// Its service's place.
    pub(super) service: u32,
    /// The revision in which the document last showed it otherwise than before.
    pub(super) changed: u64,
    /// Which addition of the service it belongs to: it keeps its counters when it is removed and added again, but not when the
    /// service is, as in the kernel.
    pub(super) service_added: u64,
    pub(super) fields: ServerFields,
    /// The last weight that it had and that was not 0, since it was added (IPVS: `last_weight`).
    pub(super) last_weight: u32,
    /// It is overloaded no more; workers are told when the change is given to them.
    pub(super) relieved: bool,
    /// The port that its frames leave by and the address that is asked for its MAC.
    pub(super) hop: Hop,
    pub(super) next_hop: Option<NextHop>,
    /// What its checks found, as far as they are sure.
    pub(super) health: Option<Found>,
    /// Set while it answers for a VIP and gets no new connections for it.
    pub(super) quarantine: Option<Quarantine>,
    /// How far it has come, while it starts slowly.
    pub(super) ramp: Option<Ramp>,
    /// What its clients' packets said at the last look, where hints are wanted.
    pub(super) seen: Option<Seen>,
    /// Set while it is drained.
    pub(super) drain: Option<Box<Draining>>,
    /// What it gets, as workers were told last.
    pub(super) standing: Standing,
    /// The change by which the workers were told to forget it; `None` while they know it.
    pub(super) dismissed: Option<u64>,
    pub(super) stats: Arc<ServerStats>,
    pub(super) meter: Meter,
}

impl ServerRecord {
    /// Takes new fields and gives the old ones. With a greater upper threshold, or none, it is overloaded no more, as in the kernel.
    pub(super) fn replace_fields(&mut self, fields: ServerFields) -> ServerFields {
        let old = std::mem::replace(&mut self.fields, fields);
        if self.fields.weight != 0 {
            self.last_weight = self.fields.weight;
        }
        let upper = self.fields.thresholds.upper;
        self.relieved |= upper == 0 || upper > old.thresholds.upper;
        old
    }

    pub(super) fn new(service: u32, fields: ServerFields, hop: Hop, workers: usize) -> Self {
        Self {
            service,
            changed: 0,
            service_added: 0,
            last_weight: fields.weight,
            relieved: false,
            fields,
            hop,
            next_hop: None,
            health: None,
            quarantine: None,
            ramp: None,
            seen: None,
            drain: None,
            standing: Standing::default(),
            dismissed: None,
            stats: Arc::new(ServerStats::new(workers)),
            meter: Meter::default(),
        }
    }

    /// Whether any worker's connection table refers to it.
    pub(super) fn is_referred_to(&self) -> bool {
        self.stats.active() > 0 || self.stats.inactive() > 0 || self.stats.persistent() > 0
    }
}

/// A service that passed validation, with what its real servers' texts mean.
pub(super) struct Accepted<'a> {
    pub(super) spec: &'a ServiceSpec,
    pub(super) servers: Vec<(ServerKey, ServerFields)>,
    pub(super) sorry: Option<(ServerKey, ServerFields)>,
}

impl<'a> Accepted<'a> {
    pub(super) fn new(spec: &'a ServiceSpec) -> Self {
        let key = spec.key();
        let server = |s: &RealServerSpec| (ServerKey::new(key, s), fields(s));
        Self { spec, servers: spec.real_servers.iter().map(server).collect(), sorry: sorry_spec(spec).as_ref().map(server) }
    }
}

/// A service's sorry server as the real server that it is.
pub(super) fn sorry_spec(service: &ServiceSpec) -> Option<RealServerSpec> {
    let sorry = service.health.as_ref()?.sorry_server.as_ref()?;
    Some(RealServerSpec {
        address: sorry.address,
        port: sorry.port,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        method: sorry.method,
        tunnel: None,
        mac: None,
        health: None,
    })
}

/// The fields of a spec that passed validation; a MAC that cannot be read would count as none.
pub(super) fn fields(spec: &RealServerSpec) -> ServerFields {
    let thresholds = Thresholds { upper: spec.upper_threshold, lower: spec.lower_threshold };
    ServerFields {
        weight: spec.weight,
        thresholds,
        method: spec.method,
        tunnel: spec.tunnel.unwrap_or_default(),
        mac: spec.mac.as_deref().and_then(super::mac::parse),
        health: spec.health.clone().map(Arc::new),
    }
}
