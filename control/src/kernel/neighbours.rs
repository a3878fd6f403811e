//! What is known of the neighbours that matter: real servers and gateways, by port.
//!
//! The kernel resolves; this follows its entries, decides which to ask for again, and tells each change of a usable
//! MAC once. No socket here: what the kernel said comes in as [`Entry`], what it is to do goes out as lists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use rtnetlink::packet_route::neighbour::NeighbourState;

use super::NeighbourEvent;
use super::limit::LogLimit;
use super::message::{Entry, Mac};

/// A neighbour: the port's number and the address.
pub(super) type Key = (u16, IpAddr);

#[derive(Debug)]
struct Known {
    /// Given in the configuration: the kernel is not asked.
    fixed: bool,
    state: NeighbourState,
    /// The MAC, if it may be used.
    mac: Option<Mac>,
    /// The unusable MAC that was complained about.
    refused: Option<Mac>,
    managed: bool,
}

/// All neighbours that are wanted or given.
#[derive(Debug)]
pub(super) struct Neighbours {
    names: BTreeMap<u16, String>,
    own: BTreeSet<Mac>,
    known: BTreeMap<Key, Known>,
    told: BTreeMap<Key, Mac>,
    untold: BTreeSet<Key>,
    changes: LogLimit,
    refusals: LogLimit,
}

/// What changed in what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// To be asked for.
    pub(super) added: Vec<Key>,
    /// To be asked for no more.
    pub(super) removed: Vec<Key>,
}

impl Neighbours {
    /// Nothing wanted yet. `names` are the ports' names by number, `own` the ports' MACs, `fixed` the given neighbours.
    pub(super) fn new(names: BTreeMap<u16, String>, own: BTreeSet<Mac>, fixed: impl IntoIterator<Item = (Key, Mac)>) -> Self {
        let mut all = Self {
            names,
            own,
            known: BTreeMap::new(),
            told: BTreeMap::new(),
            untold: BTreeSet::new(),
            changes: LogLimit::new(),
            refusals: LogLimit::new(),
        };
        for (key, mac) in fixed {
            let state = NeighbourState::Permanent;
            all.known.insert(key, Known { fixed: true, state, mac: Some(mac), refused: None, managed: false });
            all.untold.insert(key);
        }
        all
    }

    /// Takes over what is wanted. Given neighbours stay as they are, and ports that do not exist are passed over.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Key>) -> Difference {
        let mut difference = Difference::default();
        for key in wanted {
            if self.names.contains_key(&key.0) && !self.known.contains_key(key) {
                let state = NeighbourState::None;
                self.known.insert(*key, Known { fixed: false, state, mac: None, refused: None, managed: false });
                difference.added.push(*key);
            }
        }
        difference.removed = self.known.iter().filter(|(key, known)| !known.fixed && !wanted.contains(key)).map(|(key, _)| *key).collect();
        for key in &difference.removed {
            self.known.remove(key);
            self.untold.insert(*key);
        }
        difference
    }

    /// Takes over an event about a neighbour; one that is not wanted is passed over.
    pub(super) fn saw(&mut self, port: u16, entry: &Entry, now: Instant) {
        // Before an entry with a MAC is looked for anew, its loss is told. So this event is older than what is known.
        let unresolved = matches!(entry.state, NeighbourState::None | NeighbourState::Incomplete);
        if !unresolved || self.known.get(&(port, entry.address)).is_some_and(|known| known.mac.is_none()) {
            self.take(port, entry, now);
        }
    }

    fn take(&mut self, port: u16, entry: &Entry, now: Instant) {
        let key = (port, entry.address);
        let Some(known) = self.known.get_mut(&key).filter(|known| !known.fixed) else { return };
        let name = self.names.get(&port).map_or("", String::as_str);
        known.state = entry.state;
        known.managed = entry.managed;
        let heard = entry.mac.filter(|_| usable(entry.state));
        let mac = heard.filter(|mac| sane(*mac) && !self.own.contains(mac));
        match (heard, mac) {
            (Some(bad), None) if known.refused != Some(bad) => {
                known.refused = Some(bad);
                if let Some(suppressed) = self.refusals.pass(now) {
                    let (address, mac) = (entry.address, show(bad));
                    tracing::warn!(port = name, %address, mac, suppressed, "neighbour's MAC cannot be another machine's: not used");
                }
            }
            (_, Some(_)) => known.refused = None,
            _ => {}
        }
        if known.mac == mac {
            return;
        }
        if let Some(suppressed) = self.changes.pass(now) {
            let address = entry.address;
            match (known.mac, mac) {
                (Some(old), Some(new)) => {
                    tracing::warn!(port = name, %address, old = show(old), new = show(new), suppressed, "neighbour's MAC changed");
                }
                (None, Some(new)) => tracing::info!(port = name, %address, mac = show(new), suppressed, "neighbour found"),
                (_, None) => tracing::warn!(port = name, %address, state = word(entry.state), suppressed, "neighbour lost"),
            }
        }
        known.mac = mac;
        self.untold.insert(key);
    }

    /// Takes over all entries of the kernel at once: what is not among them is gone.
    pub(super) fn saw_all(&mut self, entries: &[(u16, Entry)], now: Instant) {
        let seen: BTreeSet<Key> = entries.iter().map(|(port, entry)| (*port, entry.address)).collect();
        for (port, entry) in entries {
            self.take(*port, entry, now);
        }
        let gone: Vec<Key> = self.known.keys().filter(|key| !seen.contains(key)).copied().collect();
        for key in gone {
            self.lost(key, now);
        }
    }

    /// The port's interface is gone, and the kernel's entries with it.
    pub(super) fn lost_port(&mut self, port: u16, now: Instant) {
        let gone: Vec<Key> = self.known.keys().filter(|key| key.0 == port).copied().collect();
        for key in gone {
            self.lost(key, now);
        }
    }

    fn lost(&mut self, (port, address): Key, now: Instant) {
        self.take(port, &Entry { link: 0, address, state: NeighbourState::Failed, mac: None, managed: false }, now);
    }

    /// Neighbours of a port to ask for (again): those that the kernel gave up or lost, and those that nobody keeps fresh.
    pub(super) fn due(&self, port: u16) -> Vec<IpAddr> {
        let due = |known: &Known| match known.state {
            NeighbourState::None | NeighbourState::Failed => true,
            NeighbourState::Stale => !known.managed,
            _ => false,
        };
        let all = self.known.iter().filter(|(key, known)| key.0 == port && !known.fixed && due(known));
        all.map(|(key, _)| key.1).collect()
    }

    /// Neighbours that were asked and have not answered, or not so that it could be used.
    pub(super) fn missed(&self) -> Vec<Key> {
        let missed = |(key, known): &(&Key, &Known)| !known.fixed && known.mac.is_none() && !self.is_settled(**key);
        self.known.iter().filter(missed).map(|(key, _)| *key).collect()
    }

    /// Whether somebody gave the kernel this neighbour's MAC by hand: asking would take it away again.
    pub(super) fn is_settled(&self, key: Key) -> bool {
        self.known.get(&key).is_some_and(|known| matches!(known.state, NeighbourState::Permanent | NeighbourState::Noarp))
    }

    /// Whether [`Self::tell`] would give something.
    pub(super) fn has_news(&self) -> bool {
        !self.untold.is_empty()
    }

    /// The next change to tell, if any. A neighbour that changed several times meanwhile is told once, as it is now.
    pub(super) fn tell(&mut self) -> Option<NeighbourEvent> {
        while let Some(key) = self.untold.pop_first() {
            let mac = self.known.get(&key).and_then(|known| known.mac);
            let before = match mac {
                Some(mac) => self.told.insert(key, mac),
                None => self.told.remove(&key),
            };
            if before != mac {
                return Some(NeighbourEvent { port: key.0, address: key.1, mac });
            }
        }
        None
    }

    /// All neighbours for listings, by port and address.
    pub(super) fn list(&self) -> Vec<crate::model::Neighbour> {
        let row = |(key, known): (&Key, &Known)| crate::model::Neighbour {
            address: key.1,
            mac: known.mac.map(show),
            port: self.names.get(&key.0).cloned().unwrap_or_default(),
            state: word(known.state).to_owned(),
        };
        self.known.iter().map(row).collect()
    }
}

/// Whether frames may be sent to an entry in this state.
fn usable(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    matches!(state, Reachable | Stale | Delay | Probe | Permanent | Noarp)
}

/// Whether a MAC can be that of one machine: neither zero nor a group's (broadcast is a group).
fn sane(mac: Mac) -> bool {
    mac != [0; 6] && mac[0] & 1 == 0
}

fn word(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Reachable => "reachable",
        NeighbourState::Stale => "stale",
        NeighbourState::Delay | NeighbourState::Probe => "probing",
        NeighbourState::Failed => "failed",
        NeighbourState::Permanent | NeighbourState::Noarp => "static",
        _ => "incomplete",
    }
}

/// A MAC as text, `02:00:00:00:00:07`.
pub(super) fn show(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
