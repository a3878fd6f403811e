//! `baton events`: what happened, and what happens.

use std::time::Duration;

use super::client::{Client, ClientError, encode};
use super::console::Console;
use super::get::Output;
use crate::codes::Code;
use crate::model::{Event, Events, Gap};

/// How long it is waited before a stream that broke off is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// Which events.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Chosen {
    /// Only those after the one with this id
    #[arg(long, value_name = "ID")]
    pub since: Option<u64>,
    /// Only those of this kind, such as health-changed; more with commas between
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only those about this virtual service, such as tcp:10.10.24.88:80
    #[arg(long, value_name = "ID")]
    pub service: Option<String>,
}

impl Chosen {
    fn path(&self, since: Option<u64>) -> String {
        let given = [("since", since.map(|since| since.to_string())), ("kind", self.kind.clone()), ("service", self.service.clone())];
        let pairs: Vec<String> =
            given.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", encode(value)))).collect();
        format!("events?{}", pairs.join("&"))
    }
}

/// What happened so far.
pub fn list(client: &Client, chosen: &Chosen, output: Output, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let found: Events = client.get(&chosen.path(chosen.since))?;
    show_all(&found, output, console);
    Ok(0)
}

/// What happened so far, and then what happens, until nobody reads it; through restarts of the director.
pub fn watch(client: &Client, chosen: &Chosen, output: Output, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let found: Events = client.get(&chosen.path(chosen.since))?;
    show_all(&found, output, console);
    console.flush();
    let mut seen = found.latest;
    while !console.closed() {
        let mut event = Record::default();
        let ended = client.follow(&chosen.path(Some(seen)), |line| {
            if let Some((kind, data)) = event.take(line) {
                if kind == "missed" {
                    if let Ok(gap) = serde_json::from_str::<Gap>(&data) {
                        show_gap(&gap, console);
                    }
                } else if let Ok(event) = serde_json::from_str::<Event>(&data) {
                    seen = event.id;
                    show(&event, output, console);
                }
                console.flush();
            }
            !console.closed()
        });
        match ended {
            // The director is there and says that it cannot be.
            Err(error @ (ClientError::Refused(_) | ClientError::NotUnderstood { .. })) if error.code() != Some("too-many-streams") => {
                return Err(error);
            }
            Err(error) => console.complain(format_args!("{}; trying again", error.with_code())),
            Ok(()) if console.closed() => return Ok(0),
            Ok(()) => console.complain(format_args!("the director ended the stream; trying again [{}]", Code::StreamBroken)),
        }
        std::thread::sleep(PAUSE);
    }
    Ok(0)
}

/// One record of a stream as its lines come (WHATWG HTML section 9.2.6); of what the director sends, that is all that counts.
#[derive(Debug, Default)]
struct Record {
    kind: String,
    data: String,
}

impl Record {
    /// Takes a line; kind and data, when it was the empty one that ends a record.
    fn take(&mut self, line: &str) -> Option<(String, String)> {
        if line.is_empty() {
            let Self { kind, data } = std::mem::take(self);
            return (!data.is_empty()).then_some((kind, data));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => value.clone_into(&mut self.data),
            _ => {}
        }
        None
    }
}

fn show_all(found: &Events, output: Output, console: &mut Console<'_>) {
    if let Some(gap) = &found.gap {
        show_gap(gap, console);
    }
    for event in &found.events {
        show(event, output, console);
    }
}

fn show_gap(gap: &Gap, console: &mut Console<'_>) {
    let after = gap.after;
    console.complain(format_args!(
        "events after {after} are missing: they are not kept any more, or were another run's [{}]",
        Code::EventsMissing
    ));
}

fn show(event: &Event, output: Output, console: &mut Console<'_>) {
    match output {
        Output::Table => console.line(format_args!("{}  {:<21}  {}: {}", event.time, event.what.kind(), event.what, event.reason)),
        Output::Json => match serde_json::to_string(event) {
            Ok(text) => console.line(text),
            Err(error) => console.complain(format_args!("cannot show an event: {error} [{}]", Code::CannotWrite)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_with_an_empty_line_and_comments_are_none() {
        let mut record = Record::default();
        let lines = [":", "", "id: 7", "event: started", "data: {\"a\": 1}", "", "data: {}", ""];
        let taken: Vec<_> = lines.iter().filter_map(|line| record.take(line)).collect();
        assert_eq!(taken, [("started".to_owned(), "{\"a\": 1}".to_owned()), (String::new(), "{}".to_owned())]);
    }

    #[test]
    fn what_is_chosen_stands_in_the_query() {
        let chosen = Chosen { since: None, kind: Some("started".to_owned()), service: Some("tcp:[fd00::1]:80".to_owned()) };
        assert_eq!(chosen.path(Some(7)), "events?since=7&kind=started&service=tcp:%5Bfd00::1%5D:80");
    }
}
