//! Persistence over several workers: the real server that a client's templates agree on.

use dataplane::connection::Hasher;
use dataplane::connection::Key as WorkerKey;

use super::Director;
use super::connections::{Key, SECOND};
use super::handover::House;
use super::wire::Packet;

/// Slots that a client may be in.
const WINDOW: usize = 4;

/// What a slot says: of whom, as far as 17 bits tell; which real server; until when, in units of 1.28 s, of which there are 2^25.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word {
    tag: u64,
    server: u32,
    time: u32,
}

#[derive(Clone)]
pub struct Affinity {
    hasher: Hasher,
    slots: Vec<Option<Word>>,
    /// Until when any connection may be agreed on.
    flows_until: u32,
}

fn has_reached(now: u32, moment: u32) -> bool {
    now.wrapping_sub(moment) < 1 << 31
}

/// The first time that is later than so many ticks and 64 from now.
fn time_after(now: u32, ticks: u32) -> u32 {
    (now.wrapping_add(ticks + 64) / 128 + 1) % (1 << 25)
}

fn worker_key(key: &Key) -> WorkerKey {
    WorkerKey {
        client: key.client.ip().into(),
        virtual_: key.virtual_.ip().into(),
        client_port: key.client.port(),
        virtual_port: key.virtual_.port(),
        protocol: key.protocol | if key.template { 0x40 } else { 0 },
    }
}

impl Affinity {
    pub fn new(connections: usize, seed: [u64; 4]) -> Self {
        Self { hasher: Hasher::new(seed), slots: vec![None; connections.next_power_of_two().clamp(WINDOW, 1 << 21)], flows_until: 0 }
    }

    fn has_flows(&self, now: u32) -> bool {
        self.flows_until != 0 && !has_reached(now, self.flows_until)
    }

    /// Connections are agreed on for so long; a time of 0 means never.
    fn flows_last(&mut self, now: u32, ticks: u32) {
        let until = now.wrapping_add(ticks + 256);
        if !self.has_flows(now) || has_reached(until, self.flows_until) {
            self.flows_until = until.max(1);
        }
    }

    fn place(&self, key: &Key) -> (u64, [usize; WINDOW]) {
        let hash = self.hasher.hash(&worker_key(key));
        let first = (hash >> 32) as usize;
        ((hash % (1 << 17)).max(1), std::array::from_fn(|n| (first + n) % self.slots.len()))
    }

    fn alive(&self, slot: usize, now: u32) -> Option<Word> {
        self.slots[slot].filter(|word| !has_reached(now, word.time * 128))
    }

    fn server(&self, key: &Key, now: u32) -> Option<u32> {
        let (tag, slots) = self.place(key);
        slots.into_iter().filter_map(|slot| self.alive(slot, now)).find(|word| word.tag == tag).map(|word| word.server)
    }

    /// Says that the template names `server`; gives the one that it names for all. `time` is told that of before.
    fn put(&mut self, key: &Key, server: u32, now: u32, time: impl Fn(Option<u32>) -> u32, good: impl Fn(u32) -> bool) -> Option<u32> {
        let (tag, slots) = self.place(key);
        let own = slots.into_iter().find(|slot| self.alive(*slot, now).is_some_and(|word| word.tag == tag));
        let slot = own.or_else(|| slots.into_iter().find(|slot| self.alive(*slot, now).is_none()))?;
        let agreed = own.and_then(|slot| self.slots[slot]).filter(|word| word.server == server || good(word.server));
        let server = agreed.map_or(server, |word| word.server);
        self.slots[slot] = Some(Word { tag, server, time: time(agreed.map(|word| word.time)) });
        Some(server)
    }

    fn withdraw(&mut self, key: &Key, server: u32) {
        let (tag, slots) = self.place(key);
        for slot in slots {
            if self.slots[slot].is_some_and(|word| (word.tag, word.server) == (tag, server)) {
                self.slots[slot] = None;
            }
        }
    }
}

impl Director {
    /// Whether what another worker says of a client of this service may be followed.
    fn is_good_member(&self, server: u32, service: u32) -> bool {
        self.may_be_followed(server)
            && self.services.get(&service).is_some_and(|s| s.snapshot.members.iter().any(|member| member.server.0 == server))
    }

    /// The real server that other workers say a client belongs to.
    pub(super) fn said(&self, key: &Key, service: u32) -> Option<u32> {
        let said = self.common.borrow().house.as_ref()?.affinity.server(key, self.now)?;
        Some(said).filter(|server| self.is_good_member(*server, service))
    }

    /// The real server for a new connection: what another worker said that begun it with a part of a packet, else the scheduler's word.
    /// Of one that begins so here, others are told for so many seconds.
    pub(super) fn choose_server(&mut self, packet: &Packet, service: u32, apart: Option<u32>) -> Option<u32> {
        let (key, now) = (Key::of(packet), self.now);
        let said = self.common.borrow().house.as_ref().filter(|house| house.affinity.has_flows(now)).and_then(|_| self.said(&key, service));
        let server = said.or_else(|| self.schedule(service, packet))?;
        let one_packet = self.services.get(&service).is_some_and(|s| s.snapshot.one_packet);
        let Some(seconds) = apart.filter(|_| !one_packet) else { return Some(server) };
        if let Some(house) = &mut self.common.borrow_mut().house {
            house.affinity.flows_last(now, seconds * SECOND);
        }
        Some(self.agree(&key, server, service, seconds * SECOND))
    }

    /// What was agreed on about a connection holds on.
    pub(super) fn keep_flow(&self, key: &Key, server: u32) {
        let (now, ticks) = (self.now, self.settings.timeouts.udp * SECOND);
        let agreed = |house: &House| house.affinity.has_flows(now) && house.affinity.server(key, now) == Some(server);
        if !self.common.borrow().house.as_ref().is_some_and(agreed) {
            return;
        }
        if let Some(house) = &mut self.common.borrow_mut().house {
            house.affinity.flows_last(now, ticks);
        }
        self.keep(key, server, ticks);
    }

    /// Says where a template leads; where it leads for all.
    pub(super) fn agree(&self, key: &Key, server: u32, service: u32, ticks: u32) -> u32 {
        let now = self.now;
        let Some(house) = &mut self.common.borrow_mut().house else { return server };
        let good = |other| self.is_good_member(other, service);
        house.affinity.put(key, server, now, |_| time_after(now, ticks), good).unwrap_or(server)
    }

    /// A template lives on.
    pub(super) fn keep(&self, key: &Key, server: u32, ticks: u32) {
        let now = self.now;
        let wanted = time_after(now, ticks);
        let later = |old: Option<u32>| old.filter(|old| has_reached(old * 128, wanted * 128)).unwrap_or(wanted);
        if let Some(house) = &mut self.common.borrow_mut().house {
            house.affinity.put(key, server, now, later, |_| true);
        }
    }

    /// A template ended before its time.
    pub(super) fn withdraw(&self, key: &Key, server: u32) {
        if let Some(house) = &mut self.common.borrow_mut().house {
            house.affinity.withdraw(key, server);
        }
    }
}
