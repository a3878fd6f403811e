//! Log lines as entries of systemd's journal, with their fields (systemd's "Native Journal Protocol").

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The most of a value that is sent: entries of ours are lines, and a datagram must fit into the socket's buffer.
const LONGEST: usize = 32 * 1024;

/// Sends every event to the journal. What it does not take goes to stderr.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// Whether stderr is the journal's, as `JOURNAL_STREAM` says: device and inode (systemd.exec(5)).
    pub(super) fn is_stderr() -> bool {
        let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
        std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| *stream == *format!("{}:{}", stderr.dev(), stderr.ino()))
    }

    /// Finds the journal's socket.
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self(socket))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let facts = event.metadata();
        let mut entry = Entry::default();
        entry.add("MESSAGE", &format!("{}{}", said.message, said.more));
        entry.add("PRIORITY", priority(*facts.level()));
        entry.add("SYSLOG_IDENTIFIER", "baton");
        entry.add("TARGET", facts.target());
        for (name, value) in &said.fields {
            entry.add(&format!("BATON_{}", name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_")), value);
        }
        // The journal may be restarted at this moment; without it stderr leads to it all the same.
        let sent = self.0.send(&entry.0).or_else(|_| UnixDatagram::unbound()?.send_to(&entry.0, SOCKET));
        if sent.is_err() {
            let _ = writeln!(io::stderr().lock(), "{}{}", said.message, said.more);
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
