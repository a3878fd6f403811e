//! What clients' packets say of a real server's health: a hint is a reason to look at once, not to take it out.
//!
//! By direct routing the director sees the clients' side only. A client that gets no answer repeats its SYN, and one that gets
//! nonsense resets: workers count both beside the paths that established connections take.

use std::time::{Duration, Instant};

use super::{Director, Inner, Subject};
use crate::model::What;

/// So many SYNs repeated between two looks are a hint, if they are at least half as many as new connections.
const REPEATS: u32 = 3;
/// The same of resets.
const RESETS: u32 = 10;
/// After a hint the next one may come.
const PAUSE: Duration = Duration::from_secs(2);

/// What was counted at the last look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Seen {
    repeats: u32,
    resets: u32,
    connections: u64,
    hinted: Option<Instant>,
}

impl Seen {
    /// Why what was counted since is a hint, if it is one.
    fn hint(&self, now: &Self) -> Option<String> {
        let (repeats, resets) = (now.repeats.wrapping_sub(self.repeats), now.resets.wrapping_sub(self.resets));
        let connections = now.connections.saturating_sub(self.connections);
        let many = |count: u32, least: u32| count >= least && u64::from(count) * 2 >= connections;
        if many(repeats, REPEATS) {
            return Some(format!("clients repeated {repeats} SYNs, with {connections} new connections in the same time"));
        }
        many(resets, RESETS).then(|| format!("clients reset {resets} connections, with {connections} new ones in the same time"))
    }
}

impl Director {
    /// Looks for hints of all services that want them. Cost: linear in their members.
    pub(super) fn look_for_hints(&self) {
        let mut inner = self.lock();
        let hinted = inner.look_for_hints(Instant::now());
        if hinted.is_empty() {
            return;
        }
        inner.hinted.extend(hinted.iter().map(|(subject, _)| *subject));
        drop(inner);
        for (subject, reason) in hinted {
            self.0.events.raise(What::HealthHint { service: subject.service.to_string(), real_server: subject.server }, reason);
        }
        self.0.checks.send_replace(());
    }

    /// Real servers that are to be checked at once; each is told once.
    pub fn take_hints(&self) -> Vec<Subject> {
        std::mem::take(&mut self.lock().hinted)
    }
}

impl Inner {
    fn look_for_hints(&mut self, now: Instant) -> Vec<(Subject, String)> {
        let desired = &mut self.desired;
        let mut found = Vec::new();
        for id in desired.order.values() {
            let Some(place) = desired.services.place(*id) else { continue };
            if place.record.fields.health.as_ref().is_none_or(|spec| spec.hints != Some(true)) {
                continue;
            }
            for member in &place.record.members {
                let Some(record) = desired.servers.get_mut(*member) else { continue };
                let (repeats, resets) = record.stats.complaints();
                let before = record.seen;
                let fresh = before.is_none();
                let before = before.unwrap_or_default();
                let mut seen = Seen { repeats, resets, connections: record.stats.sum().connections, hinted: before.hinted };
                let rested = before.hinted.is_none_or(|hinted| now.saturating_duration_since(hinted) >= PAUSE);
                let hint = before.hint(&seen).filter(|_| rested && !fresh && !record.is_down());
                if hint.is_some() {
                    seen.hinted = Some(now);
                }
                record.seen = Some(seen);
                let Some(reason) = hint else { continue };
                if let Some(server) = desired.servers.place(*member) {
                    found.push((Subject { service: place.key, server: server.key.socket() }, reason));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_repeats_or_resets_against_few_connections_are_a_hint() {
        let before = Seen { repeats: u32::MAX, resets: 5, connections: 100, hinted: None };
        let hint = |repeats, resets, connections| before.hint(&Seen { repeats, resets, connections, hinted: None });
        assert_eq!(hint(u32::MAX, 5, 100), None);
        assert_eq!(hint(1, 5, 100), None, "two SYNs may be lost by chance");
        assert!(hint(2, 5, 106).unwrap().contains("repeated 3 SYNs, with 6 new"), "counters wrap");
        assert_eq!(hint(2, 5, 107), None, "most connections went well");
        assert_eq!(hint(u32::MAX, 14, 100), None);
        assert!(hint(u32::MAX, 15, 100).unwrap().contains("reset 10 connections"));
    }
}
