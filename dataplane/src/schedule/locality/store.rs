//! What `lblc` and `lblcr` remember on one worker: for each service and destination address, the real servers that serve it.
//!
//! Everything is allocated at the start: 16 384 addresses, as many as IPVS keeps for one service, and 32 768 real servers for them,
//! about 1.5 MiB. What does not fit is not remembered, and the scheduler picks as if it were the first time.

use crate::address::Address;
use crate::schedule::siphash::siphash13;
use crate::service::{Member, ServerId};
use crate::tick::Tick;

/// Addresses that are remembered at most.
const ENTRIES: u32 = 16_384;
/// Real servers that are remembered for them at most.
const ELEMENTS: u32 = 2 * ENTRIES;
/// Chains of the hash table: four entries each when it is full.
const CHAINS: u32 = ENTRIES / 4;
/// Ends a chain; also the place of a real server that is not a member.
const NONE: u32 = u32::MAX;
/// Seconds that an entry must be unused before another may have its room.
const UNUSED: u32 = 6 * 60;
/// Entries that are looked at for such room.
const LOOK_FOR_ROOM: u32 = 64;
/// Seconds from one search for entries whose time is up to the next, as in IPVS.
const SWEEP_EVERY: u32 = 30 * 60;
/// Entries that such a search looks at in one turn.
const SWEEP_BUDGET: u32 = 16;

/// Whose memory it is: a scheduler of a service, from when the service got it until it gets another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner(u32);

/// The owner of free entries.
const NOBODY: Owner = Owner(0);

/// An address's place in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryId(u32);

/// For how many seconds what is not used is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expirations {
    /// For `lblc`.
    pub(crate) lblc: u32,
    /// For `lblcr`; also how long a set must be unchanged before it loses its busiest real server.
    pub(crate) lblcr: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: Address,
    owner: Owner,
    /// Whether it is of `lblcr`.
    replicated: bool,
    /// The next of its chain, or of the free ones.
    next: u32,
    /// Its real server added last.
    first: u32,
    count: u32,
    /// The revision of the service that its elements' places are of.
    revision: u64,
    used: Tick,
    /// When its real servers last changed.
    changed: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Element {
    server: ServerId,
    /// Its place among the members.
    place: u32,
    next: u32,
}

/// The store: entries in chains by hash, each with a list of real servers, the newest first.
#[derive(Debug)]
pub(crate) struct Localities {
    secret: [u64; 2],
    chains: Box<[u32]>,
    entries: Box<[Entry]>,
    elements: Box<[Element]>,
    free_entry: u32,
    free_element: u32,
    /// Where the next look for room, and the sweep under way, goes on.
    room: u32,
    sweep: Option<u32>,
    next_sweep: Tick,
    owners: u32,
    pub(crate) expirations: Expirations,
}

impl Localities {
    pub(crate) fn new(secret: [u64; 2], expirations: Expirations) -> Self {
        // Each free one leads to the next; the last one leads beyond the end, where nothing is found.
        let entry = |n| Entry {
            address: Address(0),
            owner: NOBODY,
            replicated: false,
            next: n + 1,
            first: NONE,
            count: 0,
            revision: 0,
            used: Tick(0),
            changed: Tick(0),
        };
        Self {
            secret,
            chains: vec![NONE; CHAINS as usize].into(),
            entries: (0..ENTRIES).map(entry).collect(),
            elements: (0..ELEMENTS).map(|n| Element { server: ServerId(0), place: NONE, next: n + 1 }).collect(),
            free_entry: 0,
            free_element: 0,
            room: 0,
            sweep: None,
            next_sweep: Tick(0),
            owners: 0,
            expirations,
        }
    }

    /// A new owner; what earlier ones left is found by nobody and goes when its time is up, or when its room is needed.
    pub(crate) fn owner(&mut self) -> Owner {
        self.owners = self.owners.wrapping_add(1).max(1);
        Owner(self.owners)
    }

    #[inline]
    fn chain(&self, owner: Owner, address: Address) -> usize {
        let (high, low) = ((address.0 >> 64) as u64, (address.0 & 0xffff_ffff_ffff_ffff) as u64);
        let hash = siphash13(self.secret, &[high, low], 20 << 56 | u64::from(owner.0));
        ((hash >> 32) as u32 % CHAINS) as usize
    }

    /// The entry of an address. It counts as used now, and knows its real servers' places among `members`.
    pub(super) fn find(&mut self, owner: Owner, address: Address, members: &[Member], revision: u64, now: Tick) -> Option<EntryId> {
        let mut id = *self.chains.get(self.chain(owner, address))?;
        while let Some(entry) = self.entries.get_mut(id as usize) {
            if entry.owner == owner && entry.address == address {
                entry.used = now;
                if entry.revision != revision {
                    entry.revision = revision;
                    let mut at = entry.first;
                    while let Some(element) = self.elements.get_mut(at as usize) {
                        element.place = place_near(members, element.server, element.place);
                        at = element.next;
                    }
                }
                return Some(EntryId(id));
            }
            id = entry.next;
        }
        None
    }

    /// Remembers an address that [`find`](Self::find) does not know, with its first real server, if there is room.
    pub(super) fn add(&mut self, owner: Owner, address: Address, replicated: bool, revision: u64, now: Tick) -> Option<EntryId> {
        if self.free_entry >= ENTRIES || self.free_element >= ELEMENTS {
            self.make_room(now);
        }
        let chain = self.chain(owner, address);
        let head = self.chains.get_mut(chain)?;
        let id = self.free_entry;
        let entry = self.entries.get_mut(id as usize)?;
        self.free_entry = entry.next;
        *entry = Entry { address, owner, replicated, next: *head, first: NONE, count: 0, revision, used: now, changed: now };
        *head = id;
        Some(EntryId(id))
    }

    /// The places of an entry's real servers among the members, newest first; `None` for one that is not a member.
    pub(super) fn places(&self, id: EntryId) -> impl Iterator<Item = (ServerId, Option<usize>)> + '_ {
        let mut at = self.entries.get(id.0 as usize).map_or(NONE, |entry| entry.first);
        std::iter::from_fn(move || {
            let element = self.elements.get(at as usize)?;
            at = element.next;
            Some((element.server, (element.place != NONE).then_some(element.place as usize)))
        })
    }

    /// How many real servers an entry has, and when they last changed.
    pub(super) fn count(&self, id: EntryId) -> (u32, Tick) {
        self.entries.get(id.0 as usize).map_or((0, Tick(0)), |entry| (entry.count, entry.changed))
    }

    /// Puts a real server before an entry's others, unless it is among them or there is no room.
    pub(super) fn insert(&mut self, id: EntryId, server: ServerId, place: usize, now: Tick) {
        if self.places(id).any(|(known, _)| known == server) {
            return;
        }
        let new = self.free_element;
        let (Some(entry), Some(element)) = (self.entries.get_mut(id.0 as usize), self.elements.get_mut(new as usize)) else { return };
        self.free_element = element.next;
        *element = Element { server, place: u32::try_from(place).unwrap_or(NONE), next: entry.first };
        entry.first = new;
        entry.count += 1;
        entry.changed = now;
    }

    /// Takes a real server out of an entry.
    pub(super) fn erase(&mut self, id: EntryId, server: ServerId, now: Tick) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else { return };
        let (mut before, mut at) = (NONE, entry.first);
        while let Some(element) = self.elements.get_mut(at as usize) {
            let next = element.next;
            if element.server == server {
                element.next = self.free_element;
                self.free_element = at;
                match self.elements.get_mut(before as usize) {
                    Some(before) => before.next = next,
                    None => entry.first = next,
                }
                entry.count -= 1;
                entry.changed = now;
                return;
            }
            (before, at) = (at, next);
        }
    }

    /// Makes a real server the only one of an entry.
    pub(super) fn replace(&mut self, id: EntryId, server: ServerId, place: usize, now: Tick) {
        self.clear(id.0);
        self.insert(id, server, place, now);
    }

    fn clear(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        let mut at = std::mem::replace(&mut entry.first, NONE);
        entry.count = 0;
        while let Some(element) = self.elements.get_mut(at as usize) {
            let next = std::mem::replace(&mut element.next, self.free_element);
            self.free_element = at;
            at = next;
        }
    }

    fn forget(&mut self, id: u32) {
        self.clear(id);
        let Some(entry) = self.entries.get(id as usize).copied() else { return };
        let chain = self.chain(entry.owner, entry.address);
        let Some(mut at) = self.chains.get(chain).copied() else { return };
        if at == id {
            self.chains[chain] = entry.next;
        } else {
            while let Some(other) = self.entries.get_mut(at as usize) {
                if other.next == id {
                    other.next = entry.next;
                    break;
                }
                at = other.next;
            }
        }
        let entry = &mut self.entries[id as usize];
        (entry.owner, entry.next) = (NOBODY, self.free_entry);
        self.free_entry = id;
    }

    /// Forgets the first entry that was not used for six minutes among the next few.
    fn make_room(&mut self, now: Tick) {
        for _ in 0..LOOK_FOR_ROOM {
            let id = self.room;
            self.room = (id + 1) % ENTRIES;
            if self.is_over(id, |_| UNUSED, now) {
                self.forget(id);
                return;
            }
        }
    }

    fn is_over(&self, id: u32, seconds: impl Fn(&Entry) -> u32, now: Tick) -> bool {
        let entry = self.entries.get(id as usize).filter(|entry| entry.owner != NOBODY);
        entry.is_some_and(|entry| now.has_reached(entry.used.after_seconds(seconds(entry))))
    }

    /// Every half hour, a few entries a turn, forgets those whose time is up. Cost in all other turns: one comparison.
    #[inline]
    pub(crate) fn sweep(&mut self, now: Tick) {
        if self.sweep.is_some() || now.has_reached(self.next_sweep) {
            self.sweep_some(now);
        }
    }

    #[cold]
    fn sweep_some(&mut self, now: Tick) {
        let Expirations { lblc, lblcr } = self.expirations;
        let from = self.sweep.unwrap_or(0);
        let end = from.saturating_add(SWEEP_BUDGET).min(ENTRIES);
        if self.owners == 0 || end == ENTRIES {
            self.sweep = None;
            self.next_sweep = now.after_seconds(SWEEP_EVERY);
        } else {
            self.sweep = Some(end);
        }
        for id in from..end {
            if self.is_over(id, |entry| if entry.replicated { lblcr } else { lblc }, now) {
                self.forget(id);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.iter().filter(|entry| entry.owner != NOBODY).count()
    }
}

/// The place of a real server among the members, looked for from where it was: most changes move it by one.
fn place_near(members: &[Member], server: ServerId, was: u32) -> u32 {
    let is_at = |place: &usize| members.get(*place).is_some_and(|member| member.server == server);
    let was = (was as usize).min(members.len());
    let found = (0..=members.len()).find_map(|away| Some(was + away).filter(is_at).or_else(|| was.checked_sub(away).filter(is_at)));
    found.and_then(|place| u32::try_from(place).ok()).unwrap_or(NONE)
}
