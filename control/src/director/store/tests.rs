use std::fs;

use super::*;
use crate::model::Settings;

pub(super) fn version(revision: u64) -> Version {
    let services = (1..=2_u16)
        .map(|port| serde_json::from_value(serde_json::json!({"protocol": "tcp", "address": "10.0.0.1", "port": port})).unwrap());
    let document = Document { revision, settings: Settings::default(), marks: Vec::new(), services: services.collect() };
    let change = Change { revision, at: "2026-05-04T13:05:09Z".to_owned(), by: "test".to_owned(), what: format!("to {revision}") };
    Version { document, history: vec![change], file: Some(Document::default()) }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("made/state.json")).unwrap();
    (folder, store)
}

#[test]
fn a_store_without_a_file_is_empty() {
    let (_folder, store) = store();
    assert!(store.load().unwrap().is_none() && store.kept().is_empty());
}

#[test]
fn what_was_written_is_read_back_as_present_and_as_past() {
    let (_folder, store) = store();
    for revision in 1..=3 {
        store.write(&version(revision)).unwrap();
    }
    assert_eq!(store.load().unwrap(), Some(version(3)));
    assert_eq!((store.read(2).unwrap(), store.read(4).unwrap()), (Some(version(2)), None));
    assert!(!store.beside("new").exists());
}

#[test]
fn last_fifty_versions_are_kept() {
    let (_folder, store) = store();
    for revision in 1..=53 {
        store.write(&version(revision)).unwrap();
    }
    assert_eq!(store.kept(), (4..=53).collect::<Vec<_>>());
}

#[test]
fn document_of_an_earlier_release_is_read() {
    let (_folder, store) = store();
    fs::write(store.path(), serde_json::to_vec(&version(7).document).unwrap()).unwrap();
    let mut found = store.load().unwrap().unwrap();
    assert_eq!(found, Version { document: version(7).document, ..Version::default() });
    store.begin_with(&mut found).unwrap();
    assert_eq!(store.kept(), [7]);
}

#[test]
fn version_put_back_by_hand_is_a_new_revision_and_takes_no_other_away() {
    let (_folder, store) = store();
    for revision in 1..=5 {
        let mut version = version(revision);
        version.document.settings.timeout_udp = u32::try_from(revision).unwrap();
        store.write(&version).unwrap();
    }
    fs::copy(store.numbered(2), store.path()).unwrap();
    for _start in 0..2 {
        let mut found = store.load().unwrap().unwrap();
        store.begin_with(&mut found).unwrap();
        assert_eq!((found.document.revision, found.document.settings.timeout_udp), (6, 2));
        assert_eq!(found.history.last().unwrap().what, "state file of revision 2 put back");
        assert_eq!(store.kept(), [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn field_that_no_version_has_is_refused() {
    let (_folder, store) = store();
    fs::write(store.path(), r#"{"revision": 3, "service": []}"#).unwrap();
    assert!(store.load().unwrap_err().to_string().contains("unknown field `service`"));
}

#[test]
fn a_broken_file_is_named_with_the_place_and_never_taken_for_empty() {
    let (_folder, store) = store();
    fs::write(store.path(), "{\"revision\": 3,\n \"services\": [").unwrap();
    let message = store.load().unwrap_err().to_string();
    assert!(message.contains("state.json") && message.contains("line 2"), "{message}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let (_folder, store) = store();
    store.write(&version(1)).unwrap();
    fs::create_dir(store.beside("new")).unwrap();
    let message = store.write(&version(2)).unwrap_err().to_string();
    assert!(message.starts_with("remove ") && message.contains("state.json.new"), "{message}");
    assert_eq!(store.load().unwrap(), Some(version(1)));
}
