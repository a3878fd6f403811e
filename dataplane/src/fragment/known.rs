//! Where the first fragments of datagrams went, so that the others follow.

use super::ranges::Ranges;
use crate::connection::Key;
use crate::service::{Method, ServerId, ServiceId};
use crate::tick::Tick;

/// Datagrams that share a place: one that comes takes the place of the one that has least time left.
const WAYS: usize = 4;
/// Places.
const SETS: usize = 1024;

/// What became of a first fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// It went to this real server, by this method.
    Server(ServerId, Method),
    /// It is an answer of a masquerading real server, to the connection that has its ports.
    Reply,
    /// It was passed on to this worker, who may have its connection.
    Passed(u8),
    /// It went to the kernel.
    Kernel,
    /// It was dropped.
    Dropped,
    /// Its datagram is made of fragments that overlap: no more of it is let through.
    Overlapping,
}

/// A datagram whose first fragment has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    /// What its fragments have in common.
    pub(super) key: Key,
    /// Where they go.
    pub(super) way: Way,
    /// The service that they are counted for.
    pub(super) service: Option<ServiceId>,
    /// cport and vport.
    pub(super) ports: (u16, u16),
    /// The protocol of what they carry.
    pub(super) protocol: u8,
    /// What has come.
    pub(super) ranges: Ranges,
    /// When it is forgotten.
    pub(super) until: Tick,
}

/// Datagrams by key: 4096 of them, in places of four, half a MiB a worker. Cost of everything: four entries looked at.
#[derive(Debug)]
pub(super) struct Known {
    places: Box<[Option<Datagram>]>,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { places: vec![None; SETS * WAYS].into() }
    }

    /// The datagram with this key, if its time is not up.
    pub(super) fn find(&mut self, hash: u64, key: &Key, now: Tick) -> Option<&mut Datagram> {
        let alike = |place: &&mut Option<Datagram>| place.as_ref().is_some_and(|d| d.key == *key && !now.has_reached(d.until));
        self.set(hash).iter_mut().find(alike)?.as_mut()
    }

    /// Remembers a datagram, in the place of one with the same key, of one whose time is up, or of the oldest.
    pub(super) fn insert(&mut self, hash: u64, datagram: Datagram, now: Tick) {
        let rank = |place: &Option<Datagram>| match place {
            Some(d) if d.key == datagram.key => (0, 0),
            Some(d) if now.has_reached(d.until) => (1, 0),
            None => (1, 0),
            Some(d) => (2, now.until(d.until)),
        };
        if let Some(place) = self.set(hash).iter_mut().min_by_key(|place| rank(place)) {
            *place = Some(datagram);
        }
    }

    /// Forgets a datagram.
    pub(super) fn remove(&mut self, hash: u64, key: &Key) {
        for place in self.set(hash) {
            if place.as_ref().is_some_and(|d| d.key == *key) {
                *place = None;
            }
        }
    }

    fn set(&mut self, hash: u64) -> &mut [Option<Datagram>] {
        let [_, _, _, _, _, _, high, low] = hash.to_be_bytes();
        let first = usize::from(u16::from_be_bytes([high, low])) % SETS * WAYS;
        self.places.get_mut(first..first + WAYS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn datagram(id: u16, until: u32) -> Datagram {
        let key = Key { client: Address::v4(1), virtual_: Address::v4(2), client_port: 0, virtual_port: id, protocol: 17 };
        let (ranges, until) = (Ranges::default(), Tick(until));
        Datagram { key, way: Way::Kernel, service: None, ports: (0, 0), protocol: 17, ranges, until }
    }

    #[test]
    fn the_oldest_of_a_place_makes_way_and_nothing_grows() {
        let mut known = Known::new();
        for id in 0..5 {
            known.insert(7, datagram(id, 200 + u32::from(id)), Tick(0));
        }
        let found = |known: &mut Known, id, now| known.find(7, &datagram(id, 0).key, Tick(now)).is_some();
        assert_eq!([0, 1, 2, 3, 4].map(|id| found(&mut known, id, 0)), [false, true, true, true, true]);
        assert!(!found(&mut known, 1, 201), "its time is up");
        known.insert(7, datagram(9, 400), Tick(201));
        assert_eq!([2, 3, 4, 9].map(|id| found(&mut known, id, 201)), [true; 4]);
        known.remove(7, &datagram(3, 0).key);
        assert!(!found(&mut known, 3, 201));
        known.insert(7, datagram(4, 900), Tick(201));
        assert!(found(&mut known, 4, 800), "the same datagram has one place");
        assert_eq!(known.places.len(), 4096);
    }
}
