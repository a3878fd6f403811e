//! `virtual_server` with its real servers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::checker::{Checked, Times, common_reason, is_checker, read_checker};
use super::group::{Group, Target};
use super::tree::Statement;
use super::values::{address_port, granularity, method, number, only, switch};
use crate::cli::ipvsadm::parse::{flags_named, scheduler_named};
use crate::import::draft::{Draft, Imported, bare_service, gather_checks, sorry_without_idle_port, without_idle_port};
use crate::import::needs_mark_rule;
use crate::import::report::{Lines, Place, Report};
use crate::model::{HealthSpec, Method, OnFailure, Persistence, Protocol, RealServerSpec, Scheduler, ServiceKey, SorryServer, Tunnel};

/// What `persistence_timeout` without a value stands for, in seconds.
const USUAL_PERSISTENCE: u32 = 360;

/// A virtual server before it is known for which addresses.
struct Server<'s> {
    protocol: Protocol,
    scheduler: Scheduler,
    flags: Vec<String>,
    one_packet: bool,
    method: (Method, Option<Tunnel>),
    sorry_method: Option<(Method, Option<Tunnel>)>,
    persistence: Option<u32>,
    granularity: Option<String>,
    ipv6: Option<bool>,
    quorum: Option<u32>,
    hysteresis: Option<u32>,
    inhibit: bool,
    sorry: Option<(IpAddr, Option<u16>, &'s Place)>,
    times: Times,
    reals: Vec<&'s Statement>,
    lines: Lines,
}

/// A real server as it stands in the file.
struct Real {
    address: IpAddr,
    port: u16,
    weight: u32,
    upper: u32,
    lower: u32,
    method: (Method, Option<Tunnel>),
    inhibit: bool,
    lines: Lines,
}

pub(super) fn read<'s>(
    block: &'s Statement,
    groups: &HashMap<&'s str, Group>,
    used: &mut Vec<&'s str>,
    draft: &mut Draft,
    report: &mut Report,
) {
    let words: Vec<&str> = block.rest().iter().map(String::as_str).collect();
    let targets = match words.as_slice() {
        ["fwmark", mark] => mark.parse().ok().filter(|mark| *mark > 0).map(|mark| vec![(Target::Mark(mark, None), block.at.clone())]),
        ["group", name] => groups.get_key_value(name).map(|(name, group)| {
            used.push(name);
            group.members.clone()
        }),
        _ => address_port(block.rest()).map(|(address, port)| vec![(Target::Address(address, port.unwrap_or(0)), block.at.clone())]),
    };
    let Some(targets) = targets.filter(|targets| !targets.is_empty()) else {
        return block
            .leave_out("expected an address with a port, fwmark with a mark, or group with the name of a group that has members", report);
    };
    let server = read_block(block, report);
    if !draft.has_room(targets.len(), server.reals.len()) {
        return block.leave_out(&Draft::full(), report);
    }
    for (target, at) in targets {
        let imported = server.at_target(target, &at, report);
        draft.services.push(imported);
    }
}

fn read_block<'s>(block: &'s Statement, report: &mut Report) -> Server<'s> {
    let mut server = Server {
        protocol: Protocol::Tcp,
        scheduler: Scheduler::default(),
        flags: Vec::new(),
        one_packet: false,
        method: (Method::Masquerading, None),
        sorry_method: None,
        persistence: None,
        granularity: None,
        ipv6: None,
        quorum: None,
        hysteresis: None,
        inhibit: false,
        sorry: None,
        times: Times::default(),
        reals: Vec::new(),
        lines: block.lines(),
    };
    for statement in block.inside() {
        if !server.times.take(statement, report) {
            server.take(statement, report);
        }
    }
    server
}

impl<'s> Server<'s> {
    fn take(&mut self, statement: &'s Statement, report: &mut Report) {
        match statement.name() {
            "real_server" => self.reals.push(statement),
            "lvs_sched" | "lb_algo" => match only(statement, report).map(|name| (name, scheduler_named(name))) {
                Some((_, Some(scheduler))) => self.scheduler = scheduler,
                Some((name, None)) => {
                    report.left(&statement.at, format_args!("there is no scheduler {name}: {} is taken", Scheduler::default().as_str()));
                }
                None => {}
            },
            "lvs_method" | "lb_kind" => self.method = method(statement, report).unwrap_or(self.method),
            "sorry_server_lvs_method" => self.sorry_method = method(statement, report),
            "flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" => {
                self.flags.push(statement.name().to_owned());
            }
            "ops" => self.one_packet = true,
            "protocol" => match only(statement, report) {
                Some("TCP") => self.protocol = Protocol::Tcp,
                Some("UDP") => self.protocol = Protocol::Udp,
                Some("SCTP") => self.protocol = Protocol::Sctp,
                Some(_) => report.left(&statement.at, "expected TCP, UDP or SCTP"),
                None => {}
            },
            "persistence_timeout" if statement.rest().is_empty() => self.persistence = Some(USUAL_PERSISTENCE),
            "persistence_timeout" => self.persistence = number(statement, report).or(self.persistence),
            "persistence_granularity" => match only(statement, report).map(|text| (text, granularity(text, 1))) {
                Some((text, Some(_))) => self.granularity = Some(text.to_owned()),
                Some(_) => report.left(&statement.at, "expected an IPv4 netmask, or the length of an IPv6 prefix"),
                None => {}
            },
            "ip_family" => match only(statement, report) {
                Some("inet") => self.ipv6 = Some(false),
                Some("inet6") => self.ipv6 = Some(true),
                _ => report.left(&statement.at, "expected inet or inet6"),
            },
            "quorum" => self.quorum = number(statement, report),
            "hysteresis" => self.hysteresis = number(statement, report),
            "inhibit_on_failure" => self.inhibit = switch(statement, report),
            "sorry_server" => match address_port(statement.rest()) {
                Some((address, port)) => self.sorry = Some((address, port, &statement.at)),
                None => report.left(&statement.at, "expected an address, with a port or without"),
            },
            name => statement.leave_out(common_reason(name).unwrap_or("is nothing that is known at a virtual server"), report),
        }
    }

    /// The virtual service for one address or mark.
    fn at_target(&self, target: Target, at: &Place, report: &mut Report) -> Imported {
        let first = self.reals.first().and_then(|real| address_port(real.rest())).map(|(address, _)| address.is_ipv6());
        let key = match target {
            Target::Address(address, port) => ServiceKey { protocol: self.protocol, address, port },
            Target::Mark(mark, ipv6) => {
                needs_mark_rule(at, report);
                ServiceKey::marked(mark, ipv6.or(self.ipv6).or(first).unwrap_or(false))
            }
        };
        let mut spec = bare_service(key);
        spec.scheduler = self.scheduler;
        spec.flags = if self.flags.is_empty() { BTreeSet::new() } else { flags_named(self.scheduler, &self.flags) };
        spec.one_packet = self.one_packet;
        let timeout = self.persistence.unwrap_or(USUAL_PERSISTENCE);
        spec.persistence = match &self.granularity {
            Some(text) => granularity(text, timeout),
            None => self.persistence.filter(|timeout| *timeout > 0).map(|timeout| Persistence { timeout, ..Persistence::default() }),
        };
        let mut checks = Vec::new();
        let mut servers = Vec::new();
        let mut inhibit = Vec::new();
        for block in &self.reals {
            let Some((real, check)) = self.read_real(block, key, report) else { continue };
            let Real { address, port, weight, upper, lower, method: (method, tunnel), .. } = real;
            let mut server = RealServerSpec {
                address,
                port: Some(port).filter(|port| *port != 0 && *port != key.port),
                weight,
                upper_threshold: upper,
                lower_threshold: lower,
                method,
                tunnel,
                mac: None,
                health: None,
            };
            without_idle_port(key, &mut server, &block.at, report);
            spec.real_servers.push(server);
            servers.push(real.lines);
            checks.push(check);
            inhibit.push(real.inhibit);
        }
        let sorry = self.sorry.map(|(address, port, at)| {
            let method = self.sorry_method.unwrap_or(self.method).0;
            let mut sorry = SorryServer { address, port: port.filter(|port| *port != 0 && *port != key.port), method };
            sorry_without_idle_port(key, &mut sorry, at, report);
            sorry
        });
        let checked = checks.iter().any(Option::is_some);
        if !checked && let Some((_, _, at)) = self.sorry {
            report.left(at, "no real server of it has a check that is carried over, so none would ever be missed");
        }
        let all_inhibit = !inhibit.is_empty() && inhibit.iter().all(|inhibit| *inhibit);
        if checked && !all_inhibit && inhibit.contains(&true) {
            for (lines, _) in servers.iter().zip(&inhibit).filter(|(_, inhibit)| **inhibit) {
                report.left(
                    &lines[0],
                    "inhibit_on_failure: what follows a failure is the same for all real servers of a virtual service, on_failure",
                );
            }
        }
        let common = HealthSpec {
            on_failure: all_inhibit.then_some(OnFailure::Inhibit),
            quorum: self.quorum,
            quorum_hysteresis: self.hysteresis,
            sorry_server: sorry,
            ..HealthSpec::default()
        };
        gather_checks(&mut spec, &checks, common);
        Imported { spec, at: at.clone(), lines: Arc::clone(&self.lines), servers, sorry: self.sorry.map(|(_, _, at)| at.clone()) }
    }

    fn read_real(&self, block: &Statement, service: ServiceKey, report: &mut Report) -> Option<(Real, Option<HealthSpec>)> {
        let Some((address, port)) = address_port(block.rest()) else {
            block.leave_out("expected an address, with a port or without", report);
            return None;
        };
        let port = port.unwrap_or(0);
        let (method_of_service, inhibit) = (self.method, self.inhibit);
        let mut real = Real { address, port, weight: 1, upper: 0, lower: 0, method: method_of_service, inhibit, lines: block.lines() };
        let mut times = self.times.clone();
        let mut checkers = Vec::new();
        for statement in block.inside() {
            if times.take(statement, report) {
                continue;
            }
            match statement.name() {
                "weight" => real.weight = number(statement, report).unwrap_or(real.weight),
                "lvs_method" | "lb_kind" => real.method = method(statement, report).unwrap_or(real.method),
                "uthreshold" => real.upper = number(statement, report).unwrap_or(real.upper),
                "lthreshold" => real.lower = number(statement, report).unwrap_or(real.lower),
                "inhibit_on_failure" => real.inhibit = switch(statement, report),
                name if is_checker(name) => checkers.push(statement),
                name => statement.leave_out(common_reason(name).unwrap_or("is nothing that is known at a real server"), report),
            }
        }
        let masqueraded = real.method.0 == Method::Masquerading && port != 0;
        // Without a vport there is none that could be left out.
        let usual_port = if masqueraded && service.port != 0 { port } else { service.port };
        let checked = Checked { address, port, usual_port, times: &times };
        let mut check = None;
        for checker in checkers {
            if check.is_none() {
                check = read_checker(checker, &checked, report);
            } else {
                checker.leave_out("a real server has one check: the first that is carried over", report);
            }
        }
        Some((real, check))
    }
}
