//! New connections when there is no room: the oldest that nothing has confirmed goes, and failing that a packet goes without an entry.

use crate::address::Address;
use crate::connection::{EntryId, InsertError, Key, NewEntry, Tentative};
use crate::lanes::Fate;
use crate::parse::Packet;
use crate::rules::Rules;
use crate::service::{Member, Method, Persistence, ServerId, ServiceId};
use crate::tick::Tick;
use crate::track::{Tracker, count_packet};
use crate::verdict::Verdict;

/// Tentative entries that are looked at to make room for one connection: bounds its cost.
const TRIES: usize = 4;

/// Connections that are followed without an entry.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    /// Until when later segments of such connections are expected.
    until: Option<Tick>,
}

impl Overflow {
    /// Whether segments may come of connections that have no entry for want of room.
    pub(crate) fn is_in_force(&mut self, now: Tick) -> bool {
        self.until = self.until.filter(|until| !now.has_reached(*until));
        self.until.is_some()
    }
}

impl Tracker {
    /// As [`ConnectionTable::insert`](crate::connection::ConnectionTable::insert), but when there is no room the oldest
    /// tentative entry makes room, unless it is `keep`. Cost beyond that of the insert: ending one entry.
    pub(crate) fn admit(
        &mut self,
        hash: u64,
        key: &Key,
        new: NewEntry,
        keep: Option<EntryId>,
        rules: &Rules,
        now: Tick,
    ) -> Result<EntryId, InsertError> {
        match self.connections.insert(hash, key, new, now) {
            Err(error) if self.recycle(error, keep, rules) => self.connections.insert(hash, key, new, now),
            result => result,
        }
    }

    /// Ends the oldest tentative entry, with a template that nothing else needs; whether there was one to end.
    #[inline(never)]
    fn recycle(&mut self, error: InsertError, keep: Option<EntryId>, rules: &Rules) -> bool {
        let kind = match error {
            InsertError::HalfOpenLimit => Tentative::HalfOpen,
            InsertError::TableFull => self.connections.larger_part(),
        };
        for _ in 0..TRIES {
            let Some(oldest) = self.connections.oldest(kind) else { return false };
            let template = self.connections.template(oldest).filter(|t| Some(*t) != keep);
            if Some(oldest) != keep && self.end(oldest, rules) {
                self.counts.recycled += 1;
                if let Some(template) = template.filter(|t| self.connections.is_tentative(*t)) {
                    self.end(template, rules);
                }
                return true;
            }
            // A template whose connections come after it, or the one that the new connection follows.
            self.connections.spare(oldest);
        }
        false
    }

    /// A packet of service `id` for which there is no entry and no room for one, the first of its connection or a later one. It goes
    /// to the real server that its hash names: the same one as long as the service's real servers and weights stay as they are.
    ///
    /// Masquerading needs an entry, so there the packet is dropped. Cost: linear in the real servers.
    #[inline(never)]
    pub(crate) fn forward_without_entry(
        &mut self,
        hash: u64,
        packet: &Packet,
        id: ServiceId,
        begins: bool,
        rules: &Rules,
        now: Tick,
    ) -> Fate {
        let Some(service) = rules.service_ref(id) else { return Fate::Drop(Verdict::TableFull) };
        let hash = self.hash_without_entry(hash, &packet.key, service.service.persistence);
        let chosen = stable_choice(&service.service.members, hash);
        let Some(target) = chosen.and_then(|server| rules.server(server)).filter(|target| target.method != Method::Masquerading) else {
            return Fate::Drop(Verdict::TableFull);
        };
        for counters in [&service.traffic, &target.share.traffic] {
            counters.connections.add(u64::from(begins));
            count_packet(counters, packet);
        }
        if begins {
            self.overflow.until = Some(now.after_seconds(rules.settings.timeouts.tcp));
        }
        self.counts.without_entry += 1;
        Fate::Server(target.server.id, target.method)
    }

    /// The hash by which packets of this connection are forwarded without an entry: its own, or its client's with persistence.
    fn hash_without_entry(&self, hash: u64, key: &Key, persistence: Option<Persistence>) -> u64 {
        persistence.map_or(hash, |persistence| {
            let client = Address(key.client.0 & persistence.mask);
            self.connections.hash(&Key { client, client_port: 0, virtual_port: 0, ..*key })
        })
    }
}

/// The real server that a hash falls on, each with a share as large as its weight.
fn stable_choice(members: &[Member], hash: u64) -> Option<ServerId> {
    let fit = || members.iter().filter(|m| m.weight > 0 && m.reachable && !(m.limited && m.stats.is_overloaded()));
    let total: u64 = fit().map(|m| u64::from(m.weight)).sum();
    let point = (u128::from(hash) * u128::from(total)) >> 64;
    let mut sum = 0_u128;
    let holds = |m: &&Member| {
        sum += u128::from(m.weight);
        point < sum
    };
    fit().find(holds).map(|m| m.server)
}
