//! What is different between two configurations, field by field.

use serde_json::{Map, Value};

use crate::model::{Difference, Document, Edit, Piece};

/// The exact difference between two configurations; their revisions do not count.
///
/// Cost: both documents as JSON, and a walk through them.
pub(super) fn difference(before: &Document, after: &Document) -> Difference {
    let mut found = Difference { revision: before.revision, ..Difference::default() };
    compare_services(before, after, &mut found);
    let rest = |document: &Document| serde_json::json!({"settings": document.settings, "marks": document.marks});
    compare("", &rest(before), &rest(after), &mut found);
    found
}

/// A list whose members are the same by their ids, in whatever place they stand.
type Keyed = Vec<(String, Value)>;

fn compare_services(before: &Document, after: &Document, found: &mut Difference) {
    let keyed = |document: &Document| -> Keyed {
        document.services.iter().map(|service| (service.key().to_string(), serde_json::to_value(service).unwrap_or_default())).collect()
    };
    compare_keyed("/services", &keyed(before), &keyed(after), found);
}

fn compare_keyed(at: &str, before: &Keyed, after: &Keyed, found: &mut Difference) {
    let by_id = |list: &Keyed| list.iter().cloned().collect::<Map<String, Value>>();
    compare_fields(at, &by_id(before), &by_id(after), found);
    let common = |list: &Keyed, other: &Keyed| -> Vec<Value> {
        let there: std::collections::HashSet<&String> = other.iter().map(|(id, _)| id).collect();
        list.iter().filter(|(id, _)| there.contains(id)).map(|(id, _)| Value::from(id.as_str())).collect()
    };
    let (old, new) = (common(before, after), common(after, before));
    if old != new {
        found.changed.push(Edit { pointer: at.to_owned(), before: old.into(), after: new.into() });
    }
}

/// A service's real servers by their ids, when that is what `value` at `at` is.
fn real_servers(at: &str, value: &Value) -> Option<Keyed> {
    if !at.ends_with("/real_servers") {
        return None;
    }
    let id = |server: &Value| {
        let (address, port) = (server.get("address")?.as_str()?, server.get("port")?.as_u64()?);
        let address: std::net::IpAddr = address.parse().ok()?;
        Some((std::net::SocketAddr::new(address, u16::try_from(port).ok()?).to_string(), server.clone()))
    };
    value.as_array()?.iter().map(id).collect()
}

fn compare(at: &str, before: &Value, after: &Value, found: &mut Difference) {
    if before == after {
        return;
    }
    if let (Some(before), Some(after)) = (real_servers(at, before), real_servers(at, after)) {
        return compare_keyed(at, &before, &after, found);
    }
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => compare_fields(at, before, after, found),
        _ => found.changed.push(Edit { pointer: at.to_owned(), before: before.clone(), after: after.clone() }),
    }
}

fn compare_fields(at: &str, before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Difference) {
    let pointer = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    for (key, value) in before {
        match after.get(key) {
            Some(new) => compare(&pointer(key), value, new, found),
            None => found.removed.push(Piece { pointer: pointer(key), value: value.clone() }),
        }
    }
    for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        found.added.push(Piece { pointer: pointer(key), value: value.clone() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::scripted::document;
    use super::*;

    fn web(port: u16, servers: &Value) -> Value {
        json!({"protocol": "tcp", "address": "10.10.24.88", "port": port, "real_servers": servers})
    }

    fn at(last: u8, weight: u32) -> Value {
        json!({"address": format!("10.10.24.{last}"), "port": 80, "weight": weight})
    }

    #[test]
    fn every_field_that_differs_is_named_by_ids_with_before_and_after() {
        let before = document(json!({"revision": 4, "services": [web(80, &json!([at(21, 1), at(22, 1)])), web(81, &json!([]))]}));
        let after = document(json!({
            "settings": {"sloppy_tcp": 1},
            "marks": [{"mark": 7, "destination": "10.10.24.90"}],
            "services": [web(80, &json!([at(21, 5), at(23, 1)])), web(82, &json!([]))],
        }));
        let found = difference(&before, &after);
        let pointers = |pieces: &[Piece]| pieces.iter().map(|piece| piece.pointer.clone()).collect::<Vec<_>>();
        assert_eq!(found.revision, 4);
        assert_eq!(pointers(&found.added), ["/services/tcp:10.10.24.88:80/real_servers/10.10.24.23:80", "/services/tcp:10.10.24.88:82"]);
        assert_eq!(pointers(&found.removed), ["/services/tcp:10.10.24.88:80/real_servers/10.10.24.22:80", "/services/tcp:10.10.24.88:81"]);
        let changed: Vec<_> = found.changed.iter().map(|edit| (edit.pointer.as_str(), &edit.before, &edit.after)).collect();
        assert_eq!(changed[0], ("/services/tcp:10.10.24.88:80/real_servers/10.10.24.21:80/weight", &json!(1), &json!(5)));
        assert_eq!(changed[1].0, "/marks");
        assert_eq!(changed[2], ("/settings/sloppy_tcp", &json!(0), &json!(1)));
    }

    #[test]
    fn same_configuration_differs_in_nothing_and_another_order_is_told_by_ids() {
        let one = document(json!({"services": [web(80, &json!([at(21, 1), at(22, 1)])), web(81, &json!([]))]}));
        assert!(
            difference(&one, &document(json!({"revision": 9, "services": [web(80, &json!([at(21, 1), at(22, 1)])), web(81, &json!([]))]})))
                .is_empty()
        );
        let other = document(json!({"services": [web(81, &json!([])), web(80, &json!([at(22, 1), at(21, 1)]))]}));
        let found = difference(&one, &other);
        let edits: Vec<_> = found.changed.iter().map(|edit| (edit.pointer.as_str(), edit.after.clone())).collect();
        assert_eq!(
            edits,
            [
                ("/services/tcp:10.10.24.88:80/real_servers", json!(["10.10.24.22:80", "10.10.24.21:80"])),
                ("/services", json!(["tcp:10.10.24.88:81", "tcp:10.10.24.88:80"])),
            ]
        );
    }
}
