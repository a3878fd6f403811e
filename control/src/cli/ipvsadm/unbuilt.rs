//! The one gate before what LVS has and this director has not: refused as the kernel refuses it where that lacks it too, else by name;
//! never accepted and ignored.

use super::options::Command;
use super::parse::Line;

/// Why this line cannot be done; `None` when it can.
///
/// A persistence engine is a module of the kernel's (`ip_vs_pe_sip` is the only one): the answer is that of a kernel without it. No
/// synchronization daemon ever runs, so stopping one gets the kernel's answer, which scripts expect before they start one.
pub(super) fn unbuilt(line: &Line) -> Option<String> {
    match line.command {
        Command::StartDaemon => Some(
            "--start-daemon is not built yet: this director does not send its connections to a second one, nor take over those of another"
                .to_owned(),
        ),
        Command::StopDaemon => Some("No daemon is running".to_owned()),
        _ => line.engine.then(|| "Scheduler or persistence engine not found".to_owned()),
    }
}
