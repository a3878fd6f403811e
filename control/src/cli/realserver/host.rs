//! What this machine is like now: its interfaces and routes from `ip` (iproute2), its sysctls from `/proc/sys`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::process::Command;

use serde::Deserialize;

/// Why something cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no `ip`.
    #[error("cannot run ip: {0}; it comes with iproute2: apt-get install iproute2")]
    NoIp(io::Error),
    /// `ip` refused.
    #[error("ip {line}: {said}")]
    Ip {
        /// Its arguments.
        line: String,
        /// What it said.
        said: String,
    },
    /// A sysctl cannot be read or written.
    #[error("{key}: {cause}{}", if .cause.kind() == io::ErrorKind::PermissionDenied { "; this needs root" } else { "" })]
    Sysctl {
        /// Which one, with dots.
        key: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The record of what was there before cannot be read or written.
    #[error("{path}: {cause}")]
    Record {
        /// Where it is.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Something that was given is not here.
    #[error("{0}")]
    Given(String),
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Interface {
    /// Its name.
    #[serde(rename = "ifname")]
    pub name: String,
    /// `UP`, `LOWER_UP`, `LOOPBACK` ...
    pub flags: Vec<String>,
    /// Its addresses.
    #[serde(default, rename = "addr_info")]
    pub addresses: Vec<Address>,
}

impl Interface {
    /// Whether it is set up.
    pub fn up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }

    /// The prefix length that it carries `address` with.
    pub fn prefix_of(&self, address: IpAddr) -> Option<u8> {
        self.addresses.iter().find(|carried| carried.local == Some(address)).map(|carried| carried.prefix)
    }
}

/// An address of an interface.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Address {
    /// The address.
    pub local: Option<IpAddr>,
    /// The prefix length.
    #[serde(rename = "prefixlen")]
    pub prefix: u8,
    /// `global`, `link`, `host`.
    #[serde(default)]
    pub scope: String,
}

#[derive(Deserialize)]
struct Route {
    #[serde(default)]
    dev: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
}

/// All interfaces of this network namespace.
pub fn interfaces() -> Result<Vec<Interface>, HostError> {
    read(&["-json", "address", "show"])
}

/// Device and gateway of each default route.
pub fn default_routes(ipv6: bool) -> Result<Vec<(String, Option<String>)>, HostError> {
    let routes: Vec<Route> = read(&["-json", if ipv6 { "-6" } else { "-4" }, "route", "show", "default"])?;
    Ok(routes.into_iter().filter_map(|route| Some((route.dev?, route.gateway))).collect())
}

fn read<T: for<'de> Deserialize<'de>>(line: &[&str]) -> Result<Vec<T>, HostError> {
    let text = ip(line)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).map_err(|error| HostError::Ip { line: line.join(" "), said: error.to_string() })
}

/// Runs `ip` with these arguments; its output.
pub fn ip(line: &[&str]) -> Result<String, HostError> {
    let ran = Command::new("ip").args(line).env("LC_ALL", "C").output().map_err(HostError::NoIp)?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if said.contains("Operation not permitted") {
        said.push_str("; this needs root");
    }
    Err(HostError::Ip { line: line.join(" "), said })
}

/// A sysctl's key: its path below `/proc/sys`, so that an interface's name may have dots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// `net.ipv4.conf.INTERFACE.NAME`
    pub fn ipv4(interface: &str, name: &str) -> Self {
        Self(format!("net/ipv4/conf/{interface}/{name}"))
    }

    /// Its value.
    pub fn read(&self) -> Result<String, HostError> {
        let text = fs::read_to_string(format!("/proc/sys/{}", self.0)).map_err(|cause| self.fault(cause))?;
        Ok(text.trim().to_owned())
    }

    /// Sets its value.
    pub fn write(&self, value: &str) -> Result<(), HostError> {
        fs::write(format!("/proc/sys/{}", self.0), value).map_err(|cause| self.fault(cause))
    }

    fn fault(&self, cause: io::Error) -> HostError {
        HostError::Sysctl { key: self.to_string(), cause }
    }
}

impl std::fmt::Display for Key {
    /// As sysctl(8) takes it: with dots, or with slashes where a name has dots.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.contains('.') { f.write_str(&self.0) } else { f.write_str(&self.0.replace('/', ".")) }
    }
}
