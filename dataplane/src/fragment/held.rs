//! Later fragments that came before their first one.

use arrayvec::ArrayVec;
use dpdk::mbuf::Mbuf;

use crate::connection::Key;
use crate::tick::Tick;

/// Fragments that wait, at most: when one more comes, the oldest gives up.
pub(super) const MOST: usize = 512;
/// Fragments of one datagram that wait, at most: the longest one has 44 in frames of 1500 bytes.
const OF_ONE: usize = 64;
/// Chains by hash.
const CHAINS: usize = 256;
/// No slot.
const NONE: u16 = u16::MAX;

#[derive(Debug)]
struct Slot {
    frame: Option<Mbuf>,
    key: Key,
    port: u16,
    chain: u16,
    /// The next one of the chain: younger.
    next: u16,
    until: Tick,
}

/// A ring of slots in the order in which fragments came, with chains through them by hash, each in the same order: 512
/// fragments, 48 KiB a worker. Cost: the length of a chain, 64 of one datagram and the few that share its hash.
#[derive(Debug)]
pub(super) struct Held {
    slots: Box<[Slot]>,
    heads: Box<[u16]>,
    /// Where the oldest slot is, and how many are in use from there on, empty ones included.
    first: usize,
    used: usize,
}

impl Held {
    pub(super) fn new() -> Self {
        let key = crate::parse::Packet::NONE.key;
        let empty = || Slot { frame: None, key, port: 0, chain: 0, next: NONE, until: Tick(0) };
        Self { slots: std::iter::repeat_with(empty).take(MOST).collect(), heads: vec![NONE; CHAINS].into(), first: 0, used: 0 }
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Keeps a fragment that came by `port` until `until`; gives back one that cannot wait any longer, with its port: the
    /// oldest when there is no more room, or this one when too many of its datagram wait.
    pub(super) fn push(&mut self, hash: u64, key: Key, frame: Mbuf, port: u16, until: Tick) -> Option<(u16, Mbuf)> {
        let chain = Self::chain(hash);
        let (mut last, mut alike) = (NONE, 0);
        let mut at = self.heads[usize::from(chain)];
        while let Some(slot) = self.slots.get(usize::from(at)) {
            alike += usize::from(slot.key == key);
            last = at;
            at = slot.next;
        }
        if alike >= OF_ONE {
            return Some((port, frame));
        }
        let evicted = if self.used == MOST { self.pop_first() } else { None };
        // The oldest may have been the last of this very chain.
        if self.heads[usize::from(chain)] == NONE {
            last = NONE;
        }
        let index = (self.first + self.used) % MOST;
        let number = u16::try_from(index).unwrap_or(NONE);
        self.slots[index] = Slot { frame: Some(frame), key, port, chain, next: NONE, until };
        self.used += 1;
        match self.slots.get_mut(usize::from(last)) {
            Some(slot) => slot.next = number,
            None => self.heads[usize::from(chain)] = number,
        }
        evicted
    }

    /// Takes all fragments of a datagram, oldest first, as far as `into` has room.
    pub(super) fn take<const N: usize>(&mut self, hash: u64, key: &Key, into: &mut ArrayVec<(u16, Mbuf), N>) {
        let chain = usize::from(Self::chain(hash));
        let (mut before, mut at) = (NONE, self.heads[chain]);
        while let Some(slot) = self.slots.get_mut(usize::from(at)) {
            let next = slot.next;
            if slot.key == *key && !into.is_full() {
                if let Some(frame) = slot.frame.take() {
                    let _ = into.try_push((slot.port, frame));
                }
                match self.slots.get_mut(usize::from(before)) {
                    Some(slot) => slot.next = next,
                    None => self.heads[chain] = next,
                }
            } else {
                before = at;
            }
            at = next;
        }
        self.skip_empty();
    }

    /// Takes the oldest fragment if its time is up, with its port.
    pub(super) fn expired(&mut self, now: Tick) -> Option<(u16, Mbuf)> {
        let up = !self.is_empty() && now.has_reached(self.slots[self.first].until);
        if up { self.pop_first() } else { None }
    }

    /// Takes the oldest, which is the head of its chain.
    fn pop_first(&mut self) -> Option<(u16, Mbuf)> {
        let slot = self.slots.get_mut(self.first)?;
        let taken = slot.frame.take()?;
        self.heads[usize::from(slot.chain)] = slot.next;
        let port = slot.port;
        self.skip_empty();
        Some((port, taken))
    }

    /// The oldest slot always holds a fragment.
    fn skip_empty(&mut self) {
        while self.used != 0 && self.slots[self.first].frame.is_none() {
            self.first = (self.first + 1) % MOST;
            self.used -= 1;
        }
    }

    fn chain(hash: u64) -> u16 {
        // Another part of the hash than the one that finds datagrams.
        let [.., byte, _, _] = hash.to_be_bytes();
        u16::from(byte)
    }
}
