//! The one gate before what LVS has and this director does not have yet: refused by name, never accepted and ignored.

use super::options::{Command, Named};
use super::parse::Line;

/// What in this line is not built yet; `None` when everything is.
pub(super) fn unbuilt(line: &Line) -> Option<String> {
    let what = if matches!(line.command, Command::StartDaemon | Command::StopDaemon) {
        "the connection synchronization daemon (--start-daemon, --stop-daemon) is".to_owned()
    } else if line.has(Named::Pe) {
        "a persistence engine (--pe) is".to_owned()
    } else {
        return None;
    };
    Some(format!("{what} not built yet"))
}
