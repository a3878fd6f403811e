//! Entries that nothing has confirmed yet, in the order in which they came: the first to go when room is needed.
//!
//! Tentative are half-open connections, which have a share of the table, and UDP entries of a single packet. Whoever floods the
//! director with made-up sources makes entries of these kinds only, so the flood pushes out its own oldest ones.

use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;

use crate::connection::entry::{Entry, EntryId, TEMPLATE, flags};
use crate::connection::table::ConnectionTable;
use crate::connection::wheel::NIL;
use crate::service::Protocol;

/// What an entry lacks to be taken for a real connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tentative {
    /// The rest of its handshake; of a template: a connection of its own with a whole one.
    HalfOpen = 0,
    /// A second packet.
    SecondPacket = 1,
}

impl Tentative {
    /// The kind of a tentative entry, by what never changes about it.
    #[inline]
    const fn of(entry: &Entry) -> Self {
        let datagrams = entry.protocol & !TEMPLATE == Protocol::Udp as u8 || entry.flags & flags::NO_HANDSHAKE != 0;
        if datagrams { Self::SecondPacket } else { Self::HalfOpen }
    }

    /// Whether an entry that was just made is tentative.
    #[inline]
    pub(super) const fn is_new(entry: &Entry) -> bool {
        entry.is_half_open() || matches!(Self::of(entry), Self::SecondPacket)
    }
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    len: u32,
}

const EMPTY: Queue = Queue { oldest: NIL, newest: NIL, len: 0 };

/// Both kinds, each a list through a table of its own: 8 bytes a place, touched only when a connection comes, is confirmed or ends.
#[derive(Debug)]
pub(super) struct Queues {
    /// For every tentative entry the older and the newer one; not read otherwise.
    links: HugeArray<[u32; 2]>,
    queues: [Queue; 2],
}

const OLDER: usize = 0;
const NEWER: usize = 1;

impl Queues {
    /// Empty queues for entries in `places` places.
    pub(super) fn new(places: usize) -> Result<Self, DpdkError> {
        let mut links = HugeArray::anonymous(places)?;
        links.prefault()?;
        Ok(Self { links, queues: [EMPTY; 2] })
    }

    pub(super) fn clear(&mut self) {
        self.queues = [EMPTY; 2];
    }

    pub(super) const fn len(&self, kind: Tentative) -> u32 {
        self.queues[kind as usize].len
    }

    fn push(&mut self, kind: Tentative, id: u32) {
        let queue = &mut self.queues[kind as usize];
        queue.len += 1;
        let older = std::mem::replace(&mut queue.newest, id);
        self.links[id as usize] = [older, NIL];
        if older == NIL {
            queue.oldest = id;
        } else {
            self.links[older as usize][NEWER] = id;
        }
    }

    fn unlink(&mut self, kind: Tentative, id: u32) {
        let [older, newer] = self.links[id as usize];
        let queue = &mut self.queues[kind as usize];
        queue.len -= 1;
        if older == NIL {
            queue.oldest = newer;
        } else {
            self.links[older as usize][NEWER] = newer;
        }
        if newer == NIL {
            queue.newest = older;
        } else {
            self.links[newer as usize][OLDER] = older;
        }
    }
}

impl ConnectionTable {
    /// The tentative entry of this kind that is the longest here. Cost: none.
    pub fn oldest(&self, kind: Tentative) -> Option<EntryId> {
        Some(self.tentative.queues[kind as usize].oldest).filter(|id| *id != NIL).map(EntryId)
    }

    /// The kind of which there are more.
    pub const fn larger_part(&self) -> Tentative {
        if self.tentative.len(Tentative::HalfOpen) > self.tentative.len(Tentative::SecondPacket) {
            Tentative::HalfOpen
        } else {
            Tentative::SecondPacket
        }
    }

    /// Whether nothing has confirmed entry `id` yet.
    #[inline]
    pub fn is_tentative(&self, id: EntryId) -> bool {
        self.entry(id).flags & flags::TENTATIVE != 0
    }

    /// Puts a tentative entry behind all others of its kind. Cost: three lines.
    pub fn spare(&mut self, id: EntryId) {
        if self.is_tentative(id) {
            let kind = Tentative::of(self.entry(id));
            self.tentative.unlink(kind, id.0);
            self.tentative.push(kind, id.0);
        }
    }

    /// Takes an entry, and the template that it came from, for a real connection. Cost for one that is already: a bit looked at.
    #[inline]
    pub fn confirm(&mut self, id: EntryId) {
        if self.is_tentative(id) {
            let template = self.template(id);
            self.delist(id.0);
            if let Some(template) = template {
                self.delist(template.0);
            }
        }
    }

    /// Notes that entry `id` is tentative from now on.
    pub(super) fn enlist(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        if entry.flags & flags::TENTATIVE == 0 {
            entry.flags |= flags::TENTATIVE;
            self.tentative.push(Tentative::of(entry), id);
        }
    }

    /// Notes that entry `id` is tentative no more.
    #[inline(never)]
    pub(super) fn delist(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        if entry.flags & flags::TENTATIVE != 0 {
            entry.flags &= !flags::TENTATIVE;
            self.tentative.unlink(Tentative::of(entry), id);
        }
    }
}

#[cfg(test)]
mod tests;
