//! The rows of services and real servers.

use std::fmt::{self, Write as _};

use super::Html;
use crate::model::{RealServer, RealServerState, Service, VipState};

/// A number with at most five digits: from 100 000 on in thousands, from 100 000 000 on in millions, and so on, cut off.
pub(super) struct Short(pub(super) u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut units) = (self.0, ["k", "M", "G", "T", "P"].iter());
        let mut unit = "";
        while number >= 100_000
            && let Some(next) = units.next()
        {
            (number, unit) = (number / 1000, next);
        }
        write!(f, "{number}{}{unit}", if unit.is_empty() { "" } else { " " })
    }
}

/// Cells with numbers.
pub(super) fn numbers(out: &mut String, numbers: &[u64]) -> fmt::Result {
    numbers.iter().try_for_each(|number| write!(out, "<td class=\"n\">{}", Short(*number)))
}

/// The colour of a state; its words stand there too.
pub(super) const fn class(state: RealServerState) -> &'static str {
    match state {
        RealServerState::Ready => "ok",
        RealServerState::Quiescent | RealServerState::Draining | RealServerState::Overloaded => "warn",
        RealServerState::NoMac | RealServerState::Down | RealServerState::Quarantined => "bad",
    }
}

/// Whether something of a service is not as it should be.
pub(super) fn trouble(service: &Service) -> bool {
    !notes(service).is_empty() || service.real_servers.iter().any(|server| class(server.state) == "bad")
}

/// What there is to say of a service as a whole.
fn notes(service: &Service) -> Vec<String> {
    let mut notes = Vec::new();
    match service.vip {
        VipState::Held => {}
        VipState::Probing => notes.push("the VIP is being probed for".to_owned()),
        VipState::Contested => notes.push("the VIP is not taken: another machine has it".to_owned()),
    }
    if let Some(quorum) = service.quorum.as_ref().filter(|quorum| !quorum.met) {
        let sorry = if quorum.sorry { ": the sorry server answers" } else { "" };
        notes.push(format!("quorum lost, weight {} of {}{sorry}", quorum.weight, quorum.wanted));
    }
    for other in &service.conflicts {
        let whose = other.real_server.map_or_else(|| "no real server's".to_owned(), |rip| format!("real server {rip}"));
        notes.push(format!("MAC {} on port {} answers for {} too ({whose})", other.mac, other.port, other.vip));
    }
    notes
}

/// Begins the table.
pub(super) fn head(out: &mut String) -> fmt::Result {
    out.write_str("<table><tr><th>service / real server<th>scheduler / method<th>weight<th>state<th>active<th>inactive<th>connections/s<th>connections")?;
    out.write_str("<th>packets/s<th>bytes/s in<th>bytes/s out<th>MAC<th>port<th>why</tr>")
}

/// A service, and its real servers below it.
pub(super) fn service(out: &mut String, service: &Service) -> fmt::Result {
    let servers = &service.real_servers;
    let ready = servers.iter().filter(|server| server.state == RealServerState::Ready).count();
    let class = if trouble(service) || (ready == 0 && !servers.is_empty()) {
        "bad"
    } else if ready < servers.len() || servers.is_empty() {
        "warn"
    } else {
        "ok"
    };
    let persistent = service.persistence.map_or_else(String::new, |persistence| format!(", persistent {} s", persistence.timeout));
    let sum = |of: fn(&RealServer) -> u32| servers.iter().map(|server| u64::from(of(server))).sum::<u64>();
    write!(out, "<tr class=\"s\"><td>{}<td>{}{persistent}<td>", Html(&service.id), service.scheduler.as_str())?;
    write!(out, "<td class=\"{class}\">{ready} of {} ready", servers.len())?;
    numbers(out, &[sum(|server| server.active_connections), sum(|server| server.inactive_connections)])?;
    numbers(out, &[service.rates.connections, service.stats.connections])?;
    numbers(out, &[service.rates.in_packets, service.rates.in_bytes, service.rates.out_bytes])?;
    write!(out, "<td><td><td class=\"why\">{}</tr>", Html(notes(service).join("; ")))?;
    servers.iter().try_for_each(|server| real_server(out, server))
}

fn real_server(out: &mut String, server: &RealServer) -> fmt::Result {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let check = server.health.as_ref().map_or_else(|| "not checked".to_owned(), |health| format!("checked by {}", health.check));
    write!(out, "<tr><td>&rarr; {}<td>{}<td class=\"n\">{}", Html(&server.id), Html(server.method_in_words()), server.weight)?;
    write!(out, "<td class=\"{}\" title=\"{}\">{}", class(server.state), Html(check), server.state.in_words())?;
    numbers(
        out,
        &[server.active_connections.into(), server.inactive_connections.into(), server.rates.connections, server.stats.connections],
    )?;
    numbers(out, &[server.rates.in_packets, server.rates.in_bytes, server.rates.out_bytes])?;
    write!(out, "<td>{}<td>{}", Html(known(&server.mac)), Html(known(&server.link)))?;
    write!(out, "<td class=\"why\">{}</tr>", Html(server.reason.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_cut_off() {
        for (number, text) in
            [(0, "0"), (99_999, "99999"), (100_000, "100 k"), (99_999_999, "99999 k"), (100_000_000, "100 M"), (u64::MAX, "18446 P")]
        {
            assert_eq!(Short(number).to_string(), text);
        }
    }
}
