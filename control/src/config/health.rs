//! `[health]`, and `health` of services and real servers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::faults::Collector;
use super::reader::{Item, Section};
use super::{Config, services::Place};
use crate::health::ask::program_user;
use crate::kernel::probes::Networks;
use crate::model::{CheckType, HealthSpec, OnFailure, Panic, Profile, SorryServer, Span, StatusSet, Via};

const TYPES: &[(&str, CheckType)] = &[
    ("tcp", CheckType::Tcp),
    ("http", CheckType::Http),
    ("https", CheckType::Https),
    ("arp", CheckType::Arp),
    ("none", CheckType::None),
    ("ping", CheckType::Ping),
    ("udp", CheckType::Udp),
    ("dns", CheckType::Dns),
    ("grpc", CheckType::Grpc),
    ("exec", CheckType::Exec),
];
const ON_FAILURE: &[(&str, OnFailure)] =
    &[("remove", OnFailure::Remove), ("quiesce", OnFailure::Quiesce), ("inhibit", OnFailure::Inhibit), ("keep", OnFailure::Keep)];

/// What holds for all checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checks {
    /// The networks of probe addresses.
    pub networks: Networks,
    /// The user that programs of checks run as.
    pub exec_user: String,
}

/// `[health]`.
pub(super) fn checks(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Checks {
    let mut checks = Checks { networks: Networks::default(), exec_user: "nobody".to_owned() };
    let Some(mut section) = root.take_section("health", faults) else { return checks };
    if let Some(item) = section.take("exec_user")
        && let Some(name) = item.text(faults, "the name of a user")
    {
        name.clone_into(&mut checks.exec_user);
        if let Err(why) = program_user(name) {
            item.refuse(faults, format_args!("it {why}"));
        }
    }
    let networks = &mut checks.networks;
    if let Some(item) = section.take("probe_network") {
        const EXPECTED: &str = "an IPv4 network from /4 to /16 that nothing else uses, such as \"240.0.0.0/8\"";
        match item.parsed::<Ipv4Net>(faults, EXPECTED) {
            Some(network) if (4..=16).contains(&network.prefix_len()) => networks.v4 = network.trunc(),
            Some(_) => item.refuse(faults, format_args!("expected {EXPECTED}")),
            None => {}
        }
    }
    if let Some(item) = section.take("probe_network6") {
        const EXPECTED: &str = "an IPv6 network from /16 to /64 that nothing else uses, such as \"fd62:6174:6f6e::/48\"";
        match item.parsed::<Ipv6Net>(faults, EXPECTED) {
            Some(network) if (16..=64).contains(&network.prefix_len()) => networks.v6 = network.trunc(),
            Some(_) => item.refuse(faults, format_args!("expected {EXPECTED}")),
            None => {}
        }
    }
    faults.place("/health".to_owned(), section.path().to_owned(), section.span());
    section.finish(faults);
    checks
}

/// A port's network that probe addresses are of, too.
pub(super) fn overlap(config: &Config) -> Option<String> {
    let probes = [IpNet::V4(config.checks.networks.v4), IpNet::V6(config.checks.networks.v6)];
    let of_ports = config.ports.iter().flat_map(|port| port.addresses.iter().map(move |network| (&port.name, network)));
    let of_vlans = config.vlans.iter().flat_map(|vlan| vlan.addresses.iter().map(move |network| (&vlan.name, network)));
    let networks = of_ports.chain(of_vlans);
    networks.flat_map(|(name, network)| probes.iter().map(move |probe| (name, network, probe))).find_map(|(name, network, probe)| {
        let overlaps = network.contains(probe) || probe.contains(network);
        let key = if probe.addr().is_ipv4() { "probe_network" } else { "probe_network6" };
        overlaps.then(|| format!("{network} of {name} overlaps health.{key}, {probe}: give another one"))
    })
}

/// A service's or a real server's section.
pub(super) fn read(mut section: Section<'_>, place: &Place, faults: &mut Collector<'_>) -> HealthSpec {
    let mut fields = Fields { section: &mut section, place, faults };
    let spec = HealthSpec {
        kind: fields.choice("type", TYPES),
        profile: fields.choice("profile", &[("default", Profile::Default), ("fast", Profile::Fast)]),
        via: fields.choice("via", &[("path", Via::Path), ("direct", Via::Direct)]),
        port: fields.number("port", 1, u16::MAX),
        interval: fields.parsed("interval", Span::EXPECTED),
        interval_down: fields.parsed("interval_down", Span::EXPECTED),
        timeout: fields.parsed("timeout", Span::EXPECTED),
        jitter: fields.number("jitter", 0, 50),
        rise: fields.number("rise", 1, 100),
        fall: fields.number("fall", 1, 100),
        path: fields.text("path", "a path such as \"/healthz\""),
        host: fields.text("host", "a host name"),
        method: fields.text("method", "an HTTP method such as \"GET\""),
        headers: BTreeMap::new(),
        status: fields.parsed("status", StatusSet::EXPECTED),
        body: fields.text("body", "a regular expression"),
        send: fields.text("send", "the text of a datagram"),
        send_hex: fields.text("send_hex", "a datagram in hexadecimal digits"),
        answer: fields.take("answer").and_then(|item| item.boolean(fields.faults)),
        name: fields.text("name", "a name of the DNS"),
        record: fields.text("record", "a type of record such as \"A\""),
        rcode: fields.text("rcode", "a response code such as \"NOERROR\""),
        expect: fields.text("expect", "the data of a record, such as an address"),
        grpc_service: fields.text("grpc_service", "the name of a gRPC service"),
        tls: fields.take("tls").and_then(|item| item.boolean(fields.faults)),
        command: fields.texts("command", "a word of a command"),
        slow_start: fields.parsed("slow_start", Span::EXPECTED),
        slow_start_connections: fields.number("slow_start_connections", 10, u32::MAX),
        hints: fields.take("hints").and_then(|item| item.boolean(fields.faults)),
        sni: fields.text("sni", "a name of a certificate"),
        ca: fields.text("ca", "the full path of a PEM file"),
        verify: fields.take("verify").and_then(|item| item.boolean(fields.faults)),
        on_failure: fields.choice("on_failure", ON_FAILURE),
        quorum: fields.number("quorum", 1, u32::MAX),
        quorum_hysteresis: fields.number("quorum_hysteresis", 0, u32::MAX),
        panic: fields.choice("panic", &[("keep", Panic::Keep)]),
        sorry_server: None,
    };
    let headers = read_headers(&mut section, place, faults);
    let sorry_server = section.take_section("sorry_server", faults).and_then(|sorry| read_sorry(sorry, place, faults));
    faults.place(format!("{}/health", place.pointer), section.path().to_owned(), section.span());
    section.finish(faults);
    HealthSpec { headers, sorry_server, ..spec }
}

fn read_headers(section: &mut Section<'_>, place: &Place, faults: &mut Collector<'_>) -> BTreeMap<String, String> {
    let Some(item) = section.take("headers") else { return BTreeMap::new() };
    let item = place.note("health/headers", item, faults);
    let entries = item.entries(faults);
    entries.into_iter().filter_map(|(name, item)| Some((name, item.text(faults, "a header's value")?.to_owned()))).collect()
}

fn read_sorry(mut section: Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Option<SorryServer> {
    let note = |name: &'static str, item: Option<Item<'_>>, faults: &mut Collector<'_>| {
        if let Some(item) = item {
            place.note(&format!("health/sorry_server/{name}"), item, faults);
        }
    };
    let address = section.need("address", "the RIP", faults);
    note("address", address.clone(), faults);
    let port = section.take("port");
    note("port", port.clone(), faults);
    let method = section.take("method");
    note("method", method.clone(), faults);
    let sorry = SorryServer {
        address: address.and_then(|item| item.parsed(faults, "an IPv4 or IPv6 address, such as \"10.10.24.99\""))?,
        port: port.and_then(|item| item.number(faults, 1..=u16::MAX)),
        method: method.and_then(|item| item.choice(faults, super::services::METHODS)).unwrap_or_default(),
    };
    section.finish(faults);
    Some(sorry)
}

/// Takes fields and remembers where each was given.
struct Fields<'s, 'd, 'p, 'f, 't> {
    section: &'s mut Section<'d>,
    place: &'p Place,
    faults: &'f mut Collector<'t>,
}

impl<'d> Fields<'_, 'd, '_, '_, '_> {
    fn take(&mut self, name: &'static str) -> Option<Item<'d>> {
        let item = self.section.take(name)?;
        Some(self.place.note(&format!("health/{name}"), item, self.faults))
    }

    fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.take(name)?.choice(self.faults, choices)
    }

    fn number<T: TryFrom<i128> + PartialOrd + Display + Copy>(&mut self, name: &'static str, least: T, most: T) -> Option<T> {
        self.take(name)?.number(self.faults, least..=most)
    }

    fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Option<T> {
        self.take(name)?.parsed(self.faults, expected)
    }

    fn texts(&mut self, name: &'static str, expected: &str) -> Option<Vec<String>> {
        let item = self.take(name)?;
        let words = item.list(self.faults);
        Some(words.iter().filter_map(|word| Some(word.text(self.faults, expected)?.to_owned())).collect())
    }

    fn text(&mut self, name: &'static str, expected: &str) -> Option<String> {
        self.take(name)?.text(self.faults, expected).map(str::to_owned)
    }
}
