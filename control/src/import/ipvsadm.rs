//! Rules as `ipvsadm -S` and `ipvsadm-save` print them; `ipvsadm` in front of a line, as scripts have it, is allowed.

use std::sync::Arc;

use super::draft::{Draft, Imported};
use super::report::{Lines, Place, Report};
use crate::cli::ipvsadm::names::Names;
use crate::cli::ipvsadm::restore;
use crate::model::{RealServerSpec, Settings};

/// Reads rules line by line; a line that cannot be carried out is said and left out.
pub fn read(text: &str, file: &Arc<str>, report: &mut Report) -> Draft {
    let names = Names::system();
    let lines: Vec<&str> = text.lines().map(bare).collect();
    let place = |index: usize| Place::new(file, index + 1, lines.get(index).copied().unwrap_or_default());
    let rules = restore::collect(lines.clone(), &names, |index, why| report.left(&place(index), why.text.trim_end()));
    let services = rules.document.services.iter().map(|spec| {
        let origin = |server| rules.origin(spec.key(), server).map_or_else(|| place(0), place);
        let line_of = |server: &RealServerSpec| Lines::from([origin(Some((server.address, server.port.unwrap_or(spec.port))))]);
        let servers = spec.real_servers.iter().map(line_of).collect();
        let mut spec = spec.clone();
        for server in &mut spec.real_servers {
            // What ipvsadm prints always has a port; here it stands only where it is another.
            server.port = server.port.filter(|port| *port != spec.port);
        }
        Imported { at: origin(None), lines: Lines::from([]), servers, sorry: None, spec }
    });
    let mut draft = Draft { services: services.collect(), settings: Vec::new() };
    for service in draft.services.iter().filter(|service| service.spec.key().mark().is_some()) {
        super::needs_mark_rule(&service.at, report);
    }
    let usual = Settings::default();
    let now = rules.document.settings;
    let last_set = lines.iter().rposition(|line| line.starts_with("--set")).map_or_else(|| place(0), place);
    for (name, before, after) in [
        ("timeout_tcp", usual.timeout_tcp, now.timeout_tcp),
        ("timeout_tcpfin", usual.timeout_tcpfin, now.timeout_tcpfin),
        ("timeout_udp", usual.timeout_udp, now.timeout_udp),
    ] {
        if before != after {
            draft.settings.push((name, after, last_set.clone()));
        }
    }
    draft
}

/// A line without the program's name.
pub fn bare(line: &str) -> &str {
    let line = line.trim();
    match line.split_once(char::is_whitespace) {
        Some((program, rest)) if program.rsplit('/').next() == Some("ipvsadm") => rest.trim_start(),
        _ => line,
    }
}
