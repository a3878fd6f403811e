//! `baton plan`: from a NIC and a number of connections to a machine that is set up for them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use super::console::Console;
use crate::codes::Code;
use crate::config::{Count, Device};
use crate::run::cpus;
use crate::run::proposal::{Wish, propose};

/// `baton plan`.
#[derive(Args, Debug)]
pub struct Line {
    /// The NIC by its PCI address, or a DPDK virtual device; can be given more than once
    #[arg(long = "port", value_name = "DEVICE", required = true, value_parser = device)]
    ports: Vec<Device>,
    /// How many workers, each with a core of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=126))]
    workers: u16,
    /// How many connections at once, over all workers: 10M is ten million
    #[arg(long, value_name = "N", default_value = "1M")]
    connections: Count,
    /// A DIP of the first port with its prefix; can be given more than once
    #[arg(long = "address", value_name = "DIP/PREFIX")]
    addresses: Vec<IpNet>,
    /// A default gateway of the first port, one of each family
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// Read /sys and /proc below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

fn device(text: &str) -> Result<Device, String> {
    text.parse().map_err(|_| format!("expected {}", Device::EXPECTED))
}

/// Prints the plan; 1 when this machine cannot have it, else 0.
pub fn run(line: &Line, console: &mut Console<'_>) -> u8 {
    let wish = Wish {
        devices: line.ports.clone(),
        workers: line.workers.into(),
        connections: line.connections,
        addresses: line.addresses.clone(),
        gateways: line.gateways.clone(),
    };
    match propose(&wish, &line.root, &cpus::allowed()) {
        Ok(text) => {
            console.write(text);
            0
        }
        Err(why) => {
            console.complain(format_args!("{why} [{}]", Code::CannotStart));
            1
        }
    }
}
