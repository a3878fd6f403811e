//! `[[service]]` and `[[service.real_server]]`: the services to begin with.
//!
//! Only the shape is read here. What makes a service sound is [`crate::director::validate`]'s to say, the same for this file,
//! for the API and for the state file; its pointers are turned into places in the text.

use std::net::IpAddr;

use super::faults::Collector;
use super::health;
use super::reader::{Item, Section};
use crate::director::MAX_TIMEOUT;
use crate::model::{
    Family, Method, NoRealServer, Persistence, Protocol, RealServerSpec, Scheduler, SchedulerFlag, ServiceKey, ServiceSpec,
    ServiceTimeouts, Tunnel, TunnelChecksum, TunnelType,
};

const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
const SCHEDULERS: &[(&str, Scheduler)] = &[
    ("rr", Scheduler::Rr),
    ("wrr", Scheduler::Wrr),
    ("lc", Scheduler::Lc),
    ("wlc", Scheduler::Wlc),
    ("sed", Scheduler::Sed),
    ("nq", Scheduler::Nq),
    ("sh", Scheduler::Sh),
    ("dh", Scheduler::Dh),
    ("mh", Scheduler::Mh),
    ("lblc", Scheduler::Lblc),
    ("lblcr", Scheduler::Lblcr),
    ("fo", Scheduler::Fo),
    ("ovf", Scheduler::Ovf),
    ("twos", Scheduler::Twos),
];
const FLAGS: &[(&str, SchedulerFlag)] = &[
    ("sh-port", SchedulerFlag::ShPort),
    ("sh-fallback", SchedulerFlag::ShFallback),
    ("mh-port", SchedulerFlag::MhPort),
    ("mh-fallback", SchedulerFlag::MhFallback),
    ("flag-1", SchedulerFlag::Flag1),
    ("flag-2", SchedulerFlag::Flag2),
    ("flag-3", SchedulerFlag::Flag3),
];
const NO_REAL_SERVER: &[(&str, NoRealServer)] =
    &[("icmp", NoRealServer::Icmp), ("drop", NoRealServer::Drop), ("reset", NoRealServer::Reset)];
pub(super) const METHODS: &[(&str, Method)] =
    &[("direct-routing", Method::DirectRouting), ("tunnel", Method::Tunnel), ("masquerading", Method::Masquerading)];

const TUNNEL_TYPES: &[(&str, TunnelType)] = &[("ipip", TunnelType::Ipip), ("gue", TunnelType::Gue), ("gre", TunnelType::Gre)];
const TUNNEL_CHECKSUMS: &[(&str, TunnelChecksum)] =
    &[("none", TunnelChecksum::None), ("whole", TunnelChecksum::Whole), ("remote", TunnelChecksum::Remote)];

pub(super) fn read(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Vec<ServiceSpec> {
    let mut services = Vec::new();
    for mut section in root.take_sections("service", faults) {
        let place = Place { pointer: format!("/services/{}", services.len()) };
        let service = read_service(&mut section, &place, faults);
        section.finish(faults);
        services.extend(service);
    }
    services
}

/// Where the value being read will be in the document.
pub(super) struct Place {
    pub(super) pointer: String,
}

impl Place {
    /// Remembers where the value of the document's field `field` was given.
    pub(super) fn note<'d>(&self, field: &str, item: Item<'d>, faults: &mut Collector<'_>) -> Item<'d> {
        faults.place(format!("{}/{field}", self.pointer), item.path.clone(), item.span.clone());
        item
    }
}

fn read_service(section: &mut Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Option<ServiceSpec> {
    let key = match section.take("mark") {
        Some(mark) => read_mark(&mark, section, place, faults),
        None => read_key(section, place, faults),
    };
    let scheduler = section.take("scheduler").and_then(|item| place.note("scheduler", item, faults).choice(faults, SCHEDULERS));
    let flags = section.take("flags").map(|item| place.note("flags", item, faults).list(faults)).unwrap_or_default();
    let flags = flags.into_iter().filter_map(|flag| flag.choice(faults, FLAGS)).collect();
    let persistence = section.take_section("persistence", faults).map(|section| read_persistence(section, place, faults));
    let one_packet = section.take("one_packet").and_then(|item| place.note("one_packet", item, faults).boolean(faults));
    let health = section.take_section("health", faults).map(|section| health::read(section, place, faults));
    let no_real_server =
        section.take("no_real_server").and_then(|item| place.note("no_real_server", item, faults).choice(faults, NO_REAL_SERVER));
    let timeouts = section.take_section("timeouts", faults).map(|section| read_timeouts(section, place, faults));
    let mut real_servers = Vec::new();
    for mut entry in section.take_sections("real_server", faults) {
        let place = Place { pointer: format!("{}/real_servers/{}", place.pointer, real_servers.len()) };
        faults.place(place.pointer.clone(), entry.path().to_owned(), entry.span());
        let real_server = read_real_server(&mut entry, &place, faults);
        entry.finish(faults);
        real_servers.extend(real_server);
    }
    faults.place(place.pointer.clone(), section.path().to_owned(), section.span());
    let ServiceKey { protocol, address, port } = key?;
    Some(ServiceSpec {
        protocol,
        address,
        port,
        scheduler: scheduler.unwrap_or_default(),
        flags,
        persistence,
        one_packet: one_packet.unwrap_or_default(),
        health,
        no_real_server: no_real_server.unwrap_or_default(),
        timeouts,
        real_servers,
    })
}

fn read_key(section: &mut Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Option<ServiceKey> {
    let protocol = section
        .need("protocol", "\"tcp\" or \"udp\"; or a mark in the place of protocol, address and port", faults)
        .and_then(|item| place.note("protocol", item, faults).choice(faults, PROTOCOLS));
    let address = section.need("address", "the VIP", faults).and_then(|item| place.note("address", item, faults).parsed(faults, ADDRESS));
    let port = section
        .need("port", "the vport, 1 to 65535", faults)
        .and_then(|item| place.note("port", item, faults).number(faults, 0..=u16::MAX));
    if let Some(family) = section.take("family") {
        family.refuse(faults, "family is for services by mark: the family of any other is its address's");
    }
    Some(ServiceKey { protocol: protocol?, address: address?, port: port? })
}

fn read_mark(mark: &Item<'_>, section: &mut Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Option<ServiceKey> {
    for key in ["protocol", "address", "port"] {
        if let Some(item) = section.take(key) {
            item.refuse(faults, format_args!("a service by mark has no {key} of its own: that is of the rules that give the mark"));
        }
    }
    let mark = place.note("mark", mark.clone(), faults).number(faults, 1..=u32::MAX);
    let family = section.take("family").map(|item| item.choice(faults, &[("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)]));
    Some(ServiceKey::marked(mark?, family.unwrap_or(Some(Family::Ipv4))? == Family::Ipv6))
}

fn read_persistence(mut section: Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Persistence {
    let default = Persistence::default();
    let timeout = section.take("timeout").and_then(|item| place.note("persistence/timeout", item, faults).number(faults, 1..=MAX_TIMEOUT));
    let prefix = section.take("prefix").and_then(|item| place.note("persistence/prefix", item, faults).number(faults, 0..=128));
    let netmask = section.take("netmask").and_then(|item| place.note("persistence/netmask", item, faults).parsed(faults, NETMASK));
    section.finish(faults);
    Persistence { timeout: timeout.unwrap_or(default.timeout), prefix, netmask }
}

fn read_timeouts(mut section: Section<'_>, place: &Place, faults: &mut Collector<'_>) -> ServiceTimeouts {
    let mut seconds = |name: &'static str| {
        section.take(name).and_then(|item| place.note(&format!("timeouts/{name}"), item, faults).number(faults, 1..=MAX_TIMEOUT))
    };
    let timeouts = ServiceTimeouts { tcp: seconds("tcp"), tcpfin: seconds("tcpfin"), udp: seconds("udp") };
    section.finish(faults);
    timeouts
}

const NETMASK: &str = "an IPv4 netmask, such as \"255.0.255.0\"";
const ADDRESS: &str = "an IPv4 or IPv6 address, such as \"10.10.24.88\"";
/// The largest weight or threshold: IPVS keeps weights in a signed 32-bit number.
const LARGEST_WEIGHT: u32 = 2_147_483_647;

fn read_real_server(section: &mut Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Option<RealServerSpec> {
    let address: Option<IpAddr> =
        section.need("address", "the RIP", faults).and_then(|item| place.note("address", item, faults).parsed(faults, ADDRESS));
    let port = section.take("port").and_then(|item| place.note("port", item, faults).number(faults, 1..=u16::MAX));
    let weight = section.take("weight").and_then(|item| place.note("weight", item, faults).number(faults, 0..=LARGEST_WEIGHT));
    let mut threshold = |name| section.take(name).and_then(|item| place.note(name, item, faults).number(faults, 0..=LARGEST_WEIGHT));
    let (upper, lower) = (threshold("upper_threshold"), threshold("lower_threshold"));
    let method = section.take("method").and_then(|item| place.note("method", item, faults).choice(faults, METHODS));
    let tunnel = section.take_section("tunnel", faults).map(|section| read_tunnel(section, place, faults));
    let mac = section.take("mac").and_then(|item| place.note("mac", item, faults).text(faults, "a MAC such as \"02:00:00:00:00:15\""));
    let health = section.take_section("health", faults).map(|section| health::read(section, place, faults));
    Some(RealServerSpec {
        address: address?,
        port,
        weight: weight.unwrap_or(1),
        upper_threshold: upper.unwrap_or_default(),
        lower_threshold: lower.unwrap_or_default(),
        method: method.unwrap_or_default(),
        tunnel: tunnel.flatten(),
        mac: mac.map(str::to_owned),
        health,
    })
}

/// `tunnel = { type = "gue", port = 6080, checksum = "whole" }`; which of them go together is for validation to say.
fn read_tunnel(mut section: Section<'_>, place: &Place, faults: &mut Collector<'_>) -> Option<Tunnel> {
    faults.place(format!("{}/tunnel", place.pointer), section.path().to_owned(), section.span());
    let kind = section
        .need("type", "\"ipip\", \"gue\" or \"gre\"", faults)
        .and_then(|item| place.note("tunnel/type", item, faults).choice(faults, TUNNEL_TYPES));
    let port = section.take("port").and_then(|item| place.note("tunnel/port", item, faults).number(faults, 1..=u16::MAX));
    let checksum = section.take("checksum").and_then(|item| place.note("tunnel/checksum", item, faults).choice(faults, TUNNEL_CHECKSUMS));
    section.finish(faults);
    Some(Tunnel { kind: kind?, port, checksum: checksum.unwrap_or_default() })
}
