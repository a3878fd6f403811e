//! The heartbeat that systemd hears: while every worker turns, and no longer.
//!
//! It comes from the control plane's only thread, after a look into the desired state: one that hangs is silent too.

use std::time::Duration;

use super::signals::tell_systemd;
use crate::director::Director;

/// Beats in the time after which systemd takes the director for dead: one or two may come late.
const BEATS: u32 = 3;
/// How often the status is told when no heartbeat is wanted.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The turns of each worker at the last look.
#[derive(Debug)]
struct Turns(Vec<u64>);

impl Turns {
    /// Takes the workers' counters as they are now; the numbers of those that have not moved since the last look.
    fn look(&mut self, now: Vec<u64>) -> Vec<usize> {
        let still = self.0.iter().zip(&now).enumerate().filter(|(_, (before, now))| before == now).map(|(worker, _)| worker).collect();
        self.0 = now;
        still
    }
}

/// Tells systemd again and again how the director is, and that it lives as long as all workers turn. Never ends.
///
/// Without `NOTIFY_SOCKET` nobody listens, and nothing is done.
pub(super) async fn beat(director: Director) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let variable = |name| std::env::var(name).ok();
    let watched = watchdog(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id());
    let every = watched.map_or(STATUS_EVERY, |longest| longest / BEATS);
    let (now, connections) = look(&director);
    let mut turns = Turns(now);
    let mut all_well = true;
    tell_systemd(&message(&[], watched.is_some(), connections));
    loop {
        tokio::time::sleep(every).await;
        let (now, connections) = look(&director);
        let still = turns.look(now);
        if still.is_empty() != all_well {
            all_well = still.is_empty();
            if all_well {
                tracing::warn!("all workers turn again");
            } else {
                tracing::error!("{}: until it does, systemd is not told that the director lives", text(&still));
            }
        }
        tell_systemd(&message(&still, watched.is_some(), connections));
    }
}

/// The turns of each worker, and the connection entries of all.
fn look(director: &Director) -> (Vec<u64>, u64) {
    let mut turns = Vec::new();
    let mut connections = 0;
    director.for_each_worker(|_, report| {
        turns.push(report.turns.get());
        connections += report.connections.get();
    });
    (turns, connections)
}

/// What systemd is told (`sd_notify(3)`): the status, and the heartbeat if one is wanted and no worker stands `still`.
fn message(still: &[usize], watched: bool, connections: u64) -> String {
    if still.is_empty() {
        let heartbeat = if watched { "WATCHDOG=1\n" } else { "" };
        format!("{heartbeat}STATUS={connections} connections")
    } else {
        format!("STATUS={}", text(still))
    }
}

fn text(still: &[usize]) -> String {
    let numbers: Vec<String> = still.iter().map(|worker| format!("worker {worker} does not turn")).collect();
    numbers.join(", ")
}

/// The time within which systemd wants to hear from process `own`, if it does (`sd_watchdog_enabled(3)`).
fn watchdog(microseconds: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(own)) {
        return None;
    }
    let microseconds = microseconds?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_that_did_not_turn_since_the_last_look_is_named() {
        let mut turns = Turns(vec![5, 5, 5]);
        assert_eq!(turns.look(vec![6, 9, 7]), Vec::<usize>::new());
        assert_eq!(turns.look(vec![7, 9, 7]), [1, 2]);
        assert_eq!(turns.look(vec![7, 10, 7]), [0, 2], "each look is for the time since the one before");
        assert_eq!(turns.look(vec![8, 11, 8]), Vec::<usize>::new());
    }

    #[test]
    fn heartbeat_stops_while_a_worker_stands_still() {
        assert_eq!(message(&[], true, 7), "WATCHDOG=1\nSTATUS=7 connections");
        assert_eq!(message(&[0, 2], true, 7), "STATUS=worker 0 does not turn, worker 2 does not turn");
        assert_eq!(message(&[], false, 7), "STATUS=7 connections");
    }

    #[test]
    fn watchdog_is_that_of_this_process_only() {
        let ten = Some(Duration::from_secs(10));
        assert_eq!(watchdog(Some("10000000"), None, 42), ten);
        assert_eq!(watchdog(Some("10000000"), Some("42"), 42), ten);
        assert_eq!(watchdog(Some("10000000"), Some("41"), 42), None);
        assert_eq!(watchdog(Some("0"), None, 42), None);
        assert_eq!(watchdog(Some("ten"), None, 42), None);
        assert_eq!(watchdog(None, None, 42), None);
    }
}
