//! `baton plan`: what a machine needs for a director of a certain size, as comments of a baton.toml that is ready for it.
//!
//! `/sys` and `/proc` are read below a root that tests can choose.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::doctor::machine::Machine;
use super::sizing::{self, Part, Room};
use super::{StartError, cpus, pci, plan};
use crate::config::{self, Config, Count, Device};

/// Huge pages that are planned for, in MiB and as the kernel's command line names them.
const PAGE: u64 = 2;
/// Tables of each worker that are mapped by themselves: each may leave most of a page unused.
const MAPPINGS: u64 = 5;

/// What a director is planned for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its ports' devices.
    pub devices: Vec<Device>,
    /// How many workers.
    pub workers: usize,
    /// How many connections at once, over all workers.
    pub connections: Count,
    /// Addresses of the first port.
    pub addresses: Vec<IpNet>,
    /// Gateways on its networks.
    pub gateways: Vec<IpAddr>,
}

/// A baton.toml for `wish` on the machine whose files are below `root`, headed by what it takes; `cpus` are the CPUs of a machine that does
/// not say.
///
/// # Errors
/// A device that is not there, too few cores, too little memory (with the arithmetic), or addresses that break a rule of baton.toml.
pub fn propose(wish: &Wish, root: &Path, cpus: &[u32]) -> Result<String, StartError> {
    let machine = Machine::new(root);
    let bus = machine.path("sys/bus/pci");
    for (at, device) in wish.devices.iter().enumerate() {
        if let Device::Pci(address) = device {
            pci::exists(&port_name(at), address, &bus)?;
        }
    }
    let nodes: Vec<u32> = wish.devices.iter().map(|device| node_of(&machine, device).unwrap_or(0)).collect();
    let cores = Cores::choose(wish.workers, &machine, &nodes, cpus)?;
    let text = configuration(wish, &cores);
    let config = config::parse(&text, Path::new("baton.toml"), cpus)
        .map_err(|faults| StartError::new(format!("the planned configuration would have faults: {faults}"), "give other arguments"))?;
    enough_memory(&config, &machine)?;
    let plan = Plan { machine, config, nodes, cores };
    Ok(format!("{}\n{text}", plan.comments().map_err(|_| StartError::new("the plan cannot be written", "report this"))?))
}

fn port_name(at: usize) -> String {
    match at {
        0 => "lan".to_owned(),
        1 => "wan".to_owned(),
        _ => format!("port{at}"),
    }
}

fn node_of(machine: &Machine, device: &Device) -> Option<u32> {
    match device {
        Device::Pci(address) => machine.node_of_device(address),
        Device::Virtual(_) => None,
    }
}

/// Cores for the control plane and the workers.
#[derive(Debug)]
struct Cores {
    control: u32,
    workers: Vec<u32>,
}

impl Cores {
    /// The machine's first core for the control plane; for the workers others on the NICs' nodes, no two of them hyper-threads of one core
    /// as long as there are enough.
    fn choose(workers: usize, machine: &Machine, nodes: &[u32], cpus: &[u32]) -> Result<Self, StartError> {
        let mut all: Vec<u32> = machine.nodes().into_iter().flat_map(|node| machine.cores_of_node(node)).collect();
        let mut near: Vec<u32> =
            all.iter().copied().filter(|core| machine.node_of_core(*core).is_some_and(|node| nodes.contains(&node))).collect();
        if all.is_empty() {
            (all, near) = (cpus.to_vec(), cpus.to_vec());
        }
        let control = all.iter().copied().min().unwrap_or(0);
        near.retain(|core| *core != control);
        if near.len() < workers {
            let where_ = if nodes.iter().any(|node| *node != nodes[0]) {
                "the NICs' NUMA nodes".to_owned()
            } else {
                format!("NUMA node {}", nodes[0])
            };
            let have = if near.is_empty() { "none".to_owned() } else { cpus::list(&near) };
            let mend = match near.len() {
                0 => "take a machine with more cores".to_owned(),
                fewer => format!("give --workers {fewer}"),
            };
            let what =
                format!("{workers} workers need a core each on {where_}, beside core {control} of the control plane's: there are {have}");
            return Err(StartError::new(what, mend));
        }
        let mut chosen = Vec::with_capacity(workers);
        let mut twins = machine.siblings(control);
        for core in &near {
            if chosen.len() < workers && !twins.contains(core) {
                chosen.push(*core);
                twins.extend(machine.siblings(*core));
            }
        }
        let rest: Vec<u32> = near.into_iter().filter(|core| !chosen.contains(core)).collect();
        chosen.extend(rest.into_iter().take(workers - chosen.len()));
        chosen.sort_unstable();
        Ok(Self { control, workers: chosen })
    }
}

/// The part of the answer that is the configuration.
fn configuration(wish: &Wish, cores: &Cores) -> String {
    let mut lines = Vec::new();
    for (at, device) in wish.devices.iter().enumerate() {
        lines.extend(["[[port]]".to_owned(), format!("name = \"{}\"", port_name(at)), format!("device = \"{device}\"")]);
        let first = |list: Vec<String>| if at == 0 { list } else { Vec::new() };
        let addresses = first(wish.addresses.iter().map(ToString::to_string).collect());
        lines.push(list("addresses", &addresses, "10.10.24.10/24\"]    # to be given: the DIP; real servers must be on its network"));
        let gateways = first(wish.gateways.iter().map(ToString::to_string).collect());
        lines.push(list("gateways", &gateways, "10.10.24.1\"]"));
        lines.push(String::new());
    }
    let each = wish.connections.0.div_ceil(u32::try_from(wish.workers).unwrap_or(u32::MAX).max(1));
    let each = Count(each.checked_next_multiple_of(1000).unwrap_or(each).max(1024));
    let Cores { control, workers } = cores;
    lines.extend(["[workers]".to_owned(), format!("cores = {workers:?}"), String::new()]);
    lines.extend(["[control]".to_owned(), format!("core = {control}"), String::new()]);
    lines.extend(["[limits]".to_owned(), format!("connections = \"{each}\"    # a worker")]);
    if wish.devices.iter().all(|device| matches!(device, Device::Virtual(_))) {
        lines.extend([String::new(), "[eal]".to_owned(), "no_huge = true".to_owned()]);
    }
    lines.join("\n") + "\n"
}

/// A key with a list of texts; a comment with an example when there are none.
fn list(key: &str, texts: &[String], example: &str) -> String {
    if texts.is_empty() { format!("# {key} = [\"{example}") } else { format!("{key} = {texts:?}") }
}

/// Refuses a configuration that this machine could not hold if it did nothing else.
fn enough_memory(config: &Config, machine: &Machine) -> Result<(), StartError> {
    let whole = machine.memory_mb("MemTotal");
    let dpdk = sizing::sum(&sizing::of_dpdk(config));
    let other = whole.map(|whole| if config.eal.no_huge { whole } else { whole.saturating_sub(dpdk) });
    sizing::fits(config, Room { huge: if config.eal.no_huge { 0 } else { dpdk }, other })
}

struct Plan {
    machine: Machine,
    config: Config,
    /// Of each port.
    nodes: Vec<u32>,
    cores: Cores,
}

impl Plan {
    /// What stands above the configuration.
    fn comments(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::from("# Memory\n");
        let mut parts: Vec<Part> = sizing::of_dpdk(&self.config).into();
        parts.extend(sizing::of_tables(&self.config));
        for part in &parts {
            writeln!(text, "#   {:>6} MiB {} ({})", part.mebibytes(), part.what, part.how)?;
        }
        let whole = self.machine.memory_mb("MemTotal").map_or_else(String::new, |whole| format!("; this machine has {whole} MiB"));
        writeln!(text, "#   {:>6} MiB in all{whole}", sizing::sum(&parts))?;
        for part in sizing::of_growth(&self.config) {
            writeln!(text, "#   {:>6} MiB {} ({})", part.mebibytes(), part.what, part.how)?;
        }
        let pages = self.pages();
        self.huge_pages(&pages, &mut text)?;
        self.queues(&mut text)?;
        let Cores { control, workers } = &self.cores;
        writeln!(text, "# Cores\n#   {control} for the control plane, {} for workers", cpus::list(workers))?;
        writeln!(text, "# Kernel command line\n#   {}", self.command_line(&pages))?;
        Ok(text)
    }

    /// Huge pages by NUMA node.
    fn pages(&self) -> BTreeMap<u32, u64> {
        let mut mebibytes: BTreeMap<u32, u64> = BTreeMap::new();
        if self.config.eal.no_huge {
            return mebibytes;
        }
        // Ports of one node share a pool.
        for node in &self.nodes {
            mebibytes.entry(*node).or_insert_with(|| u64::from(plan::memory(&self.config)));
        }
        let tables = sizing::of_tables(&self.config);
        let connections = tables.first().map_or(0, Part::mebibytes);
        for core in &self.cores.workers {
            let node = self.machine.node_of_core(*core).unwrap_or(0);
            *mebibytes.entry(node).or_default() += connections.div_ceil(self.cores.workers.len() as u64) + MAPPINGS * PAGE;
        }
        for needed in mebibytes.values_mut() {
            *needed = (needed.div_ceil(PAGE) + 64).next_multiple_of(64);
        }
        mebibytes
    }

    fn huge_pages(&self, pages: &BTreeMap<u32, u64>, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# Huge pages of {PAGE} MiB")?;
        if pages.is_empty() {
            return writeln!(text, "#   none: virtual devices do without (eal.no_huge)");
        }
        for (node, needed) in pages {
            let (whole, free) = self.machine.hugepages_mb(*node);
            writeln!(text, "#   NUMA node {node}: {needed} ({} MiB); {whole} MiB are there, {free} MiB of them free", needed * PAGE)?;
            writeln!(text, "#     echo {needed} > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages")?;
        }
        Ok(())
    }

    fn queues(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# Queues")?;
        let workers = self.cores.workers.len();
        for (port, node) in self.config.ports.iter().zip(&self.nodes) {
            let mut about = String::new();
            let mut bind = None;
            if let Device::Pci(address) = &port.device {
                let bus = self.machine.path("sys/bus/pci");
                let driver = pci::driver(&bus.join("devices").join(address)).unwrap_or_else(|| "none".to_owned());
                about = format!(", NUMA node {node}, driver {driver}");
                bind = pci::check(&port.name, address, &bus).err().map(|fault| fault.mend);
            }
            writeln!(
                text,
                "#   {} ({}{about}): {workers} to receive and {workers} to send, one of each a worker, of {} frames",
                port.name,
                port.device,
                plan::DESCRIPTORS
            )?;
            if let Some(bind) = bind {
                writeln!(text, "#     {bind}")?;
            }
        }
        Ok(())
    }

    /// What goes into `GRUB_CMDLINE_LINUX` of /etc/default/grub.
    fn command_line(&self, pages: &BTreeMap<u32, u64>) -> String {
        let mut words = Vec::new();
        if !pages.is_empty() {
            // Without nodes the kernel spreads them over all.
            let several = self.machine.nodes().len() > 1;
            let of_node = |(node, count): (&u32, &u64)| if several { format!("{node}:{count}") } else { count.to_string() };
            let list: Vec<String> = pages.iter().map(of_node).collect();
            words.push(format!("default_hugepagesz=2M hugepagesz=2M hugepages={}", list.join(",")));
        }
        if self.config.ports.iter().any(|port| matches!(port.device, Device::Pci(_))) {
            words.push(if self.machine.is_amd() { "iommu=pt" } else { "intel_iommu=on iommu=pt" }.to_owned());
        }
        let list = cpus::list(&self.cores.workers).replace(' ', "");
        words.push(format!("isolcpus={list} nohz_full={list} rcu_nocbs={list}"));
        words.join(" ")
    }
}

#[cfg(test)]
mod tests;
