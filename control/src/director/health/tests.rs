use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::super::scripted::{Rig, service};
use super::super::tests::{MAC_21, ip, near, socket, web};
use super::*;
use crate::model::{RealServerState, ServicePatch, ServiceSpec};

fn spec(health: &Value, servers: &Value) -> ServiceSpec {
    service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "scheduler": "rr", "health": health, "real_servers": servers}))
}

async fn rig(health: Value, servers: Value) -> Rig {
    let rig = Rig::new(1);
    rig.director.create_service(&spec(&health, &servers)).await.unwrap();
    rig
}

/// What checks of the real server with this last number find from now on.
async fn found(rig: &Rig, last: u8, reason: Option<&str>) {
    let address = IpAddr::from([10, 10, 24, last]);
    let wanted = rig.director.checks().into_iter().find(|wanted| wanted.subject.server.ip() == address).expect("it is checked");
    rig.director.set_health(&[wanted.subject], &wanted.check, reason, UNIX_EPOCH);
    settled(rig).await;
}

async fn settled(rig: &Rig) {
    let number = rig.director.lock().desired.next_change - 1;
    while rig.director.lock().applied_by_all() < number {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// The members that workers have, newest first: last number and weight.
fn members(rig: &Rig) -> Vec<(u32, u32)> {
    let tables = rig.workers[0].tables();
    let service = tables.services.values().next().unwrap();
    let last = |id: u32| u32::try_from(tables.servers[&id].address.0 & 0xff).unwrap();
    service.members.iter().map(|member| (last(member.server.0), member.weight)).collect()
}

#[tokio::test]
async fn failed_real_server_is_out_and_finds_its_place_again() {
    let rig = rig(json!({"type": "tcp"}), json!([near(21), near(22)])).await;
    let before = rig.workers[0].real_server("10.10.24.21").unwrap();
    let document = rig.director.document();
    found(&rig, 21, Some("no answer")).await;
    assert_eq!(members(&rig), [(22, 1)]);
    assert!(!rig.workers[0].real_server("10.10.24.21").unwrap().available);
    let shown = rig.director.real_server(web(), socket("10.10.24.21:80")).unwrap();
    assert_eq!((shown.state, shown.weight, shown.reason.as_deref()), (RealServerState::Down, 1, Some("no answer")));
    assert_eq!(shown.health.unwrap().since.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(rig.director.document(), document, "what the operator wrote stays");

    found(&rig, 21, None).await;
    assert_eq!(members(&rig), [(22, 1), (21, 1)]);
    let after = rig.workers[0].real_server("10.10.24.21").unwrap();
    assert!(after.available && after.id == before.id && std::sync::Arc::ptr_eq(&after.stats, &before.stats));
}

#[tokio::test]
async fn on_failure_says_what_becomes_of_it() {
    for (on_failure, wanted, state) in [
        ("quiesce", vec![(22, 1), (21, 0)], RealServerState::Down),
        ("inhibit", vec![(22, 1), (21, 0)], RealServerState::Down),
        ("keep", vec![(22, 1), (21, 1)], RealServerState::Ready),
    ] {
        let rig = rig(json!({"type": "tcp", "on_failure": on_failure}), json!([near(21), near(22)])).await;
        found(&rig, 21, Some("no answer")).await;
        assert_eq!(members(&rig), wanted, "{on_failure}");
        assert!(rig.workers[0].real_server("10.10.24.21").unwrap().available);
        assert_eq!(rig.director.real_server(web(), socket("10.10.24.21:80")).unwrap().state, state);
    }
}

#[tokio::test]
async fn sorry_server_serves_below_the_quorum_and_hysteresis_holds_it() {
    let health = json!({"type": "tcp", "quorum": 2, "quorum_hysteresis": 1, "sorry_server": {"address": "10.10.24.99"}});
    let rig = rig(health, json!([near(21), near(22), near(23)])).await;
    rig.director.set_neighbour(0, ip("10.10.24.99"), Some(MAC_21));
    settled(&rig).await;
    assert_eq!(members(&rig), [(23, 1), (22, 1), (21, 1)], "it is not among the others");
    found(&rig, 21, Some("no answer")).await;
    found(&rig, 22, Some("no answer")).await;
    assert_eq!(members(&rig), [(23, 1)], "one is two less one");
    found(&rig, 23, Some("no answer")).await;
    assert_eq!(members(&rig), [(99, 1)]);
    let quorum = rig.director.service(web()).unwrap().quorum.unwrap();
    assert_eq!((quorum.met, quorum.weight, quorum.wanted, quorum.sorry), (false, 0, 2, true));
    found(&rig, 23, None).await;
    found(&rig, 22, None).await;
    assert_eq!(members(&rig), [(99, 1), (23, 0), (22, 0)], "two is not two and one");
    let shown = rig.director.real_server(web(), socket("10.10.24.22:80")).unwrap();
    assert!(shown.state == RealServerState::Quiescent && shown.reason.unwrap().contains("below its quorum"));
    found(&rig, 21, None).await;
    assert_eq!(members(&rig), [(23, 1), (22, 1), (21, 1)]);
    assert!(!rig.workers[0].real_server("10.10.24.99").unwrap().available);

    let refused = rig.director.delete_real_server(web(), socket("10.10.24.99:80")).await;
    assert!(refused.is_err(), "the sorry server is no real server of the list");
}

#[tokio::test]
async fn panic_keeps_all_below_the_quorum() {
    let rig = rig(json!({"type": "tcp", "panic": "keep"}), json!([near(21), near(22)])).await;
    found(&rig, 21, Some("no answer")).await;
    assert_eq!(members(&rig), [(22, 1)]);
    found(&rig, 22, Some("no answer")).await;
    assert_eq!(members(&rig), [(22, 1), (21, 1)]);
    found(&rig, 22, None).await;
    assert_eq!(members(&rig), [(22, 1)]);
}

#[tokio::test]
async fn without_checks_nobody_is_down() {
    let rig = rig(json!({"type": "tcp"}), json!([near(21), near(22)])).await;
    found(&rig, 21, Some("no answer")).await;
    let stale = rig.director.checks().remove(0);
    let patch = ServicePatch { health: Some(None), ..ServicePatch::default() };
    let shown = rig.director.patch_service(web(), &patch).await.unwrap();
    assert_eq!((shown.health, shown.real_servers[0].state), (None, RealServerState::Ready));
    assert_eq!(members(&rig), [(22, 1), (21, 1)]);
    rig.director.set_health(&[stale.subject], &stale.check, Some("too late"), UNIX_EPOCH);
    assert_eq!(members(&rig), [(22, 1), (21, 1)], "a check that is wanted no more says nothing");
    assert!(rig.director.checks().is_empty());
}

#[tokio::test]
async fn operator_may_edit_a_real_server_that_is_down() {
    let rig = rig(json!({"type": "tcp"}), json!([near(21), near(22)])).await;
    found(&rig, 21, Some("no answer")).await;
    let patch = crate::model::RealServerPatch { weight: Some(7), ..Default::default() };
    rig.director.patch_real_server(web(), socket("10.10.24.21:80"), &patch).await.unwrap();
    assert_eq!(members(&rig), [(22, 1)]);
    found(&rig, 21, None).await;
    assert_eq!(members(&rig), [(22, 1), (21, 7)]);
}

#[tokio::test]
async fn sorry_server_may_become_a_real_server_and_back() {
    let with = |sorry: &str, servers: Value| spec(&json!({"type": "tcp", "sorry_server": {"address": sorry}}), &servers);
    let rig = rig(json!({"type": "tcp", "sorry_server": {"address": "10.10.24.23"}}), json!([near(21), near(22)])).await;
    rig.director.put_service(&with("10.10.24.21", json!([near(23), near(22)]))).await.unwrap();
    settled(&rig).await;
    assert_eq!(members(&rig), [(22, 1), (23, 1)]);
    rig.director.put_service(&with("10.10.24.23", json!([near(21), near(22)]))).await.unwrap();
    settled(&rig).await;
    assert_eq!(members(&rig), [(22, 1), (21, 1)]);
}

#[tokio::test]
async fn workers_know_which_vips_are_asked_for_on_the_path() {
    let rig = rig(json!({"type": "tcp"}), json!([near(21)])).await;
    let probed = || rig.workers[0].tables().locals.as_ref().unwrap().probed.len();
    assert_eq!(probed(), 1);
    let patch = |health: Value| json!({ "health": health });
    rig.director.patch_service(web(), &patch(json!({"type": "tcp", "via": "direct"}))).await.unwrap();
    assert_eq!(probed(), 0);
    rig.director.patch_service(web(), &patch(json!({"type": "http", "via": null}))).await.unwrap();
    assert_eq!(probed(), 1);
    rig.director.delete_service(web()).await.unwrap();
    assert_eq!(probed(), 0);
}

#[tokio::test]
async fn every_change_is_an_event_with_its_reason() {
    let rig = rig(json!({"type": "tcp"}), json!([near(21)])).await;
    let before = rig.director.events().latest();
    for reason in [None, Some("no answer"), Some("no MAC"), None, None] {
        found(&rig, 21, reason).await;
    }
    let events = rig.director.events().after(before, 99).events;
    let told: Vec<String> = events.iter().map(|event| format!("{} {}: {}", event.what.kind(), event.what, event.reason)).collect();
    assert_eq!(
        told,
        [
            "health-changed tcp:10.10.24.88:80 -> 10.10.24.21:80: tcp to 10.10.24.88:80 on the clients' path succeeds",
            "health-changed tcp:10.10.24.88:80 -> 10.10.24.21:80: no answer",
            "quorum-lost tcp:10.10.24.88:80: the healthy real servers' weights add up to 0",
            "health-changed tcp:10.10.24.88:80 -> 10.10.24.21:80: tcp to 10.10.24.88:80 on the clients' path succeeds",
            "quorum-back tcp:10.10.24.88:80: the healthy real servers' weights add up to 1",
        ]
    );
}

/// A service by `wlc`, whose first real server has been down and is back.
async fn recovered(health: Value) -> Rig {
    let rig = Rig::new(1);
    let mut spec = spec(&health, &json!([near(21), near(22)]));
    spec.scheduler = crate::model::Scheduler::Wlc;
    rig.director.create_service(&spec).await.unwrap();
    for reason in [None, Some("no answer"), None] {
        found(&rig, 21, reason).await;
    }
    rig
}

/// What the first real server gets of its weight by now, in percent.
async fn after(rig: &Rig, seconds: u64) -> Option<u8> {
    {
        let mut inner = rig.director.lock();
        inner.grow_weights(Instant::now() + std::time::Duration::from_secs(seconds));
        rig.director.commit(&mut inner);
    }
    settled(rig).await;
    rig.director.real_server(web(), socket("10.10.24.21:80")).unwrap().health.unwrap().slow_start
}

#[tokio::test]
async fn recovered_real_server_starts_slowly_over_time() {
    let rig = recovered(json!({"type": "tcp", "slow_start": "90s"})).await;
    assert_eq!(members(&rig), [(22, 10), (21, 1)]);
    assert_eq!((after(&rig, 5).await, after(&rig, 45).await), (Some(10), Some(50)));
    assert_eq!(members(&rig), [(22, 10), (21, 5)]);
    assert_eq!(after(&rig, 90).await, None);
    assert_eq!(members(&rig), [(22, 1), (21, 1)]);
    found(&rig, 21, Some("no answer")).await;
    assert_eq!(members(&rig), [(22, 1)]);
}

#[tokio::test]
async fn recovered_real_server_starts_slowly_over_connections() {
    let rig = recovered(json!({"type": "tcp", "slow_start_connections": 18})).await;
    let traffic = rig.workers[0].real_server("10.10.24.21").unwrap();
    assert_eq!(after(&rig, 3_600).await, Some(10), "time alone does nothing");
    traffic.stats.share(0).traffic.connections.add(4);
    assert_eq!(after(&rig, 1).await, Some(30));
    traffic.stats.share(0).traffic.connections.add(14);
    assert_eq!(after(&rig, 1).await, None);
    assert_eq!(members(&rig), [(22, 1), (21, 1)]);
}

#[tokio::test]
async fn repeated_syns_are_a_hint_that_has_the_real_server_checked_at_once() {
    let rig = rig(json!({"type": "tcp", "hints": true}), json!([near(21), near(22)])).await;
    found(&rig, 21, None).await;
    let server = rig.workers[0].real_server("10.10.24.21").unwrap();
    let complain = || (0..3).for_each(|_| server.stats.share(0).repeats.increment());
    rig.director.look_for_hints();
    complain();
    rig.director.look_for_hints();
    let hinted = rig.director.take_hints();
    assert_eq!(hinted.iter().map(|subject| subject.server).collect::<Vec<_>>(), [socket("10.10.24.21:80")]);
    let events = rig.director.events().after(0, 99).events;
    let last = events.last().unwrap();
    assert_eq!(
        (last.what.kind(), last.reason.as_str()),
        ("health-hint", "clients repeated 3 SYNs, with 0 new connections in the same time")
    );
    complain();
    rig.director.look_for_hints();
    assert!(rig.director.take_hints().is_empty(), "one hint at a time is enough");
    assert_eq!(members(&rig), [(22, 1), (21, 1)], "a hint takes nobody out");
}
