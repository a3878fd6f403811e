//! The daemon: what `baton run` does, from the configuration to the last line of the log.
//!
//! [`run`] reads the configuration, then `daemon` wires the parts: what can be checked beforehand (`preflight`, `locks`), DPDK
//! (`plan`), the ports (`devices`), the workers (`workers`), the desired state, the kernel beside us, the API; and takes them
//! apart again when a signal comes.

pub mod cpus;
mod daemon;
mod devices;
pub mod doctor;
mod error;
mod facts;
mod initial;
mod journal;
mod locks;
mod logging;
mod pci;
mod plan;
mod plumbing;
mod ports;
mod preflight;
pub mod proposal;
mod reload;
mod signals;
mod sizing;
#[cfg(test)]
mod tests;
mod watchdog;
mod workers;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

pub use error::StartError;

use crate::codes::Code;
use crate::config;

/// Runs the director with this configuration until a signal ends it.
///
/// Ends with 0 after SIGTERM or SIGINT, and with 1 when it cannot start or go on; the last line on stderr says why and what
/// mends it.
pub fn run(file: &Path) -> ExitCode {
    if let Err(why) = logging::start() {
        let _ = writeln!(std::io::stderr().lock(), "{why} [{}]", Code::CannotStart);
        return ExitCode::FAILURE;
    }
    let cpus = cpus::allowed();
    let config = match config::load(file, &cpus) {
        Ok(config) => config,
        Err(faults) => {
            // Who reads stderr may be gone; the exit code still says it.
            let _ = writeln!(std::io::stderr().lock(), "{faults}\n[{}]", faults.code());
            return ExitCode::FAILURE;
        }
    };
    tracing::info!("baton {} starts with {}", env!("CARGO_PKG_VERSION"), file.display());
    for note in cpus::notes(&config) {
        tracing::warn!("{note}");
    }
    match daemon::run(file, &config, &cpus) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!(code = why.code.as_str(), "{why}");
            ExitCode::FAILURE
        }
    }
}
