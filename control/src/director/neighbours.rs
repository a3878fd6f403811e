//! What the kernel told about the MACs of real servers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::mac;
pub(super) use crate::model::moment::utc;

/// So long a neighbour is believed to be there though it has not answered: the kernel asks three times, a second apart.
const PATIENCE: Duration = Duration::from_secs(3);

/// A neighbour: the port that it is on and its address.
pub(super) type Hop = (u16, IpAddr);

#[derive(Clone, Debug)]
struct Known {
    mac: Option<[u8; 6]>,
    /// A MAC that was told and cannot be used, and why.
    refused: Option<([u8; 6], &'static str)>,
    /// Since when it is as it is.
    since: SystemTime,
}

/// The MACs that are known, and since when the others are missed.
///
/// What is no longer asked for is kept too: a real server that is removed and added again within a moment must not wait
/// for news that nobody has. Beyond the capacity, those are forgotten.
#[derive(Clone, Debug)]
pub(super) struct Neighbours {
    known: HashMap<Hop, Known>,
    own: Vec<[u8; 6]>,
    capacity: usize,
    /// Ports without a link: nobody is reached by them, whatever is known.
    down: BTreeSet<u16>,
}

impl Neighbours {
    pub(super) fn new(own: Vec<[u8; 6]>, capacity: usize) -> Self {
        Self { known: HashMap::new(), own, capacity, down: BTreeSet::new() }
    }

    /// Notes what the kernel told at `now`; whether that changes the MAC.
    pub(super) fn set(&mut self, hop: Hop, told: Option<[u8; 6]>, now: SystemTime, asked: impl Fn(&Hop) -> bool) -> bool {
        if self.known.len() >= self.capacity && !self.known.contains_key(&hop) {
            self.known.retain(|hop, _| asked(hop));
        }
        let refused = told.and_then(|m| mac::unfit(m, self.own.iter().copied()).map(|why| (m, why)));
        let mac = if refused.is_some() { None } else { told };
        let entry = self.known.entry(hop).or_insert(Known { mac: None, refused: None, since: now });
        let changed = entry.mac != mac;
        if changed || entry.refused != refused {
            *entry = Known { mac, refused, since: now };
        }
        changed && !self.down.contains(&hop.0)
    }

    /// Notes that the MAC is wanted by somebody at `now`, and gives it if it is known; `first` when nobody wanted it before, so that it is asked for
    /// from now on.
    pub(super) fn ask(&mut self, hop: Hop, first: bool, now: SystemTime) -> Option<[u8; 6]> {
        let known = self.known.entry(hop).or_insert(Known { mac: None, refused: None, since: now });
        if first && known.mac.is_none() && known.refused.is_none() {
            known.since = now;
        }
        self.mac(&hop)
    }

    pub(super) fn mac(&self, hop: &Hop) -> Option<[u8; 6]> {
        self.known.get(hop).filter(|_| !self.down.contains(&hop.0))?.mac
    }

    /// Notes whether port `port` has a link at `now`; whether that is news. Who has no MAC is asked from then on: nobody could hear it before.
    pub(super) fn set_link(&mut self, port: u16, up: bool, now: SystemTime) -> bool {
        let news = if up { self.down.remove(&port) } else { self.down.insert(port) };
        if news && up {
            let missed = |(hop, known): &(&Hop, &mut Known)| hop.0 == port && known.mac.is_none() && known.refused.is_none();
            self.known.iter_mut().filter(missed).for_each(|(_, known)| known.since = now);
        }
        news
    }

    /// Whether an answer may still come at `now`: it was not asked, or lost, or reached by a port with a link, for long.
    pub(super) fn is_asked(&self, hop: &Hop, now: SystemTime) -> bool {
        let asked = |known: &Known| known.mac.is_none() && now.duration_since(known.since).is_ok_and(|since| since < PATIENCE);
        self.has_link(hop.0) && self.known.get(hop).is_some_and(asked)
    }

    /// Whether port `port` has a link.
    pub(super) fn has_link(&self, port: u16) -> bool {
        !self.down.contains(&port)
    }

    /// Why there is no MAC, in words.
    pub(super) fn reason(&self, hop: &Hop, link: &str) -> String {
        let address = hop.1;
        if !self.has_link(hop.0) {
            return format!("port {link} has no link");
        }
        let question = if address.is_ipv4() { "ARP" } else { "neighbour solicitation" };
        match self.known.get(hop) {
            Some(Known { refused: Some((told, why)), since, .. }) => {
                format!("{address} answered on port {link} with MAC {}, which {why}, since {}", mac::format(*told), utc(*since))
            }
            Some(Known { since, .. }) => format!("no answer to {question} on port {link} for {address} since {}", utc(*since)),
            None => format!("no answer to {question} on port {link} for {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const HOP: Hop = (0, IpAddr::V4(std::net::Ipv4Addr::new(10, 10, 24, 21)));

    #[test]
    fn the_silence_is_counted_from_its_beginning() {
        let mut neighbours = Neighbours::new(vec![], 10);
        let start = UNIX_EPOCH + Duration::from_mins(1);
        assert_eq!(neighbours.ask(HOP, true, start), None);
        assert!(!neighbours.set(HOP, None, start + Duration::from_secs(9), |_| true));
        assert_eq!(neighbours.reason(&HOP, "lan"), "no answer to ARP on port lan for 10.10.24.21 since 1970-01-01T00:01:00Z");
    }

    #[test]
    fn an_answer_is_awaited_for_three_seconds_from_the_question_and_from_the_link() {
        let mut neighbours = Neighbours::new(vec![], 10);
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!neighbours.is_asked(&HOP, at(0)));
        neighbours.ask(HOP, true, at(9));
        neighbours.ask(HOP, true, at(10));
        neighbours.ask(HOP, false, at(12));
        assert_eq!([10, 12, 13].map(|now| neighbours.is_asked(&HOP, at(now))), [true, true, false]);
        neighbours.set_link(HOP.0, false, at(20));
        assert!(!neighbours.is_asked(&HOP, at(20)));
        neighbours.set_link(HOP.0, true, at(30));
        assert_eq!([29, 30, 32, 33].map(|now| neighbours.is_asked(&HOP, at(now))), [false, true, true, false]);
        assert!(neighbours.reason(&HOP, "lan").ends_with("since 1970-01-01T00:00:30Z"), "{}", neighbours.reason(&HOP, "lan"));
        neighbours.set(HOP, Some([2, 0, 0, 0, 0, 1]), at(31), |_| true);
        assert!(!neighbours.is_asked(&HOP, at(31)));
    }

    #[test]
    fn our_own_mac_is_no_answer() {
        let own = [2, 0, 0, 0, 0xd0, 0];
        let mut neighbours = Neighbours::new(vec![own], 10);
        assert!(!neighbours.set(HOP, Some(own), UNIX_EPOCH, |_| true));
        assert_eq!(neighbours.mac(&HOP), None);
        assert!(neighbours.reason(&HOP, "lan").contains("one of the director's own"), "{}", neighbours.reason(&HOP, "lan"));
        assert!(neighbours.set(HOP, Some([2, 0, 0, 0, 0, 1]), UNIX_EPOCH, |_| true));
    }

    #[test]
    fn nobody_is_reached_by_a_port_without_a_link() {
        let mut neighbours = Neighbours::new(vec![], 10);
        let mac = Some([2, 0, 0, 0, 0, 1]);
        assert!(neighbours.set(HOP, mac, UNIX_EPOCH, |_| true));
        assert!(neighbours.set_link(HOP.0, false, UNIX_EPOCH) && !neighbours.set_link(HOP.0, false, UNIX_EPOCH));
        assert_eq!((neighbours.mac(&HOP), neighbours.ask(HOP, false, UNIX_EPOCH)), (None, None));
        assert_eq!(neighbours.reason(&HOP, "lan"), "port lan has no link");
        let other = (1, HOP.1);
        assert!(neighbours.set(other, mac, UNIX_EPOCH, |_| true) && neighbours.mac(&other) == mac);
        let moved = Some([2, 0, 0, 0, 0, 2]);
        assert!(!neighbours.set(HOP, moved, UNIX_EPOCH, |_| true), "what is told meanwhile changes nothing yet");
        assert!(neighbours.set_link(HOP.0, true, UNIX_EPOCH) && neighbours.mac(&HOP) == moved);
    }

    #[test]
    fn beyond_the_capacity_only_what_is_asked_for_is_kept() {
        let mut neighbours = Neighbours::new(vec![], 2);
        let hop = |last| (0, IpAddr::from([10, 0, 0, last]));
        for last in 1..=3 {
            neighbours.set(hop(last), Some([2, 0, 0, 0, 0, last]), UNIX_EPOCH, |h| *h == hop(1));
        }
        assert_eq!((neighbours.mac(&hop(1)).is_some(), neighbours.mac(&hop(2)), neighbours.mac(&hop(3)).is_some()), (true, None, true));
    }
}
