//! Persistence templates: entries that remember which real server a client, or a network of clients, belongs to.
//!
//! A template counts the connections that were made through it. It is never removed while there are any, so that an entry's
//! reference to its template is good for as long as the entry lives.

use std::sync::Arc;

use crate::affinity::Affinity;
use crate::connection::entry::{EntryId, flags};
use crate::connection::key::Key;
use crate::connection::table::ConnectionTable;
use crate::service::{ServerId, ServiceId};
use crate::tick::Tick;

/// The vport of templates that no connection follows any more.
pub const NO_PORT: u16 = u16::MAX;

/// How much longer a template lives whose time is up while connections of its own are left.
const REARM: u32 = 60 * Tick::PER_SECOND;

impl ConnectionTable {
    /// From now on this table's templates are agreed on with those of other workers.
    pub fn agree_with(&mut self, others: Arc<Affinity>) {
        self.affinity = Some(others);
    }

    /// Where workers agree on templates; `None` for a worker alone.
    pub fn affinity(&self) -> Option<&Affinity> {
        self.affinity.as_deref()
    }

    /// Tells the other workers that a template is ended before its time.
    pub(crate) fn withdraw(&self, id: EntryId) {
        let entry = self.entry(id);
        if let Some(affinity) = &self.affinity
            && entry.is_template()
        {
            affinity.withdraw(&self.key(id), entry.server());
        }
    }

    /// Notes that entry `id` was made through `template`.
    pub fn set_template(&mut self, id: EntryId, template: EntryId) {
        self.templates[id.0 as usize] = template.0;
        self.entries[id.0 as usize].flags |= flags::CONTROLLED;
        self.entries[template.0 as usize].in_packets += 1;
    }

    /// The template that entry `id` was made through, if there is one.
    #[inline]
    pub fn template(&self, id: EntryId) -> Option<EntryId> {
        (self.entry(id).flags & flags::CONTROLLED != 0).then(|| EntryId(self.templates[id.0 as usize]))
    }

    /// Notes that a connection made through template `id` was established.
    pub fn assure(&mut self, id: EntryId) {
        self.entries[id.0 as usize].flags |= flags::ASSURED;
        self.delist(id.0);
    }

    /// Lets template `id` live for `timeout_ticks` from now.
    pub fn renew(&mut self, id: EntryId, now: Tick, timeout_ticks: u32) {
        self.set_expiry(id, now, timeout_ticks);
    }

    /// Puts template `id` aside: it stays, with its time and its connections, but under vport 65535, where IPVS lists such ones.
    /// `false` if it is there already, or belongs there.
    pub fn invalidate(&mut self, id: EntryId) -> bool {
        let old = self.key(id);
        if old.virtual_port == NO_PORT {
            return false;
        }
        let (from, to) = (self.hash(&old), self.hash(&Key { virtual_port: NO_PORT, ..old }));
        self.index.remove(from, id.0);
        let moved = self.index.insert(to, id.0).is_ok();
        if moved {
            self.entries[id.0 as usize].set_virtual_port(NO_PORT);
        } else {
            // There was room a moment ago, where it came from.
            let _ = self.index.insert(from, id.0);
        }
        moved
    }

    /// Gives template `id` another real server, for its client's next connections; those it has keep theirs.
    pub fn redirect(&mut self, id: EntryId, server: ServerId, service: ServiceId) {
        let template = &mut self.entries[id.0 as usize];
        template.server = server.0;
        template.service = service.0;
    }

    /// Whether entry `id` may be removed: not a template while connections of its own are left.
    #[inline]
    pub fn may_remove(&self, id: EntryId) -> bool {
        let entry = self.entry(id);
        !entry.is_template() || entry.in_packets == 0
    }

    /// Puts an entry that has just left the wheel back into it if it must not end yet; whether it did.
    pub(super) fn keep_template(&mut self, id: u32, now: Tick) -> bool {
        if self.may_remove(EntryId(id)) {
            return false;
        }
        self.entries[id as usize].expires = now.0.wrapping_add(REARM);
        self.wheel.link(&self.entries, id);
        let template = &self.entries[id as usize];
        // Others need not know of one that was put aside.
        if let Some(affinity) = &self.affinity
            && template.virtual_port() != NO_PORT
        {
            affinity.keep(&self.key(EntryId(id)), template.server(), now, REARM);
        }
        true
    }
}

#[cfg(test)]
mod tests;
