//! The rules for the fields that say what a check asks.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;

use crate::director::validate::{At, Findings};
use crate::health::check::{bytes, without_port};
use crate::health::{ask, tls};
use crate::model::{CheckType, HealthSpec, Via};

/// The most headers of a request, and the most bytes of each text.
const MOST_HEADERS: usize = 32;
const LONGEST_TEXT: usize = 2_048;
/// The most bytes of a gRPC service's name: its length is one byte then.
const LONGEST_SERVICE: usize = 127;

/// Fields that a type cannot do without.
pub(super) fn check_needed(spec: &HealthSpec, at: At, found: &mut Findings) {
    if spec.kind == Some(CheckType::Dns) && spec.name.is_none() {
        found.add(at.field("health/name"), "name is missing: a check of type dns asks for one, such as www.example.org");
    }
    if spec.kind == Some(CheckType::Exec) && spec.command.is_none() {
        found.add(
            at.field("health/command"),
            "command is missing: a check of type exec needs the full path of a program, and its arguments",
        );
    }
}

/// Fields of a type that the check is not of would be ignored, so they are refused.
pub(super) fn check_belonging(spec: &HealthSpec, kind: Option<CheckType>, at: At, found: &mut Findings) {
    use CheckType::{Dns, Exec, Grpc, Http, Https, Udp};
    let Some(kind) = kind else { return };
    let fields: &[(&str, bool, &[CheckType])] = &[
        ("path", spec.path.is_some(), &[Http, Https]),
        ("host", spec.host.is_some(), &[Http, Https, Grpc]),
        ("method", spec.method.is_some(), &[Http, Https]),
        ("headers", !spec.headers.is_empty(), &[Http, Https]),
        ("status", spec.status.is_some(), &[Http, Https]),
        ("body", spec.body.is_some(), &[Http, Https, Udp, Exec]),
        ("sni", spec.sni.is_some(), &[Https, Grpc]),
        ("ca", spec.ca.is_some(), &[Https, Grpc]),
        ("verify", spec.verify.is_some(), &[Https, Grpc]),
        ("send", spec.send.is_some(), &[Udp]),
        ("send_hex", spec.send_hex.is_some(), &[Udp]),
        ("answer", spec.answer.is_some(), &[Udp]),
        ("name", spec.name.is_some(), &[Dns]),
        ("record", spec.record.is_some(), &[Dns]),
        ("rcode", spec.rcode.is_some(), &[Dns]),
        ("expect", spec.expect.is_some(), &[Dns]),
        ("grpc_service", spec.grpc_service.is_some(), &[Grpc]),
        ("tls", spec.tls.is_some(), &[Grpc]),
        ("command", spec.command.is_some(), &[Exec]),
    ];
    for (name, _, of) in fields.iter().filter(|(_, given, of)| *given && !of.contains(&kind)) {
        let names: Vec<&str> = of.iter().map(|kind| kind.as_str()).collect();
        let detail = format!("{name} is for checks of type {}, and this one is {}", names.join(" and "), kind.as_str());
        found.add(at.field(&format!("health/{name}")), detail);
    }
    if kind == Grpc && spec.tls == Some(false) {
        for (name, _) in
            [("sni", spec.sni.is_some()), ("ca", spec.ca.is_some()), ("verify", spec.verify.is_some())].iter().filter(|(_, given)| *given)
        {
            found.add(at.field(&format!("health/{name}")), format!("{name} is for TLS, and tls is false"));
        }
    }
    let portless = match kind {
        CheckType::Arp => Some("which only look at the MAC"),
        CheckType::Ping => Some("which have none"),
        _ => None,
    };
    if let Some(why) = portless.filter(|_| spec.port.is_some()) {
        found.add(at.field("health/port"), format!("port is not for checks of type {}, {why}", kind.as_str()));
    }
    if kind == CheckType::Arp && spec.via.is_some() {
        found.add(at.field("health/via"), "via is not for checks of type arp, which only look at the MAC");
    }
    if kind == Exec && spec.via == Some(Via::Path) {
        found.add(at.field("health/via"), "via is path: a program of type exec goes its own way; allowed is direct");
    }
}

/// What can be said of each field by itself.
pub(super) fn check_each(spec: &HealthSpec, at: At, found: &mut Findings) {
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
    if let Some(send) = spec.send.as_deref().filter(|send| send.len() > LONGEST_TEXT) {
        wrong("send", format!("send has {} bytes: allowed are {LONGEST_TEXT}", send.len()));
    }
    if let Some(hex) = spec.send_hex.as_deref() {
        if bytes(hex).is_none_or(|bytes| bytes.len() > LONGEST_TEXT) {
            wrong("send_hex", format!("send_hex is '{hex}': expected two hexadecimal digits a byte, {LONGEST_TEXT} bytes at most"));
        } else if spec.send.is_some() {
            wrong("send_hex", "send_hex and send are two ways to say the same: give one of them".to_owned());
        }
    }
    if spec.answer == Some(false) && spec.body.is_some() {
        wrong("answer", "answer is false, and body is given: nobody would look at it".to_owned());
    }
    // Each is judged with a good other one.
    for (name, record) in [(spec.name.as_deref().unwrap_or("."), "A"), (".", spec.record.as_deref().unwrap_or("A"))] {
        if let Err((field, why)) = ask::dns_question(name, record) {
            wrong(field, why);
        }
    }
    if let Some(Err(why)) = spec.rcode.as_deref().map(ask::dns_rcode) {
        wrong("rcode", why);
    }
    if let Some(expect) = spec.expect.as_deref().filter(|expect| expect.is_empty() || expect.len() > LONGEST_TEXT) {
        wrong("expect", format!("expect has {} bytes: allowed are 1 to {LONGEST_TEXT}", expect.len()));
    }
    if let Some(service) = spec.grpc_service.as_deref().filter(|service| service.len() > LONGEST_SERVICE) {
        wrong("grpc_service", format!("grpc_service has {} bytes: allowed are {LONGEST_SERVICE}", service.len()));
    }
    if let Some(why) = spec.command.as_deref().and_then(ask::program_refusal) {
        wrong("command", format!("command {why}"));
    }
    check_trust(spec, at, found);
}

fn check_trust(spec: &HealthSpec, at: At, found: &mut Findings) {
    let named = spec.sni.clone().map(|name| ("sni", name)).or_else(|| {
        let speaks_tls = spec.kind == Some(CheckType::Https) || spec.tls == Some(true);
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
