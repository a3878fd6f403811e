//! Which keys of a changed baton.toml are read at start only.

use toml::{Table, Value};

use super::Config;

/// What can change while the director runs.
const LIVE: [&str; 3] = ["settings", "mark", "service"];

/// The keys, by their paths, that differ between two files and are read at start only; each file with its text.
///
/// A key that is written otherwise and means the same (a default that is spelled out) is no difference.
pub fn needs_restart(running: (&Config, &str), new: (&Config, &str)) -> Vec<String> {
    if fixed(running.0) == fixed(new.0) {
        return Vec::new();
    }
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let mut names = Vec::new();
    compare("", &table(running.1), &table(new.1), &mut names);
    names.retain(|name| {
        !LIVE.iter().any(|live| name.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    });
    if names.is_empty() {
        names.push("everything but settings, mark and service".to_owned());
    }
    names
}

fn fixed(config: &Config) -> Config {
    Config { settings: crate::model::Settings::default(), marks: Vec::new(), services: Vec::new(), ..config.clone() }
}

fn compare(path: &str, old: &Table, new: &Table, names: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare_values(path, old.get(key), new.get(key), names);
    }
}

fn compare_values(path: String, old: Option<&Value>, new: Option<&Value>, names: &mut Vec<String>) {
    let empty = Table::new();
    match (old, new) {
        _ if old == new => {}
        (Some(Value::Table(old)), Some(Value::Table(new))) => compare(&path, old, new, names),
        (Some(Value::Table(one)), None) | (None, Some(Value::Table(one))) => compare(&path, one, &empty, names),
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.iter().chain(new).all(Value::is_table) => {
            for index in 0..old.len().max(new.len()) {
                let both = (old.get(index), new.get(index));
                match both {
                    (Some(_), Some(_)) => compare_values(format!("{path}[{index}]"), both.0, both.1, names),
                    _ => names.push(format!("{path}[{index}]")),
                }
            }
        }
        _ => names.push(path),
    }
}
