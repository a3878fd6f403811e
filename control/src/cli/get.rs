//! `baton get`: what the director does, as tables for people or JSON for programs.

use std::collections::BTreeMap;

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::client::{Client, ClientError};
use super::connections::{Filter, each_page};
use super::console::Console;
use super::ipvsadm::scheduling;
use crate::codes::Code;
use crate::model::{Connection, Connections, Multicast, Neighbour, Port, RealServer, RealServerState, Service, Services, Worker};

/// How results are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Output {
    /// Columns for people.
    #[default]
    Table,
    /// The API's own documents.
    Json,
}

/// Virtual services with their real servers.
pub fn services(client: &Client, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let found: Services = client.get("services")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(());
    }
    let head = ["SERVICE / REAL SERVER", "SCHEDULER / METHOD", "WEIGHT", "STATE", "ACTIVE", "INACTIVE", "CONNECTIONS", "MAC", "PORT"];
    table(&head, found.services.iter().flat_map(service_rows).collect(), console);
    let all = found.services.iter().flat_map(|service| service.real_servers.iter().map(move |server| (service, server)));
    for (service, server) in all {
        if let Some(reason) = server.reason.as_ref().filter(|_| unfit(server.state)) {
            console.line(format_args!("{} of {}: {reason}", server.id, service.id));
        }
    }
    super::vips::notes(&found.services, console);
    Ok(())
}

fn service_rows(service: &Service) -> Vec<Vec<String>> {
    let sum = |of: fn(&RealServer) -> u32| service.real_servers.iter().map(|server| u64::from(of(server))).sum::<u64>().to_string();
    let ready = service.real_servers.iter().filter(|server| server.state == RealServerState::Ready).count();
    let head = vec![
        service.id.clone(),
        scheduling(service),
        String::new(),
        format!("{ready} of {} ready", service.real_servers.len()),
        sum(|server| server.active_connections),
        sum(|server| server.inactive_connections),
        service.stats.connections.to_string(),
        String::new(),
        String::new(),
    ];
    let servers = service.real_servers.iter().map(|server| {
        vec![
            format!("  -> {}", server.id),
            server.method_in_words(),
            server.weight.to_string(),
            server.state.in_words().to_owned(),
            server.active_connections.to_string(),
            server.inactive_connections.to_string(),
            server.stats.connections.to_string(),
            server.mac.clone().unwrap_or_else(|| "-".to_owned()),
            server.link.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    std::iter::once(head).chain(servers).collect()
}

/// Connection entries: at most `limit` of them.
pub fn connections(client: &Client, filter: &Filter, limit: u32, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut all = Connections { total: 0, connections: Vec::new(), next: None };
    each_page(client, &filter.query(), limit.min(4096), |page| {
        all.total = page.total;
        all.next.clone_from(&page.next);
        all.connections.extend(page.connections.iter().take(wanted.saturating_sub(all.connections.len())).cloned());
        all.connections.len() < wanted
    })?;
    if output == Output::Json {
        json(&all, console);
        return Ok(());
    }
    let head = ["PROTOCOL", "CLIENT", "VIRTUAL", "REAL SERVER", "STATE", "EXPIRES IN", "PACKETS", "WORKER"];
    table(&head, all.connections.iter().map(connection_row).collect(), console);
    if all.next.is_some() {
        console.complain(format_args!("shown: {} of {} entries on all workers; --limit shows more", all.connections.len(), all.total));
    }
    Ok(())
}

fn connection_row(entry: &Connection) -> Vec<String> {
    vec![
        entry.protocol.as_str().to_owned(),
        entry.client.to_string(),
        entry.virtual_address.to_string(),
        entry.server.to_string(),
        entry.state.clone(),
        format!("{:.0} s", entry.expires_in),
        entry.in_packets.to_string(),
        entry.worker.to_string(),
    ]
}

/// Workers.
pub fn workers(client: &Client, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let found: Vec<Worker> = client.get("workers")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(());
    }
    let head =
        ["WORKER", "CORE", "VERSION", "CONNECTIONS", "HALF-OPEN", "CAPACITY", "RECEIVED", "SENT", "HANDED OVER", "TAKEN OVER", "BUSY"];
    let row = |worker: &Worker| {
        vec![
            worker.id.to_string(),
            worker.core.to_string(),
            worker.version.to_string(),
            worker.connections.to_string(),
            worker.half_open.to_string(),
            worker.capacity.to_string(),
            worker.received.to_string(),
            worker.sent.to_string(),
            worker.handed_over.to_string(),
            worker.taken_over.to_string(),
            format!("{:.1} %", worker.busy * 100.0),
        ]
    };
    table(&head, found.iter().map(row).collect(), console);
    for worker in &found {
        verdicts(&format!("worker {}", worker.id), &worker.verdicts, console);
        let happened = [
            ("resets", worker.resets),
            ("recycled entries", worker.recycled),
            ("dropped entries", worker.dropped_entries),
            ("packets without an entry", worker.without_entry),
            ("unshared templates", worker.unshared_templates),
            ("frames sent by others", worker.sent_by_others),
            ("frames sent for others", worker.sent_for_others),
        ];
        verdicts(&format!("worker {}", worker.id), &happened.into_iter().map(|(what, n)| (what.to_owned(), n)).collect(), console);
        if !worker.defences.is_empty() {
            console.line(format_args!("worker {}: in force: {}", worker.id, worker.defences.join(", ")));
        }
    }
    Ok(())
}

/// Ports.
pub fn ports(client: &Client, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let found: Vec<Port> = client.get("ports")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(());
    }
    let head = ["PORT", "DEVICE", "DRIVER", "NUMA", "MAC", "LINK", "MTU", "QUEUES", "RSS", "ADDRESSES", "RECEIVED", "SENT", "MISSED"];
    let row = |port: &Port| {
        let link = match (port.link_up, port.speed_mbps) {
            (false, _) => "down".to_owned(),
            (true, 0) => "up".to_owned(),
            (true, speed) => format!("up, {speed} Mbit/s"),
        };
        vec![
            port.name.clone(),
            port.vlan.as_ref().map_or_else(|| port.device.clone(), |vlan| format!("VLAN {vlan} of {}", port.device)),
            port.driver.clone(),
            port.numa_node.map_or_else(|| "-".to_owned(), |node| node.to_string()),
            port.mac.clone(),
            link,
            port.mtu.to_string(),
            port.queues.to_string(),
            if port.rss { "yes" } else { "no" }.to_owned(),
            port.addresses.join(" "),
            port.rx_packets.to_string(),
            port.tx_packets.to_string(),
            port.rx_missed.to_string(),
        ]
    };
    table(&head, found.iter().map(row).collect(), console);
    for port in &found {
        verdicts(&format!("port {}", port.name), &port.verdicts, console);
    }
    for port in found.iter().filter(|port| port.vlan.is_none()) {
        console.line(features(port));
        for member in &port.members {
            let (link, active) = (if member.link_up { "up" } else { "down" }, if member.active { ", active" } else { "" });
            console.line(format_args!("port {}: member {}, link {link}{active}", port.name, member.device));
        }
        for lack in &port.lacks {
            console.line(format_args!("port {}: {lack}", port.name));
        }
    }
    Ok(())
}

/// What a port lets in, and how it comes to the workers.
fn features(port: &Port) -> String {
    let macs = if port.promiscuous { "promiscuous" } else { "not promiscuous" };
    let groups = if port.multicast == Multicast::All { ", all multicast groups" } else { "" };
    format!("port {}: {macs}{groups}, {}", port.name, port.spread.text(port.queues))
}

/// Neighbours.
pub fn neighbours(client: &Client, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let found: Vec<Neighbour> = client.get("neighbours")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(());
    }
    let row = |neighbour: &Neighbour| {
        let mac = neighbour.mac.clone().unwrap_or_else(|| "-".to_owned());
        vec![neighbour.address.to_string(), mac, neighbour.port.clone(), neighbour.state.clone()]
    };
    table(&["ADDRESS", "MAC", "PORT", "STATE"], found.iter().map(row).collect(), console);
    Ok(())
}

fn verdicts(whose: &str, verdicts: &BTreeMap<String, u64>, console: &mut Console<'_>) {
    let counted: Vec<String> =
        verdicts.iter().filter(|(_, frames)| **frames > 0).map(|(verdict, frames)| format!("{verdict} {frames}")).collect();
    if !counted.is_empty() {
        console.line(format_args!("{whose}: {}", counted.join(", ")));
    }
}

/// Whether a state needs a line that says why.
fn unfit(state: RealServerState) -> bool {
    use RealServerState::{Down, Draining, NoMac, Quarantined};
    matches!(state, NoMac | Down | Quarantined | Draining)
}

/// Prints a document as indented JSON.
pub fn json(document: &impl Serialize, console: &mut Console<'_>) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => console.line(text),
        Err(error) => console.complain(format_args!("cannot show the answer: {error} [{}]", Code::CannotWrite)),
    }
}

/// Prints rows under a head; columns of numbers are flushed right.
pub fn table(head: &[&str], rows: Vec<Vec<String>>, console: &mut Console<'_>) {
    let numeric: Vec<bool> = (0..head.len())
        .map(|column| !rows.is_empty() && rows.iter().all(|row| row[column].bytes().all(|byte| byte.is_ascii_digit())))
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head).add_rows(rows);
    for (column, numeric) in table.column_iter_mut().zip(numeric) {
        column.set_padding((0, 2));
        if numeric {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    console.line(table.trim_fmt());
}
