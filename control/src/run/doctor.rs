//! What `baton doctor` finds on the machine that the director runs on, or is to run on.
//!
//! `/sys` and `/proc` are read below a root that tests can choose. What would keep the director from starting comes from `preflight`, so that
//! both say the same.

pub(super) mod machine;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{cpus, pci, plan, preflight};
use crate::config::{Config, Device};
use crate::director::Version;
use crate::model::{Port, Spread};
use machine::Machine;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and could be better or is not known.
    Warn,
    /// It does not work.
    Fail,
}

/// A line of the doctor's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What it is about: `hugepages`, `port lan`, `tcp:10.10.24.88:80 10.10.24.21:80`.
    pub about: String,
    /// What was found.
    pub text: String,
    /// The command that mends it, or what to do where no command can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, about: about.into(), text: text.into(), mend: None }
    }

    /// It could be better.
    pub fn warn(about: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Warn, about: about.into(), text: text.into(), mend: Some(mend.into()) }
    }

    /// It does not work.
    pub fn fail(about: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Fail, about: about.into(), text: text.into(), mend: Some(mend.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "OK  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        write!(f, "{level}  {}: {}", self.about, self.text)?;
        match &self.mend {
            Some(mend) => write!(f, "\n      mend: {mend}"),
            None => Ok(()),
        }
    }
}

/// Looks at the machine for `config`, below `root` (`/`). `ports` are those of the running director, if one runs.
pub fn examine(config: &Config, cpus: &[u32], root: &Path, ports: Option<&[Port]>) -> Vec<Finding> {
    let machine = Machine::new(root);
    let mut all = Vec::new();
    if ports.is_none() {
        // What the running director holds would only be in its own way.
        for (about, found) in preflight::all(config, cpus) {
            all.extend(found.err().map(|fault| Finding::fail(about, fault.what, fault.mend)));
        }
    }
    hugepages(config, &machine, ports.is_some(), &mut all);
    iommu(config, &machine, &mut all);
    for (port, device) in config.ports.iter().flat_map(|port| port.devices().iter().map(move |device| (port, device))) {
        nic(config, (port, device), &machine, &mut all);
    }
    all.extend(ports.into_iter().flatten().map(|port| queues(config, port)));
    cores(config, &machine, &mut all);
    governor(config, &machine, &mut all);
    all.push(memlock(config, &machine, ports.is_some()));
    mtu(config, &machine, &mut all);
    all.push(state(&config.control.state));
    all.push(clock(&machine));
    all
}

fn pci_addresses(config: &Config) -> impl Iterator<Item = &str> {
    config.ports.iter().flat_map(crate::config::Port::devices).filter_map(|device| match device {
        Device::Pci(address) => Some(address.as_str()),
        Device::Virtual(_) => None,
    })
}

fn hugepages(config: &Config, machine: &Machine, running: bool, all: &mut Vec<Finding>) {
    const ABOUT: &str = "hugepages";
    if config.eal.no_huge {
        all.push(Finding::ok(ABOUT, "not used (eal.no_huge)"));
        return;
    }
    let needed = u64::from(config.eal.memory.map_or_else(|| plan::memory(config), crate::config::ByteSize::mebibytes));
    let nodes = machine.nodes();
    let wanted: Vec<u32> = pci_addresses(config).filter_map(|address| machine.node_of_device(address)).collect();
    for node in &nodes {
        let (whole, free) = machine.hugepages_mb(*node);
        let about = format!("{ABOUT} of NUMA node {node}");
        let text = format!("{whole} MiB, {free} MiB of them free");
        if wanted.contains(node) && whole < needed {
            let pages = (needed.div_ceil(2) + 64).next_multiple_of(64);
            let file = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages");
            all.push(Finding::warn(
                about,
                format!("{text}; a NIC is on this node, and {needed} MiB are needed"),
                format!("echo {pages} > {file}"),
            ));
        } else {
            all.push(Finding::ok(about, text));
        }
    }
    let whole: u64 = nodes.iter().map(|node| machine.hugepages_mb(*node).0).sum();
    // Before the start, preflight looks at what is free.
    if running && whole < needed {
        let pages = (needed.div_ceil(2) + 64).next_multiple_of(64);
        all.push(Finding::fail(
            ABOUT,
            format!("{whole} MiB in all, and {needed} MiB are needed"),
            format!("sysctl -w vm.nr_hugepages={pages}"),
        ));
    }
}

fn iommu(config: &Config, machine: &Machine, all: &mut Vec<Finding>) {
    if pci_addresses(config).next().is_none() {
        all.push(Finding::ok("IOMMU and vfio", "not needed: no port is a PCI device"));
        return;
    }
    let groups = machine.iommu_groups();
    let without = machine.unsafe_noiommu();
    all.push(if groups > 0 {
        Finding::ok("IOMMU", format!("on, {groups} groups"))
    } else if without {
        Finding::warn(
            "IOMMU",
            "none: vfio works without one (enable_unsafe_noiommu_mode), and the NIC may write anywhere",
            "add intel_iommu=on iommu=pt (AMD: iommu=pt) to the kernel's command line, and switch it on in the firmware",
        )
    } else {
        Finding::fail(
            "IOMMU",
            "none, so vfio-pci takes no device",
            "add intel_iommu=on iommu=pt to the kernel's command line; in a virtual machine: modprobe vfio enable_unsafe_noiommu_mode=1",
        )
    });
    all.push(if machine.has_module("vfio_pci") {
        Finding::ok("vfio", "vfio-pci is loaded")
    } else {
        Finding::fail("vfio", "vfio-pci is not loaded", "modprobe vfio-pci")
    });
}

fn nic(config: &Config, (port, device): (&crate::config::Port, &Device), machine: &Machine, all: &mut Vec<Finding>) {
    let about = format!("port {}", port.name);
    let Device::Pci(address) = device else {
        all.push(Finding::ok(about, format!("virtual device {device}")));
        return;
    };
    let bus = machine.path("sys/bus/pci");
    if let Err(fault) = pci::check(&port.name, address, &bus) {
        all.push(Finding::fail(about, fault.what, fault.mend));
        return;
    }
    let driver = pci::driver(&bus.join("devices").join(address)).unwrap_or_default();
    let Some(node) = machine.node_of_device(address) else {
        all.push(Finding::ok(about, format!("{address}, driver {driver}")));
        return;
    };
    let far: Vec<u32> =
        config.workers.cores.iter().copied().filter(|core| machine.node_of_core(*core).is_some_and(|other| other != node)).collect();
    let text = format!("{address}, driver {driver}, NUMA node {node}");
    all.push(if far.is_empty() {
        Finding::ok(about, text)
    } else {
        let near = machine.cores_of_node(node);
        Finding::warn(
            about,
            format!("{text}; workers on cores {} are on another node", cpus::list(&far)),
            format!("choose workers.cores among {} in the configuration", cpus::list(&near)),
        )
    });
}

fn queues(config: &Config, port: &Port) -> Finding {
    let about = format!("queues of port {}", port.name);
    let workers = config.workers.cores.len();
    let text = format!("{} for {workers} workers, RSS {}", port.queues, if port.rss { "on" } else { "off" });
    if port.spread == Spread::Software {
        return Finding::ok(about, format!("{text}: workers share the frames out by software; a device with RSS is faster"));
    }
    Finding::ok(about, text)
}

fn cores(config: &Config, machine: &Machine, all: &mut Vec<Finding>) {
    const ABOUT: &str = "core isolation";
    for note in cpus::notes(config) {
        all.push(Finding::warn("cores", note, "give workers.cores and control.core cores of their own"));
    }
    let workers = &config.workers.cores;
    for (at, core) in workers.iter().enumerate() {
        let twins: Vec<u32> =
            machine.siblings(*core).into_iter().filter(|other| other != core && workers[at + 1..].contains(other)).collect();
        if !twins.is_empty() {
            let text = format!("workers on {core} and {} are hyper-threads of one core", cpus::list(&twins));
            all.push(Finding::warn("cores", text, "choose workers.cores of different cores (lscpu -e)"));
        }
    }
    let isolated = machine.isolated();
    let shared: Vec<u32> = workers.iter().copied().filter(|core| !isolated.contains(core)).collect();
    all.push(if shared.is_empty() {
        Finding::ok(ABOUT, format!("the kernel leaves cores {} to the workers", cpus::list(workers)))
    } else {
        let list = cpus::list(&shared).replace(' ', "");
        Finding::warn(
            ABOUT,
            format!("the kernel runs other programs on the workers' cores {list}"),
            format!("add isolcpus={list} nohz_full={list} rcu_nocbs={list} to the kernel's command line"),
        )
    });
}

fn governor(config: &Config, machine: &Machine, all: &mut Vec<Finding>) {
    const ABOUT: &str = "governor";
    let slow: Vec<(u32, String)> = config
        .workers
        .cores
        .iter()
        .filter_map(|core| Some((*core, machine.governor(*core)?)))
        .filter(|(_, governor)| governor != "performance")
        .collect();
    let Some((_, name)) = slow.first() else {
        all.push(Finding::ok(ABOUT, "the workers' cores do not change their speed, or run at full"));
        return;
    };
    let list = cpus::list(&slow.iter().map(|(core, _)| *core).collect::<Vec<_>>()).replace(' ', "");
    all.push(Finding::warn(ABOUT, format!("{name} on cores {list}"), format!("cpupower -c {list} frequency-set -g performance")));
}

fn memlock(config: &Config, machine: &Machine, running: bool) -> Finding {
    const ABOUT: &str = "memlock";
    if pci_addresses(config).next().is_none() {
        return Finding::ok(ABOUT, "not needed: no port is a PCI device");
    }
    if running {
        // The limit here is that of this shell; DPDK has locked its memory, or the director would not run.
        return Finding::ok(ABOUT, "enough for the director that runs");
    }
    match machine.memlock() {
        Some(limit) if limit == "unlimited" => Finding::ok(ABOUT, "unlimited"),
        Some(limit) => Finding::warn(
            ABOUT,
            format!("{limit} bytes here: vfio locks all of DPDK's memory"),
            "ulimit -l unlimited; baton.service has LimitMEMLOCK=infinity",
        ),
        None => Finding::warn(ABOUT, "not known", "ulimit -l"),
    }
}

fn mtu(config: &Config, machine: &Machine, all: &mut Vec<Finding>) {
    for port in &config.ports {
        let about = format!("MTU of port {}", port.name);
        let device = port.device.kernel_interface().and_then(|interface| Some((interface, machine.mtu(interface)?)));
        all.push(match (port.mtu, device) {
            (Some(wanted), Some((interface, has))) if u32::from(wanted) > has => Finding::fail(
                about,
                format!("{wanted}, and its interface {interface} has {has}"),
                format!("ip link set {interface} mtu {wanted}"),
            ),
            (Some(wanted), _) => Finding::ok(about, wanted.to_string()),
            (None, Some((interface, has))) => Finding::ok(about, format!("{has}, that of {interface}")),
            (None, None) => Finding::ok(about, "the device's own"),
        });
    }
    let given: Vec<u16> = config.ports.iter().filter_map(|port| port.mtu).collect();
    if given.iter().any(|mtu| Some(mtu) != given.first()) {
        let text = "ports differ: what comes in by the larger one may not fit the smaller one, and is answered with too big";
        all.push(Finding::warn("MTU", text, "give all ports one mtu, unless this is meant"));
    }
}

fn state(path: &Path) -> Finding {
    const ABOUT: &str = "state file";
    let shown = path.display();
    match std::fs::read(path).map(|bytes| Version::parse(&bytes)) {
        Ok(Ok(Version { document, .. })) => {
            Finding::ok(ABOUT, format!("{shown}: revision {}, {} services", document.revision, document.services.len()))
        }
        Ok(Err(error)) => {
            let mend = format!("cp \"$(ls -v {shown}.history/*.json | tail -n 1)\" {shown}");
            Finding::fail(ABOUT, format!("{shown} is not whole: {error}"), mend)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder: PathBuf = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/")).into();
            match nix::unistd::access(&folder, nix::unistd::AccessFlags::W_OK) {
                Ok(()) => Finding::ok(ABOUT, format!("{shown} is not there yet, and can be made")),
                Err(error) => Finding::fail(
                    ABOUT,
                    format!("{shown} cannot be made in {}: {error}", folder.display()),
                    "start as root, or give another control.state",
                ),
            }
        }
        Err(error) => Finding::fail(ABOUT, format!("{shown} cannot be read: {error}"), "start as root, or give another control.state"),
    }
}

fn clock(machine: &Machine) -> Finding {
    const ABOUT: &str = "clock";
    let source = machine.clocksource();
    if source.as_deref().is_some_and(|source| source != "tsc") {
        let text = format!("the kernel counts time by {}: the TSC, which workers read, may not be steady", source.unwrap_or_default());
        return Finding::warn(ABOUT, text, "add tsc=reliable to the kernel's command line if the processor's TSC is invariant");
    }
    if machine.synchronized() {
        Finding::ok(ABOUT, "TSC, and the time of day is synchronized")
    } else {
        Finding::warn(
            ABOUT,
            "TSC; nothing that is seen here synchronizes the time of day, which stands in events",
            "timedatectl set-ntp true",
        )
    }
}

#[cfg(test)]
mod tests;
