//! The rules that health checks must keep.

use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;

use super::Link;
use super::records::{ServerKey, sorry_spec};
use super::routes::{hop_for, source_towards};
use super::validate::{At, Findings, Surroundings, check_server};
use crate::health::check::{merged, usual_way, without_port};
use crate::health::{ask, tls};
use crate::model::{CheckType, HealthSpec, Method, RealServerSpec, ServiceKey, ServiceSpec, Span, Via};

const BUILT: &str = "tcp, http, https, arp";
/// The most headers of a request, and the most bytes of each text.
const MOST_HEADERS: usize = 32;
const LONGEST_TEXT: usize = 2_048;

/// A service's own section, with its sorry server.
pub(super) fn check_health(service: &ServiceSpec, at: At, around: &dyn Surroundings, found: &mut Findings) {
    let Some(spec) = &service.health else { return };
    match spec.kind {
        None => found.add(at.field("health/type"), format!("type is missing: allowed are {BUILT}")),
        Some(CheckType::None) => found.add(at.field("health/type"), "type is none: without checks leave health out"),
        _ => {}
    }
    check_fields(spec, spec.kind, at, found);
    let needs_port = !matches!(spec.kind, Some(CheckType::Arp | CheckType::None) | None);
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
            let detail = format!("type is missing, and the service has no health of its own: allowed are {BUILT}, none");
            found.add(at.field("health/type"), detail);
        }
        check_fields(own, both.kind, at, found);
        for (name, given) in [
            ("on_failure", own.on_failure.is_some()),
            ("quorum", own.quorum.is_some()),
            ("quorum_hysteresis", own.quorum_hysteresis.is_some()),
            ("panic", own.panic.is_some()),
            ("sorry_server", own.sorry_server.is_some()),
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
    let via = spec.via.unwrap_or_else(|| usual_way(service, server.method));
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
    if let Some(kind) = spec.kind.filter(|kind| !kind.is_built()) {
        found.add(at.field("health/type"), format!("checks of type {} are not built yet: allowed are {BUILT}", kind.as_str()));
    }
    if spec.port == Some(0) {
        found.add(at.field("health/port"), "port is 0: allowed are 1 to 65535");
    }
    for (name, span, least, most) in [
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
    check_belonging(spec, kind, at, found);
    check_question(spec, at, found);
    check_trust(spec, at, found);
}

/// Fields of a type that the check is not of would be ignored, so they are refused.
fn check_belonging(spec: &HealthSpec, kind: Option<CheckType>, at: At, found: &mut Findings) {
    let Some(kind) = kind else { return };
    let http = [
        ("path", spec.path.is_some()),
        ("host", spec.host.is_some()),
        ("method", spec.method.is_some()),
        ("headers", !spec.headers.is_empty()),
        ("status", spec.status.is_some()),
        ("body", spec.body.is_some()),
    ];
    let https = [("sni", spec.sni.is_some()), ("ca", spec.ca.is_some()), ("verify", spec.verify.is_some())];
    let speaks_http = matches!(kind, CheckType::Http | CheckType::Https);
    let strange_http = http.iter().filter(|(_, given)| *given && !speaks_http).map(|(name, _)| (name, "http and https"));
    let strange_https = https.iter().filter(|(_, given)| *given && kind != CheckType::Https).map(|(name, _)| (name, "https"));
    for (name, of) in strange_http.chain(strange_https) {
        found.add(at.field(&format!("health/{name}")), format!("{name} is for checks of type {of}, and this one is {}", kind.as_str()));
    }
    let needless = [("port", spec.port.is_some()), ("via", spec.via.is_some())];
    for (name, _) in needless.iter().filter(|(_, given)| *given && kind == CheckType::Arp) {
        found.add(at.field(&format!("health/{name}")), format!("{name} is not for checks of type arp, which only look at the MAC"));
    }
}

fn check_question(spec: &HealthSpec, at: At, found: &mut Findings) {
    let mut wrong = |name: &str, detail: String| found.add(at.field(&format!("health/{name}")), detail);
    if let Some(path) = spec.path.as_deref()
        && (!path.starts_with('/') || path.len() > LONGEST_TEXT || path.parse::<Uri>().is_err())
    {
        wrong("path", format!("path is '{path}': expected a path as in a URL, with its slash, of at most {LONGEST_TEXT} bytes"));
    }
    if let Some(host) = spec.host.as_deref()
        && (host.is_empty() || host.len() > 255 || host.contains(char::is_whitespace) || HeaderValue::from_str(host).is_err())
    {
        wrong("host", format!("host is '{host}': expected a host name, with a port if need be"));
    }
    if let Some(method) = spec.method.as_deref()
        && !(1..=16).contains(&method.len()) | method.bytes().any(|byte| !byte.is_ascii_uppercase()) | matches!(method, "CONNECT" | "TRACE")
    {
        wrong("method", format!("method is '{method}': expected an HTTP method in capitals such as GET, HEAD or OPTIONS"));
    }
    if spec.headers.len() > MOST_HEADERS {
        wrong("headers", format!("there are {} headers: allowed are {MOST_HEADERS}", spec.headers.len()));
    }
    for (name, value) in &spec.headers {
        let lower = name.to_ascii_lowercase();
        let place = format!("headers/{}", name.replace('~', "~0").replace('/', "~1"));
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            wrong(&place, format!("'{name}' is no name of a header"));
        } else if matches!(lower.as_str(), "host" | "connection" | "content-length" | "transfer-encoding" | "upgrade" | "expect") {
            wrong(&place, format!("{name} is the check's own to say: the host goes into host, and there is no body"));
        } else if value.len() > LONGEST_TEXT || HeaderValue::from_str(value).is_err() {
            wrong(&place, format!("the value of {name} cannot stand in a header, or is longer than {LONGEST_TEXT} bytes"));
        }
    }
    if let Some(body) = spec.body.as_deref()
        && let Err(why) = ask::pattern(body)
    {
        wrong("body", format!("body is no regular expression that can be used: {why}"));
    }
}

fn check_trust(spec: &HealthSpec, at: At, found: &mut Findings) {
    let named = spec.sni.clone().map(|name| ("sni", name)).or_else(|| {
        let speaks_tls = spec.kind == Some(CheckType::Https);
        spec.host.as_deref().filter(|_| speaks_tls).map(|host| ("host", without_port(host)))
    });
    if let Some((field, name)) = named
        && ServerName::try_from(name.as_str()).is_err()
    {
        found.add(at.field(&format!("health/{field}")), format!("'{name}' is no name that a certificate can have"));
    }
    if let Some(ca) = spec.ca.as_deref() {
        if !ca.starts_with('/') {
            found.add(at.field("health/ca"), format!("ca is '{ca}': expected the full path of a PEM file"));
        } else if let Err(why) = tls::authorities(ca) {
            found.add(at.field("health/ca"), format!("ca is '{ca}': {why}"));
        }
        if spec.verify == Some(false) {
            found.add(at.field("health/verify"), "verify is false, and ca is given: nobody would look at it");
        }
    }
}

#[cfg(test)]
mod tests;
