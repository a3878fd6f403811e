//! ipvsadm's listings and saved rules, to the character: scripts read them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;

use super::names::Names;
use super::order;
use super::request::{Columns, Listing};
use crate::model::{
    Connection, Method, Persistence, Protocol, Rates, RealServer, Service, ServiceKey, Settings, Stats, Tunnel, TunnelType,
};

/// The first line of every listing of all services. The size is that of the kernel's table by default: ours is per
/// worker and configured, and scripts only skip the line.
pub const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n";

/// The two lines above the connection entries. `--persistent-conn` adds what persistence engines know, which is nothing here.
pub fn connections_title(columns: Columns) -> String {
    let more = if columns == Columns::PersistentConn { "        pe name          pe_data" } else { "" };
    format!("IPVS connection entries\npro expire state       source             virtual            destination{more}\n")
}

/// How one listing shows addresses and numbers.
pub struct Style<'a> {
    /// `None`: numbers only.
    pub names: Option<&'a Names>,
    /// Which columns.
    pub columns: Columns,
    /// Whole numbers instead of K, M, G and T.
    pub exact: bool,
    /// Whether services and real servers are sorted.
    pub sorted: bool,
}

impl<'a> Style<'a> {
    /// The style that a `-L` line asks for.
    pub fn of(listing: &Listing, names: &'a Names) -> Self {
        Self { names: (!listing.numeric).then_some(names), columns: listing.columns, exact: listing.exact, sorted: listing.sorted }
    }

    /// The two lines above the services.
    pub fn title(&self) -> String {
        let under = "  -> RemoteAddress:Port";
        let head = "Prot LocalAddress:Port";
        match self.columns {
            Columns::Plain => format!("{head} Scheduler Flags\n{under}           Forward Weight ActiveConn InActConn\n"),
            Columns::TunInfo => {
                format!("{head} Scheduler Flags\n{under}           Forward TunnelInfo    Weight ActiveConn InActConn\n")
            }
            Columns::Stats => {
                format!("{head:<33} {:>8} {:>8} {:>8} {:>8} {:>8}\n{under}\n", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
            }
            Columns::Rate => {
                format!("{head:<33} {:>8} {:>8} {:>8} {:>8} {:>8}\n{under}\n", "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS")
            }
            Columns::Thresholds => {
                format!("{head:<33} {:<10} {:<10} {:<10} {:<10}\n{under}\n", "Uthreshold", "Lthreshold", "ActiveConn", "InActConn")
            }
            Columns::PersistentConn => {
                format!("{head:<33} {:<9} {:<11} {:<10} {:<10}\n{under}\n", "Weight", "PersistConn", "ActiveConn", "InActConn")
            }
        }
    }

    /// A service and its real servers, a line each.
    pub fn service(&self, service: &Service) -> String {
        let mut text = self.service_line(service);
        for server in self.servers(service) {
            let _ = write!(text, "  -> {:<28}", clip(self.name(server.address, server.port, service.protocol), server.address, 28));
            self.server_columns(&mut text, server);
        }
        text
    }

    fn service_line(&self, service: &Service) -> String {
        let name = if let Some(mark) = service.mark {
            // ipvsadm shows marks from 2^31 on as negative numbers, which its -f does not take: so saved rules have them as they are.
            format!("FWM  {}{}", mark.cast_signed(), if service.address.is_ipv6() { " IPv6" } else { "" })
        } else {
            let shown = self.name(service.address, service.port, service.protocol);
            clip(format!("{:<4} {shown}", upper(service.protocol)), service.address, 33)
        };
        match self.columns {
            Columns::Stats => format!("{name:<33}{}\n", self.largest(&totals(&service.stats))),
            Columns::Rate => format!("{name:<33}{}\n", self.largest(&rates(&service.rates))),
            _ => {
                format!("{name} {}\n", scheduling(service))
            }
        }
    }

    fn server_columns(&self, text: &mut String, server: &RealServer) {
        let RealServer { weight, active_connections: active, inactive_connections: inactive, persistent_connections: persistent, .. } =
            server;
        let forward = match server.method {
            Method::DirectRouting => "Route",
            Method::Tunnel => "Tunnel",
            Method::Masquerading => "Masq",
        };
        let _ = match self.columns {
            Columns::Plain => writeln!(text, " {forward:<7} {weight:<6} {active:<10} {inactive:<10}"),
            Columns::TunInfo => {
                let tunnel = server.tunnel.map_or_else(|| "n/a".to_owned(), |tunnel| tunnel.to_string());
                writeln!(text, " {forward:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
            }
            Columns::Stats => writeln!(text, "{}", self.largest(&totals(&server.stats))),
            Columns::Rate => {
                let [cps, in_packets, out_packets, in_bytes, out_bytes] = rates(&server.rates);
                let bytes = self.largest(&[in_bytes, out_bytes]);
                writeln!(text, " {cps:>8} {in_packets:>8} {out_packets:>8}{bytes}")
            }
            Columns::Thresholds => {
                let (upper, lower) = (server.upper_threshold, server.lower_threshold);
                writeln!(text, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
            }
            Columns::PersistentConn => writeln!(text, " {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"),
        };
    }

    /// A service and its real servers as lines for `-R`.
    pub fn rules(&self, service: &Service) -> String {
        let named = |option: &str| format!("{option} {}", self.name(service.address, service.port, service.protocol));
        let name = match (service.protocol, service.mark.unwrap_or_default()) {
            (Protocol::Tcp, _) => named("-t"),
            (Protocol::Udp, _) => named("-u"),
            (Protocol::Sctp, _) => named("--sctp-service"),
            (Protocol::Mark, mark) if service.address.is_ipv6() => format!("-f {mark} -6"),
            (Protocol::Mark, mark) => format!("-f {mark}"),
        };
        let mut text = format!("-A {name} -s {}", service.scheduler.as_str());
        if let Some(persistence) = service.persistence {
            let _ = write!(text, " -p {}", persistence.timeout);
            if let Some(mask) = mask(service, persistence) {
                let _ = write!(text, " -M {mask}");
            }
        }
        if service.one_packet {
            text.push_str(" -o");
        }
        if let Some(flags) = scheduler_flags(service) {
            let _ = write!(text, " -b {flags}");
        }
        text.push('\n');
        for server in self.servers(service) {
            let forward = match server.method {
                Method::DirectRouting => "-g",
                Method::Tunnel => "-i",
                Method::Masquerading => "-m",
            };
            let tunnel = server.tunnel.map(tunnel_options).unwrap_or_default();
            let real = self.name(server.address, server.port, service.protocol);
            let _ = write!(text, "-a {name} -r {real} {forward} -w {}{tunnel}", server.weight);
            // ipvsadm's own -S loses them; its -R reads them.
            for (option, threshold) in [("-x", server.upper_threshold), ("-y", server.lower_threshold)] {
                if threshold > 0 {
                    let _ = write!(text, " {option} {threshold}");
                }
            }
            text.push('\n');
        }
        text
    }

    /// A connection entry.
    pub fn connection(&self, entry: &Connection) -> String {
        let show = |at: SocketAddr| self.name(at.ip(), at.port(), entry.protocol);
        let left = std::time::Duration::try_from_secs_f64(entry.expires_in).unwrap_or_default().as_secs();
        let expire = format!("{:02}:{:02}", left / 60, left % 60);
        format!(
            "{:<3} {expire:<6} {:<11} {:<18} {:<18} {}\n",
            upper(entry.protocol),
            entry.state,
            show(entry.client),
            show(entry.virtual_address),
            show(entry.server)
        )
    }

    /// The services in the order in which they are listed.
    pub fn order<'s>(&self, services: &'s [Service]) -> Vec<&'s Service> {
        if self.sorted { order::services(services) } else { services.iter().collect() }
    }

    fn servers<'s>(&self, service: &'s Service) -> Vec<&'s RealServer> {
        let servers = &service.real_servers;
        if self.sorted { order::real_servers(servers) } else { servers.iter().collect() }
    }

    fn name(&self, address: IpAddr, port: u16, protocol: Protocol) -> String {
        match self.names {
            Some(names) => names.address_port(address, port, protocol),
            None => SocketAddr::new(address, port).to_string(),
        }
    }

    fn largest(&self, numbers: &[u64]) -> String {
        numbers.iter().map(|&number| if self.exact { exact(number) } else { scaled(number) }).collect()
    }
}

/// `Timeout (tcp tcpfin udp): 900 120 300`.
pub fn timeouts(settings: &Settings) -> String {
    format!("Timeout (tcp tcpfin udp): {} {} {}\n", settings.timeout_tcp, settings.timeout_tcpfin, settings.timeout_udp)
}

/// How a service schedules, as a listing says it: `sh (sh-port) ops`.
pub fn scheduling(service: &Service) -> String {
    let mut text = service.scheduler.as_str().to_owned();
    if let Some(flags) = scheduler_flags(service) {
        let _ = write!(text, " ({flags})");
    }
    if let Some(persistence) = service.persistence {
        let _ = write!(text, " persistent {}", persistence.timeout);
        if let Some(mask) = mask(service, persistence) {
            let _ = write!(text, " mask {mask}");
        }
    }
    if service.one_packet {
        text.push_str(" ops");
    }
    text
}

/// A tunnel as options for `-R`.
fn tunnel_options(tunnel: Tunnel) -> String {
    let (kind, checksum) = (tunnel.kind.as_str(), tunnel.checksum.option());
    match tunnel.kind {
        TunnelType::Ipip => format!(" --tun-type {kind}"),
        TunnelType::Gue => format!(" --tun-type {kind} --tun-port {} {checksum}", tunnel.port.unwrap_or_default()),
        TunnelType::Gre => format!(" --tun-type {kind} {checksum}"),
    }
}

/// What makes clients one, as `-M` takes it: a netmask for IPv4, a prefix for IPv6; nothing for a whole address.
fn mask(service: &Service, persistence: Persistence) -> Option<String> {
    if let Some(netmask) = persistence.netmask {
        return Some(netmask.to_string()).filter(|_| netmask.to_bits() != u32::MAX);
    }
    let prefix = persistence.prefix?;
    match service.address {
        IpAddr::V4(address) => Ipv4Net::new(address, prefix).ok().filter(|_| prefix < 32).map(|net| net.netmask().to_string()),
        IpAddr::V6(_) => (prefix < 128).then(|| prefix.to_string()),
    }
}

/// The scheduler's flags, as `-b` takes them.
fn scheduler_flags(service: &Service) -> Option<String> {
    let names: Vec<&str> = service.flags.iter().map(|flag| flag.as_str()).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// The id that the API knows a service by, ready for a path.
pub fn path_of(key: ServiceKey) -> String {
    format!("services/{}", crate::cli::client::encode(&key.to_string()))
}

fn upper(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Mark => "IP",
    }
}

/// Cuts long names of IPv4 hosts at the column's width, as ipvsadm does; IPv6 is never cut.
fn clip(name: String, address: IpAddr, width: usize) -> String {
    if address.is_ipv6() { name } else { name.chars().take(width).collect() }
}

fn totals(stats: &Stats) -> [u64; 5] {
    [stats.connections, stats.in_packets, stats.out_packets, stats.in_bytes, stats.out_bytes]
}

fn rates(rates: &Rates) -> [u64; 5] {
    [rates.connections, rates.in_packets, rates.out_packets, rates.in_bytes, rates.out_bytes]
}

/// Nine columns wide: whole below 100 million, then thousands, millions, (American) billions and trillions.
fn scaled(number: u64) -> String {
    match number {
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

/// All digits after at least one blank, at least nine columns.
fn exact(number: u64) -> String {
    format!(" {number:>8}")
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
