//! What the short way counts, in the line of the real server's way, until counters take it over; and how whoever lists counters sees both.

use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::thread::yield_now;

use dpdk::hugemem::HugeArray;
use zerocopy::FromBytes;

use crate::service::{ServerId, ServiceId};
use crate::ways::Way;

/// No place.
const NONE: u32 = u32::MAX;
/// How often a reader looks again whom the worker came between.
const TRIES: u32 = 10_000;

/// Packets and bytes from clients that no counter has taken over yet: the bytes in the upper half, the packets in the lower one.
#[derive(Debug, Default, FromBytes)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Counts a packet of this length in bytes; `true` if the tally is to be taken over: half of its room for bytes is used, which the uppermost
    /// bit says. Only the owning worker may call it. Cost: a load, an add and a store.
    #[inline(always)]
    #[must_use]
    pub fn count(&self, length: u16) -> bool {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(u64::from(length) << 32 | 1), Ordering::Relaxed);
        before >> 63 != 0
    }

    fn take(&self) -> [u64; 2] {
        let sum = self.get();
        self.0.store(0, Ordering::Relaxed);
        sum
    }

    fn get(&self) -> [u64; 2] {
        let sum = self.0.load(Ordering::Relaxed);
        [sum & u64::from(u32::MAX), sum >> 32]
    }
}

/// The ways of one worker with their tallies, and whose they are: that worker writes it, whoever lists counters reads it.
#[derive(Debug)]
pub struct Board {
    ways: Arc<HugeArray<Way>>,
    /// By service, its first real server.
    first: Box<[AtomicU32]>,
    /// By real server, the next one of its service, and the one before it.
    next: Box<[AtomicU32]>,
    previous: Box<[AtomicU32]>,
    /// Odd while it is changed.
    changes: AtomicU64,
}

impl Board {
    /// No real server belongs to one of so many services yet.
    pub fn new(services: u32, ways: Arc<HugeArray<Way>>) -> Self {
        let none = |places: usize| (0..places).map(|_| AtomicU32::new(NONE)).collect();
        let servers = ways.len();
        Self { ways, first: none(services as usize), next: none(servers), previous: none(servers), changes: AtomicU64::new(0) }
    }

    /// Does what readers are to see all of or nothing of. Only the owning worker may call it, and not within another change.
    pub fn change(&self, change: impl FnOnce()) {
        let before = self.changes.load(Ordering::Relaxed);
        self.changes.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.changes.store(before.wrapping_add(2), Ordering::Release);
    }

    /// What `look` sees, nothing of which is from within a change.
    fn read<T>(&self, look: impl Fn() -> T) -> T {
        for _ in 0..TRIES {
            let before = self.changes.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = look();
                fence(Ordering::Acquire);
                if self.changes.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            yield_now();
        }
        look()
    }

    /// The real servers that belong to a service.
    pub fn members(&self, service: ServiceId) -> impl Iterator<Item = ServerId> {
        let follow =
            |places: &[AtomicU32], at: u32| places.get(at as usize).map(|place| place.load(Ordering::Relaxed)).filter(|at| *at != NONE);
        // A reader that the worker comes between might otherwise go round in circles.
        successors(follow(&self.first, service.0), move |at| follow(&self.next, *at)).map(ServerId).take(self.ways.len())
    }

    /// Lets a real server that belongs to no service belong to this one, within [`change`](Self::change).
    pub fn join(&self, server: ServerId, service: ServiceId) {
        let Some(first) = self.first.get(service.0 as usize) else { return };
        let follower = first.load(Ordering::Relaxed);
        first.store(server.0, Ordering::Relaxed);
        Self::set(&self.next, server.0, follower);
        Self::set(&self.previous, server.0, NONE);
        Self::set(&self.previous, follower, server.0);
    }

    /// Lets a real server that belongs to this service belong to none, within [`change`](Self::change).
    pub fn leave(&self, server: ServerId, service: ServiceId) {
        let taken = |places: &[AtomicU32]| places.get(server.0 as usize).map_or(NONE, |place| place.swap(NONE, Ordering::Relaxed));
        let (follower, leader) = (taken(&self.next), taken(&self.previous));
        Self::set(&self.previous, follower, leader);
        if leader == NONE {
            Self::set(&self.first, service.0, follower);
        } else {
            Self::set(&self.next, leader, follower);
        }
    }

    fn set(places: &[AtomicU32], at: u32, value: u32) {
        if let Some(place) = places.get(at as usize) {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// What a real server's tally says; it begins anew. Within [`change`](Self::change).
    pub fn take(&self, server: ServerId) -> [u64; 2] {
        self.tally(server).map(Tally::take).unwrap_or_default()
    }

    fn tally(&self, server: ServerId) -> Option<&Tally> {
        self.ways.get(server.0 as usize).map(Way::tally)
    }
}

/// Where tallies are of packets that somebody's counters have not taken over.
#[derive(Debug)]
pub struct Beside {
    board: Arc<Board>,
    whose: Whose,
}

#[derive(Debug)]
enum Whose {
    Server(ServerId),
    Service(ServiceId),
}

impl Beside {
    /// Beside the counters of a real server.
    pub fn server(board: &Arc<Board>, id: ServerId) -> Self {
        Self { board: Arc::clone(board), whose: Whose::Server(id) }
    }

    /// Beside those of a service: the tallies of its real servers.
    pub fn service(board: &Arc<Board>, id: ServiceId) -> Self {
        Self { board: Arc::clone(board), whose: Whose::Service(id) }
    }

    /// Packets and bytes that `counters` say and that they have not taken over. Cost: two lines a real server; again, if the worker changes
    /// the board meanwhile.
    pub fn add_to(&self, counters: impl Fn() -> [u64; 2]) -> [u64; 2] {
        let plus = |sum: [u64; 2], server| {
            let tally = self.board.tally(server).map(Tally::get).unwrap_or_default();
            [sum[0].wrapping_add(tally[0]), sum[1].wrapping_add(tally[1])]
        };
        self.board.read(|| match self.whose {
            Whose::Server(id) => plus(counters(), id),
            Whose::Service(id) => self.board.members(id).fold(counters(), plus),
        })
    }
}
