//! The CPUs that this process may use.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::error::StartError;
use crate::config::{Config, Idle};

/// The CPUs that this process may use, in order; empty when the kernel does not say.
///
/// The kernel starts no process on cores that `isolcpus` keeps for whoever asks for them. This asks: the calling thread may run there from now on.
pub fn allowed() -> Vec<u32> {
    let this_thread = Pid::from_raw(0);
    let isolated = fs::read_to_string("/sys/devices/system/cpu/isolated").map(|list| from_list(&list)).unwrap_or_default();
    let Ok(mut set) = sched_getaffinity(this_thread) else { return Vec::new() };
    if !isolated.is_empty() {
        for core in isolated {
            // A core beyond what a set holds is none that can be used.
            let _ = set.set(usize::try_from(core).unwrap_or(usize::MAX));
        }
        // The kernel leaves out what the cgroup's cpuset forbids.
        let _ = sched_setaffinity(this_thread, &set);
        set = sched_getaffinity(this_thread).unwrap_or(set);
    }
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).filter_map(|cpu| u32::try_from(cpu).ok()).collect()
}

/// Lets the calling thread, and the threads that it starts from now on, run on `core` alone.
///
/// # Errors
/// The kernel's: `EINVAL` when the CPU is not there or not allowed.
pub fn pin(core: u32) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::try_from(core).unwrap_or(usize::MAX))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// What is wrong with the configured cores on this machine; `None` when nothing is.
pub fn fault(config: &Config, cpus: &[u32]) -> Option<StartError> {
    let worker = |core: &u32| ("workers.cores", *core);
    let wanted = config.workers.cores.iter().map(worker).chain([("control.core", config.control.core)]);
    let faults: Vec<String> =
        wanted.filter(|(_, core)| !cpus.contains(core)).map(|(key, core)| format!("{key}: core {core} is not allowed")).collect();
    if faults.is_empty() {
        return None;
    }
    Some(StartError::new(
        format!("{}; this process may use {}", faults.join(", "), list(cpus)),
        "choose among these, or widen what limits it: taskset, the cgroup's cpuset (systemd's AllowedCPUs=, docker's --cpuset-cpus), \
         or a core that is offline (/sys/devices/system/cpu/online)",
    ))
}

/// What a user may want to know about the configured cores, though it works: one sentence each.
pub fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let cores = &config.workers.cores;
    if cores.contains(&config.control.core) {
        let core = config.control.core;
        notes.push(format!("a worker shares core {core} with the control plane: fine for a trial, slower and less even under load"));
    }
    let shared = cores.iter().enumerate().any(|(at, core)| cores[..at].contains(core));
    if shared && config.workers.idle.contains(&Idle::Poll) {
        notes.push("workers that share a core and poll take it from each other in slices of milliseconds: packets will be lost".to_owned());
    }
    notes
}

/// Cores as the kernel lists them: `0-3,8`.
pub(super) fn from_list(list: &str) -> Vec<u32> {
    // The kernel's own lists are short; a number beyond any core ends a range.
    const LAST: u32 = 65_535;
    list.split(',')
        .filter_map(|part| {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(LAST))
        })
        .flatten()
        .collect()
}

/// CPUs as people write them: `0-3, 8`.
pub(super) fn list(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_listed_as_ranges() {
        assert_eq!(list(&[0, 1, 2, 3, 8, 10, 11]), "0-3, 8, 10-11");
        assert_eq!(list(&[5]), "5");
    }

    #[test]
    fn lists_of_cores_are_read() {
        for (text, wanted) in [("", vec![]), ("0", vec![0]), ("0-2,8\n", vec![0, 1, 2, 8]), ("3-1", vec![]), ("x,4", vec![4])] {
            assert_eq!(from_list(text), wanted, "{text}");
        }
        assert_eq!(from_list("0-4294967295").len(), 65_536, "bounded");
    }

    #[test]
    fn this_process_may_use_a_cpu_and_can_be_pinned_to_it() {
        let cpus = allowed();
        let thread = std::thread::spawn(move || {
            pin(cpus[0]).unwrap();
            allowed() == [cpus[0]]
        });
        assert!(thread.join().unwrap());
    }

    #[test]
    fn core_that_is_not_allowed_is_named_with_those_that_are() {
        let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n[workers]\ncores = [1, 7]\n[control]\ncore = 9\n";
        let config = crate::config::parse(text, std::path::Path::new("baton.toml"), &[0, 1]).unwrap();
        let fault = fault(&config, &[0, 1]).unwrap();
        assert_eq!(fault.what, "workers.cores: core 7 is not allowed, control.core: core 9 is not allowed; this process may use 0-1");
        assert!(notes(&config).is_empty());
    }

    #[test]
    fn sharing_of_cores_is_noted() {
        let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n[workers]\ncores = [0, 0]\nidle = \"poll\"\n";
        let config = crate::config::parse(text, std::path::Path::new("baton.toml"), &[0]).unwrap();
        let notes = notes(&config);
        assert!(notes.len() == 2 && notes[0].contains("shares core 0") && notes[1].contains("packets will be lost"), "{notes:?}");
    }
}
