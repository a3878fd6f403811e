//! `baton.toml`: what the director is started with.
//!
//! [`load`] reads a file into a [`Config`] in which everything is valid, or reports every fault of the file at once. What can
//! change while the director runs (settings, services) is only the beginning here: once it was changed over the API, the state
//! file holds it.

mod bonds;
mod check;
mod entrance;
mod faults;
mod health;
mod marks;
mod ports;
mod reader;
mod restart;
mod sections;
mod services;
#[cfg(test)]
mod tests;
mod values;
mod vlans;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dataplane::settings::Ttl;
use dataplane::vlan::Tags;
pub use dpdk::eal::BondMode;
use ipnet::IpNet;
use toml::de::DeTable;

pub use check::check;
pub use faults::{ConfigFault, ConfigFaults};
pub use health::Checks;
pub use restart::needs_restart;
pub use values::{ByteSize, Count, Device};
pub use watch::Watch;

use crate::api::Entrance;
use crate::director::{self, Link};
use crate::model::{Document, MarkRule, ServiceSpec, Settings};
use faults::Collector;
use reader::Section;

/// Everything that the director is started with; what the file leaves out has its default.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The ports, in the order of the file: 1 to 32.
    pub ports: Vec<Port>,
    /// Their VLANs, in the order of the file; with the ports 64 at most.
    pub vlans: Vec<Vlan>,
    /// The workers.
    pub workers: Workers,
    /// The control plane.
    pub control: Control,
    /// What DPDK's environment layer is started with.
    pub eal: Eal,
    /// How packets are forwarded.
    pub forwarding: Forwarding,
    /// Sizes and rates.
    pub limits: Limits,
    /// What holds for all health checks.
    pub checks: Checks,
    /// How VIPs are watched.
    pub watch: Watch,
    /// Settings under IPVS's sysctl names.
    pub settings: Settings,
    /// The mark rules to begin with, when there is no state file.
    pub marks: Vec<MarkRule>,
    /// The services to begin with, when there is no state file.
    pub services: Vec<ServiceSpec>,
}

/// A port: a DPDK device with the addresses that the kernel's TAP of the same name carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name, and that of its TAP: 1 to 15 characters.
    pub name: String,
    /// The DPDK device; a bond's is made of its members.
    pub device: Device,
    /// What a bond is made of.
    pub bond: Option<Bond>,
    /// The DIPs with the prefixes of the connected networks.
    pub addresses: Vec<IpNet>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// MTU in bytes; the device's when `None`.
    pub mtu: Option<u16>,
    /// Neighbours whose MACs the kernel is not asked for.
    pub neighbours: Vec<StaticNeighbour>,
}

impl Port {
    /// The devices that carry its frames: the one, or a bond's members.
    pub fn devices(&self) -> &[Device] {
        self.bond.as_ref().map_or(std::slice::from_ref(&self.device), |bond| &bond.members)
    }
}

/// Several devices that are one port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bond {
    /// How they share its traffic.
    pub mode: BondMode,
    /// The devices: 2 to 8.
    pub members: Vec<Device>,
}

/// A VLAN of a port: to services and real servers a port of its own, with a TAP of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vlan {
    /// Its name, and that of its TAP: 1 to 15 characters.
    pub name: String,
    /// The index of its port.
    pub port: usize,
    /// The tags of its frames.
    pub tags: Tags,
    /// The DIPs with the prefixes of the connected networks.
    pub addresses: Vec<IpNet>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// MTU in bytes; the port's when `None`.
    pub mtu: Option<u16>,
    /// Neighbours whose MACs the kernel is not asked for.
    pub neighbours: Vec<StaticNeighbour>,
}

/// A neighbour with a MAC that is given, not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticNeighbour {
    /// Its address, on one of the port's connected networks.
    pub address: IpAddr,
    /// Its MAC: unicast, not zero.
    pub mac: [u8; 6],
}

/// The workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workers {
    /// The CPU of each worker, in the order of their numbers: 1 to 126; one CPU may stand twice, which only tests want.
    pub cores: Vec<u32>,
    /// What each of them does when no frame waits, in the same order.
    pub idle: Vec<Idle>,
}

/// What a worker does when no frame waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// It sleeps for microseconds, never so long that a ring could overflow: the default.
    #[default]
    Adaptive,
    /// It polls on and takes its CPU whole.
    Poll,
    /// It waits for its ports' receive interrupts.
    Interrupt,
}

/// The control plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// The CPU that control threads run on.
    pub core: u32,
    /// How the API is reached, and by whom.
    pub entrance: Entrance,
    /// Where services that were changed over the API are kept.
    pub state: PathBuf,
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entrance { socket, listen, tls, metrics, .. } = &self.entrance;
        write!(f, "unix:{}", socket.display())?;
        if let Some(address) = listen {
            write!(f, " and http{}://{address}", if tls.is_some() { "s" } else { "" })?;
        }
        metrics.iter().try_for_each(|address| write!(f, ", metrics on http://{address}"))
    }
}

/// What DPDK's environment layer (EAL) is started with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Eal {
    /// Run on normal pages instead of huge pages.
    pub no_huge: bool,
    /// Memory for DPDK; as much as the pools need when `None`.
    pub memory: Option<ByteSize>,
    /// Prefix of DPDK's shared files. When given, other DPDK programs (`dpdk-dumpcap`) can attach; otherwise there are no such files.
    pub file_prefix: Option<String>,
    /// Packet buffers in each pool; as many as queues, rings and caches can hold when `None`.
    pub mbufs: Option<u32>,
    /// Further arguments for EAL, passed as they are.
    pub args: Vec<String>,
}

/// How packets are forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forwarding {
    /// What direct routing does to the TTL.
    pub ttl: Ttl,
}

/// Sizes and rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connection entries that each worker holds at most.
    pub connections: u32,
    /// Share of them that may be half open, in percent.
    pub half_open_percent: u8,
    /// Virtual services.
    pub services: u32,
    /// Real servers of all services together.
    pub real_servers: u32,
    /// Frames a second that each worker hands to the kernel at most.
    pub exception_rate: u32,
    /// ICMP errors a second that each worker sends at most.
    pub icmp_error_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1 << 20,
            half_open_percent: 25,
            services: 16_384,
            real_servers: 131_072,
            exception_rate: 10_000,
            icmp_error_rate: 1_000,
        }
    }
}

impl Limits {
    /// Half-open entries that each worker holds at most; at least one.
    pub fn half_open(&self) -> u32 {
        let share = u64::from(self.connections) * u64::from(self.half_open_percent) / 100;
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }
}

impl Config {
    /// The ports and then their VLANs as the rules for services see them, with `mac` and MTU for those that are not known before they are opened.
    pub fn links(&self, mac: impl Fn(usize) -> [u8; 6], mtu: impl Fn(usize) -> u16) -> Vec<Link> {
        let link = |(at, port): (usize, &Port)| Link {
            name: port.name.clone(),
            networks: port.addresses.clone(),
            gateways: port.gateways.clone(),
            mac: mac(at),
            mtu: port.mtu.unwrap_or_else(|| mtu(at)),
        };
        let ports = self.ports.iter().enumerate().map(link);
        let vlan = |vlan: &Vlan| Link {
            name: vlan.name.clone(),
            networks: vlan.addresses.clone(),
            gateways: vlan.gateways.clone(),
            mac: mac(vlan.port),
            mtu: vlan.mtu.or_else(|| self.ports.get(vlan.port)?.mtu).unwrap_or_else(|| mtu(vlan.port)),
        };
        ports.chain(self.vlans.iter().map(vlan)).collect()
    }

    /// What of the configuration can change while the director runs, as it is to begin with.
    pub fn document(&self) -> Document {
        Document { revision: 0, settings: self.settings, marks: self.marks.clone(), services: self.services.clone() }
    }
}

/// Ethernet's MTU, for rules that are checked before a device was asked for its own.
pub(crate) const USUAL_MTU: u16 = 1500;

/// Reads a configuration file; `cpus` are the CPUs that this process may use, which the default cores are chosen from.
///
/// # Errors
/// Every fault of the file, or that it cannot be read.
pub fn load(file: &Path, cpus: &[u32]) -> Result<Config, ConfigFaults> {
    let text = std::fs::read_to_string(file).map_err(|why| ConfigFaults::unreadable(file, &why))?;
    parse(&text, file, cpus)
}

/// Reads a configuration from its text; `file` only names it in faults.
///
/// # Errors
/// Every fault of the text.
pub fn parse(text: &str, file: &Path, cpus: &[u32]) -> Result<Config, ConfigFaults> {
    let mut faults = Collector::new(text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        faults.add_syntax(error.span().unwrap_or(0..0), error.message());
    }
    let config = read(Section::root(document.get_ref()), cpus, &mut faults);
    // Of a text that is not TOML only parts were understood: rules about the whole would blame what is not the user's.
    if faults.is_toml() {
        for fault in director::validate(&config.document(), &config.links(|_| [0; 6], |_| USUAL_MTU)) {
            faults.add_at_pointer(&fault.pointer, &fault.detail);
        }
        if let Some(overlap) = health::overlap(&config) {
            faults.add_at_pointer("/health", &overlap);
        }
    }
    faults.finish(file).map_or(Ok(config), Err)
}

fn read(mut root: Section<'_>, cpus: &[u32], faults: &mut Collector<'_>) -> Config {
    let (ports, vlans) = ports::read(&mut root, faults);
    let control = sections::control(&mut root, cpus, faults);
    let workers = sections::workers(&mut root, cpus, control.core, faults);
    let config = Config {
        ports,
        vlans,
        workers,
        control,
        eal: sections::eal(&mut root, faults),
        forwarding: sections::forwarding(&mut root, faults),
        limits: sections::limits(&mut root, faults),
        watch: watch::read(&mut root, faults),
        checks: health::checks(&mut root, faults),
        settings: sections::settings(&mut root, faults),
        marks: marks::read(&mut root, faults),
        services: services::read(&mut root, faults),
    };
    root.finish(faults);
    config
}
