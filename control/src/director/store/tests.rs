use super::*;
use crate::model::Settings;

fn document(revision: u64) -> Document {
    let services = (1..=30_u16)
        .map(|port| serde_json::from_value(serde_json::json!({"protocol": "tcp", "address": "10.0.0.1", "port": port})).unwrap());
    Document { revision, settings: Settings::default(), marks: Vec::new(), services: services.collect() }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("made/state.json")).unwrap();
    (folder, store)
}

fn earlier(store: &Store, number: u32) -> Option<u64> {
    let bytes = fs::read(store.numbered(number)).ok()?;
    Some(serde_json::from_slice::<Document>(&bytes).unwrap().revision)
}

#[test]
fn a_store_without_a_file_is_empty() {
    assert!(store().1.load().unwrap().is_none());
}

#[test]
fn what_was_written_is_read_back() {
    let (_folder, store) = store();
    store.write(&document(7)).unwrap();
    assert_eq!(store.load().unwrap(), Some(document(7)));
}

#[test]
fn the_last_five_versions_are_kept() {
    let (_folder, store) = store();
    for revision in 1..=8 {
        store.write(&document(revision)).unwrap();
    }
    let kept: Vec<_> = (1..=6).map(|number| earlier(&store, number)).collect();
    assert_eq!(kept, [Some(7), Some(6), Some(5), Some(4), Some(3), None]);
}

const STEPS: [Step; 7] = [Step::Start, Step::HalfWritten, Step::Written, Step::Synced, Step::Shifted, Step::Kept, Step::Renamed];

/// What is left in the folder when everything after `step` never happened.
fn crash_at(store: &Store, step: Step, revision: u64) {
    let outcome = store.write_in_steps(&document(revision), &mut |at| if at == step { Err(io::Error::other("crash")) } else { Ok(()) });
    assert!(outcome.is_err(), "{step:?} was reached");
}

#[test]
fn a_crash_at_any_point_leaves_the_old_or_the_new_whole() {
    for step in STEPS {
        let (_folder, store) = store();
        store.write(&document(1)).unwrap();
        crash_at(&store, step, 2);
        let expected = if step == Step::Renamed { 2 } else { 1 };
        assert_eq!(store.load().unwrap(), Some(document(expected)), "{step:?}");
    }
}

#[test]
fn the_first_write_crashes_into_nothing_or_the_new() {
    for step in STEPS {
        let (_folder, store) = store();
        crash_at(&store, step, 1);
        let expected = (step == Step::Renamed).then(|| document(1));
        assert_eq!(store.load().unwrap(), expected, "{step:?}");
    }
}

#[test]
fn after_any_crash_the_next_writes_succeed_and_earlier_versions_are_whole() {
    for step in STEPS {
        let (_folder, store) = store();
        (1..=6).for_each(|revision| store.write(&document(revision)).unwrap());
        crash_at(&store, step, 7);
        crash_at(&store, step, 8);
        store.write(&document(9)).unwrap();
        store.write(&document(10)).unwrap();
        assert_eq!(store.load().unwrap(), Some(document(10)), "{step:?}");
        let kept: Vec<u64> = (1..=5).filter_map(|number| earlier(&store, number)).collect();
        let before: &[u64] = if step == Step::Renamed { &[9, 8, 7, 6, 5] } else { &[9, 6, 5, 4, 3] };
        assert_eq!(kept, before, "{step:?}");
    }
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
    store.write(&document(1)).unwrap();
    fs::create_dir(store.numbered("new")).unwrap();
    let message = store.write(&document(2)).unwrap_err().to_string();
    assert!(message.starts_with("create ") && message.contains("state.json.new"), "{message}");
    assert_eq!(store.load().unwrap(), Some(document(1)));
}
