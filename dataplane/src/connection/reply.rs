//! Replies: a second index over the same entries, by what real servers answer to masqueraded connections.
//!
//! It exists only once there is a masquerading real server: the control plane makes it and sends it with the batch that
//! brings the first one. So direct routing has neither its memory nor its cost.

use std::fmt;

use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_ref};

use crate::address::Address;
use crate::connection::entry::{Entry, EntryId, Plain, flags};
use crate::connection::index::Index;
use crate::connection::key::Key;
use crate::connection::table::ConnectionTable;

/// Where a client's packets come from: its answers go there when no route says better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Index of the port in the configuration's order.
    pub port: u16,
    /// Source MAC of the client's latest packet: its own or that of a router.
    pub mac: [u8; 6],
}

/// A [`Way`] as one number: the MAC, of which the first byte is the lowest, and the port above it; 0 is that of none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WayWord(u64);

impl WayWord {
    /// By this port, from the station with the MAC in the six lowest bytes.
    #[inline(always)]
    pub const fn new(port: u16, mac: u64) -> Self {
        Self(mac & 0xffff_ffff_ffff | (port as u64) << 48)
    }
}

/// What is remembered of a masqueraded connection beside its entry: 16 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Reply {
    /// The hash that its reply key is found under.
    hash: u64,
    mac: [u8; 6],
    port: u16,
}

impl Reply {
    #[inline(always)]
    fn came(&self) -> WayWord {
        let words: &[u64; 2] = transmute_ref!(self);
        // The MAC and the port, as they lie.
        WayWord(u64::from_le(words[1]))
    }
}

/// The index of reply keys with what belongs to each connection. Memory: 24 bytes for each of the table's places.
pub struct Replies {
    index: Index,
    beside: HugeArray<Reply>,
    live: u32,
}

impl Replies {
    /// For a table of `capacity` connections; all memory is provided here, so not for the packet path.
    ///
    /// Errors: the memory could not be had.
    pub fn new(capacity: u32) -> Result<Self, DpdkError> {
        let mut beside = HugeArray::anonymous(capacity as usize)?;
        beside.prefault()?;
        Ok(Self { index: Index::new(capacity)?, beside, live: 0 })
    }

    /// Takes an entry out that ends. Cost: that of the index.
    #[inline(never)]
    pub(super) fn release(&mut self, id: u32) {
        let hash = self.beside[id as usize].hash;
        self.live -= u32::from(self.index.remove(hash, id));
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("len", &self.live).field("capacity", &self.beside.len()).finish_non_exhaustive()
    }
}

/// The key under which replies of a connection from `client` are found that goes to a real server's address and port.
///
/// It is the key that such a packet itself has, so that its hash is computed once.
pub const fn reply_key(connection: &Key, server: Address, port: u16) -> Key {
    Key {
        client: server,
        virtual_: connection.client,
        client_port: port,
        virtual_port: connection.client_port,
        protocol: connection.protocol,
    }
}

impl ConnectionTable {
    /// Gives the table its index of replies, unless it has one; the one that is not needed comes back.
    ///
    /// One for another capacity is not taken: every entry must have its place in it.
    pub fn take_replies(&mut self, replies: &mut Option<Replies>) {
        if self.replies.is_none() && replies.as_ref().is_some_and(|r| r.beside.len() == self.capacity() as usize) {
            std::mem::swap(&mut self.replies, replies);
        }
    }

    /// Whether there is an index of replies, without which no connection can be masqueraded.
    pub const fn has_replies(&self) -> bool {
        self.replies.is_some()
    }

    /// Masqueraded connections held.
    pub fn masqueraded(&self) -> u32 {
        self.replies.as_ref().map_or(0, |replies| replies.live)
    }

    /// Lets entry `id` be found by replies with key `reply`; whether there is an index for that.
    pub fn masquerade(&mut self, id: EntryId, reply: &Key) -> bool {
        let hash = self.hash(reply);
        let Some(replies) = &mut self.replies else { return false };
        // The index has room for every place of the table.
        if replies.index.insert(hash, id.0).is_err() {
            return false;
        }
        replies.live += 1;
        replies.beside[id.0 as usize] = Reply { hash, mac: [0; 6], port: 0 };
        self.entries[id.0 as usize].flags |= flags::MASQUERADED;
        true
    }

    /// Asks for the index line that a search for a reply begins with.
    #[inline(always)]
    pub fn prefetch_reply(&self, hash: u64) {
        if let Some(replies) = &self.replies {
            replies.index.prefetch(hash);
        }
    }

    /// Asks for the entry that a search for a reply most likely finds, and for what lies beside it; gives the entry, any one if there is none
    /// like it. Reads the index line.
    #[inline(always)]
    pub fn prefetch_answered(&self, hash: u64) -> EntryId {
        let Some(replies) = &self.replies else { return EntryId::NONE };
        let id = replies.index.candidate(hash);
        self.entries.prefetch(id as usize);
        replies.beside.prefetch(id as usize);
        EntryId(id)
    }

    /// Asks for the entry that a packet with this hash most likely has, and what lies beside it, or where there is none for the index line of
    /// the connection that it answers; gives the entry, as [`prefetch_entry`](Self::prefetch_entry), or [`EntryId::NONE`].
    #[inline(always)]
    pub(crate) fn prefetch_either(&self, hash: u64) -> EntryId {
        let Some(replies) = &self.replies else { return EntryId::NONE };
        let Some(id) = self.index.alike(hash) else {
            replies.index.prefetch(hash);
            return EntryId::NONE;
        };
        self.entries.prefetch(id as usize);
        replies.beside.prefetch(id as usize);
        EntryId(id)
    }

    /// Asks for what lies beside the entry in this place, if there is one.
    #[inline]
    pub fn prefetch_way(&self, id: EntryId) {
        if let Some(replies) = &self.replies {
            replies.beside.prefetch(id.0 as usize);
        }
    }

    /// As [`plain`](Self::plain), of a masqueraded connection, with where its client sends from. Cost: its line and the one beside it.
    #[inline(always)]
    pub(crate) fn plain_from(&mut self, guess: EntryId, plain: Plain, addresses: u64, ports: u32) -> Option<(&mut Entry, WayWord)> {
        let came = self.replies.as_ref()?.beside.get(guess.0 as usize)?.came();
        self.plain(guess, plain, addresses, ports).map(|entry| (entry, came))
    }

    /// Whether a packet with this hash answers the connection in this place, if that is masqueraded. Cost: the line beside the entry.
    #[inline(always)]
    pub(crate) fn is_answered(&self, id: EntryId, hash: u64) -> bool {
        self.replies.as_ref().and_then(|replies| replies.beside.get(id.0 as usize)).is_some_and(|reply| reply.hash == hash)
    }

    /// The entry that a packet with this hash most likely answers; whether it does is to be seen by its key and its being masqueraded.
    /// Cost: a search of the index, and a line for what lies beside each entry that is alike: mostly one.
    #[inline(always)]
    pub(crate) fn answered(&self, hash: u64) -> Option<EntryId> {
        self.replies.as_ref()?.index.find(hash, |id| self.is_answered(EntryId(id), hash)).map(EntryId)
    }

    /// The entry whose replies have the key `reply` with hash `hash`; `from` tells whether its real server is the sender.
    ///
    /// Of two connections of one client port to two services that lead to one real server's port, either may be found, as
    /// their packets cannot be told apart. Cost: as [`find`](Self::find), and a line for what lies beside the entry.
    #[inline]
    pub fn find_reply(&self, hash: u64, reply: &Key, mut from: impl FnMut(&Entry) -> bool) -> Option<EntryId> {
        let replies = self.replies.as_ref()?;
        let is_it = |id: u32| {
            let entry = &self.entries[id as usize];
            replies.beside[id as usize].hash == hash
                && entry.protocol == reply.protocol
                && self.is_client(EntryId(id), reply.virtual_, reply.virtual_port)
                && from(entry)
        };
        replies.index.find(hash, is_it).map(EntryId)
    }

    fn is_client(&self, id: EntryId, client: Address, port: u16) -> bool {
        let key = self.key(id);
        (key.client, key.client_port) == (client, port)
    }

    /// Where the client of a masqueraded connection sends from; `None` while no packet of it was forwarded.
    pub fn way(&self, id: EntryId) -> Option<Way> {
        // What is beside any other entry is what an earlier one has left there.
        (self.entries[id.0 as usize].flags & flags::MASQUERADED != 0).then(|| self.learned(id)).flatten()
    }

    /// As [`way`](Self::way), of an entry that is known to be of a masqueraded connection.
    #[inline(always)]
    pub(crate) fn learned(&self, id: EntryId) -> Option<Way> {
        let reply = self.replies.as_ref()?.beside.get(id.0 as usize)?;
        (reply.mac != [0; 6]).then_some(Way { port: reply.port, mac: reply.mac })
    }

    /// Notes where the client of a masqueraded connection sends from. Cost: one line, written only when that changed.
    pub fn set_way(&mut self, id: EntryId, way: Way) {
        if self.entries[id.0 as usize].flags & flags::MASQUERADED == 0 {
            return;
        }
        if let Some(reply) = self.replies.as_mut().and_then(|r| r.beside.get_mut(id.0 as usize))
            && (reply.mac, reply.port) != (way.mac, way.port)
        {
            (reply.mac, reply.port) = (way.mac, way.port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{NewEntry, TableError};
    use crate::service::{ServerId, ServiceId};
    use crate::tcp::State;
    use crate::tick::Tick;

    fn key(n: u16) -> Key {
        Key { client: Address::v4(0xc633_6401), virtual_: Address::v4(0x0a0a_1858), client_port: n, virtual_port: 80, protocol: 17 }
    }

    const RIP: Address = Address::v4(0x0a0a_1815);

    fn table() -> Result<ConnectionTable, TableError> {
        let mut table = ConnectionTable::new(8, 8, [1, 2, 3, 4])?;
        table.take_replies(&mut Some(Replies::new(8).map_err(TableError::Memory)?));
        Ok(table)
    }

    fn insert(table: &mut ConnectionTable, n: u16) -> EntryId {
        let new = NewEntry { server: ServerId(0), service: ServiceId(0), state: State::None as u8, flags: 0, timeout_ticks: 100 };
        let id = table.insert(table.hash(&key(n)), &key(n), new, Tick(0)).unwrap();
        assert!(table.masquerade(id, &reply_key(&key(n), RIP, 8080)));
        id
    }

    fn found(table: &ConnectionTable, n: u16) -> Option<EntryId> {
        let reply = reply_key(&key(n), RIP, 8080);
        table.find_reply(table.hash(&reply), &reply, |_| true)
    }

    #[test]
    fn a_reply_finds_the_entry_until_that_ends() {
        let mut table = table().unwrap();
        let (one, two) = (insert(&mut table, 1), insert(&mut table, 2));
        assert_eq!((found(&table, 1), found(&table, 2), found(&table, 3), table.masqueraded()), (Some(one), Some(two), None, 2));
        table.remove(one);
        assert_eq!((found(&table, 1), found(&table, 2), table.masqueraded()), (None, Some(two), 1));
        table.expire(Tick(200), 10_000, &mut |_, _| ());
        assert_eq!((found(&table, 2), table.masqueraded(), table.len()), (None, 0, 0));
    }

    #[test]
    fn the_way_of_the_latest_packet_is_kept() {
        let mut table = table().unwrap();
        let id = insert(&mut table, 1);
        assert_eq!(table.way(id), None);
        for last in [1, 2] {
            let way = Way { port: 3, mac: [2, 0, 0, 0, 0, last] };
            table.set_way(id, way);
            assert_eq!(table.way(id), Some(way));
        }
        table.remove(id);
        let again = insert(&mut table, 2);
        assert_eq!(table.way(again), None, "a place that is used again knows nothing of the connection before");
    }

    #[test]
    fn an_index_of_another_size_is_not_taken() {
        let mut table = ConnectionTable::new(8, 8, [1, 2, 3, 4]).unwrap();
        let mut replies = Some(Replies::new(7).unwrap());
        table.take_replies(&mut replies);
        assert!(replies.is_some());
        let new = NewEntry { server: ServerId(0), service: ServiceId(0), state: State::None as u8, flags: 0, timeout_ticks: 100 };
        let id = table.insert(table.hash(&key(1)), &key(1), new, Tick(0)).unwrap();
        assert!(!table.masquerade(id, &reply_key(&key(1), RIP, 8080)));
    }
}
