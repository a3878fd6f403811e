//! `baton settings`: IPVS's sysctls by name, and the timeouts.

use hyper::Method;
use serde_json::{Map, Value};

use super::client::{Client, ClientError};
use super::console::Console;
use super::get::{Output, json, table};
use crate::codes::Code;
use crate::model::Settings;

/// Shows all settings, or those of `names`; the exit code.
pub fn get(client: &Client, names: &[String], output: Output, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let all: Map<String, Value> = client.get("settings")?;
    if let Some(unknown) = names.iter().find(|name| !all.contains_key(*name)) {
        console.complain(format_args!("{} [{}]", unknown_setting(unknown, all.keys()), Code::Usage));
        return Ok(2);
    }
    show(all.into_iter().filter(|(name, _)| names.is_empty() || names.contains(name)).collect(), output, console);
    Ok(0)
}

/// Sets each `NAME=VALUE`, all or none; the exit code.
pub fn set(client: &Client, changes: &[String], console: &mut Console<'_>) -> Result<u8, ClientError> {
    match parse_changes(changes) {
        Ok(changes) => {
            client.submit(Method::PATCH, "settings", &changes)?;
            Ok(0)
        }
        Err(text) => {
            console.complain(format_args!("{text} [{}]", Code::Usage));
            Ok(2)
        }
    }
}

/// Puts every setting back to its default; the exit code.
pub fn reset(client: &Client, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let settings: Map<String, Value> = client.ask(Method::DELETE, "settings")?;
    show(settings, Output::Table, console);
    Ok(0)
}

fn show(settings: Map<String, Value>, output: Output, console: &mut Console<'_>) {
    match output {
        Output::Json => json(&Value::Object(settings), console),
        Output::Table => {
            let rows = settings.into_iter().map(|(name, value)| vec![name, value.to_string()]).collect();
            table(&["SETTING", "VALUE"], rows, console);
        }
    }
}

fn parse_changes(changes: &[String]) -> Result<Map<String, Value>, String> {
    let known = known();
    let mut parsed = Map::new();
    for change in changes {
        let (name, value) = change.split_once('=').ok_or_else(|| format!("'{change}': expected NAME=VALUE, such as sloppy_tcp=1"))?;
        if !known.contains_key(name) {
            return Err(unknown_setting(name, known.keys()));
        }
        let number: u64 = value.parse().map_err(|_| format!("{name}: '{value}' is no whole number of 0 or more"))?;
        parsed.insert(name.to_owned(), number.into());
    }
    Ok(parsed)
}

fn known() -> Map<String, Value> {
    match serde_json::to_value(Settings::default()) {
        Ok(Value::Object(settings)) => settings,
        _ => Map::new(),
    }
}

fn unknown_setting<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    format!("no setting is called '{name}': there are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_names_and_numbers() {
        let parse = |changes: &[&str]| parse_changes(&changes.iter().map(|&change| change.to_owned()).collect::<Vec<_>>());
        assert_eq!(Value::Object(parse(&["sloppy_tcp=1", "timeout_udp=30"]).unwrap()).to_string(), r#"{"sloppy_tcp":1,"timeout_udp":30}"#);
        for (change, part) in [
            ("sloppy_tcp", "expected NAME=VALUE"),
            ("sloppy=1", "no setting is called 'sloppy': there are am_droprate, "),
            ("sloppy_tcp=on", "sloppy_tcp: 'on' is no whole number"),
            ("sloppy_tcp=-1", "sloppy_tcp: '-1' is no whole number"),
        ] {
            let text = parse(&[change]).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
    }
}
