//! The rules that a document must keep, whether it comes over REST, from the state file or from baton.toml.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::health_rules::{check_health, check_server_health};
use super::marks::{self, check_marks};
use super::routes::{hop_for, link_for, source_towards};
use super::{Error, Link, mac};
use crate::model::{
    Document, Fault, Method, NoRealServer, Persistence, Protocol, RealServerSpec, Scheduler, ServiceKey, ServiceSpec, ServiceTimeouts,
    Settings, Tunnel,
};

/// The heaviest weight that ipvsadm(8) takes.
pub const MAX_WEIGHT: u32 = 2_147_483_647;

/// The longest timeout that `ipvsadm --set` takes, in seconds: 31 days.
pub const MAX_TIMEOUT: u32 = 31 * 24 * 60 * 60;

/// Every rule that `document` breaks on a director with these links, with pointers such as `/services/0/real_servers/1/address`.
///
/// Cost: linear in the document.
pub fn validate(document: &Document, links: &[Link]) -> Vec<Fault> {
    check_document(document, links).faults
}

/// What was found wrong.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: Vec<Fault>,
}

impl Findings {
    pub(super) fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(Fault { pointer: pointer.into(), detail: detail.into() });
    }

    pub(super) fn into_result(self) -> Result<(), Error> {
        if self.faults.is_empty() { Ok(()) } else { Err(Error::Invalid(self.faults)) }
    }
}

/// A place in a document, written as a JSON pointer only when there is a fault to report.
#[derive(Clone, Copy, Default)]
pub(super) struct At {
    service: Option<usize>,
    server: Option<usize>,
    sorry: bool,
}

impl At {
    fn service(index: usize) -> Self {
        Self { service: Some(index), ..Self::default() }
    }

    fn server(self, index: usize) -> Self {
        Self { server: Some(index), ..self }
    }

    /// The sorry server of this service.
    pub(super) fn sorry_server(self) -> Self {
        Self { sorry: true, ..self }
    }

    pub(super) fn field(self, name: &str) -> String {
        format!("{self}/{name}")
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.service {
            write!(f, "/services/{index}")?;
        }
        if let Some(index) = self.server {
            write!(f, "/real_servers/{index}")?;
        }
        if self.sorry {
            f.write_str("/health/sorry_server")?;
        }
        Ok(())
    }
}

/// What a service is judged against.
pub(super) trait Surroundings {
    /// The ports.
    fn links(&self) -> &[Link];
    /// Whether an address is a VIP of any service.
    fn is_vip(&self, address: IpAddr) -> bool;
    /// Whether an address is a real server's of any other service, so that it cannot become a VIP.
    fn is_real_server(&self, address: IpAddr) -> bool;
}

/// A document is judged against itself.
struct Whole<'a> {
    links: &'a [Link],
    vips: HashSet<IpAddr>,
}

impl Surroundings for Whole<'_> {
    fn links(&self) -> &[Link] {
        self.links
    }

    fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains(&address)
    }

    /// A VIP that is also a real server's address is reported once, at the real server.
    fn is_real_server(&self, _: IpAddr) -> bool {
        false
    }
}

pub(super) fn check_document(document: &Document, links: &[Link]) -> Findings {
    let mut found = Findings::default();
    check_settings(&document.settings, "/settings", &mut found);
    let addresses = document.services.iter().filter(|service| service.protocol != Protocol::Mark).map(|service| service.address);
    let around = Whole { links, vips: addresses.chain(marks::vips(&document.marks)).collect() };
    check_marks(&document.marks, &around, &mut found);
    let mut first: HashMap<ServiceKey, usize> = HashMap::with_capacity(document.services.len());
    for (index, service) in document.services.iter().enumerate() {
        let at = At::service(index);
        if let Some(earlier) = first.insert(service.key(), index) {
            found.add(
                at.to_string(),
                format!("virtual service {} is already at /services/{earlier}: a service may stand only once", service.key()),
            );
        }
        check_service(service, at, &around, &mut found);
    }
    found
}

pub(super) fn check_settings(settings: &Settings, at: &str, found: &mut Findings) {
    let mut at_most = |name: &str, value: u8, max: u8| {
        if value > max {
            found.add(format!("{at}/{name}"), format!("{name} is {value}: allowed are 0 to {max}"));
        }
    };
    at_most("sloppy_tcp", settings.sloppy_tcp, 1);
    at_most("sloppy_sctp", settings.sloppy_sctp, 1);
    at_most("schedule_icmp", settings.schedule_icmp, 1);
    at_most("nat_icmp_send", settings.nat_icmp_send, 1);
    at_most("pmtu_disc", settings.pmtu_disc, 1);
    at_most("expire_nodest_conn", settings.expire_nodest_conn, 1);
    at_most("expire_quiescent_template", settings.expire_quiescent_template, 1);
    at_most("conn_reuse_mode", settings.conn_reuse_mode, 7);
    at_most("drop_entry", settings.drop_entry, 3);
    at_most("drop_packet", settings.drop_packet, 3);
    at_most("secure_tcp", settings.secure_tcp, 3);
    if settings.amemthresh > 100 {
        let detail =
            format!("amemthresh is {}: allowed are 0 to 100, percent of a worker's places; the kernel's counts pages", settings.amemthresh);
        found.add(format!("{at}/amemthresh"), detail);
    }
    if settings.am_droprate > MAX_WEIGHT {
        let detail = format!("am_droprate is {}: allowed are 0 to {MAX_WEIGHT}", settings.am_droprate);
        found.add(format!("{at}/am_droprate"), detail);
    }
    for (name, value) in [("lblc_expiration", settings.lblc_expiration), ("lblcr_expiration", settings.lblcr_expiration)] {
        if value > MAX_TIMEOUT {
            found.add(format!("{at}/{name}"), format!("{name} is {value} s: allowed are 0 to {MAX_TIMEOUT} (31 days)"));
        }
    }
    for (name, value) in
        [("timeout_tcp", settings.timeout_tcp), ("timeout_tcpfin", settings.timeout_tcpfin), ("timeout_udp", settings.timeout_udp)]
    {
        if !(1..=MAX_TIMEOUT).contains(&value) {
            found.add(format!("{at}/{name}"), format!("{name} is {value} s: allowed are 1 to {MAX_TIMEOUT} (31 days)"));
        }
    }
}

pub(super) fn check_service(service: &ServiceSpec, at: At, around: &dyn Surroundings, found: &mut Findings) {
    let at_service = at;
    let marked = service.protocol == Protocol::Mark;
    if service.port == 0 && service.persistence.is_none() && !marked {
        found.add(at.field("port"), "port is 0: allowed are 1 to 65535, and 0 (every port) with persistence");
    }
    if let Some(Persistence { timeout, prefix, netmask }) = service.persistence {
        if !(1..=MAX_TIMEOUT).contains(&timeout) {
            found.add(at.field("persistence/timeout"), format!("timeout is {timeout} s: allowed are 1 to {MAX_TIMEOUT} (31 days)"));
        }
        let allowed = if service.address.is_ipv4() { 0..=32 } else { 1..=128 };
        if let Some(prefix) = prefix.filter(|prefix| !allowed.contains(prefix)) {
            let (least, most) = (allowed.start(), allowed.end());
            let family = if service.address.is_ipv4() { "IPv4" } else { "IPv6" };
            let detail = format!("prefix is {prefix}: allowed are {least} to {most} for {family}");
            found.add(at.field("persistence/prefix"), detail);
        }
        if let Some(netmask) = netmask {
            let at = at.field("persistence/netmask");
            if prefix.is_some() {
                found.add(at, format!("netmask is {netmask} beside a prefix: allowed is one of the two"));
            } else if service.address.is_ipv6() {
                found.add(at, format!("netmask is {netmask}: allowed for IPv4 only; for IPv6 give a prefix"));
            }
        }
    }
    if !marked && let Some(why) = unfit_vip(service.address, around) {
        found.add(at.field("address"), format!("{} cannot be a VIP: {why}", service.address));
    }
    if service.one_packet && !matches!(service.protocol, Protocol::Udp | Protocol::Mark) {
        found.add(at.field("one_packet"), "one-packet scheduling is for UDP only: a connection of TCP or SCTP needs an entry");
    }
    if service.no_real_server == NoRealServer::Reset && !matches!(service.protocol, Protocol::Tcp | Protocol::Mark) {
        found.add(at.field("no_real_server"), "no_real_server is reset: only TCP has resets, allowed are icmp and drop");
    }
    check_timeouts(service, at, found);
    for flag in service.flags.iter().filter(|flag| !flag.fits(service.scheduler)) {
        let (name, scheduler) = (flag.as_str(), service.scheduler.as_str());
        let allowed = match service.scheduler {
            Scheduler::Sh => "sh-port and sh-fallback",
            Scheduler::Mh => "mh-port and mh-fallback",
            _ => "flag-1, flag-2 and flag-3, which mean nothing to it",
        };
        found.add(at.field("flags"), format!("{name} is no flag of the scheduler {scheduler}: allowed are {allowed}"));
    }
    let mut seen: HashSet<(IpAddr, u16)> = HashSet::with_capacity(service.real_servers.len());
    for (index, server) in service.real_servers.iter().enumerate() {
        let at = at.server(index);
        if !seen.insert((server.address, server.port.unwrap_or(service.port))) {
            found.add(at.to_string(), format!("real server {} stands twice in virtual service {}", server.address, service.key()));
        }
        check_server(service.key(), server, at, around, found);
        check_server_health(service.key(), service.health.as_ref(), server, at, around.links(), found);
    }
    check_health(service, at_service, around, found);
}

fn check_timeouts(service: &ServiceSpec, at: At, found: &mut Findings) {
    let Some(ServiceTimeouts { tcp, tcpfin, udp }) = service.timeouts else { return };
    for (name, of, value) in [("tcp", Protocol::Tcp, tcp), ("tcpfin", Protocol::Tcp, tcpfin), ("udp", Protocol::Udp, udp)] {
        let Some(seconds) = value else { continue };
        let pointer = at.field(&format!("timeouts/{name}"));
        if of != service.protocol && service.protocol != Protocol::Mark {
            found.add(
                pointer,
                format!("{name} is a timeout of {}, and the service's protocol is {}", of.as_str(), service.protocol.as_str()),
            );
        } else if !(1..=MAX_TIMEOUT).contains(&seconds) {
            found.add(pointer, format!("{name} is {seconds} s: allowed are 1 to {MAX_TIMEOUT} (31 days)"));
        }
    }
}

pub(super) fn check_server(service: ServiceKey, server: &RealServerSpec, at: At, around: &dyn Surroundings, found: &mut Findings) {
    if server.weight > MAX_WEIGHT {
        found.add(at.field("weight"), format!("weight is {}: allowed are 0 (quiescent) to {MAX_WEIGHT}", server.weight));
    }
    let (upper, lower) = (server.upper_threshold, server.lower_threshold);
    if upper > MAX_WEIGHT {
        found.add(at.field("upper_threshold"), format!("upper_threshold is {upper}: allowed are 0 (no limit) to {MAX_WEIGHT}"));
    }
    if lower > upper {
        found.add(at.field("lower_threshold"), format!("lower_threshold is {lower}: allowed are 0 to the upper one, which is {upper}"));
    }
    if server.port == Some(0) && service.port != 0 {
        found.add(at.field("port"), "port is 0: allowed are 1 to 65535");
    }
    if server.tunnel.is_some() && server.method != Method::Tunnel {
        found.add(at.field("tunnel"), "a tunnel is given, but the method is another: allowed with the method tunnel only");
    }
    if let Some(text) = &server.mac {
        match mac::parse(text) {
            None => found.add(at.field("mac"), format!("mac is '{text}': expected six pairs of hexadecimal digits like 02:00:00:00:00:15")),
            Some(given) => {
                if let Some(why) = mac::unfit(given, around.links().iter().map(|l| l.mac)) {
                    found.add(at.field("mac"), format!("{text} {why}: allowed is the MAC of the real server's own interface"));
                }
            }
        }
    }
    if let Some(why) = unfit_address(server.address) {
        found.add(at.field("address"), format!("{} cannot be a real server: it is {why}", server.address));
    } else if let Some(link) = own_address(around.links(), server.address) {
        found.add(
            at.field("address"),
            format!("{} cannot be a real server: it is the director's own address on port {}", server.address, link.name),
        );
    } else if (service.mark().is_none() && server.address == service.address) || around.is_vip(server.address) {
        found.add(
            at.field("address"),
            format!("{} cannot be a real server: it is a VIP, which the director itself answers for", server.address),
        );
    } else {
        match server.method {
            Method::DirectRouting => check_direct_routing(service, server, at, around.links(), found),
            Method::Tunnel => check_tunnel(service, server, at, around.links(), found),
            Method::Masquerading => check_masquerading(service, server, at, around.links(), found),
        }
    }
}

/// A method that leaves the packet as it is leaves its port.
fn check_port_is_kept(service: ServiceKey, server: &RealServerSpec, method: &str, at: At, found: &mut Findings) {
    if let Some(port) = server.port
        && port != service.port
        && (port != 0 || service.port == 0)
    {
        let detail = format!(
            "port is {port}, the virtual service's is {}: {method} leaves the port as it is, so leave it out or use masquerading, which can change it",
            service.port
        );
        found.add(at.field("port"), detail);
    }
}

/// A method that leaves the packet in its own family cannot mix them.
fn is_one_family(service: ServiceKey, server: &RealServerSpec, method: &str, at: At, found: &mut Findings) -> bool {
    let same = server.address.is_ipv4() == service.address.is_ipv4();
    if !same {
        let (one, other) = if server.address.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let what = service.mark().map_or_else(|| format!("the VIP {}", service.address), |_| format!("the virtual service {service}"));
        let detail =
            format!("{} is {one}, {what} is {other}: with {method} both must be of one family; tunnel can mix them", server.address);
        found.add(at.field("address"), detail);
    }
    same
}

fn check_masquerading(service: ServiceKey, server: &RealServerSpec, at: At, links: &[Link], found: &mut Findings) {
    if is_one_family(service, server, "masquerading", at, found) {
        check_can_be_routed_to(server, "masquerading", at, links, found);
    }
}

fn check_tunnel(service: ServiceKey, server: &RealServerSpec, at: At, links: &[Link], found: &mut Findings) {
    check_port_is_kept(service, server, "a tunnel", at, found);
    for (field, detail) in server.tunnel.iter().flat_map(Tunnel::faults) {
        found.add(at.field(&format!("tunnel/{field}")), detail);
    }
    check_can_be_routed_to(server, "a tunnel", at, links, found);
}

fn check_can_be_routed_to(server: &RealServerSpec, method: &str, at: At, links: &[Link], found: &mut Findings) {
    let link = |index: u16| links.get(usize::from(index));
    let way = hop_for(links, server.address).and_then(|(port, neighbour)| source_towards(link(port)?, neighbour));
    if way.is_none() {
        let family = if server.address.is_ipv4() { "IPv4" } else { "IPv6" };
        let detail = format!(
            "{} is on no network that a port is connected to ({}), and no port has an {family} gateway: {method} needs one of the two",
            server.address,
            networks(links)
        );
        found.add(at.field("address"), detail);
    } else if let Some((_, link)) = link_for(links, server.address)
        && let Some(why) = end_of_network(link, server.address)
    {
        found.add(at.field("address"), format!("{} cannot be a real server: it is {why} on port {}", server.address, link.name));
    }
}

fn check_direct_routing(service: ServiceKey, server: &RealServerSpec, at: At, links: &[Link], found: &mut Findings) {
    check_port_is_kept(service, server, "direct routing", at, found);
    if !is_one_family(service, server, "direct routing", at, found) {
        return;
    }
    let Some((_, link)) = link_for(links, server.address) else {
        let detail = format!(
            "{} is on no network that a port is connected to ({}): direct routing needs the real server on the same link; across routers use tunnel or masquerading",
            server.address,
            networks(links)
        );
        found.add(at.field("address"), detail);
        return;
    };
    if let Some(why) = end_of_network(link, server.address) {
        found.add(at.field("address"), format!("{} cannot be a real server: it is {why} on port {}", server.address, link.name));
    }
}

pub(super) fn unfit_vip(address: IpAddr, around: &dyn Surroundings) -> Option<String> {
    if let Some(why) = unfit_address(address) {
        return Some(format!("it is {why}"));
    }
    if let Some(link) = own_address(around.links(), address) {
        return Some(format!(
            "it is the director's own address on port {}, whose traffic belongs to the kernel; use another address of that network",
            link.name
        ));
    }
    if let Some((_, link)) = link_for(around.links(), address)
        && let Some(why) = end_of_network(link, address)
    {
        return Some(format!("it is {why} on port {}", link.name));
    }
    around.is_real_server(address).then(|| "it is the address of a real server".to_owned())
}

/// What an address is when no host can be reached by it from elsewhere.
fn unfit_address(address: IpAddr) -> Option<&'static str> {
    match address {
        a if a.is_unspecified() => Some("the unspecified address"),
        a if a.is_loopback() => Some("a loopback address"),
        a if a.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address; write it as IPv4"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        _ => None,
    }
}

fn own_address(links: &[Link], address: IpAddr) -> Option<&Link> {
    links.iter().find(|l| l.networks.iter().any(|n| n.addr() == address))
}

/// Whether `address` names a whole network of `link`: its first or last IPv4 address, below /31 (RFC 3021).
fn end_of_network(link: &Link, address: IpAddr) -> Option<&'static str> {
    link.networks.iter().find_map(|network| match network {
        IpNet::V4(v4) if v4.prefix_len() < 31 && IpAddr::V4(v4.network()) == address => Some("the network's address"),
        IpNet::V4(v4) if v4.prefix_len() < 31 && IpAddr::V4(v4.broadcast()) == address => Some("the network's broadcast address"),
        _ => None,
    })
}

fn networks(links: &[Link]) -> String {
    let all: Vec<String> = links.iter().flat_map(|l| l.networks.iter().map(|n| format!("{} on {}", n.trunc(), l.name))).collect();
    if all.is_empty() { "no port has an address".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests;
