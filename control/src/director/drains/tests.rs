//! Drains over scripted workers, whose connections are counters that the tests move.

use serde_json::json;

use super::super::scripted::{LIMITS, Rig};
use super::super::tests::{near, socket, web, web_spec};
use super::super::{Store, Version};
use super::*;
use crate::model::{RealServerState, ServiceSpec};

const SERVER: &str = "10.10.24.21:80";

fn spec() -> ServiceSpec {
    web_spec(&json!([near(21), near(22)]))
}

fn asked(seconds: u64, then: Then) -> DrainSpec {
    DrainSpec { deadline: Span(Duration::from_secs(seconds)), then }
}

async fn rig() -> Rig {
    let rig = Rig::new(1);
    rig.director.create_service(&spec()).await.unwrap();
    rig
}

/// Makes so many connections refer to the real server.
fn connect(rig: &Rig, connections: u32) {
    let share = rig.workers[0].real_server("10.10.24.21").unwrap();
    let active = &share.stats.share(0).active;
    while active.get() < connections {
        active.increment();
    }
    while active.get() > connections {
        active.decrement();
    }
}

/// Lets the drain see this much later how things are.
fn later(rig: &Rig, time: Duration) -> bool {
    let mut inner = rig.director.lock();
    let id = *inner.desired.drains.first().unwrap();
    let ends = matches!(inner.move_drain(id, Instant::now() + time), Move::End);
    rig.director.commit(&mut inner);
    ends
}

fn drain(rig: &Rig) -> Drain {
    rig.director.drain_of(web(), socket(SERVER)).unwrap()
}

async fn of_worker(rig: &Rig) -> (bool, u32, worker::Drain) {
    let number = rig.director.lock().desired.next_change - 1;
    while rig.director.lock().applied_by_all() < number {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let server = rig.workers[0].real_server("10.10.24.21").unwrap();
    (server.available, server.weight, server.drain)
}

#[tokio::test]
async fn drained_real_server_keeps_its_connections_until_they_have_ended() {
    let rig = rig().await;
    connect(&rig, 5);
    let document = rig.director.document();
    let begun = rig.director.drain(web(), socket(SERVER), asked(300, Then::Keep)).await.unwrap();
    assert_eq!((begun.state, begun.connections, begun.connections_at_first), (DrainState::Waiting, 5, 5));
    assert!(begun.oldest_at_least.is_some() && (298..=300).contains(&begun.deadline_in), "{begun:?}");
    assert_eq!(of_worker(&rig).await, (true, 0, worker::Drain::Wait));
    let shown = rig.director.real_server(web(), socket(SERVER)).unwrap();
    assert_eq!((shown.state, shown.weight), (RealServerState::Draining, 1), "what the operator wrote stays");
    assert_eq!(rig.director.document(), document);
    connect(&rig, 0);
    assert!(!later(&rig, Duration::from_secs(1)));
    let over = drain(&rig);
    assert_eq!((over.state, over.outcome, over.connections), (DrainState::Over, Some(DrainOutcome::Ended), 0));
    assert_eq!(of_worker(&rig).await, (true, 0, worker::Drain::Wait), "and it gets none until the drain is cancelled");
    rig.director.cancel_drain(web(), socket(SERVER)).await.unwrap();
    assert_eq!(of_worker(&rig).await, (true, 1, worker::Drain::No));
    assert!(matches!(rig.director.drain_of(web(), socket(SERVER)), Err(Error::NoDrain(..))));
    let kinds: Vec<_> = rig.director.events().after(0, 100).events.iter().map(|event| event.what.kind()).collect();
    assert!(kinds.ends_with(&["drain-began", "drain-ended", "drain-ended"]), "{kinds:?}");
}

#[tokio::test]
async fn at_the_deadline_connections_are_kept_or_ended() {
    for (then, told, outcome) in [
        (Then::Keep, worker::Drain::Wait, DrainOutcome::Kept),
        (Then::Reset, worker::Drain::Reset, DrainOutcome::Reset),
        (Then::Reschedule, worker::Drain::Reschedule, DrainOutcome::Rescheduled),
    ] {
        let rig = rig().await;
        connect(&rig, 3);
        rig.director.drain(web(), socket(SERVER), asked(60, then)).await.unwrap();
        assert!(!later(&rig, Duration::from_secs(59)));
        assert_eq!(drain(&rig).state, DrainState::Waiting);
        later(&rig, Duration::from_secs(61));
        assert_eq!(of_worker(&rig).await, (then == Then::Keep, 0, told));
        if then != Then::Keep {
            assert_eq!(drain(&rig).state, DrainState::Ending);
            assert!(!later(&rig, Duration::from_secs(63)), "clients may still send");
            assert!(later(&rig, Duration::from_secs(70)), "then what is left ends");
            assert!(!later(&rig, Duration::from_secs(71)), "which is asked for once at a time");
            connect(&rig, 0);
            later(&rig, Duration::from_secs(72));
        }
        assert_eq!(drain(&rig).outcome, Some(outcome));
        assert_eq!(of_worker(&rig).await, (true, 0, worker::Drain::Wait));
        connect(&rig, 0);
    }
}

#[tokio::test]
async fn end_is_estimated_from_how_connections_end() {
    let rig = rig().await;
    connect(&rig, 100);
    rig.director.drain(web(), socket(SERVER), asked(3_600, Then::Keep)).await.unwrap();
    assert!((3_598..=3_600).contains(&drain(&rig).estimated_end_in.unwrap()), "nothing ended yet: the deadline");
    let now = Instant::now();
    let mut inner = rig.director.lock();
    let id = *inner.desired.drains.first().unwrap();
    let drain = inner.desired.servers.get_mut(id).unwrap().drain.as_deref_mut().unwrap();
    for second in 0..60_u32 {
        drain.sample(100 - second, now + Duration::from_secs(second.into()));
    }
    assert_eq!(drain.samples.len(), SAMPLES);
    let left = drain.estimate(40, now + Duration::from_mins(1)).unwrap().as_secs();
    assert!((38..=42).contains(&left), "one a second, so 40 s: {left}");
    drop(inner);
    connect(&rig, 0);
}

#[tokio::test]
async fn drain_outlives_a_reload_and_ends_with_its_real_server() {
    let rig = rig().await;
    rig.director.drain(web(), socket(SERVER), asked(60, Then::Keep)).await.unwrap();
    let mut document = rig.director.document();
    document.services[0].real_servers[0].weight = 7;
    rig.director.put_document(&document).await.unwrap();
    assert_eq!(of_worker(&rig).await, (true, 0, worker::Drain::Wait), "a new weight counts when the drain is over");
    rig.director.delete_real_server(web(), socket(SERVER)).await.unwrap();
    assert!(matches!(rig.director.drain_of(web(), socket(SERVER)), Err(Error::NoSuchRealServer(..))));
    rig.director.put_document(&document).await.unwrap();
    rig.director.move_drains();
    assert_eq!(of_worker(&rig).await, (true, 7, worker::Drain::No));
    assert!(rig.director.lock().desired.drains.is_empty());
}

#[tokio::test]
async fn drain_of_a_director_that_was_started_anew_is_over_and_still_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let store = || Some(Store::open(&path).unwrap());
    let first = Rig::with(1, 8, LIMITS, store());
    first.director.create_service(&spec()).await.unwrap();
    first.director.drain(web(), socket(SERVER), asked(60, Then::Reset)).await.unwrap();
    let version = Version::beginning(first.director.document(), "a test");

    let second = Rig::with(1, 8, LIMITS, store());
    second.director.restore(&version).unwrap();
    second.director.restore_drains();
    assert_eq!(drain(&second).outcome, Some(DrainOutcome::Restarted));
    assert_eq!(of_worker(&second).await, (true, 0, worker::Drain::Wait));
    second.director.cancel_drain(web(), socket(SERVER)).await.unwrap();

    let third = Rig::with(1, 8, LIMITS, store());
    third.director.restore(&version).unwrap();
    third.director.restore_drains();
    assert!(third.director.drain_of(web(), socket(SERVER)).is_err());
    for damaged in ["", "[{", "{}", "[{\"service\": 7}]"] {
        std::fs::write(folder.path().join("state.json.drains"), damaged).unwrap();
        third.director.restore_drains();
    }
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 3, "the state file, its history, the drains: nothing is left lying about");
}

#[tokio::test]
async fn what_cannot_be_drained_is_refused() {
    let rig = rig().await;
    let too_long = rig.director.drain(web(), socket(SERVER), asked(8 * 86_400, Then::Keep)).await.unwrap_err();
    assert!(too_long.to_string().contains("at most 10080m"), "{too_long}");
    let nobody = rig.director.drain(web(), socket("10.10.24.29:80"), asked(60, Then::Keep)).await.unwrap_err();
    assert!(matches!(nobody, Error::NoSuchRealServer(..)));
    let no_service = rig.director.drain("tcp:10.10.24.99:80".parse().unwrap(), socket(SERVER), DrainSpec::default()).await.unwrap_err();
    assert!(matches!(no_service, Error::NoSuchService(_)));
    assert!(matches!(rig.director.cancel_drain(web(), socket(SERVER)).await, Err(Error::NoDrain(..))));
}
