//! `baton realserver`: makes the machine that it runs on a real server for direct routing (or tunnels), checks that, and
//! undoes it.

pub mod check;
pub mod host;
pub mod plan;
pub mod print;
pub mod record;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::args::{RealServerAction, Ways};
use super::console::Console;
use crate::codes::Code;
use check::{Finding, check};
use host::{HostError, Interface, interfaces, ip};
use plan::{Plan, address_arguments, host_prefix};
use record::Record;

/// Carries out an action; the exit code.
pub fn run(action: &RealServerAction, console: &mut Console<'_>) -> u8 {
    let done = match action {
        RealServerAction::Apply { vips, ways, print: true } => Plan::new(vips, ways).map(|plan| {
            console.write(print::text(&plan));
            0
        }),
        RealServerAction::Apply { vips, ways, print: false } => apply(vips, ways, console),
        RealServerAction::Check { vips, ways } => applied(vips, ways).and_then(|vips| report(&Plan::new(&vips, ways)?, console)),
        RealServerAction::Undo { vips, state } => undo(vips, &state_path(state.as_ref()), console),
    };
    done.unwrap_or_else(|error| {
        let (name, code) = if matches!(error, HostError::Given(_)) { (Code::Usage, 2) } else { (Code::RealServerHost, 1) };
        console.complain(format_args!("{error} [{name}]"));
        code
    })
}

fn state_path(given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(record::default_path)
}

/// The VIPs that are meant: those given, else those that apply put there.
fn applied(vips: &[IpAddr], ways: &Ways) -> Result<Vec<IpAddr>, HostError> {
    if !vips.is_empty() {
        return Ok(vips.to_vec());
    }
    let path = state_path(ways.state.as_ref());
    let there: Vec<IpAddr> = Record::load(&path)?.addresses.iter().map(|added| added.address).collect();
    if there.is_empty() {
        return Err(HostError::Given(format!("which VIP? {} names none that was applied: say --vip VIP", path.display())));
    }
    Ok(there)
}

/// Whether anything that the record says was changed still is.
fn in_force(record: &Record, now: &[Interface]) -> bool {
    let carried =
        |added: &record::Added| now.iter().any(|interface| interface.name == added.device && interface.prefix_of(added.address).is_some());
    let set = |changed: &record::Changed| changed.key.read().is_ok_and(|value| value == changed.after);
    record.addresses.iter().any(carried) || record.sysctls.iter().any(set)
}

/// Every change is written down before it is made, so that undo finds it whatever happens between.
fn apply(vips: &[IpAddr], ways: &Ways, console: &mut Console<'_>) -> Result<u8, HostError> {
    let plan = Plan::new(vips, ways)?;
    let path = state_path(ways.state.as_ref());
    let mut record = Record::load(&path)?;
    if !in_force(&record, &plan.interfaces) {
        // It is about a network namespace that had this one's number before.
        record = Record::default();
    }
    // The sysctls come first: a VIP that is there before them would be answered for.
    for wanted in &plan.sysctls {
        let value = wanted.key.read()?;
        if wanted.accepts(&value) {
            console.line(format_args!("kept   {} = {value}", wanted.key));
            continue;
        }
        record.note(&wanted.key, &value, wanted.value);
        record.save(&path)?;
        wanted.key.write(wanted.value)?;
        console.line(format_args!("set    {} = {} (was {value})", wanted.key, wanted.value));
    }
    let down: Vec<&str> = plan.devices().filter(|name| plan.interface(name).is_some_and(|interface| !interface.up())).collect();
    for name in down {
        if !record.links.iter().any(|link| link == name) {
            record.links.push(name.to_owned());
            record.save(&path)?;
        }
        ip(&["link", "set", name, "up"])?;
        console.line(format_args!("set    {name} up (was down)"));
    }
    for &address in &plan.vips {
        let added = record::Added { address, device: plan.dev.clone() };
        let carried = |interface: &Interface| {
            interface.addresses.iter().any(|carried| carried.local == Some(address) && carried.prefix == plan::whole_length(address))
        };
        if plan.interface(&plan.dev).is_some_and(carried) {
            console.line(format_args!("kept   {} on {}", host_prefix(address), plan.dev));
            continue;
        }
        if !record.addresses.contains(&added) {
            record.addresses.push(added);
            record.save(&path)?;
        }
        let line = address_arguments("add", address, &plan.dev);
        ip(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
        console.line(format_args!("added  {} to {}", host_prefix(address), plan.dev));
    }
    let findings = check(&Plan::new(vips, ways)?)?;
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| matches!(finding, Finding::Wrong(..))).collect();
    for finding in &wrong {
        console.line(finding);
    }
    Ok(u8::from(!wrong.is_empty()))
}

fn report(plan: &Plan, console: &mut Console<'_>) -> Result<u8, HostError> {
    let findings = check(plan)?;
    for finding in &findings {
        console.line(finding);
    }
    Ok(u8::from(findings.iter().any(|finding| matches!(finding, Finding::Wrong(..)))))
}

/// Addresses go first: the sysctls must still hold while a VIP is there.
fn undo(vips: &[IpAddr], path: &Path, console: &mut Console<'_>) -> Result<u8, HostError> {
    let mut record = Record::load(path)?;
    if record == Record::default() {
        console.line(format_args!("nothing to undo: {} has no change written down", path.display()));
        return Ok(0);
    }
    let now = interfaces()?;
    let find = |name: &str| now.iter().find(|interface| interface.name == name);
    let meant = |added: &record::Added| vips.is_empty() || vips.contains(&added.address);
    while let Some(index) = record.addresses.iter().position(meant) {
        let added = record.addresses.remove(index);
        let there = find(&added.device).is_some_and(|interface| interface.prefix_of(added.address).is_some());
        let name = host_prefix(added.address);
        if there {
            let line = address_arguments("del", added.address, &added.device);
            ip(&line.iter().map(String::as_str).collect::<Vec<_>>())?;
            console.line(format_args!("removed {name} from {}", added.device));
        } else {
            console.line(format_args!("gone    {name} was no longer on {}", added.device));
        }
        record.save(path)?;
    }
    if let Some(left) = record.addresses.first() {
        console.line(format_args!("kept    the rest, for {} is still here", left.address));
        return Ok(0);
    }
    while let Some(changed) = record.sysctls.pop() {
        match changed.key.read() {
            Ok(value) if value == changed.after => {
                changed.key.write(&changed.before)?;
                console.line(format_args!("set     {} = {} (was {value})", changed.key, changed.before));
            }
            Ok(value) => console.line(format_args!("left    {} = {value}: it was changed since, from {}", changed.key, changed.after)),
            Err(_) => console.line(format_args!("gone    {}", changed.key)),
        }
        record.save(path)?;
    }
    while let Some(link) = record.links.pop() {
        if find(&link).is_some() {
            ip(&["link", "set", &link, "down"])?;
            console.line(format_args!("set     {link} down (was up)"));
        }
        record.save(path)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
