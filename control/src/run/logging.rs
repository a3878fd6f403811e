//! Log lines on stderr, one an event.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The time of a line; left out where the journal adds its own.
struct Clock {
    wanted: bool,
}

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        if self.wanted { SystemTime.format_time(w) } else { Ok(()) }
    }
}

/// Sends log lines to stderr. `BATON_LOG` says which: a level (`debug`), or levels by part (`info,control::kernel=debug`).
pub(super) fn start() {
    let filter = EnvFilter::try_from_env("BATON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let clock = Clock { wanted: std::env::var_os("JOURNAL_STREAM").is_none() };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .with_target(false)
        .with_timer(clock);
    // A test harness that logs already keeps its own.
    let _ = lines.try_init();
}
