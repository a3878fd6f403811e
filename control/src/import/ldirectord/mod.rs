//! ldirectord.cf (ldirectord 4.12): virtual services with their real servers and what is checked.

mod check;
mod servers;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::{Draft, Imported, bare_service, gather_checks, sorry_without_idle_port, without_idle_port};
use super::keepalived::granularity;
use super::needs_mark_rule;
use super::report::{Lines, Place, Report};
use crate::cli::ipvsadm::address::address_port;
use crate::cli::ipvsadm::names::Names;
use crate::cli::ipvsadm::parse::{flags_named, scheduler_named};
use crate::model::{HealthSpec, OnFailure, Persistence, Protocol, Scheduler, ServiceKey};
use servers::{Real, fallback, real_servers};

/// A directive with its value and line.
#[derive(Clone, Debug)]
struct Directive {
    value: String,
    at: Place,
}

/// Directives by name; of those that stand more than once the last counts, as in ldirectord.
type Directives = BTreeMap<String, Directive>;

/// What a `virtual` has behind it.
struct Section {
    ipv6: bool,
    head: Directive,
    directives: Directives,
    reals: Vec<Directive>,
}

/// Directives that may stand above all `virtual`s and within one.
const BOTH: &[&str] = &["checktimeout", "negotiatetimeout", "checkinterval", "failurecount", "quiescent", "fallback", "fallback6"];
/// Directives within a `virtual` alone.
const INNER: &[&str] = &[
    "checktype",
    "service",
    "checkport",
    "request",
    "receive",
    "virtualhost",
    "httpmethod",
    "scheduler",
    "schedflags",
    "persistent",
    "netmask",
    "protocol",
    "ops",
    "checkcommand",
];

/// Reads a file.
pub fn read(text: &str, file: &Arc<str>, report: &mut Report) -> Draft {
    let names = Names::system();
    let (globals, sections) = split(text, file, report);
    let mut draft = Draft::default();
    for section in sections {
        read_section(&section, &globals, &names, &mut draft, report);
    }
    draft
}

fn split(text: &str, file: &Arc<str>, report: &mut Report) -> (Directives, Vec<Section>) {
    let mut globals = Directives::new();
    let mut sections: Vec<Section> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = Place::new(file, index + 1, line);
        let indented = line.starts_with("    ") || line.starts_with('\t');
        // Within a section a comment may stand behind a directive; above them only on a line of its own.
        let bare = if indented { line.split('#').next().unwrap_or_default() } else { line }.trim();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let Some((name, value)) = bare.split_once('=') else {
            report.left(&at, "expected NAME = VALUE");
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let directive = Directive { value: value.to_owned(), at };
        match (name, indented, sections.last_mut()) {
            ("virtual" | "virtual6", false, _) => {
                let head = directive;
                sections.push(Section { ipv6: name.ends_with('6'), head, directives: Directives::new(), reals: Vec::new() });
            }
            ("real" | "real6", true, Some(section)) if name.ends_with('6') == section.ipv6 => section.reals.push(directive),
            (_, true, Some(section)) if BOTH.contains(&name) || INNER.contains(&name) => {
                replace(&mut section.directives, name, directive, report);
            }
            (_, false, _) if BOTH.contains(&name) || name == "fork" => replace(&mut globals, name, directive, report),
            (_, true, None) => report.left(&directive.at, "belongs to no virtual"),
            _ => report.left(&directive.at, reason(name)),
        }
    }
    (globals, sections)
}

fn replace(directives: &mut Directives, name: &str, directive: Directive, report: &mut Report) {
    if let Some(earlier) = directives.insert(name.to_owned(), directive) {
        report.left(&earlier.at, format_args!("{name} stands again further down, and the last one counts"));
    }
}

/// Why a directive is not carried over.
fn reason(name: &str) -> &'static str {
    match name {
        "emailalert" | "emailalertfrom" | "emailalertfreq" | "emailalertstatus" | "smtp" => {
            "no mail is sent: metrics and events say what happens"
        }
        "logfile" | "monitorfile" => "the log goes to standard error, and from there to the journal",
        "autoreload" => "the file is read at the start, and again when the director is told to",
        "callback" | "execute" | "fallbackcommand" => "no programs are run",
        "supervised" => "the director always stays in the foreground: systemd watches it",
        "checkcount" => "a lost packet is sent again within a check's time; failurecount says how many checks must fail",
        "readdquiescent" => "a real server that was removed by hand stays removed",
        "cleanstop" => "services end with the director",
        "maintenancedir" => "a real server is taken out by its weight: baton ipvsadm -e ... -w 0",
        "login" | "passwd" | "database" | "secret" | "load" => "no check logs in",
        "servicename" | "comment" => "services have no names here",
        "real" | "real6" => "real is for IPv4 and real6 for IPv6, as in virtual and virtual6",
        "fork" | "virtual" | "virtual6" => "must stand at the beginning of a line",
        name if INNER.contains(&name) => "belongs into a virtual, indented by four blanks or a tab",
        _ => "is no directive of ldirectord 4.12",
    }
}

fn read_section(section: &Section, globals: &Directives, names: &Names, draft: &mut Draft, report: &mut Report) {
    let of = |name: &str| section.directives.get(name);
    let text = |name: &str| of(name).map(|directive| unquoted(&directive.value));
    let leave_out = |reason: &str, report: &mut Report| {
        for directive in std::iter::once(&section.head).chain(&section.reals).chain(section.directives.values()) {
            report.left(&directive.at, reason);
        }
    };
    let Some(key) = key(section, names, report) else {
        return leave_out("expected ADDRESS:PORT, for virtual6 in brackets, or a mark", report);
    };
    let reals = real_servers(section, key, names, report);
    if !draft.has_room(1, reals.len()) {
        return leave_out(&Draft::full(), report);
    }
    let mut spec = bare_service(key);
    spec.scheduler = Scheduler::Wrr;
    if let Some(directive) = of("scheduler") {
        match scheduler_named(&directive.value) {
            Some(scheduler) => spec.scheduler = scheduler,
            None => report.left(&directive.at, "there is no such scheduler: wrr is taken"),
        }
    }
    if let Some(flags) = text("schedflags") {
        let flags: Vec<String> = flags.split(',').map(|flag| flag.trim().to_owned()).collect();
        spec.flags = flags_named(spec.scheduler, &flags);
    }
    spec.one_packet = yes(of("ops"), report).unwrap_or(false);
    spec.persistence = persistence(section, report);
    let check = check::read(section, globals, key, report);
    let mut checks = Vec::new();
    let mut servers = Vec::new();
    for Real { spec: mut server, port, request, receive, at } in reals {
        if check.off {
            server.weight = 0;
        }
        without_idle_port(key, &mut server, &at, report);
        checks.push(check.of(&server, port, request.as_deref(), receive, &at, report));
        spec.real_servers.push(server);
        servers.push(Lines::from([at]));
    }
    let fallback_name = if section.ipv6 { "fallback6" } else { "fallback" };
    let sorry = of(fallback_name).or_else(|| globals.get(fallback_name));
    let (sorry_server, sorry) = match sorry.map(|directive| (directive, fallback(&directive.value, key, names))) {
        Some((directive, Some(mut sorry))) => {
            sorry_without_idle_port(key, &mut sorry, &directive.at, report);
            if checks.iter().all(Option::is_none) {
                report.left(
                    &directive.at,
                    format_args!("no real server of {key} has a check that is carried over, so none would ever be missed"),
                );
            }
            (Some(sorry), Some(directive.at.clone()))
        }
        Some((directive, None)) => {
            report.left(&directive.at, "expected an address, with a port or without, and gate, masq or ipip");
            (None, None)
        }
        None => (None, None),
    };
    let quiescent = yes(of("quiescent").or_else(|| globals.get("quiescent")), report).unwrap_or(false);
    let common = HealthSpec { on_failure: quiescent.then_some(OnFailure::Quiesce), sorry_server, ..HealthSpec::default() };
    gather_checks(&mut spec, &checks, common);
    let lines = section.directives.values().map(|directive| directive.at.clone()).collect();
    draft.services.push(Imported { spec, at: section.head.at.clone(), lines, servers, sorry });
}

fn key(section: &Section, names: &Names, report: &mut Report) -> Option<ServiceKey> {
    let value = &section.head.value;
    let protocol = section.directives.get("protocol");
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Some(directive) = protocol.filter(|directive| directive.value != "fwm") {
            report.left(&directive.at, "a service by mark is for every protocol: expected fwm");
        }
        let mark = value.parse().ok().filter(|mark| *mark > 0)?;
        needs_mark_rule(&section.head.at, report);
        return Some(ServiceKey::marked(mark, section.ipv6));
    }
    let usual = if value.ends_with(":53") || value.ends_with(":domain") { Protocol::Udp } else { Protocol::Tcp };
    let protocol = match protocol.map(|directive| (directive, directive.value.as_str())) {
        None => usual,
        Some((_, "tcp")) => Protocol::Tcp,
        Some((_, "udp")) => Protocol::Udp,
        Some((directive, _)) => {
            report.left(&directive.at, "expected tcp or udp");
            usual
        }
    };
    let found = address_port(value, protocol, names).filter(|found| found.address.is_ipv6() == section.ipv6)?;
    Some(ServiceKey { protocol, address: found.address, port: found.port? })
}

fn persistence(section: &Section, report: &mut Report) -> Option<Persistence> {
    let netmask = section.directives.get("netmask");
    let Some(directive) = section.directives.get("persistent") else {
        if let Some(netmask) = netmask {
            report.left(&netmask.at, "without persistent it means nothing");
        }
        return None;
    };
    let Some(timeout) = directive.value.parse().ok().filter(|timeout| *timeout > 0) else {
        report.left(&directive.at, "expected seconds");
        return None;
    };
    let plain = Persistence { timeout, ..Persistence::default() };
    let Some(netmask) = netmask else { return Some(plain) };
    let masked = granularity(&netmask.value, timeout);
    if masked.is_none() {
        report.left(&netmask.at, "expected an IPv4 netmask, or the length of an IPv6 prefix");
    }
    Some(masked.unwrap_or(plain))
}

fn yes(directive: Option<&Directive>, report: &mut Report) -> Option<bool> {
    let directive = directive?;
    match directive.value.as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => {
            report.left(&directive.at, "expected yes or no");
            None
        }
    }
}

/// A value without the quotes around it.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}
