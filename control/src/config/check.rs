//! `baton check`: a configuration's faults, or a summary of what it says.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{Config, load};
use crate::run::cpus;

/// Prints every fault of the file on stderr and ends with 1, or prints a summary on stdout and ends with 0. Never touches DPDK.
pub fn check(file: &Path) -> ExitCode {
    let cpus = cpus::allowed();
    match load(file, &cpus) {
        Ok(config) => {
            // A reader that went away (`| head`) has seen what it wanted.
            let _ = std::io::stdout().lock().write_all(summary(file, &config, &cpus).as_bytes());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            let count = faults.faults().len();
            let plural = if count == 1 { "" } else { "s" };
            let _ = writeln!(std::io::stderr().lock(), "{faults}\n\n{}: {count} fault{plural} [{}]", file.display(), faults.code());
            ExitCode::FAILURE
        }
    }
}

fn summary(file: &Path, config: &Config, cpus: &[u32]) -> String {
    let mut lines = vec![format!("{}: no faults", file.display())];
    for port in &config.ports {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(", ") };
        let devices: Vec<String> = port.devices().iter().map(ToString::to_string).collect();
        lines.push(format!("  port {}: {}, {addresses}", port.name, devices.join(" + ")));
    }
    for vlan in &config.vlans {
        let addresses: Vec<String> = vlan.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(", ") };
        let port = config.ports.get(vlan.port).map_or("?", |port| &port.name);
        lines.push(format!("  VLAN {}: {} on port {port}, {addresses}", vlan.name, vlan.tags));
    }
    let cores: Vec<String> = config.workers.cores.iter().map(ToString::to_string).collect();
    lines.push(format!("  workers on cores: {}; control on core {}", cores.join(", "), config.control.core));
    lines.push(format!("  API on {}", config.control));
    let real_servers: usize = config.services.iter().map(|service| service.real_servers.len()).sum();
    lines.push(format!("  services to begin with: {}, real servers: {real_servers}", config.services.len()));
    let here = cpus::fault(config, cpus).map(|fault| format!("on this machine {fault}"));
    for note in here.into_iter().chain(cpus::notes(config)) {
        lines.push(format!("note: {note}"));
    }
    lines.push(String::new());
    lines.join("\n")
}
