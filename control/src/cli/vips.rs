//! `baton get vips`, `baton vips take`, `baton release`: VIPs that others speak for, and what is done about it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use hyper::Method;

use super::client::{Client, ClientError, encode};
use super::console::Console;
use super::get::{Output, json, table};
use crate::model::{RealServer, Service, Vip, VipConflict, VipState};

/// VIPs with their states.
pub fn get(client: &Client, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let found: Vec<Vip> = client.get("vips")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(());
    }
    let row = |vip: &Vip| vec![vip.address.to_string(), vip.state.as_str().to_owned(), vip.conflicts.len().to_string()];
    table(&["VIP", "STATE", "OTHERS"], found.iter().map(row).collect(), console);
    for vip in &found {
        note(vip.address, vip.state, &vip.conflicts, console);
    }
    Ok(())
}

/// Takes a VIP although another machine has it.
pub fn take(client: &Client, vip: IpAddr) -> Result<u8, ClientError> {
    client.order(Method::POST, &format!("vips/{}/take", encode(&vip.to_string())))?;
    Ok(0)
}

/// Lets a real server out of quarantine.
pub fn release(client: &Client, service: &str, server: &str) -> Result<u8, ClientError> {
    let server = real_server(client, service, server)?;
    client.order(Method::DELETE, &format!("services/{}/real-servers/{}/quarantine", encode(service), encode(&server)))?;
    Ok(0)
}

/// The id of the real server that a user named by its address alone, or in full.
///
/// An address that more than one real server of the service has, or none, goes to the director as it is, whose refusal names it.
pub fn real_server(client: &Client, service: &str, named: &str) -> Result<String, ClientError> {
    let Ok(address) = named.trim_matches(['[', ']']).parse::<IpAddr>() else { return Ok(named.to_owned()) };
    let found: Service = client.get(&format!("services/{}", encode(service)))?;
    let mut there = found.real_servers.iter().filter(|server| server.address == address);
    Ok(match (there.next(), there.next()) {
        (Some(RealServer { id, .. }), None) => id.clone(),
        _ => SocketAddr::new(address, found.port).to_string(),
    })
}

/// A line for each machine that speaks for a VIP of these services.
pub fn notes(services: &[Service], console: &mut Console<'_>) {
    let mut told = BTreeSet::new();
    for service in services {
        let fresh: Vec<VipConflict> = service
            .conflicts
            .iter()
            .filter(|conflict| told.insert((conflict.vip, conflict.port.clone(), conflict.mac.clone())))
            .cloned()
            .collect();
        let state = if service.vip == VipState::Held || told.insert((service.address, String::new(), String::new())) {
            service.vip
        } else {
            VipState::Held
        };
        note(service.address, state, &fresh, console);
    }
}

fn note(vip: IpAddr, state: VipState, conflicts: &[VipConflict], console: &mut Console<'_>) {
    if state == VipState::Contested {
        console.line(format_args!("{vip}: not taken, because another machine has it; `baton vips take {vip}` takes it all the same"));
    }
    for VipConflict { vip, port, mac, real_server, since, last, .. } in conflicts {
        let whose = real_server.map_or_else(|| "no real server's".to_owned(), |rip| format!("real server {rip}"));
        console.line(format_args!("{vip}: MAC {mac} on port {port} answers for it too ({whose}), since {since}, last {last}"));
    }
}
