use super::*;

fn log() -> Events {
    Events::from(UNIX_EPOCH + Duration::from_millis(1))
}

fn changed(revision: u64) -> What {
    What::ConfigurationChanged { revision }
}

fn ids(page: &Page) -> Vec<u64> {
    page.events.iter().map(|event| event.id).collect()
}

#[test]
fn ids_grow_by_one_and_go_on_after_a_restart() {
    let log = log();
    assert_eq!(log.latest(), 1_000);
    for revision in 1..=3 {
        log.raise(changed(revision), "test");
    }
    assert_eq!(ids(&log.after(0, 10)), [1_001, 1_002, 1_003]);
    assert_eq!(ids(&log.after(1_001, 1)), [1_002]);
    assert!(log.after(1_003, 10).events.is_empty());
    let later = Events::from(UNIX_EPOCH + Duration::from_secs(1));
    later.raise(changed(4), "test");
    assert!(later.latest() > log.latest());
    assert!(Events::default().latest() < 1 << 53, "ids are numbers that JavaScript can hold");
}

#[test]
fn beyond_the_ring_the_oldest_are_forgotten_and_the_gap_is_said() {
    let log = log();
    for revision in 0..KEPT as u64 + 5 {
        log.raise(changed(revision), "test");
    }
    let page = log.after(1_001, 2);
    assert_eq!((page.gap, ids(&page)), (Some(Gap { after: 1_001, until: 1_005 }), vec![1_006, 1_007]));
    assert_eq!(log.after(1_005, 1).gap, None, "who has seen the last forgotten one has missed nothing");
    assert_eq!((log.after(0, usize::MAX).gap, log.after(0, usize::MAX).events.len()), (None, KEPT));
}

#[test]
fn id_of_another_run_is_a_gap_before_all_that_is_kept() {
    let log = log();
    log.raise(changed(1), "test");
    let earlier = log.after(7, 10);
    assert_eq!((earlier.gap, ids(&earlier)), (Some(Gap { after: 7, until: 1_000 }), vec![1_001]));
    let later = log.after(5_000, 10);
    assert_eq!((later.gap, ids(&later)), (Some(Gap { after: 5_000, until: 0 }), vec![1_001]));
}

#[test]
fn reasons_are_cut_between_characters() {
    let log = log();
    log.raise(changed(1), "\u{e4}".repeat(LONGEST_REASON));
    assert_eq!(log.after(0, 1).events[0].reason.len(), LONGEST_REASON);
}

#[tokio::test]
async fn listener_wakes_for_news_and_ends_with_the_log() {
    let log = log();
    let mut listener = log.listen();
    log.raise(changed(1), "test");
    assert!(listener.wait(1_000).await);
    let waiting = tokio::spawn(async move { listener.wait(1_001).await });
    log.close();
    assert!(!waiting.await.unwrap());
    let mut late = log.listen();
    assert!(late.wait(1_000).await, "what happened before the end is still told");
    assert!(!late.wait(1_001).await);
}
