//! Places in the workers' tables: who has which, and who gets it back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// How a place is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    /// By a member of the desired state.
    Present,
    /// By something removed that connection entries may still refer to; the number is the change that removed it.
    Leaving(u64),
    /// By something that no worker knows any more: it gets the place back if it returns, until another needs it.
    /// The number orders places by how long they have waited.
    Remembered(u64),
}

/// What is at a place.
#[derive(Clone, Debug)]
pub(super) struct Place<K, R> {
    pub(super) key: K,
    pub(super) presence: Presence,
    pub(super) record: R,
}

/// A bounded set of numbered places, each held by one key for as long as anything may refer to it.
///
/// Every operation costs a hash look-up and a walk down a tree of the places that are not present.
#[derive(Clone, Debug)]
pub(super) struct Places<K, R> {
    held: Vec<Place<K, R>>,
    by_key: HashMap<K, u32>,
    leaving: BTreeSet<u32>,
    remembered: BTreeMap<u64, u32>,
    capacity: u32,
    age: u64,
}

impl<K: Copy + Eq + Hash, R> Places<K, R> {
    pub(super) fn new(capacity: u32) -> Self {
        Self { held: Vec::new(), by_key: HashMap::new(), leaving: BTreeSet::new(), remembered: BTreeMap::new(), capacity, age: 0 }
    }

    /// The present holder of `key`'s place.
    pub(super) fn find(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied().filter(|id| self.is_present(*id))
    }

    pub(super) fn is_present(&self, id: u32) -> bool {
        self.place(id).is_some_and(|p| p.presence == Presence::Present)
    }

    pub(super) fn place(&self, id: u32) -> Option<&Place<K, R>> {
        self.held.get(id as usize)
    }

    pub(super) fn get(&self, id: u32) -> Option<&R> {
        self.place(id).map(|p| &p.record)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut R> {
        self.held.get_mut(id as usize).map(|p| &mut p.record)
    }

    /// How many places there are so far, held in any way.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn leaving(&self) -> impl Iterator<Item = u32> {
        self.leaving.iter().copied()
    }

    /// Whether places can be had for all of `keys`, which are distinct, at once.
    pub(super) fn has_room_for<'k>(&self, keys: impl Iterator<Item = &'k K>) -> bool
    where
        K: 'k,
    {
        let (mut fresh, mut returning) = (0_usize, 0_usize);
        for key in keys {
            match self.by_key.get(key).and_then(|id| self.place(*id)) {
                None => fresh += 1,
                Some(Place { presence: Presence::Remembered(_), .. }) => returning += 1,
                Some(_) => {}
            }
        }
        fresh <= (self.capacity as usize).saturating_sub(self.held.len()) + self.remembered.len() - returning.min(self.remembered.len())
    }

    /// Makes `key` present: at the place that it had, or else at a new one, or else at the one that has waited longest.
    ///
    /// `make` gives the record of one that was not known; `None` when every place is held.
    pub(super) fn claim(&mut self, key: K, make: impl FnOnce(u32) -> R) -> Option<u32> {
        if let Some(&id) = self.by_key.get(&key) {
            self.set_presence(id, Presence::Present);
            return Some(id);
        }
        let id = if self.held.len() < self.capacity as usize {
            let id = self.len();
            self.held.push(Place { key, presence: Presence::Present, record: make(id) });
            id
        } else {
            let (_, id) = self.remembered.pop_first()?;
            let place = self.held.get_mut(id as usize)?;
            self.by_key.remove(&place.key);
            *place = Place { key, presence: Presence::Present, record: make(id) };
            id
        };
        self.by_key.insert(key, id);
        Some(id)
    }

    /// Takes the holder out of the desired state; its place stays its own.
    pub(super) fn leave(&mut self, id: u32, change: u64) {
        self.set_presence(id, Presence::Leaving(change));
    }

    /// Nobody refers to the place any more: another may have it when it is needed.
    pub(super) fn remember(&mut self, id: u32) {
        self.age += 1;
        self.set_presence(id, Presence::Remembered(self.age));
    }

    fn set_presence(&mut self, id: u32, presence: Presence) {
        let Some(place) = self.held.get_mut(id as usize) else { return };
        match std::mem::replace(&mut place.presence, presence) {
            Presence::Present => {}
            Presence::Leaving(_) => {
                self.leaving.remove(&id);
            }
            Presence::Remembered(age) => {
                self.remembered.remove(&age);
            }
        }
        match presence {
            Presence::Present => {}
            Presence::Leaving(_) => {
                self.leaving.insert(id);
            }
            Presence::Remembered(age) => {
                self.remembered.insert(age, id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_returns_gets_its_place_and_record_back() {
        let mut places = Places::new(4);
        assert_eq!(places.claim('a', |_| 1), Some(0));
        assert_eq!(places.claim('b', |_| 2), Some(1));
        places.leave(0, 7);
        assert_eq!(places.find(&'a'), None);
        assert_eq!(places.claim('a', |_| 99), Some(0));
        assert_eq!(places.get(0), Some(&1));
        places.leave(0, 8);
        places.remember(0);
        assert_eq!(places.claim('a', |_| 99), Some(0));
        assert_eq!((places.get(0), places.leaving().count()), (Some(&1), 0));
    }

    #[test]
    fn a_leaving_place_is_not_given_away() {
        let mut places = Places::new(1);
        places.claim('a', |_| ());
        places.leave(0, 1);
        assert!(!places.has_room_for(['b'].iter()));
        assert_eq!(places.claim('b', |_| ()), None);
        places.remember(0);
        assert!(places.has_room_for(['b'].iter()));
        assert_eq!(places.claim('b', |_| ()), Some(0));
        assert_eq!(places.find(&'a'), None);
        assert!(!places.has_room_for(['a'].iter()));
    }

    #[test]
    fn the_place_that_waited_longest_goes_first() {
        let mut places = Places::new(3);
        for key in ['a', 'b', 'c'] {
            places.claim(key, |_| key);
        }
        for id in [1, 0, 2] {
            places.leave(id, 1);
            places.remember(id);
        }
        places.claim('b', |_| 'b');
        assert_eq!(places.claim('d', |_| 'd'), Some(0), "b returned, so a waited longest");
        assert_eq!(places.get(0), Some(&'d'));
    }

    #[test]
    fn room_is_counted_over_new_and_returning_together() {
        let mut places = Places::new(2);
        places.claim('a', |_| ());
        places.leave(0, 1);
        places.remember(0);
        assert!(places.has_room_for(['a', 'b'].iter()));
        assert!(places.has_room_for(['b', 'c'].iter()));
        assert!(!places.has_room_for(['a', 'b', 'c'].iter()), "a takes back the place that c would need");
    }
}
