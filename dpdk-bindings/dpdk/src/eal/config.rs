//! How DPDK is started: arguments, checks before, explanations after.

use std::env;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sched::CpuSet;
use nix::unistd::Uid;

use crate::error::{DpdkError, ErrorKind};

/// How to start DPDK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EalConfig {
    /// Name of the program in DPDK's messages.
    pub program: String,
    /// CPU of DPDK's main thread; the calling thread itself keeps its affinity.
    pub main_core: u32,
    /// CPU of each worker, in order; CPUs may repeat.
    pub worker_cores: Vec<u32>,
    /// Ordinary memory in place of huge pages: for machines without them; no device can read it by DMA without IOMMU.
    pub no_huge: bool,
    /// Huge pages without files, and hence without secondary processes. Ignored with `no_huge`, which excludes it.
    pub in_memory: bool,
    /// Memory to reserve, MiB; without huge pages DPDK takes 64 unless told.
    pub memory_mb: Option<u32>,
    /// Name that tells DPDK processes of one machine apart; empty for DPDK's own.
    pub file_prefix: String,
    /// Software devices, such as `net_af_packet0,iface=d0`.
    pub vdevs: Vec<String>,
    /// PCI devices to probe; none at all when empty.
    pub pci_allow: Vec<String>,
    /// DPDK's log level, such as `lib.eal:debug` or `warning`.
    pub log_level: Option<String>,
    /// Arguments handed on as they are; `--telemetry` among them keeps the telemetry socket.
    pub extra: Vec<String>,
}

/// How a bond's members share its traffic (DPDK's guide to its link bonding driver).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondMode {
    /// One carries all; another one takes its place when its link goes (mode 1).
    ActiveBackup,
    /// All do, a flow by one of them, as agreed on with the switch by LACP (IEEE 802.3ad, mode 4).
    Lacp,
}

/// The software device `name`, a number behind `net_bonding`, made of `members`: names of ports of this process.
pub fn bond(name: &str, mode: BondMode, members: &[&str]) -> String {
    // DPDK 23.11 renamed the key.
    let key = if (dpdk_sys::RTE_VER_YEAR, dpdk_sys::RTE_VER_MONTH) < (23, 11) { "slave" } else { "member" };
    let mode = match mode {
        BondMode::ActiveBackup => "mode=1",
        BondMode::Lacp => "mode=4,xmit_policy=l34",
    };
    members.iter().fold(format!("{name},{mode}"), |mut device, member| {
        // Writing to a String cannot fail.
        let _ = write!(device, ",{key}={member}");
        device
    })
}

impl EalConfig {
    /// The argument vector for `rte_eal_init`, the program's name first.
    ///
    /// The calling thread is lcore 0 and worker `i` is lcore `i + 1`, each bound to its CPU by `--lcores`; so two workers may
    /// share a CPU.
    pub fn arguments(&self) -> Vec<String> {
        let mut lcores = format!("0@{}", self.main_core);
        for (worker, core) in self.worker_cores.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(lcores, ",{}@{core}", worker + 1);
        }
        let program = if self.program.is_empty() { "baton" } else { &self.program };
        let mut arguments: Vec<String> = [program, "--lcores", &lcores, "--main-lcore", "0"].map(str::to_owned).into();
        if self.no_huge {
            arguments.push("--no-huge".into());
        } else if self.in_memory {
            arguments.push("--in-memory".into());
        }
        if let Some(memory) = self.memory_mb {
            arguments.extend(["-m".into(), memory.to_string()]);
        }
        if !self.file_prefix.is_empty() {
            arguments.extend(["--file-prefix".into(), self.file_prefix.clone()]);
        }
        if self.pci_allow.is_empty() {
            arguments.push("--no-pci".into());
        }
        for device in &self.pci_allow {
            arguments.extend(["-a".into(), device.clone()]);
        }
        for device in &self.vdevs {
            arguments.extend(["--vdev".into(), device.clone()]);
        }
        if let Some(level) = &self.log_level {
            arguments.extend(["--log-level".into(), level.clone()]);
        }
        if !self.extra.iter().any(|argument| argument == "--telemetry") {
            arguments.push("--no-telemetry".into());
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// Refuses cores on which DPDK would abort the process, and more workers than it has lcores.
    pub(super) fn check(&self, allowed: &CpuSet) -> Result<(), DpdkError> {
        const CALL: &str = "rte_eal_init";
        if self.worker_cores.len() >= dpdk_sys::RTE_MAX_LCORE as usize {
            return Err(DpdkError::refused(
                CALL,
                ErrorKind::InvalidArgument,
                format!("{} workers; this DPDK has {} threads", self.worker_cores.len(), dpdk_sys::RTE_MAX_LCORE),
            ));
        }
        let is_allowed = |core: u32| usize::try_from(core).is_ok_and(|core| allowed.is_set(core).unwrap_or(false));
        for &core in std::iter::once(&self.main_core).chain(&self.worker_cores) {
            if !is_allowed(core) {
                let list: Vec<String> =
                    (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).map(|core| core.to_string()).collect();
                return Err(DpdkError::refused(
                    CALL,
                    ErrorKind::CoreNotAllowed,
                    format!("core {core}; this process may run on {}", list.join(",")),
                ));
            }
        }
        Ok(())
    }

    /// Says what was wrong when `rte_eal_init` failed, as far as that can be told from outside.
    pub(super) fn explain(&self, error: DpdkError) -> DpdkError {
        if let Some(owner) = self.owner_of_prefix() {
            let prefix = self.prefix();
            return DpdkError::refused(
                error.call,
                ErrorKind::OtherProcess,
                format!("process {owner} runs DPDK with file prefix {prefix}; stop it, or choose another prefix"),
            );
        }
        let errno = Errno::from_raw(error.errno);
        // With a device at fault, our own reservation is what took the free pages.
        if !self.no_huge && !matches!(errno, Errno::ENODEV | Errno::ENOTSUP) {
            let free = free_hugepages_mb();
            let wanted = u64::from(self.memory_mb.unwrap_or(0));
            if free == 0 || free < wanted {
                return error.with_kind(ErrorKind::NoHugepages).with_hint(format!(
                    "huge pages: {free} MiB free, {} wanted; mend with: sysctl -w vm.nr_hugepages={}",
                    if wanted == 0 { "some".to_owned() } else { format!("{wanted} MiB") },
                    wanted.max(1024).div_ceil(2)
                ));
            }
        }
        match errno {
            Errno::ENODEV if !self.vdevs.is_empty() || !self.pci_allow.is_empty() => {
                let devices = [self.vdevs.as_slice(), self.pci_allow.as_slice()].concat().join(" ");
                error.with_kind(ErrorKind::PortNotFound).with_hint(format!("a device could not be opened: {devices}"))
            }
            _ => error,
        }
    }

    fn prefix(&self) -> &str {
        if self.file_prefix.is_empty() { "rte" } else { &self.file_prefix }
    }

    /// The process that holds DPDK's lock on our prefix: a write lock on the `config` file in its runtime folder.
    fn owner_of_prefix(&self) -> Option<i32> {
        let base = if Uid::effective().is_root() {
            PathBuf::from("/var/run")
        } else {
            env::var_os("XDG_RUNTIME_DIR").map_or_else(|| "/tmp".into(), PathBuf::from)
        };
        let file = File::open(base.join("dpdk").join(self.prefix()).join("config")).ok()?;
        let mut lock = libc::flock {
            l_type: libc::F_RDLCK.try_into().ok()?,
            l_whence: libc::SEEK_SET.try_into().ok()?,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
        (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
    }
}

/// Memory in free huge pages of all sizes, MiB.
pub fn free_hugepages_mb() -> u64 {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return 0;
    };
    sizes
        .flatten()
        .filter_map(|size| {
            let name = size.file_name().into_string().ok()?;
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let free = fs::read_to_string(size.path().join("free_hugepages")).ok()?;
            Some(kib * free.trim().parse::<u64>().ok()? / 1024)
        })
        .sum()
}
