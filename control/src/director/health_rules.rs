//! The rules that health checks must keep.

mod fields;

use std::time::Duration;

use super::Link;
use super::records::{ServerKey, sorry_spec};
use super::routes::{hop_for, source_towards};
use super::validate::{At, Findings, Surroundings, check_server};
use crate::health::check::{merged, usual_way};
use crate::model::{CheckType, HealthSpec, Method, OnFailure, Protocol, RealServerSpec, Scheduler, ServiceKey, ServiceSpec, Span, Via};

const TYPES: &str = "tcp, http, https, ping, arp, udp, dns, grpc, exec";

/// Schedulers that go by weights and keep no table of them, which would be another with every step.
const BY_WEIGHT: &[Scheduler] = &[Scheduler::Wrr, Scheduler::Wlc, Scheduler::Sed, Scheduler::Nq, Scheduler::Twos];

/// A service's own section, with its sorry server.
pub(super) fn check_health(service: &ServiceSpec, at: At, around: &dyn Surroundings, found: &mut Findings) {
    let Some(spec) = &service.health else { return };
    match spec.kind {
        None => found.add(at.field("health/type"), format!("type is missing: allowed are {TYPES}")),
        Some(CheckType::None) => found.add(at.field("health/type"), "type is none: without checks leave health out"),
        _ => {}
    }
    check_fields(spec, spec.kind, at, found);
    fields::check_needed(spec, at, found);
    check_slow_start(service, spec, at, found);
    if spec.hints == Some(true) && !matches!(service.protocol, Protocol::Tcp | Protocol::Mark) {
        found.add(at.field("health/hints"), format!("hints is true: a service of {} has no SYNs", service.protocol.as_str()));
    }
    let needs_port = !matches!(spec.kind, Some(CheckType::Arp | CheckType::Ping | CheckType::Exec | CheckType::None) | None);
    if service.port == 0 && spec.port.is_none() && needs_port && service.real_servers.iter().any(|server| !has_port(server)) {
        found.add(at.field("health/port"), "port is missing: the service has no port of its own that could be asked");
    }
    if spec.via == Some(Via::Path) && service.key().mark().is_some() {
        found.add(at.field("health/via"), "via is path: a service by mark has no VIP to ask; allowed is direct");
    }
    if spec.quorum == Some(0) {
        found.add(at.field("health/quorum"), "quorum is 0: allowed are 1 to 4294967295");
    }
    let quorum = spec.quorum.unwrap_or(1);
    if let Some(hysteresis) = spec.quorum_hysteresis.filter(|hysteresis| *hysteresis >= quorum && quorum > 0) {
        let detail = format!("quorum_hysteresis is {hysteresis}: allowed are 0 to {}, one less than the quorum", quorum - 1);
        found.add(at.field("health/quorum_hysteresis"), detail);
    }
    if spec.panic.is_some() && spec.sorry_server.is_some() {
        found.add(at.field("health/panic"), "panic is keep, and there is a sorry_server: only one of the two can happen below the quorum");
    }
    if let Some(sorry) = sorry_spec(service) {
        let key = ServerKey::new(service.key(), &sorry);
        let twice = service.real_servers.iter().position(|server| ServerKey::new(service.key(), server) == key);
        if let Some(index) = twice {
            let detail = format!("{} is real server {index} of the service already: the sorry server must be another", key.socket());
            found.add(at.field("health/sorry_server/address"), detail);
        }
        check_server(service.key(), &sorry, at.sorry_server(), around, found);
    }
}

/// Growing weights must mean something, and real servers must have been out.
fn check_slow_start(service: &ServiceSpec, spec: &HealthSpec, at: At, found: &mut Findings) {
    let given = [("slow_start", spec.slow_start.is_some()), ("slow_start_connections", spec.slow_start_connections.is_some())];
    for (name, _) in given.iter().filter(|(_, given)| *given) {
        if !BY_WEIGHT.contains(&service.scheduler) {
            let detail = format!(
                "{name} lets weights grow, and scheduler {} does not go by them, or moves clients when they change: allowed are {}",
                service.scheduler.as_str(),
                BY_WEIGHT.iter().map(|scheduler| scheduler.as_str()).collect::<Vec<_>>().join(", ")
            );
            found.add(at.field(&format!("health/{name}")), detail);
        }
        if spec.on_failure == Some(OnFailure::Keep) {
            found.add(at.field(&format!("health/{name}")), format!("{name} is for real servers that were out, and on_failure is keep"));
        }
    }
    if let Some(connections) = spec.slow_start_connections.filter(|connections| *connections < 10) {
        let detail = format!("slow_start_connections is {connections}: allowed are 10 to 4294967295");
        found.add(at.field("health/slow_start_connections"), detail);
    }
}

fn has_port(server: &RealServerSpec) -> bool {
    server.health.as_ref().is_some_and(|health| health.port.is_some() || health.kind == Some(CheckType::None))
}

/// A real server's own section, on top of its service's.
pub(super) fn check_server_health(
    service: ServiceKey,
    of_service: Option<&HealthSpec>,
    server: &RealServerSpec,
    at: At,
    links: &[Link],
    found: &mut Findings,
) {
    let Some(both) = merged(of_service, server.health.as_ref()) else { return };
    if let Some(own) = &server.health {
        if both.kind.is_none() {
            let detail = format!("type is missing, and the service has no health of its own: allowed are {TYPES}, none");
            found.add(at.field("health/type"), detail);
        }
        check_fields(own, both.kind, at, found);
        if own.kind.is_some() {
            fields::check_needed(&both, at, found);
        }
        for (name, given) in [
            ("on_failure", own.on_failure.is_some()),
            ("quorum", own.quorum.is_some()),
            ("quorum_hysteresis", own.quorum_hysteresis.is_some()),
            ("panic", own.panic.is_some()),
            ("sorry_server", own.sorry_server.is_some()),
            ("slow_start", own.slow_start.is_some()),
            ("slow_start_connections", own.slow_start_connections.is_some()),
            ("hints", own.hints.is_some()),
        ] {
            if given {
                found.add(at.field(&format!("health/{name}")), format!("{name} is the service's to say, not a real server's"));
            }
        }
    }
    if both.kind.is_some_and(|kind| !matches!(kind, CheckType::Arp | CheckType::None)) {
        check_way(service, &both, server, at, links, found);
    }
}

/// Whether the way that the check takes is there.
fn check_way(service: ServiceKey, spec: &HealthSpec, server: &RealServerSpec, at: At, links: &[Link], found: &mut Findings) {
    let via = spec.via.unwrap_or_else(|| usual_way(service, server.method, spec.kind));
    if via == Via::Path && service.mark().is_some() {
        if server.health.as_ref().is_some_and(|own| own.via.is_some()) {
            found.add(at.field("health/via"), "via is path: a service by mark has no VIP to ask; allowed is direct");
        }
        return;
    }
    let ipv4 = service.address.is_ipv4();
    if via == Via::Path && server.method == Method::Tunnel {
        let own = hop_for(links, server.address).and_then(|(index, neighbour)| {
            let towards = if ipv4 == neighbour.is_ipv4() { neighbour } else { service.address };
            source_towards(links.get(usize::from(index))?, towards)
        });
        if own.is_none() {
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            let detail = format!(
                "via is path: the port that {} is reached by has no {family} address that the VIP could answer to; allowed is direct",
                server.address
            );
            found.add(at.field("health/via"), detail);
        }
    }
}

/// What can be said of a section by itself; `kind` is what it comes to with the service's.
fn check_fields(spec: &HealthSpec, kind: Option<CheckType>, at: At, found: &mut Findings) {
    if spec.port == Some(0) {
        found.add(at.field("health/port"), "port is 0: allowed are 1 to 65535");
    }
    for (name, span, least, most) in [
        ("slow_start", spec.slow_start, "1s", "60m"),
        ("interval", spec.interval, "20ms", "60m"),
        ("interval_down", spec.interval_down, "20ms", "60m"),
        ("timeout", spec.timeout, "10ms", "1m"),
    ] {
        let bound = |text: &str| text.parse::<Span>().map_or(Duration::ZERO, |span| span.0);
        if let Some(span) = span.filter(|span| !(bound(least)..=bound(most)).contains(&span.0)) {
            found.add(at.field(&format!("health/{name}")), format!("{name} is {span}: allowed are {least} to {most}"));
        }
    }
    if let Some(jitter) = spec.jitter.filter(|jitter| *jitter > 50) {
        found.add(at.field("health/jitter"), format!("jitter is {jitter} percent: allowed are 0 to 50"));
    }
    for (name, count) in [("rise", spec.rise), ("fall", spec.fall)] {
        if let Some(count) = count.filter(|count| !(1..=100).contains(count)) {
            found.add(at.field(&format!("health/{name}")), format!("{name} is {count}: allowed are 1 to 100"));
        }
    }
    fields::check_belonging(spec, kind, at, found);
    fields::check_each(spec, at, found);
}

#[cfg(test)]
mod tests;
