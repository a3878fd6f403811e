//! Between workers: frames that the device gave to another worker than the one that has their connection.
//!
//! RSS gives a client's packets to one worker, but a masquerading real server's answers, ICMP errors and fragments wherever their
//! own addresses and ports lead. Workers' tables are private, so a stage that finds no entry asks
//! [`elsewhere`](HandOver::elsewhere) who is to look next, and gives the frame the [`Fate::HandOver`] that this answers. The
//! frame then goes through all stages of that worker, as if it had come by the same port there. It visits each worker once at
//! most; the last one treats it as one without a connection.
//!
//! Whom to ask first, a [`Directory`] tells: a table of bytes that all workers share, in which the owner of a new masqueraded
//! connection writes its number, and whoever finds the connection of a fragment. It forgets and mixes up, which costs a visit and nothing else.
//!
//! What else workers share came here with it: the agreement on [persistence](crate::affinity), and the beginning of time.
//!
//! With one worker none of this exists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crossbeam_utils::CachePadded;
use dpdk::DpdkError;
use dpdk::burst::Burst;
use dpdk::clock;
use dpdk::mbuf::Mbuf;
use dpdk::ring::{Ring, RingGauge, RingReceiver, RingSender};

use crate::affinity::Affinity;
use crate::connection::{Hasher, Key};
use crate::lanes::Fate;
use crate::limiter::Limiter;
use crate::tick::Tick;

/// Frames that may wait for a worker from each other one: what comes in half a millisecond at two million a second.
pub const DEPTH: u32 = 1024;
/// Most workers: their numbers are bytes, and one of them means none.
const MOST_WORKERS: usize = 254;
/// ICMP errors a second that a worker hands over at most: nobody needs a connection to send them.
const ERROR_RATE: u32 = 10_000;
/// First fragments a second that a worker sends around at most without knowing who may have their flow: nobody needs one for that.
const FRAGMENT_RATE: u32 = 50_000;
/// Most bytes of a directory.
const LARGEST_DIRECTORY: usize = 1 << 24;
/// No worker.
const NONE: u8 = u8::MAX;

/// How a frame came to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// By the device.
    Received,
    /// From another worker.
    FromWorker,
}

/// Which workers a frame has seen and is to see; travels with it in its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Journey {
    /// The port that it came by, as index in the configuration's order.
    port: u8,
    /// The worker that received it.
    first: u8,
    /// The worker that was asked next, because the directory named it.
    hint: u8,
    /// Whether it has left its first worker.
    under_way: bool,
    /// Whether another worker received it, for its first one.
    given: bool,
}

impl Journey {
    /// Of a frame that worker `worker` has just received by port `port`.
    pub fn begin(worker: usize, port: usize) -> Self {
        let byte = |n: usize| u8::try_from(n).unwrap_or(NONE);
        Self { port: byte(port), first: byte(worker), hint: NONE, under_way: false, given: false }
    }

    /// Of a frame that another worker has received by port `port` and gives to `worker`, whose flow it is of: its journey begins there.
    pub fn given(worker: u8, port: usize) -> Self {
        Self { given: true, ..Self::begin(worker.into(), port) }
    }

    /// The port that the frame came by.
    pub fn port(self) -> usize {
        self.port.into()
    }

    /// How it came to the worker that has it and has not handed it on.
    pub fn came(self) -> Came {
        if self.under_way || self.given { Came::FromWorker } else { Came::Received }
    }

    fn tag(self) -> u32 {
        u32::from_be_bytes([self.port, self.first, self.hint, u8::from(self.under_way) | u8::from(self.given) << 1])
    }

    fn of(frame: &Mbuf) -> Self {
        let [port, first, hint, state] = frame.tag().to_be_bytes();
        Self { port, first, hint, under_way: state & 1 != 0, given: state & 2 != 0 }
    }

    /// Who comes after worker `here` of `workers`: the one that the directory named, then all others in turn.
    fn after(self, here: u8, workers: u8) -> Option<u8> {
        if here == self.first && self.hint != NONE {
            return Some(self.hint);
        }
        let step = |n: u8| if n + 1 >= workers { 0 } else { n + 1 };
        let mut next = step(if here == self.hint { self.first } else { here });
        if next == self.hint {
            next = step(next);
        }
        (next != self.first).then_some(next)
    }
}

/// Who has which connection, as far as is remembered: one byte for each of twice as many keys as there may be connections.
pub struct Directory {
    hasher: Hasher,
    /// A worker's number and one, or 0 where nobody ever wrote.
    owners: Box<[AtomicU8]>,
}

impl Directory {
    /// Places of a directory for `connections`, of a byte each.
    pub(crate) fn places(connections: usize) -> usize {
        connections.saturating_mul(2).next_power_of_two().min(LARGEST_DIRECTORY)
    }

    fn new(connections: usize, seed: [u64; 4]) -> Self {
        let len = Self::places(connections);
        Self { hasher: Hasher::new(seed), owners: (0..len).map(|_| AtomicU8::new(0)).collect() }
    }

    fn place(&self, key: &Key) -> &AtomicU8 {
        // A power of two that is not 0, and of the hash as many bits as that has.
        let index = usize::try_from(self.hasher.hash(key) >> 32).unwrap_or_default() & (self.owners.len() - 1);
        &self.owners[index]
    }

    /// Notes that worker `worker` has the connection whose packets have this key. Cost: a hash and one byte stored.
    pub fn note(&self, key: &Key, worker: usize) {
        let owner = u8::try_from(worker + 1).unwrap_or(0);
        self.place(key).store(owner, Ordering::Relaxed);
    }

    /// Who may have it; `None` when surely nobody has. Cost: a hash and one load.
    pub fn owner(&self, key: &Key) -> Option<u8> {
        self.place(key).load(Ordering::Relaxed).checked_sub(1)
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("len", &self.owners.len()).finish_non_exhaustive()
    }
}

/// A worker's ends of the rings to and from all others.
#[derive(Debug)]
pub struct HandOver {
    index: u8,
    workers: u8,
    /// By worker; `None` for this one.
    to: Vec<Option<RingSender>>,
    from: Vec<Option<RingReceiver>>,
    /// One for each worker: rung by whoever has put frames in, so that a worker without any pays for one load a turn.
    bells: Arc<[CachePadded<AtomicBool>]>,
    directory: Arc<Directory>,
    affinity: Arc<Affinity>,
    /// Which worker's a flow is, where the device does not say.
    spreading: Hasher,
    /// A bit for each worker that frames were given to since its bell rang last; two words, for that many workers.
    given: [u128; 2],
    /// TSC cycles when time began for all workers.
    began: u64,
    errors: Limiter,
    fragments: Limiter,
}

/// Makes the hand-over among `workers` workers with tables of `connections` entries; for one alone there is none.
///
/// `seed` comes from a secure random source; it is the workers' common one. Memory: a ring of [`DEPTH`] pointers for each
/// ordered pair of workers, two bytes a connection for the directory and eight for the [`Affinity`], 16 MiB each at most. Errors: no memory for a ring, or 255 workers and more.
pub fn mesh(workers: usize, connections: u32, seed: [u64; 4]) -> Result<Vec<Option<HandOver>>, DpdkError> {
    if workers < 2 {
        return Ok((0..workers).map(|_| None).collect());
    }
    let count = u8::try_from(workers.min(MOST_WORKERS)).unwrap_or(NONE);
    let bells: Arc<[_]> = (0..workers).map(|_| CachePadded::new(AtomicBool::new(false))).collect();
    let together = workers.saturating_mul(connections as usize);
    let directory = Arc::new(Directory::new(together, seed));
    let affinity = Arc::new(Affinity::new(together, seed));
    let began = clock::cycles();
    let mut all: Vec<HandOver> = (0..count)
        .map(|index| HandOver {
            index,
            workers: count,
            to: (0..workers).map(|_| None).collect(),
            from: (0..workers).map(|_| None).collect(),
            bells: Arc::clone(&bells),
            directory: Arc::clone(&directory),
            affinity: Arc::clone(&affinity),
            spreading: Hasher::new([seed[3], seed[2], seed[1], seed[0]]),
            given: [0; 2],
            began,
            errors: Limiter::new(ERROR_RATE, Tick::default()),
            fragments: Limiter::new(FRAGMENT_RATE, Tick::default()),
        })
        .collect();
    for from in 0..all.len() {
        for to in (0..all.len()).filter(|to| *to != from) {
            let (sender, receiver) = Ring::one_way(&format!("over-{from}-{to}"), DEPTH, None)?;
            all[from].to[to] = Some(sender);
            all[to].from[from] = Some(receiver);
        }
    }
    Ok(all.into_iter().map(Some).collect())
}

impl HandOver {
    /// How full the rings from the other workers are, each with its worker's number; for metrics, not for the path.
    pub fn gauges(&self) -> impl Iterator<Item = (usize, RingGauge)> + '_ {
        self.from.iter().enumerate().filter_map(|(from, ring)| Some((from, ring.as_ref()?.gauge())))
    }

    /// The directory that all workers share.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Where all workers agree on templates.
    pub fn affinity(&self) -> &Arc<Affinity> {
        &self.affinity
    }

    /// TSC cycles when time began for all workers: what they agree on has times that all understand.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// The fate of a frame without an entry here: a worker that has not seen it; `None` when all have.
    ///
    /// `hint` says who may have it, on the first worker; later ones do not count.
    pub fn elsewhere(&self, journey: &mut Journey, hint: Option<u8>) -> Option<Fate> {
        if !journey.under_way {
            journey.under_way = true;
            journey.hint = hint.filter(|hint| *hint != self.index && *hint < self.workers).unwrap_or(NONE);
        }
        journey.after(self.index, self.workers).map(Fate::HandOver)
    }

    /// As [`elsewhere`](Self::elsewhere) for an ICMP error, of which only so many a second are handed over.
    pub fn error_elsewhere(&mut self, journey: &mut Journey, hint: Option<u8>) -> Option<Fate> {
        self.errors.take().then(|| self.elsewhere(journey, hint)).flatten()
    }

    /// As [`elsewhere`](Self::elsewhere) for a first fragment, of which only so many a second are sent around without a hint.
    pub fn fragment_elsewhere(&mut self, journey: &mut Journey, hint: Option<u8>) -> Option<Fate> {
        let known = journey.under_way || hint.is_some_and(|hint| hint != self.index);
        (known || self.fragments.take()).then(|| self.elsewhere(journey, hint)).flatten()
    }

    /// Hands a frame to worker `to`; gives it back when that one has too many to take. Cost: the ring's, and one store.
    pub fn send(&mut self, to: u8, mut frame: Mbuf, journey: Journey) -> Result<(), Mbuf> {
        let to = usize::from(to);
        let (Some(Some(ring)), Some(bell)) = (self.to.get_mut(to), self.bells.get(to)) else { return Err(frame) };
        frame.set_tag(journey.tag());
        ring.send(frame)?;
        bell.store(true, Ordering::Release);
        Ok(())
    }

    /// How many workers there are.
    pub fn workers(&self) -> u8 {
        self.workers
    }

    /// The hash that says which worker's a flow is, where the device does not: the same on all workers.
    pub fn spreading(&self) -> &Hasher {
        &self.spreading
    }

    /// As [`send`](Self::send), for many frames: nobody hears of them before [`ring_bells`](Self::ring_bells). Cost: the ring's.
    pub fn give(&mut self, to: u8, mut frame: Mbuf, journey: Journey) -> Result<(), Mbuf> {
        let Some(Some(ring)) = self.to.get_mut(usize::from(to)) else { return Err(frame) };
        frame.set_tag(journey.tag());
        ring.send(frame)?;
        self.given[usize::from(to >> 7)] |= 1 << (to & 127);
        Ok(())
    }

    /// Rings the bell of every worker that frames were given to. Cost: a store for each of them.
    pub fn ring_bells(&mut self) {
        for (word, workers) in self.given.iter_mut().enumerate() {
            while *workers != 0 {
                let to = word * 128 + workers.trailing_zeros() as usize;
                *workers &= *workers - 1;
                if let Some(bell) = self.bells.get(to) {
                    bell.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Takes over what others handed to this worker, as much as fits, those of each in their order; how many. Cost without any: one load.
    #[inline]
    pub fn receive(&mut self, now: Tick, burst: &mut Burst) -> usize {
        self.errors.refill(now);
        self.fragments.refill(now);
        let bell = &self.bells[usize::from(self.index)];
        if !bell.load(Ordering::Relaxed) {
            return 0;
        }
        // Silenced before the rings are looked at, so that whoever puts a frame in afterwards is heard next time.
        bell.swap(false, Ordering::SeqCst);
        let taken = self.from.iter_mut().flatten().map(|ring| ring.receive(burst)).sum();
        if burst.is_full() {
            bell.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// The journey of a frame that [`receive`](Self::receive) gave.
    pub fn journey(frame: &Mbuf) -> Journey {
        Journey::of(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    #[test]
    fn a_frame_visits_every_worker_once_and_the_named_one_first() {
        for workers in 2..6_u8 {
            for first in 0..workers {
                for hint in (0..workers).filter(|h| *h != first).map(Some).chain([None]) {
                    let journey = Journey { port: 0, first, hint: hint.unwrap_or(NONE), under_way: true, given: false };
                    let mut visited = vec![first];
                    while let Some(next) = journey.after(visited[visited.len() - 1], workers) {
                        visited.push(next);
                        assert!(visited.len() <= usize::from(workers), "{journey:?}");
                    }
                    assert!(hint.is_none_or(|hint| visited[1] == hint), "{journey:?}");
                    visited.sort_unstable();
                    assert_eq!(visited, (0..workers).collect::<Vec<_>>(), "{journey:?}");
                }
            }
        }
    }

    #[test]
    fn directory_names_the_owner_of_what_was_noted_last() {
        let directory = Directory::new(1 << 10, [1, 2, 3, 4]);
        let key = |n| Key { client: Address::v4(n), virtual_: Address::v4(1), client_port: 1, virtual_port: 2, protocol: 6 };
        assert_eq!(directory.owner(&key(1)), None);
        directory.note(&key(1), 0);
        assert_eq!(directory.owner(&key(1)), Some(0));
        directory.note(&key(1), 3);
        assert_eq!(directory.owner(&key(1)), Some(3));
    }

    #[test]
    fn a_lone_worker_has_no_hand_over() {
        assert!(mesh(1, 1024, [1, 2, 3, 4]).unwrap().iter().all(Option::is_none));
    }
}
