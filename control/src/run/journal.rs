//! Log lines as entries of systemd's journal, with their fields (systemd's "Native Journal Protocol").

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The most of a value that is sent: entries of ours are lines, and a datagram must fit into the socket's buffer.
const LONGEST: usize = 32 * 1024;

/// Sends every event to the journal, and never waits for it: the control core has more to do. How many lines a journal that stood still did not
/// take is said with the next one that it takes; when there is no journal, they go to stderr.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    lost: AtomicU64,
}

impl Journal {
    /// Whether stderr is the journal's, as `JOURNAL_STREAM` says: device and inode (systemd.exec(5)).
    pub(super) fn is_stderr() -> bool {
        let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
        std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| *stream == *format!("{}:{}", stderr.dev(), stderr.ino()))
    }

    /// Finds the journal's socket.
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(SOCKET)?;
        Ok(Self { socket, lost: AtomicU64::new(0) })
    }

    fn send(&self, entry: &Entry) -> io::Result<()> {
        self.socket.send(&entry.0).map(drop).or_else(|why| {
            if why.kind() == io::ErrorKind::WouldBlock {
                return Err(why);
            }
            // It was started anew, and with it its socket.
            let fresh = UnixDatagram::unbound()?;
            fresh.set_nonblocking(true)?;
            fresh.send_to(&entry.0, SOCKET).map(drop)
        })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let facts = event.metadata();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} lines of the log are lost: the journal did not take them");
            if self.send(&Entry::of(&text, Level::WARN, module_path!())).is_err() {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        let mut entry = Entry::of(&format!("{}{}", said.message, said.more), *facts.level(), facts.target());
        for (name, value) in &said.fields {
            entry.add(&format!("BATON_{}", name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")), value);
        }
        match self.send(&entry) {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                let _ = writeln!(io::stderr().lock(), "{}{}", said.message, said.more);
            }
        }
    }
}

/// syslog(3)'s number of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// What an event says: its text, its fields, and these as they stand behind the text.
#[derive(Debug, Default)]
struct Said {
    message: String,
    more: String,
    fields: Vec<(&'static str, String)>,
}

impl Said {
    fn note(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            // Writing to a string does not fail.
            let _ = write!(self.more, " {}={value}", field.name());
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}"));
    }
}

/// An entry: a line a field; one with line breaks in its value has the value's length in front.
#[derive(Debug, Default)]
struct Entry(Vec<u8>);

impl Entry {
    /// With what every entry has.
    fn of(message: &str, level: Level, target: &str) -> Self {
        let mut entry = Self::default();
        entry.add("MESSAGE", message);
        entry.add("PRIORITY", priority(level));
        entry.add("SYSLOG_IDENTIFIER", "baton");
        entry.add("TARGET", target);
        entry
    }

    fn add(&mut self, name: &str, value: &str) {
        let value = value.get(..value.floor_char_boundary(LONGEST)).unwrap_or_default();
        self.0.extend(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend((value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend(value.as_bytes());
        self.0.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_line_breaks_have_their_length_in_front_and_long_ones_end_at_a_character() {
        let mut entry = Entry::default();
        entry.add("PRIORITY", "6");
        entry.add("MESSAGE", "a\nb");
        assert_eq!(entry.0, b"PRIORITY=6\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
        let mut long = Entry::default();
        long.add("A", &"\u{e4}".repeat(LONGEST));
        assert_eq!(long.0.len(), "A=\n".len() + LONGEST);
    }
}
