//! keepalived.conf (keepalived 2.2): virtual servers, their groups, real servers and checkers.

mod checker;
mod group;
mod lines;
mod repeat;
mod service;
mod special;
mod tree;
mod values;
mod words;

pub(super) use values::granularity;

use std::collections::HashMap;
use std::path::Path;

use super::draft::Draft;
use super::report::Report;
use super::source::{Sources, Unreadable};
use lines::Reader;
use tree::Statement;

/// Words that a file of keepalived's begins statements with, for who wants to know whether it is one.
pub const KEYWORDS: &[&str] =
    &["global_defs", "virtual_server", "virtual_server_group", "vrrp_instance", "vrrp_sync_group", "vrrp_script", "include"];

/// What keepalived does that is no director's business, by the beginning of its words.
const OTHERS_BUSINESS: &[(&str, &str)] = &[
    ("vrrp_", "VRRP is not done by the director: keepalived can do it beside it; the director answers ARP for VIPs itself"),
    ("static_", "addresses, routes and rules are the kernel's: what sets them up now goes on doing so"),
    ("track_", "tracking is a part of VRRP, which is not done by the director"),
    ("garp_group", "the director announces its VIPs itself"),
    ("interface_up_down_delays", "is about interfaces of the kernel"),
    ("linkbeat_", "is about interfaces of the kernel"),
    ("bfd_instance", "BFD is not done by the director"),
    ("net_namespace", "the director has no network namespace of its own: its unit can be given one"),
    ("namespace_with_ipsets", "no ipsets are made"),
    ("SSL", "certificates of checks are given check by check: health.ca, health.verify"),
];

/// Reads a file with all that it includes; `id` is the config-id that conditional lines are held against.
///
/// # Errors
/// It is too large, or comes to too much.
pub fn read(text: &str, path: &Path, id: &str, sources: &mut Sources, report: &mut Report) -> Result<Draft, Unreadable> {
    let mut reader = Reader::new(sources, report, id);
    reader.read(text, path)?;
    let lines = reader.finish();
    let statements = tree::read(lines, report);
    let mut groups = HashMap::new();
    for statement in &statements {
        // A group may stand behind the virtual servers that are for it.
        if let ("virtual_server_group", [name]) = (statement.name(), statement.rest()) {
            groups.insert(name.as_str(), group::read(statement, report));
        }
    }
    let mut draft = Draft::default();
    let mut used = Vec::new();
    for statement in &statements {
        match statement.name() {
            "virtual_server" => service::read(statement, &groups, &mut used, &mut draft, report),
            "virtual_server_group" if statement.rest().len() == 1 => {}
            "virtual_server_group" => statement.leave_out("a group has one name", report),
            "global_defs" => globals(statement, &mut draft, report),
            name => {
                let found = OTHERS_BUSINESS.iter().find(|(word, _)| name.starts_with(word));
                statement.leave_out(found.map_or("is nothing that is known here", |(_, reason)| reason), report);
            }
        }
    }
    for (name, group) in &groups {
        if !used.contains(name) {
            group.leave_out("no virtual server that is carried over is for this group", report);
        }
    }
    Ok(draft)
}

fn globals(block: &Statement, draft: &mut Draft, report: &mut Report) {
    for statement in block.inside() {
        match statement.name() {
            "lvs_timeouts" => timeouts(statement, draft, report),
            name if name.contains("email") || name.starts_with("smtp_") => {
                statement.leave_out("no mail is sent: metrics and events say what happens", report);
            }
            "lvs_sync_daemon" => statement.leave_out("connections are not synchronized between directors", report),
            name if name.starts_with("vrrp_") || name == "router_id" => statement.leave_out("VRRP is not done by the director", report),
            _ => statement.leave_out("is about keepalived itself", report),
        }
    }
}

fn timeouts(statement: &Statement, draft: &mut Draft, report: &mut Report) {
    for pair in statement.rest().chunks(2) {
        let setting = match pair.first().map(String::as_str) {
            Some("tcp") => "timeout_tcp",
            Some("tcpfin") => "timeout_tcpfin",
            Some("udp") => "timeout_udp",
            _ => return report.left(&statement.at, "expected tcp, tcpfin or udp, each with seconds"),
        };
        match pair.get(1).and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => draft.settings.push((setting, seconds, statement.at.clone())),
            None => return report.left(&statement.at, format_args!("{setting}: expected seconds")),
        }
    }
}
