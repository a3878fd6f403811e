//! `baton apply`, `diff`, `history`, `rollback`, `reload` and `errors`: changes of the whole configuration.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::Value;

use super::client::{Client, ClientError};
use super::console::Console;
use super::get::{Output, json, table};
use crate::codes::Code;
use crate::config;
use crate::model::{Difference, Document, History, PastDocument, Rollback};
use crate::run::cpus;

/// A configuration to make the director's own, or to hold against it.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// baton.toml, of which services, mark rules and settings count, or the API's JSON document; - is standard input
    #[arg(long, short, value_name = "FILE")]
    pub file: PathBuf,
    /// How to show the difference
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// What is shown of a change, and whether it is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Manner {
    /// Change nothing: show what would be
    #[arg(long)]
    pub dry_run: bool,
    /// How to show the difference
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Makes the director's configuration what the file says; the exit code.
pub fn apply(client: &Client, source: &Source, dry_run: bool, console: &mut Console<'_>) -> u8 {
    let Some(found) = submit(client, source, dry_run, console) else { return 1 };
    show(&found, dry_run, source.output, console);
    0
}

/// Holds the file against the director's configuration: 0 when they are the same, 1 when not, 2 when that could not be found out.
pub fn diff(client: &Client, source: &Source, console: &mut Console<'_>) -> u8 {
    let Some(found) = submit(client, source, true, console) else { return 2 };
    if !found.is_empty() || source.output == Output::Json {
        show(&found, true, source.output, console);
    }
    u8::from(!found.is_empty())
}

/// Sends the file's document; `None` when it has none, or was refused, which is said.
fn submit(client: &Client, source: &Source, dry_run: bool, console: &mut Console<'_>) -> Option<Difference> {
    let document = read(&source.file, console)?;
    client.send(Method::POST, &path("apply", dry_run), &document).map_err(|error| console.complain(error.with_places())).ok()
}

/// Goes back to an earlier revision; the exit code.
pub fn rollback(client: &Client, revision: Option<u64>, manner: &Manner, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let found = client.send(Method::POST, &path("rollback", manner.dry_run), &Rollback { revision })?;
    show(&found, manner.dry_run, manner.output, console);
    Ok(0)
}

/// Has the director read its baton.toml again; the exit code.
pub fn reload(client: &Client, manner: &Manner, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let found = client.ask(Method::POST, &path("reload", manner.dry_run))?;
    show(&found, manner.dry_run, manner.output, console);
    Ok(0)
}

/// The last changes, or the configuration as it was in one revision; the exit code.
pub fn history(client: &Client, revision: Option<u64>, output: Output, console: &mut Console<'_>) -> Result<u8, ClientError> {
    if let Some(revision) = revision {
        let past: PastDocument = client.get(&format!("history/{revision}"))?;
        json(&past.document, console);
        return Ok(0);
    }
    let found: History = client.get("history")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(0);
    }
    let rows = found.changes.into_iter().map(|entry| {
        let kept = if entry.kept { "yes" } else { "no" };
        vec![entry.change.revision.to_string(), entry.change.at, entry.change.by, kept.to_owned(), entry.change.what]
    });
    table(&["REVISION", "WHEN", "WHO", "KEPT", "WHAT"], rows.collect(), console);
    Ok(0)
}

/// Every error that the API and the commands know.
pub fn errors(output: Output, console: &mut Console<'_>) {
    match output {
        Output::Json => {
            let all: Vec<Value> = Code::ALL
                .iter()
                .map(|code| serde_json::json!({"code": code.as_str(), "status": code.status(), "meaning": code.meaning()}))
                .collect();
            json(&all, console);
        }
        Output::Table => {
            for code in Code::ALL {
                let status = if code.status() == 0 { "-".to_owned() } else { code.status().to_string() };
                console.line(format_args!("{code:<22} {status:<4} {}", code.meaning()));
            }
        }
    }
}

fn path(what: &str, dry_run: bool) -> String {
    if dry_run { format!("{what}?dry_run=true") } else { what.to_owned() }
}

/// The document of a file; `None` when it has none, which is said.
fn read(file: &Path, console: &mut Console<'_>) -> Option<Document> {
    let stdin = file.as_os_str() == "-";
    let text = if stdin { console.read_all() } else { std::fs::read_to_string(file) };
    let unreadable = |why| console.complain(format_args!("{}: cannot read it: {why} [{}]", file.display(), Code::UnreadableFile));
    let text = text.map_err(unreadable).ok()?;
    let file = if stdin { Path::new("standard input") } else { file };
    if text.trim_start().starts_with('{') {
        let mut reader = serde_json::Deserializer::from_str(&text);
        let faulty = |fault| console.complain(format_args!("{}: {fault} [{}]", file.display(), Code::Invalid));
        return serde_path_to_error::deserialize(&mut reader).map_err(faulty).ok();
    }
    let faulty = |faults: config::ConfigFaults| console.complain(format_args!("{faults}\n[{}]", faults.code()));
    config::parse(&text, file, &cpus::allowed()).map(|config| config.document()).map_err(faulty).ok()
}

fn show(found: &Difference, dry_run: bool, output: Output, console: &mut Console<'_>) {
    if output == Output::Json {
        return json(found, console);
    }
    let Difference { revision, added, removed, changed } = found;
    for piece in removed {
        place(&piece.pointer, console);
        lines('-', &piece.pointer, &piece.value, console);
    }
    for edit in changed {
        place(&edit.pointer, console);
        lines('-', &edit.pointer, &edit.before, console);
        lines('+', &edit.pointer, &edit.after, console);
    }
    for piece in added {
        place(&piece.pointer, console);
        lines('+', &piece.pointer, &piece.value, console);
    }
    let count = added.len() + removed.len() + changed.len();
    console.line(match (count, dry_run) {
        (0, _) => format!("nothing differs from revision {revision}"),
        (1, true) => format!("1 difference from revision {revision}"),
        (_, true) => format!("{count} differences from revision {revision}"),
        (1, false) => format!("revision {revision}: 1 difference was applied"),
        (_, false) => format!("revision {revision}: {count} differences were applied"),
    });
}

/// Where: all of the pointer but its last part.
fn place(pointer: &str, console: &mut Console<'_>) {
    let around = pointer.rsplit_once('/').map_or("", |(around, _)| around);
    let around = if around.is_empty() { "/" } else { around };
    console.coloured("36", format_args!("@@ {around} @@"));
}

/// What, line by line behind a sign: the last part of the pointer, and the value.
fn lines(sign: char, pointer: &str, value: &Value, console: &mut Console<'_>) {
    let name = pointer.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
    let text = format!("{name}: {}", serde_json::to_string_pretty(value).unwrap_or_default());
    for line in text.lines() {
        console.coloured(if sign == '-' { "31" } else { "32" }, format_args!("{sign} {line}"));
    }
}
