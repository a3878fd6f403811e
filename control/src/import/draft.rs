//! What was understood, with the lines that it comes from, and how it is made to keep the director's rules.

use std::collections::BTreeMap;

use super::report::{Lines, Place, Report};
use super::source::Unreadable;
use crate::director::{Link, validate};
use crate::model::{
    CheckType, Document, Fault, HealthSpec, NoRealServer, RealServerSpec, Scheduler, ServiceKey, ServiceSpec, Settings, SorryServer,
};

/// The most virtual services: as many as a director takes by default.
pub const MOST_SERVICES: usize = 16_384;

/// The most real servers of all services: as many as a director takes by default.
const MOST_REAL_SERVERS: usize = 131_072;

/// How often rules are asked again at most; each time at least one thing has gone.
const ROUNDS: usize = 64;

/// A virtual service without anything but its key.
pub fn bare_service(key: ServiceKey) -> ServiceSpec {
    ServiceSpec {
        protocol: key.protocol,
        address: key.address,
        port: key.port,
        scheduler: Scheduler::default(),
        flags: std::collections::BTreeSet::new(),
        persistence: None,
        one_packet: false,
        no_real_server: NoRealServer::default(),
        timeouts: None,
        health: None,
        real_servers: Vec::new(),
    }
}

/// A virtual service with the lines that it comes from.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The service.
    pub spec: ServiceSpec,
    /// Where it begins.
    pub at: Place,
    /// All its lines.
    pub lines: Lines,
    /// The lines of its real servers, in their order.
    pub servers: Vec<Lines>,
    /// Where the sorry server stands.
    pub sorry: Option<Place>,
}

impl Imported {
    /// The lines that say a field of a check, of one real server or of all; the beginning of what they belong to if none does.
    fn lines_of(&self, field: &str, server: Option<usize>) -> Vec<&Place> {
        let words = FIELDS.iter().find(|(name, _)| *name == field).map_or(&[][..], |(_, words)| words);
        let of_server = server.and_then(|server| self.servers.get(server));
        let all = of_server.map_or(&self.lines, |lines| lines).iter();
        let says = |at: &&Place| at.text.split([' ', '\t', '=']).next().is_some_and(|word| words.contains(&word));
        let found: Vec<&Place> = all.filter(says).collect();
        if found.is_empty() { vec![of_server.and_then(|lines| lines.first()).unwrap_or(&self.at)] } else { found }
    }
}

/// What keepalived and ldirectord call the fields of a check.
const FIELDS: &[(&str, &[&str])] = &[
    ("command", &["misc_path", "checkcommand"]),
    ("body", &["regex", "require_reply", "receive"]),
    ("path", &["path", "request"]),
    ("host", &["virtualhost"]),
    ("name", &["name", "request"]),
    ("record", &["type"]),
    ("interval", &["delay_loop", "checkinterval"]),
    ("timeout", &["connect_timeout", "misc_timeout", "checktimeout", "negotiatetimeout"]),
    ("fall", &["retry", "failurecount"]),
    ("quorum", &["quorum"]),
    ("quorum_hysteresis", &["hysteresis"]),
];

/// Everything that was understood.
#[derive(Debug, Default)]
pub struct Draft {
    /// The services, in the order of the source.
    pub services: Vec<Imported>,
    /// Settings by name, in seconds.
    pub settings: Vec<(&'static str, u32, Place)>,
}

impl Draft {
    /// Whether so many more services with so many real servers each can be taken.
    pub fn has_room(&self, services: usize, servers_each: usize) -> bool {
        let servers: usize = self.services.iter().map(|service| service.servers.len()).sum();
        self.services.len() + services <= MOST_SERVICES && servers + services.saturating_mul(servers_each) <= MOST_REAL_SERVERS
    }

    /// What [`Self::has_room`] says no for.
    pub fn full() -> String {
        format!("more than {MOST_SERVICES} virtual services, or {MOST_REAL_SERVERS} real servers of them")
    }

    /// The settings as they are with these on top of `base`.
    pub fn settings_on(&self, base: Settings) -> Settings {
        let mut settings = base;
        for (name, seconds, _) in &self.settings {
            match *name {
                "timeout_tcp" => settings.timeout_tcp = *seconds,
                "timeout_tcpfin" => settings.timeout_tcpfin = *seconds,
                _ => settings.timeout_udp = *seconds,
            }
        }
        settings
    }

    /// Leaves out what breaks a rule on a director with `links` that has `base` already, and says so.
    ///
    /// # Errors
    /// Together with `base` it cannot be made to fit.
    pub fn fit(&mut self, base: &Document, links: &[Link], report: &mut Report) -> Result<(), Unreadable> {
        let earlier = base.services.len();
        for _ in 0..ROUNDS {
            let mut document = base.clone();
            document.settings = self.settings_on(base.settings);
            document.services.extend(self.services.iter().map(|service| service.spec.clone()));
            let faults = validate(&document, links);
            if faults.is_empty() {
                return Ok(());
            }
            let mut by_service: BTreeMap<usize, Vec<(Target, Fault)>> = BTreeMap::new();
            for fault in faults {
                if fault.pointer.starts_with("/settings/") {
                    self.drop_setting(&fault, report);
                    continue;
                }
                let target = Target::read(&fault.pointer).filter(|(index, _)| *index >= earlier);
                let Some((index, target)) = target else {
                    return Err(Unreadable(format!("with the services that are there already: {}", fault.detail)));
                };
                by_service.entry(index - earlier).or_default().push((target, fault));
            }
            // From behind, so that the indices of what is still to be looked at stay.
            for (index, faults) in by_service.into_iter().rev() {
                self.mend(index, faults, report);
            }
        }
        Err(Unreadable("the rules for virtual services cannot be kept".to_owned()))
    }

    fn drop_setting(&mut self, fault: &Fault, report: &mut Report) {
        self.settings.retain(|(name, _, at)| {
            let keep = !fault.pointer.ends_with(&format!("/{name}"));
            if !keep {
                report.left(at, &fault.detail);
            }
            keep
        });
    }

    fn mend(&mut self, index: usize, faults: Vec<(Target, Fault)>, report: &mut Report) {
        let Some(service) = self.services.get_mut(index) else { return };
        if let Some((_, fault)) = faults.iter().find(|(target, _)| *target == Target::Service) {
            report.left(&service.at, format_args!("virtual service {}: {}", service.spec.key(), fault.detail));
            for at in service.lines.iter().chain(service.servers.iter().flat_map(|lines| lines.iter())).filter(|at| **at != service.at) {
                report.left(at, format_args!("virtual service {} is left out", service.spec.key()));
            }
            self.services.remove(index);
            return;
        }
        let mut gone: Vec<usize> = Vec::new();
        for (target, fault) in faults {
            let reason = &fault.detail;
            match target {
                Target::Sorry => {
                    if let Some(health) = &mut service.spec.health {
                        health.sorry_server = None;
                    }
                    report.left(service.sorry.as_ref().unwrap_or(&service.at), reason);
                }
                Target::Health(field) => {
                    let kept = service.spec.health.take();
                    service.spec.health = kept.and_then(|health| without(health, &field));
                    for at in service.lines_of(&field, None) {
                        report.left(at, format_args!("health.{field}: {reason}"));
                    }
                }
                Target::Server(server) if !gone.contains(&server) => {
                    gone.push(server);
                    for at in service.servers.get(server).iter().flat_map(|lines| lines.iter()) {
                        report.left(at, reason);
                    }
                }
                Target::Service | Target::Server(_) => {}
                Target::ServerHealth(server, field) => {
                    for at in service.lines_of(&field, Some(server)) {
                        report.left(at, format_args!("health.{field}: {reason}"));
                    }
                    if let Some(server) = service.spec.real_servers.get_mut(server) {
                        server.health = server.health.take().and_then(|health| without(health, &field)).or_else(|| Some(unchecked()));
                    }
                }
            }
        }
        gone.sort_unstable();
        for server in gone.into_iter().rev() {
            service.spec.real_servers.remove(server);
            service.servers.remove(server);
        }
    }
}

/// No check.
pub fn unchecked() -> HealthSpec {
    HealthSpec { kind: Some(CheckType::None), ..HealthSpec::default() }
}

/// A section without one of its fields; nothing when the field is not there, or when the rest is nothing without it.
fn without(health: HealthSpec, field: &str) -> Option<HealthSpec> {
    let mut fields = serde_json::to_value(health).ok()?;
    fields.as_object_mut()?.remove(field).filter(|_| field != "type")?;
    serde_json::from_value(fields).ok()
}

/// What a fault's pointer is about.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    Service,
    Health(String),
    Sorry,
    Server(usize),
    ServerHealth(usize, String),
}

impl Target {
    fn read(pointer: &str) -> Option<(usize, Self)> {
        let mut steps = pointer.strip_prefix("/services/")?.split('/');
        let index = steps.next()?.parse().ok()?;
        let rest: Vec<&str> = steps.collect();
        let target = match rest.as_slice() {
            ["health", "sorry_server", ..] => Self::Sorry,
            ["health", field, ..] => Self::Health((*field).to_owned()),
            ["real_servers", server, "health", field, ..] => Self::ServerHealth(server.parse().ok()?, (*field).to_owned()),
            ["real_servers", server, ..] => Self::Server(server.parse().ok()?),
            _ => Self::Service,
        };
        Some((index, target))
    }
}

/// Puts what the real servers' own checks have in common into the service's, so that it stands once; without any check there is
/// nothing to say. `common` is what of the service's section is not about single checks.
pub fn gather_checks(service: &mut ServiceSpec, checks: &[Option<HealthSpec>], common: HealthSpec) {
    let fields = |check: &HealthSpec| match serde_json::to_value(check) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let all: Vec<_> = checks.iter().map(|check| check.as_ref().map(fields)).collect();
    let Some(first) = all.iter().flatten().next() else { return };
    let mut shared = first.clone();
    shared.retain(|name, value| name == "type" || all.iter().flatten().all(|check| check.get(name) == Some(value)));
    for (server, check) in service.real_servers.iter_mut().zip(&all) {
        let Some(mut own) = check.clone() else {
            server.health = Some(unchecked());
            continue;
        };
        own.retain(|name, value| shared.get(name) != Some(value));
        server.health = (!own.is_empty()).then(|| serde_json::from_value(own.into()).ok()).flatten();
    }
    let HealthSpec { on_failure, quorum, quorum_hysteresis, panic, sorry_server, .. } = common;
    let shared: HealthSpec = serde_json::from_value(shared.into()).unwrap_or_default();
    service.health = Some(HealthSpec { on_failure, quorum, quorum_hysteresis, panic, sorry_server, ..shared });
}

/// Leaves the port of a real server out where the method leaves the packet's as it is, as IPVS does.
pub fn without_idle_port(service: ServiceKey, server: &mut RealServerSpec, at: &Place, report: &mut Report) {
    if server.method != crate::model::Method::Masquerading {
        if let Some(port) = server.port.filter(|port| *port != service.port) {
            let method = if server.method == crate::model::Method::Tunnel { "a tunnel" } else { "direct routing" };
            report.changed(
                at,
                format_args!("{method} leaves the port {} as it is, so the port {port} is without effect, as in IPVS", service.port),
            );
        }
        server.port = None;
    }
}

/// The same for a sorry server.
pub fn sorry_without_idle_port(service: ServiceKey, sorry: &mut SorryServer, at: &Place, report: &mut Report) {
    let mut server = RealServerSpec {
        address: sorry.address,
        port: sorry.port,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        method: sorry.method,
        tunnel: None,
        mac: None,
        health: None,
    };
    without_idle_port(service, &mut server, at, report);
    sorry.port = server.port;
}
