//! The one gate before what LVS has and this director does not have yet: refused by name, never accepted and ignored.

use super::options::{Command, Named};
use super::parse::{Line, scheduler_named};

/// The schedulers of Linux 6.1 and later.
const LVS_SCHEDULERS: [&str; 14] = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];

/// What in this line is not built yet; `None` when everything is.
pub(super) fn unbuilt(line: &Line) -> Option<String> {
    let what = if line.mark {
        "services by firewall mark (-f) are".to_owned()
    } else if line.sctp {
        "SCTP services (--sctp-service) are".to_owned()
    } else if matches!(line.command, Command::StartDaemon | Command::StopDaemon) {
        "the connection synchronization daemon (--start-daemon, --stop-daemon) is".to_owned()
    } else if let Some(kind) = line.tunnel.as_deref().filter(|kind| *kind != "ipip") {
        format!("tunnels of type {kind} (--tun-type {kind}) are")
    } else if line.has(Named::Pe) {
        "a persistence engine (--pe) is".to_owned()
    } else {
        let name = line.scheduler.as_deref().filter(|name| LVS_SCHEDULERS.contains(name) && scheduler_named(name).is_none())?;
        format!("the scheduler {name} (-s {name}) is")
    };
    Some(format!("{what} not built yet"))
}
