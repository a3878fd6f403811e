//! `baton doctor`: is this machine fit, and is every real server on the path?

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::client::{Client, ClientError};
use super::console::Console;
use super::get::json;
use crate::config;
use crate::model::{HealthState, Port, RealServer, RealServerState, Service, Services, VipState};
use crate::run::cpus;
use crate::run::doctor::{Finding, Level, examine};

/// How long real servers may take that were asked and have not answered yet: the kernel gives one up after three seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `baton doctor`.
#[derive(Args, Debug)]
pub struct Line {
    /// The configuration that the director runs with, or is to
    #[arg(long, short, value_name = "FILE", default_value = "/etc/baton/baton.toml")]
    config: PathBuf,
    /// Show the findings as JSON
    #[arg(long)]
    json: bool,
    /// Read /sys, /proc and /run below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// What `--json` shows.
#[derive(Serialize)]
struct Report {
    /// Whether a director answered.
    running: bool,
    findings: Vec<Finding>,
}

/// Looks at everything; 1 when anything fails, else 0.
pub fn run(client: &Client, line: &Line, console: &mut Console<'_>) -> u8 {
    let mut findings = Vec::new();
    let seen: Result<(Vec<Port>, Services), ClientError> =
        client.get("ports").and_then(|ports| Ok((ports, services_with_answers(client)?)));
    findings.push(match &seen {
        Ok((_, services)) => Finding::ok("director", format!("it runs, with {} services", services.services.len())),
        Err(error) => Finding::warn(
            "director",
            format!("none runs, so nothing is said of its queues and real servers: {error}"),
            "systemctl start baton",
        ),
    });
    let cpus = cpus::allowed();
    match config::load(&line.config, &cpus) {
        Ok(config) => {
            findings.push(Finding::ok("configuration", line.config.display().to_string()));
            findings.extend(examine(&config, &cpus, &line.root, seen.as_ref().ok().map(|(ports, _)| ports.as_slice())));
        }
        Err(faults) => {
            let first = faults.to_string();
            let text = format!("nothing is said of the machine: {}", first.lines().next().unwrap_or_default());
            findings.push(Finding::fail("configuration", text, format!("baton check --config {}", line.config.display())));
        }
    }
    if let Ok((_, services)) = &seen {
        services.services.iter().for_each(|service| examine_service(service, &mut findings));
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    if line.json {
        json(&Report { running: seen.is_ok(), findings }, console);
    } else {
        for finding in findings {
            console.line(finding);
        }
    }
    u8::from(failed)
}

/// The services; those whose real servers were only just asked for their MACs, or are checked for the first time, a moment later.
fn services_with_answers(client: &Client) -> Result<Services, ClientError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let services: Services = client.get("services")?;
        let unanswered = services.services.iter().flat_map(|service| &service.real_servers).any(|server| {
            server.state == RealServerState::NoMac || server.health.as_ref().is_some_and(|health| health.state == HealthState::Unknown)
        });
        if !unanswered || Instant::now() >= until {
            return Ok(services);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Whether its VIP is ours, and every real server on the path.
fn examine_service(service: &Service, all: &mut Vec<Finding>) {
    let vip = service.address;
    if service.mark.is_none() {
        all.push(match service.vip {
            VipState::Held => Finding::ok(&service.id, "its VIP is ours"),
            VipState::Probing => Finding::warn(&service.id, "its VIP is being probed for", format!("baton get vips # {vip}")),
            VipState::Contested => Finding::fail(&service.id, "another machine has its VIP", format!("baton vips take {vip}")),
        });
    }
    for conflict in service.conflicts.iter().filter(|conflict| conflict.real_server.is_none()) {
        let text = format!("MAC {} on port {}, no real server's, answers for {}", conflict.mac, conflict.port, conflict.vip);
        all.push(Finding::fail(&service.id, text, format!("find it in the switch's table of MACs, and take {} from it", conflict.vip)));
    }
    for server in &service.real_servers {
        examine_server(service, server, all);
    }
}

fn examine_server(service: &Service, server: &RealServer, all: &mut Vec<Finding>) {
    let about = format!("{} {}", service.id, server.id);
    let (rip, vip) = (server.address, service.address);
    let reason = || server.reason.clone().unwrap_or_default();
    all.push(match (&server.mac, server.state) {
        (Some(mac), _) => Finding::ok(&about, format!("MAC {mac}")),
        (None, _) => Finding::fail(&about, format!("no MAC: {}", reason()), format!("ping {rip}; on it: ip link, ip address")),
    });
    let on_it = |what: &str| match service.mark {
        None => format!("on {rip}: baton realserver {what} --vip {vip}"),
        Some(_) => format!("on {rip}: baton realserver {what} --vip VIP"),
    };
    all.push(match server.health.as_ref().map(|health| (health.state, &health.check)) {
        Some((HealthState::Up, check)) => Finding::ok(&about, format!("answers ({check})")),
        Some((HealthState::Down, check)) => Finding::fail(&about, format!("{} ({check})", reason()), on_it("check")),
        Some((HealthState::Unknown, check)) => Finding::warn(&about, format!("not checked yet ({check})"), "baton doctor"),
        None => {
            let text = "whether the VIP is answered is not known: it has no check";
            let id = &service.id;
            let body = r#"{"health": {"type": "tcp"}}"#;
            let mend = format!("curl --unix-socket /run/baton/baton.sock -X PATCH http://localhost/api/v1/services/{id} -d '{body}'");
            Finding::warn(&about, text, mend)
        }
    });
    let leak = service.conflicts.iter().find(|conflict| conflict.real_server == Some(rip));
    all.push(match leak {
        Some(leak) => {
            let text =
                format!("its MAC {} answers for the VIP {} on port {}: clients go round the director", leak.mac, leak.vip, leak.port);
            Finding::fail(&about, text, on_it("apply"))
        }
        None => Finding::ok(&about, "does not answer ARP or neighbour discovery for the VIP"),
    });
    match server.state {
        RealServerState::Draining | RealServerState::Overloaded => all.push(Finding::warn(&about, reason(), "baton get services")),
        _ => {}
    }
}
