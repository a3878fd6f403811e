//! Log lines, one an event: text or JSON on stderr, or entries with fields in systemd's journal.

use std::io::IsTerminal as _;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::journal::Journal;

/// The time of a line; left out where the journal adds its own.
struct Clock {
    wanted: bool,
}

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        if self.wanted { SystemTime.format_time(w) } else { Ok(()) }
    }
}

/// Starts the log. `BATON_LOG` says what it has: a level (`debug`), or levels by part (`info,control::kernel=debug`). `BATON_LOG_FORMAT` says
/// how: `text`, `json`, or `journal`, the default where systemd has made stderr the journal's.
///
/// # Errors
/// What is wrong with either.
pub(super) fn start() -> Result<(), String> {
    let lines = lines(asked("BATON_LOG_FORMAT").as_deref())?;
    let filter = filter(asked("BATON_LOG").as_deref())?;
    // A test harness that logs already keeps its own.
    let _ = Registry::default().with(lines.with_filter(filter)).try_init();
    Ok(())
}

/// What the environment says, where it says something.
fn asked(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

fn filter(asked: Option<&str>) -> Result<EnvFilter, String> {
    let levels = asked.unwrap_or("info");
    EnvFilter::builder().parse(levels).map_err(|why| {
        format!("BATON_LOG is '{levels}': {why}; give error, warn, info, debug or trace, also by part of the program: info,control::kernel=debug")
    })
}

fn lines(format: Option<&str>) -> Result<Box<dyn Layer<Registry> + Send + Sync>, String> {
    let under_systemd = Journal::is_stderr();
    match format {
        Some("json") => {
            Ok(tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(std::io::stderr).boxed())
        }
        Some("journal") => {
            Ok(Journal::open().map_err(|why| format!("BATON_LOG_FORMAT is 'journal', and the journal cannot be reached: {why}"))?.boxed())
        }
        Some("text") => Ok(text(!under_systemd).boxed()),
        None => match Journal::open().ok().filter(|_| under_systemd) {
            Some(journal) => Ok(journal.boxed()),
            None => Ok(text(!under_systemd).boxed()),
        },
        Some(other) => Err(format!("BATON_LOG_FORMAT is '{other}'; it can be text, json or journal")),
    }
}

fn text(time: bool) -> impl Layer<Registry> + Send + Sync {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(coloured).with_target(false).with_timer(Clock { wanted: time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_formats_and_levels_are_refused_with_what_there_is() {
        assert_eq!(lines(Some("xml")).err().unwrap(), "BATON_LOG_FORMAT is 'xml'; it can be text, json or journal");
        assert!(filter(Some("control=loud")).unwrap_err().starts_with("BATON_LOG is 'control=loud': "));
        assert!(lines(Some("json")).is_ok() && filter(None).is_ok());
    }
}
