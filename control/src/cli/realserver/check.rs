//! `baton realserver check`: line by line what is right, what is wrong and what mends it.

use std::net::IpAddr;

use super::host::{HostError, default_routes};
use super::plan::{Plan, address_arguments, host_prefix, whole_length};

/// One line of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// As it must be.
    Right(String),
    /// Worth knowing, and no fault by itself.
    Note(String),
    /// Not as it must be, and the command that mends it.
    Wrong(String, String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Right(text) => write!(f, "OK     {text}"),
            Self::Note(text) => write!(f, "NOTE   {text}"),
            Self::Wrong(text, mend) => write!(f, "WRONG  {text}\n       mend: {mend}"),
        }
    }
}

/// Compares this machine with the plan.
pub fn check(plan: &Plan) -> Result<Vec<Finding>, HostError> {
    let mut findings = Vec::new();
    for name in plan.devices() {
        let up = plan.interface(name).is_some_and(super::host::Interface::up);
        findings.push(if up {
            Finding::Right(format!("{name} is up"))
        } else {
            Finding::Wrong(format!("{name} is down: its addresses are not ours to the kernel"), format!("ip link set {name} up"))
        });
    }
    for &vip in &plan.vips {
        findings.push(carried(plan, vip));
        findings.extend(elsewhere(plan, vip));
    }
    for wanted in &plan.sysctls {
        let value = wanted.key.read()?;
        findings.push(if wanted.accepts(&value) {
            Finding::Right(format!("{} = {value}", wanted.key))
        } else {
            let text = format!("{} = {value}, must be {}: {}", wanted.key, wanted.value, wanted.else_what);
            Finding::Wrong(text, format!("sysctl -w {}={}", wanted.key, wanted.value))
        });
    }
    for ipv6 in [false, true] {
        if plan.vips.iter().any(|vip| vip.is_ipv6() == ipv6) {
            findings.push(answers(ipv6)?);
        }
    }
    Ok(findings)
}

fn carried(plan: &Plan, vip: IpAddr) -> Finding {
    let dev = &plan.dev;
    let prefixes: Vec<u8> = plan
        .interface(dev)
        .into_iter()
        .flat_map(|interface| interface.addresses.iter().filter(move |carried| carried.local == Some(vip)).map(|carried| carried.prefix))
        .collect();
    if let Some(wide) = prefixes.iter().find(|prefix| **prefix != whole_length(vip)) {
        let text = format!("{vip}/{wide} is on {dev}: with that prefix the kernel takes its whole network for local");
        return Finding::Wrong(text, format!("ip address del {vip}/{wide} dev {dev}; ip {}", address_arguments("add", vip, dev).join(" ")));
    }
    if prefixes.is_empty() {
        let text = format!("{} is not on {dev}: requests for it are not accepted", host_prefix(vip));
        return Finding::Wrong(text, format!("ip {}", address_arguments("add", vip, dev).join(" ")));
    }
    Finding::Right(format!("{} is on {dev}", host_prefix(vip)))
}

fn elsewhere(plan: &Plan, vip: IpAddr) -> Vec<Finding> {
    let others = plan.interfaces.iter().filter(|interface| interface.name != plan.dev);
    let found: Vec<Finding> = others
        .filter_map(|interface| {
            let (name, prefix) = (&interface.name, interface.prefix_of(vip)?);
            let text = format!(
                "{vip}/{prefix} is also on {name}: {name} answers {} for it, and clients bypass the director",
                if vip.is_ipv4() { "ARP" } else { "neighbour solicitations" }
            );
            Some(Finding::Wrong(text, format!("ip address del {vip}/{prefix} dev {name}")))
        })
        .collect();
    if found.is_empty() { vec![Finding::Right(format!("no other interface carries {vip}"))] } else { found }
}

fn answers(ipv6: bool) -> Result<Finding, HostError> {
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    Ok(match default_routes(ipv6)?.first() {
        Some((dev, Some(gateway))) => Finding::Right(format!("{family} answers leave by {dev} through {gateway}")),
        Some((dev, None)) => Finding::Right(format!("{family} answers leave by {dev}")),
        None => Finding::Note(format!("no default route for {family}: answers reach only clients on connected networks")),
    })
}
