//! What ldirectord checks, as a health check.

use std::net::IpAddr;
use std::time::Duration;

use super::{Directive, Directives, Section, unquoted};
use crate::import::report::{Place, Report};
use crate::model::{CheckType, HealthSpec, Method, Protocol, RealServerSpec, ServiceKey, Span, Via};

/// The check of a virtual service's real servers.
pub(super) struct Check {
    /// `checktype = off`: no real server gets connections.
    pub(super) off: bool,
    service: ServiceKey,
    port: Option<u16>,
    spec: Option<HealthSpec>,
}

impl Check {
    /// The check of one real server, whose own request and receive come before those of the virtual service.
    pub(super) fn of(
        &self,
        server: &RealServerSpec,
        port: u16,
        request: Option<&str>,
        receive: Option<String>,
        at: &Place,
        report: &mut Report,
    ) -> Option<HealthSpec> {
        let mut spec = self.spec.clone();
        let own = request.is_some() || receive.is_some();
        if let Some(spec) = spec.as_mut().filter(|spec| matches!(spec.kind, Some(CheckType::Http | CheckType::Https))) {
            match request {
                Some(text) if text.contains("://") => {
                    report.left(at, "a check asks the real server itself: the request begins with a path");
                }
                Some(text) => spec.path = Some(path(text)),
                None => {}
            }
            spec.body = receive.filter(|text| !text.is_empty()).or_else(|| spec.body.take());
        } else if own {
            report.left(at, "request and receive are for checks of http and https");
        }
        if let Some(command) = spec.as_mut().and_then(|spec| spec.command.as_mut()) {
            let ServiceKey { address, port: vport, .. } = self.service;
            let service = self.service.mark().map_or_else(|| address.to_string(), |mark| mark.to_string());
            command.extend([service, vport.to_string(), server.address.to_string(), port.to_string()]);
        } else if let Some(spec) = spec.as_mut().filter(|spec| spec.kind != Some(CheckType::Ping)) {
            // Without a vport there is none that could be left out.
            let usual = if server.method == Method::Masquerading && self.service.port != 0 {
                server.port.unwrap_or(self.service.port)
            } else {
                self.service.port
            };
            spec.port = self.port.or(Some(port)).filter(|port| *port != usual && *port != 0);
        }
        spec
    }
}

/// A path as ldirectord makes one of a request.
fn path(request: &str) -> String {
    if request.starts_with('/') { request.to_owned() } else { format!("/{request}") }
}

pub(super) fn read(section: &Section, globals: &Directives, key: ServiceKey, report: &mut Report) -> Check {
    let of = |name: &str| section.directives.get(name);
    let kind = of("checktype").map_or("negotiate", |directive| directive.value.as_str());
    let port = of("checkport").and_then(|directive| number(directive, report)).and_then(|port| u16::try_from(port).ok());
    let none = |off| Check { off, service: key, port, spec: None };
    let negotiated = match kind {
        "on" => return unused(section, none(false), report),
        "off" => {
            if let Some(directive) = of("checktype") {
                report.changed(&directive.at, "its real servers get the weight 0: so none has new connections");
            }
            return unused(section, none(true), report);
        }
        "connect" | "ping" | "external" | "external-perl" => false,
        "negotiate" => true,
        number if number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty() => {
            if let Some(directive) = of("checktype") {
                report.changed(&directive.at, "every check asks, not one of so many");
            }
            true
        }
        _ => {
            leave(of("checktype"), "expected connect, negotiate, ping, on, off, external, external-perl or a number", report);
            true
        }
    };
    let Some(kind) = check_type(section, kind, negotiated, key, report) else { return unused(section, none(false), report) };
    let mut spec = HealthSpec { kind: Some(kind), via: Some(Via::Direct), rise: Some(1), ..HealthSpec::default() };
    if matches!(kind, CheckType::Http | CheckType::Https) {
        spec.path = Some(of("request").map_or_else(|| "/".to_owned(), |directive| path(unquoted(&directive.value))));
        spec.body = of("receive").map(|directive| unquoted(&directive.value).to_owned()).filter(|text| !text.is_empty());
        spec.host = of("virtualhost").map(|directive| unquoted(&directive.value).to_owned());
        spec.method = of("httpmethod").map(|directive| directive.value.to_ascii_uppercase()).filter(|method| method != "GET");
        spec.status = "200-299".parse().ok();
        spec.verify = (kind == CheckType::Https).then_some(false);
    } else if kind == CheckType::Dns {
        let asked = of("request").map(|directive| unquoted(&directive.value).to_owned());
        match asked {
            Some(name) if name.parse::<IpAddr>().is_err() => spec.name = Some(name),
            _ => {
                leave(of("request").or(of("service")), "the name of an A record must be asked for", report);
                return unused(section, none(false), report);
            }
        }
        let wanted = of("receive").map(|directive| (directive, unquoted(&directive.value)));
        match wanted {
            Some((_, text)) if text.parse::<IpAddr>().is_ok() => spec.expect = Some(text.to_owned()),
            Some((directive, _)) => report.left(&directive.at, "expected an address: that of a record in the answer"),
            None => {}
        }
    } else if kind == CheckType::Exec {
        let command = of("checkcommand").map_or("/bin/true", |directive| unquoted(&directive.value));
        spec.command = Some(command.split_whitespace().map(str::to_owned).collect());
        if let Some(directive) = of("checktype") {
            report.changed(&directive.at, "the program runs as the user of [health], without a shell and with an empty environment");
        }
        for name in ["request", "receive", "virtualhost", "httpmethod", "checkport"] {
            leave(of(name), "the program is told the virtual service and the real server, and nothing else", report);
        }
    } else {
        for name in ["request", "receive", "virtualhost", "httpmethod"] {
            leave(of(name), "nothing is asked: only the connection is checked", report);
        }
    }
    times(section, globals, negotiated, &mut spec, report);
    Check { spec: Some(spec), ..none(false) }
}

/// Says of what is for checks that there is none.
fn unused(section: &Section, check: Check, report: &mut Report) -> Check {
    for name in ["service", "checkport", "request", "receive", "virtualhost", "httpmethod", "checkcommand"] {
        leave(section.directives.get(name), "nothing is checked", report);
    }
    check
}

/// Leaves out a directive that is given; a default is nobody's line.
fn leave(directive: Option<&Directive>, reason: &str, report: &mut Report) {
    if let Some(directive) = directive {
        report.left(&directive.at, reason);
    }
}

/// What is checked, and how; `None` when nothing is.
fn check_type(section: &Section, kind: &str, negotiated: bool, key: ServiceKey, report: &mut Report) -> Option<CheckType> {
    let directive = section.directives.get("service");
    let at = directive.or_else(|| section.directives.get("checktype")).map_or(&section.head.at, |directive| &directive.at);
    if kind.starts_with("external") {
        return Some(CheckType::Exec);
    }
    if kind == "ping" || (!negotiated && key.protocol == Protocol::Udp) {
        return Some(CheckType::Ping);
    }
    if !negotiated {
        return Some(CheckType::Tcp);
    }
    let service = directive.map_or_else(|| usual_service(key), |directive| directive.value.as_str());
    match service {
        "http" => Some(CheckType::Http),
        "https" => Some(CheckType::Https),
        "none" => None,
        "dns" => Some(CheckType::Dns),
        "radius" | "sip" => {
            report.left(at, format_args!("there is no check of {service} yet"));
            None
        }
        _ => {
            report.changed(at, format_args!("the connection is checked, not what {service} answers: type = \"tcp\""));
            Some(CheckType::Tcp)
        }
    }
}

/// What ldirectord takes for the service of a port.
fn usual_service(key: ServiceKey) -> &'static str {
    if key.mark().is_some() {
        return "none";
    }
    match key.port {
        21 => "ftp",
        25 => "smtp",
        53 => "dns",
        80 => "http",
        110 => "pop",
        119 => "nntp",
        143 => "imap",
        389 => "ldap",
        443 => "https",
        587 => "submission",
        636 => "ldaps",
        993 => "imaps",
        995 => "pops",
        1521 => "oracle",
        1812 => "radius",
        3128 => "http_proxy",
        3306 => "mysql",
        5060 => "sip",
        5432 => "pgsql",
        _ => "none",
    }
}

/// The times with ldirectord's defaults, so that checks come as often as they did.
fn times(section: &Section, globals: &Directives, negotiated: bool, spec: &mut HealthSpec, report: &mut Report) {
    let either = |name: &str| section.directives.get(name).or_else(|| globals.get(name));
    let forks = globals.get("fork").is_some_and(|directive| directive.value == "yes");
    let own_interval = section.directives.get("checkinterval");
    if let Some(directive) = own_interval.filter(|_| !forks) {
        report.left(&directive.at, "without fork = yes only the one above all virtuals counts, as in ldirectord");
    }
    let interval = own_interval.filter(|_| forks).or_else(|| globals.get("checkinterval"));
    let mut seconds = |directive: Option<&Directive>| directive.and_then(|directive| number(directive, report));
    let interval = seconds(interval).unwrap_or(10);
    let (check, negotiate) = (seconds(either("checktimeout")), seconds(either("negotiatetimeout")));
    let timeout = if negotiated { negotiate.or(check).unwrap_or(30) } else { check.or(negotiate).unwrap_or(5) };
    let span = |seconds: u32| Some(Span(Duration::from_secs(seconds.into())));
    spec.interval = span(interval);
    spec.interval_down = span(interval);
    spec.timeout = span(timeout);
    spec.fall = Some(seconds(either("failurecount")).unwrap_or(1));
}

fn number(directive: &Directive, report: &mut Report) -> Option<u32> {
    let number = directive.value.parse().ok().filter(|number| *number > 0);
    if number.is_none() {
        report.left(&directive.at, "expected a whole number above 0");
    }
    number
}
