use serde_json::{Value, json};

use super::super::scripted::{LIMITS, Rig, document, server, service};
use super::super::{Condition, Tag, Terms};
use super::*;

fn web(port: u16, last: u8, weight: u32) -> Value {
    let one = json!({"address": format!("10.10.24.{last}"), "mac": "02:00:00:00:00:15", "weight": weight});
    json!({"protocol": "tcp", "address": "10.10.24.88", "port": port, "scheduler": "rr", "real_servers": [one]})
}

fn key(port: u16) -> ServiceKey {
    format!("tcp:10.10.24.88:{port}").parse().unwrap()
}

fn stored(folder: &tempfile::TempDir) -> Rig {
    let store = Store::open(folder.path().join("state.json")).unwrap();
    let mut version = Version::beginning(Document::default(), "0 services to begin with");
    store.begin_with(&mut version).unwrap();
    let rig = Rig::with(1, 8, LIMITS, Some(store));
    rig.director.restore(&version).unwrap();
    rig
}

fn ports(rig: &Rig) -> Vec<u16> {
    rig.director.document().services.iter().map(|service| service.port).collect()
}

#[tokio::test]
async fn history_tells_who_changed_what_and_keeps_fifty() {
    let folder = tempfile::tempdir().unwrap();
    let rig = stored(&folder);
    let by_name = rig.director.under(Terms { actor: Actor::named("alice (uid 1000)"), ..Terms::default() });
    by_name.create_service(&service(web(80, 21, 1))).await.unwrap();
    rig.director.delete_real_server(key(80), "10.10.24.21:80".parse().unwrap()).await.unwrap();
    let told = rig.director.history().await.unwrap();
    let lines: Vec<_> = told.changes.iter().map(|e| (e.change.revision, e.change.by.as_str(), e.change.what.as_str(), e.kept)).collect();
    assert_eq!(
        lines,
        [
            (2, "baton", "real server 10.10.24.21:80 of virtual service tcp:10.10.24.88:80 removed", true),
            (1, "alice (uid 1000)", "virtual service tcp:10.10.24.88:80 added", true),
            (0, "baton.toml", "0 services to begin with", true),
        ]
    );
    for weight in 1..=60 {
        rig.director.put_real_server(key(80), &server(json!({"address": "10.10.24.22", "weight": weight}))).await.unwrap();
    }
    let told = rig.director.history().await.unwrap();
    assert_eq!((told.revision, told.changes.len(), told.changes.last().unwrap().change.revision), (62, 50, 13));
    assert!(told.changes.iter().all(|entry| entry.kept));
    assert!(matches!(rig.director.past(12).await, Err(Error::NotKept { revision: Some(12), kept }) if kept.len() == 50));
    let past = rig.director.past(13).await.unwrap();
    assert_eq!((past.document.revision, past.document.services[0].real_servers[0].weight), (13, 11));
}

#[tokio::test]
async fn rollback_is_a_new_revision_that_another_one_undoes() {
    let folder = tempfile::tempdir().unwrap();
    let rig = stored(&folder);
    rig.director.create_service(&service(web(80, 21, 1))).await.unwrap();
    rig.director.create_service(&service(web(81, 22, 1))).await.unwrap();
    let list_revision = || rig.workers[0].tables().services.values().find(|s| s.key.port == 80).map(|s| s.revision);
    let before = list_revision();
    let back = rig.director.rollback(None).await.unwrap();
    assert_eq!((back.revision, back.removed.len(), back.removed[0].pointer.as_str()), (3, 1, "/services/tcp:10.10.24.88:81"));
    assert_eq!((ports(&rig), list_revision()), (vec![80], before));
    assert_eq!(rig.director.history().await.unwrap().changes[0].change.what, "back to revision 1: 1 service removed");
    rig.director.rollback(None).await.unwrap();
    assert_eq!((ports(&rig), rig.director.revision()), (vec![80, 81], 4));
    let tried = rig.director.under(Terms { dry_run: true, ..Terms::default() });
    assert!(matches!(tried.rollback(Some(0)).await, Err(Error::DryRun(found)) if found.removed.len() == 2));
    assert_eq!(rig.director.revision(), 4);
    rig.director.rollback(Some(0)).await.unwrap();
    assert_eq!(ports(&rig), [0_u16; 0]);
}

#[tokio::test]
async fn changes_faster_than_the_disk_are_told_with_the_version_that_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let rig = stored(&folder);
    let writes = (1..=30).map(|port| {
        let director = rig.director.clone();
        tokio::spawn(async move { director.create_service(&service(web(port, 21, 1))).await.map(drop) })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let told = rig.director.history().await.unwrap();
    assert_eq!(told.changes.len(), 31);
    let mut covered = Vec::new();
    for entry in told.changes.iter().filter(|entry| entry.kept).rev() {
        covered.extend(rig.director.past(entry.change.revision).await.unwrap().changes.iter().map(|change| change.revision));
    }
    assert_eq!(covered, (0..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn dry_run_tells_what_a_write_would_change_and_changes_nothing() {
    let rig = Rig::new(1);
    rig.director.create_service(&service(web(80, 21, 1))).await.unwrap();
    let limited = json!({"address": "10.10.24.21", "mac": "02:00:00:00:00:15", "upper_threshold": 5});
    rig.director.put_real_server(key(80), &server(limited)).await.unwrap();
    rig.workers[0].real_server("10.10.24.21").unwrap().stats.set_overloaded(true);
    let (before, batches) = (rig.director.document(), rig.workers[0].tables().versions.len());
    let tried = rig.director.under(Terms { dry_run: true, ..Terms::default() });
    let found = |result: Error| match result {
        Error::DryRun(found) => *found,
        other => panic!("{other}"),
    };
    let added = found(tried.create_service(&service(web(81, 22, 1))).await.unwrap_err());
    assert_eq!((added.added.len(), added.added[0].pointer.as_str(), added.revision), (1, "/services/tcp:10.10.24.88:81", 2));
    let edited = found(tried.put_real_server(key(80), &server(json!({"address": "10.10.24.21", "weight": 7}))).await.unwrap_err());
    let pointers: Vec<_> = edited.changed.iter().map(|edit| edit.pointer.rsplit('/').next().unwrap()).collect();
    assert_eq!(pointers, ["weight"]);
    assert_eq!(
        edited.removed.iter().map(|piece| piece.pointer.rsplit('/').next().unwrap()).collect::<Vec<_>>(),
        ["mac", "upper_threshold"]
    );
    assert!(found(tried.put_document(&before).await.unwrap_err()).is_empty());
    assert_eq!(found(tried.delete_all_services().await.unwrap_err()).removed.len(), 1);
    assert!(matches!(tried.create_service(&service(web(80, 21, 1))).await, Err(Error::ServiceExists(_))));
    assert!(matches!(tried.delete_service(key(99)).await, Err(Error::NoSuchService(_))));
    assert_eq!((rig.director.document(), rig.workers[0].tables().versions.len()), (before, batches));
    assert!(rig.workers[0].real_server("10.10.24.21").unwrap().stats.is_overloaded());
}

#[tokio::test]
async fn write_under_an_old_tag_is_refused_and_tags_of_others_stay() {
    let rig = Rig::new(1);
    rig.director.create_service(&service(web(80, 21, 1))).await.unwrap();
    rig.director.create_service(&service(web(81, 22, 1))).await.unwrap();
    let (one, other) = (Resource::Service(key(80)), Resource::Service(key(81)));
    let (old, stays) = (rig.director.tag(one).unwrap(), rig.director.tag(other).unwrap());
    let only_at = |tag: Tag| rig.director.under(Terms { condition: Some(Condition::Unchanged(vec![None, Some(tag)])), ..Terms::default() });
    let socket = "10.10.24.21:80".parse().unwrap();
    only_at(rig.director.tag(Resource::RealServer(key(80), socket)).unwrap()).delete_real_server(key(80), socket).await.unwrap();
    assert_eq!((rig.director.tag(other).unwrap(), rig.director.tag(one).unwrap().revision), (stays, 3));
    let refused = only_at(old).delete_service(key(80)).await.unwrap_err();
    assert!(matches!(refused, Error::NotAsAsked { now: Some(3), asked: Some(1), .. }), "{refused}");
    assert!(refused.to_string().contains("since revision 3") && refused.to_string().contains("as in revision 1"), "{refused}");
    assert!(only_at(Tag { run: old.run + 1, revision: 3 }).delete_service(key(80)).await.is_err(), "another run's revision 3");
    only_at(rig.director.tag(one).unwrap()).delete_service(key(80)).await.unwrap();
    assert!(matches!(only_at(stays).delete_service(key(80)).await, Err(Error::NoSuchService(_))), "what is missing is said first");
    let new = |condition| rig.director.under(Terms { condition: Some(condition), makes: true, ..Terms::default() });
    assert!(matches!(new(Condition::Present).put_service(&service(web(80, 21, 1))).await, Err(Error::NotAsAsked { now: None, .. })));
    assert!(new(Condition::Absent).put_service(&service(web(80, 21, 1))).await.unwrap().0);
    assert!(matches!(new(Condition::Absent).put_service(&service(web(80, 21, 1))).await, Err(Error::NotAsAsked { now: Some(5), .. })));
}

#[tokio::test]
async fn tags_follow_what_the_document_shows_and_nothing_else() {
    let rig = Rig::new(1);
    rig.director
        .create_service(&service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80,
        "real_servers": [{"address": "10.10.24.21"}]})))
        .await
        .unwrap();
    let tags = || {
        let of = |resource| rig.director.tag(resource).unwrap().revision;
        (of(Resource::Service(key(80))), of(Resource::RealServer(key(80), "10.10.24.21:80".parse().unwrap())), of(Resource::Settings))
    };
    assert_eq!(tags(), (1, 1, 0));
    rig.director.set_neighbour(0, "10.10.24.21".parse().unwrap(), Some([2, 0, 0, 0, 0, 0x15]));
    rig.director.edit_settings(|settings| settings.sloppy_tcp = 1).await.unwrap();
    assert_eq!(tags(), (1, 1, 2), "a MAC is no change of the configuration");
    rig.director.create_real_server(key(80), &server(json!({"address": "10.10.24.22"}))).await.unwrap();
    assert_eq!(tags(), (3, 1, 2));
    assert_eq!(rig.director.tag(Resource::Document).unwrap().revision, 3);
}

#[tokio::test]
async fn reload_applies_what_changed_in_the_file_and_leaves_what_others_changed() {
    let folder = tempfile::tempdir().unwrap();
    let rig = stored(&folder);
    let file = |services: Value, settings: Value| document(json!({"services": services, "settings": settings}));
    rig.director.reload(&file(json!([web(80, 21, 1), web(81, 22, 1)]), json!({"sloppy_tcp": 1}))).await.unwrap();
    // By hand: another setting, a service of its own, other weights in both of the file's.
    rig.director.edit_settings(|settings| settings.timeout_udp = 30).await.unwrap();
    rig.director.create_service(&service(web(90, 23, 1))).await.unwrap();
    rig.director.put_service(&service(web(80, 21, 5))).await.unwrap();
    rig.director.put_service(&service(web(81, 22, 5))).await.unwrap();
    let same = rig.director.reload(&file(json!([web(80, 21, 1), web(81, 22, 1)]), json!({"sloppy_tcp": 1}))).await.unwrap();
    assert!(same.is_empty(), "the file is the same: {same:?}");
    let revision = rig.director.revision();
    assert_eq!(same.revision, revision, "and makes no revision");
    let found =
        rig.director.reload(&file(json!([web(82, 21, 1), web(81, 22, 7)]), json!({"sloppy_tcp": 1, "drop_entry": 3}))).await.unwrap();
    assert_eq!(found.removed.iter().map(|piece| piece.pointer.as_str()).collect::<Vec<_>>(), ["/services/tcp:10.10.24.88:80"]);
    assert_eq!(found.added.iter().map(|piece| piece.pointer.as_str()).collect::<Vec<_>>(), ["/services/tcp:10.10.24.88:82"]);
    let edits: Vec<_> = found.changed.iter().map(|edit| (edit.pointer.as_str(), &edit.before, &edit.after)).collect();
    let weight = "/services/tcp:10.10.24.88:81/real_servers/10.10.24.22:81/weight";
    assert_eq!(edits, [(weight, &json!(5), &json!(7)), ("/settings/drop_entry", &json!(0), &json!(3))]);
    assert_eq!(ports(&rig), [81, 90, 82]);
    let settings = rig.director.settings();
    assert_eq!((settings.sloppy_tcp, settings.timeout_udp, settings.drop_entry), (1, 30, 3));
}

#[tokio::test]
async fn what_the_file_said_last_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = document(json!({"services": [web(80, 21, 1)]}));
    {
        let rig = stored(&folder);
        rig.director.reload(&file).await.unwrap();
        rig.director.delete_service(key(80)).await.unwrap();
    }
    let store = Store::open(folder.path().join("state.json")).unwrap();
    let version = store.load().unwrap().unwrap();
    let rig = Rig::with(1, 8, LIMITS, Some(store));
    rig.director.restore(&version).unwrap();
    assert!(rig.director.reload(&file).await.unwrap().is_empty(), "the service was removed by hand, and the file is the same");
    assert_eq!(rig.director.history().await.unwrap().changes.len(), 3);
}

#[tokio::test]
async fn reload_that_does_not_fit_what_others_changed_changes_nothing() {
    let rig = Rig::new(1);
    rig.director.create_service(&service(web(80, 21, 1))).await.unwrap();
    // The file wants as a VIP what is a real server by hand.
    let file = document(json!({"services": [{"protocol": "tcp", "address": "10.10.24.21", "port": 80}]}));
    assert!(matches!(rig.director.reload(&file).await, Err(Error::Invalid(_))));
    assert_eq!((ports(&rig), rig.director.revision()), (vec![80], 1));
}
