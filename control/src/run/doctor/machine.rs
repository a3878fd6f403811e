//! The machine as `/sys`, `/proc` and `/run` show it, below a root.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::cpus;

/// A machine's files.
pub(in crate::run) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(in crate::run) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A path without its leading slash, below the root.
    pub(in crate::run) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The NUMA nodes, in order.
    pub(in crate::run) fn nodes(&self) -> Vec<u32> {
        let names = self.names("sys/devices/system/node");
        let mut nodes: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
        nodes.sort_unstable();
        nodes
    }

    /// MiB of huge pages of a node, of all sizes: all, and those that are free.
    pub(in crate::run) fn hugepages_mb(&self, node: u32) -> (u64, u64) {
        let folder = format!("sys/devices/system/node/node{node}/hugepages");
        let sizes = self.names(&folder);
        let kilobytes = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok();
        let pages = |name: &str, which: &str| self.number::<u64>(&format!("{folder}/{name}/{which}")).unwrap_or_default();
        sizes.iter().filter_map(|name| Some((name, kilobytes(name)?))).fold((0, 0), |(whole, free), (name, size)| {
            (whole + pages(name, "nr_hugepages") * size / 1024, free + pages(name, "free_hugepages") * size / 1024)
        })
    }

    /// The node that a PCI device is on; `None` where the machine does not say.
    pub(in crate::run) fn node_of_device(&self, address: &str) -> Option<u32> {
        // -1 where there is but one node.
        self.number::<i64>(&format!("sys/bus/pci/devices/{address}/numa_node")).and_then(|node| node.try_into().ok())
    }

    pub(in crate::run) fn cores_of_node(&self, node: u32) -> Vec<u32> {
        self.text(&format!("sys/devices/system/node/node{node}/cpulist")).map(|list| cpus::from_list(&list)).unwrap_or_default()
    }

    pub(in crate::run) fn node_of_core(&self, core: u32) -> Option<u32> {
        self.nodes().into_iter().find(|node| self.cores_of_node(*node).contains(&core))
    }

    pub(in crate::run) fn iommu_groups(&self) -> usize {
        self.names("sys/kernel/iommu_groups").len()
    }

    pub(in crate::run) fn unsafe_noiommu(&self) -> bool {
        self.text("sys/module/vfio/parameters/enable_unsafe_noiommu_mode").is_some_and(|value| matches!(value.as_str(), "Y" | "1"))
    }

    pub(in crate::run) fn has_module(&self, name: &str) -> bool {
        // A driver that is built in has no module's folder everywhere, but one of a driver.
        self.path(&format!("sys/module/{name}")).exists() || self.path(&format!("sys/bus/pci/drivers/{}", name.replace('_', "-"))).exists()
    }

    /// The cores that the kernel leaves alone (`isolcpus`).
    pub(in crate::run) fn isolated(&self) -> Vec<u32> {
        self.text("sys/devices/system/cpu/isolated").map(|list| cpus::from_list(&list)).unwrap_or_default()
    }

    /// The hyper-threads of a core's, itself among them.
    pub(in crate::run) fn siblings(&self, core: u32) -> Vec<u32> {
        self.text(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"))
            .map(|list| cpus::from_list(&list))
            .unwrap_or_default()
    }

    pub(in crate::run) fn governor(&self, core: u32) -> Option<String> {
        self.text(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"))
    }

    /// The limit of locked memory, as proc(5) has it: bytes, or `unlimited`.
    pub(in crate::run) fn memlock(&self) -> Option<String> {
        let limits = self.text("proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    /// A line of /proc/meminfo, in MiB: `MemAvailable`, `MemTotal`.
    pub(in crate::run) fn memory_mb(&self, name: &str) -> Option<u64> {
        let text = self.text("proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
    }

    /// Whether a processor of AMD's runs it.
    pub(in crate::run) fn is_amd(&self) -> bool {
        self.text("proc/cpuinfo").is_some_and(|text| text.contains("AuthenticAMD"))
    }

    pub(in crate::run) fn mtu(&self, interface: &str) -> Option<u32> {
        self.number(&format!("sys/class/net/{interface}/mtu"))
    }

    pub(in crate::run) fn clocksource(&self) -> Option<String> {
        self.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    }

    /// Whether systemd-timesyncd, chrony or ntpd says that the time of day is right.
    pub(in crate::run) fn synchronized(&self) -> bool {
        ["run/systemd/timesync/synchronized", "run/chrony/chronyd.pid", "run/ntpd.pid"].iter().any(|file| self.path(file).exists())
    }
}
