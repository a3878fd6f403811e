//! Whose counters take over what the short way counts.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use dpdk::hugemem::HugeArray;

use crate::service::{ServerId, ServiceId};
use crate::stats::{ServerShare, Traffic};
use crate::tally::{Beside, Board};
use crate::ways::Way;

/// A worker's shares of the counters of services and real servers, by place.
#[derive(Debug)]
pub struct Owners {
    board: Arc<Board>,
    servers: Vec<Option<Owner>>,
    services: Vec<Arc<CachePadded<Traffic>>>,
    /// Counts what nobody reads.
    nobody: Arc<CachePadded<Traffic>>,
}

/// Whose a real server's tally is.
#[derive(Debug)]
struct Owner {
    share: Arc<CachePadded<ServerShare>>,
    service: ServiceId,
}

impl Owners {
    /// What these ways count is nobody's yet; nothing is allocated later.
    pub fn new(services: u32, ways: &Arc<HugeArray<Way>>) -> Self {
        let nobody = Arc::default();
        Self {
            board: Arc::new(Board::new(services, Arc::clone(ways))),
            servers: ways.iter().map(|_| None).collect(),
            services: vec![Arc::clone(&nobody); services as usize],
            nobody,
        }
    }

    /// The counters of the service at a place.
    #[inline(always)]
    pub fn service(&self, id: ServiceId) -> Option<&Traffic> {
        self.services.get(id.0 as usize).map(|traffic| &***traffic)
    }

    /// The real servers that belong to a service.
    pub fn members(&self, service: ServiceId) -> impl Iterator<Item = ServerId> {
        self.board.members(service)
    }

    /// What is counted on the way to a real server is for these counters and for those of a service from now on, or for nobody's.
    pub fn set_server(&mut self, id: ServerId, owner: Option<(&Arc<CachePadded<ServerShare>>, ServiceId)>) {
        let Some(old) = self.servers.get(id.0 as usize) else { return };
        let same = match (old, owner) {
            (Some(old), Some((share, service))) => Arc::ptr_eq(&old.share, share) && old.service == service,
            (old, new) => old.is_none() && new.is_none(),
        };
        if same {
            return;
        }
        self.board.change(|| {
            self.take_over(id);
            if let Some(old) = old {
                self.board.leave(id, old.service);
            }
            if let Some((_, service)) = owner {
                self.board.join(id, service);
            }
        });
        if let Some((share, _)) = owner {
            share.traffic.count_beside(|| Beside::server(&self.board, id));
        }
        self.servers[id.0 as usize] = owner.map(|(share, service)| Owner { share: Arc::clone(share), service });
    }

    /// What is counted for a service is for these counters from now on, or for nobody's.
    pub fn set_service(&mut self, id: ServiceId, traffic: Option<&Arc<CachePadded<Traffic>>>) {
        let new = Arc::clone(traffic.unwrap_or(&self.nobody));
        let Some(old) = self.services.get(id.0 as usize) else { return };
        if Arc::ptr_eq(old, &new) {
            return;
        }
        self.board.change(|| self.board.members(id).for_each(|server| self.take_over(server)));
        if traffic.is_some() {
            new.count_beside(|| Beside::service(&self.board, id));
        }
        self.services[id.0 as usize] = new;
    }

    /// Lets counters take a real server's tally over. Apart from the way that nearly every packet goes.
    #[cold]
    #[inline(never)]
    pub fn settle(&self, id: ServerId) {
        self.board.change(|| self.take_over(id));
    }

    fn take_over(&self, id: ServerId) {
        let [packets, bytes] = self.board.take(id);
        let owner = self.servers.get(id.0 as usize).and_then(Option::as_ref);
        let service = owner.and_then(|owner| self.service(owner.service));
        for traffic in owner.map(|owner| &owner.share.traffic).into_iter().chain(service) {
            traffic.in_packets.add(packets);
            traffic.in_bytes.add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const FIRST: ServerId = ServerId(0);
    const SECOND: ServerId = ServerId(1);
    const SERVICE: ServiceId = ServiceId(0);
    const OTHER: ServiceId = ServiceId(1);

    /// Two services with places for real servers, and what counts for them.
    struct Place {
        ways: Arc<HugeArray<Way>>,
        owners: Owners,
        services: [Arc<CachePadded<Traffic>>; 2],
        servers: [Arc<CachePadded<ServerShare>>; 3],
    }

    impl Place {
        /// The first two real servers are the first service's.
        fn new() -> Self {
            let ways = Arc::new(HugeArray::anonymous(4).unwrap());
            let mut place = Self { owners: Owners::new(2, &ways), ways, services: Default::default(), servers: Default::default() };
            for (id, service) in (0..).map(ServiceId).zip(&place.services) {
                place.owners.set_service(id, Some(service));
            }
            for id in [FIRST, SECOND] {
                place.give(id, SERVICE);
            }
            place
        }

        fn give(&mut self, id: ServerId, service: ServiceId) {
            self.owners.set_server(id, Some((&self.servers[id.0 as usize], service)));
        }

        /// Counts a packet of this length, as [`Ways::count`](crate::ways::Ways::count) does.
        fn count(&self, id: ServerId, length: u16) {
            if self.ways[id.0 as usize].tally().count(length) {
                self.owners.settle(id);
            }
        }

        /// What the services and the real servers have taken in.
        fn sums(&self) -> ([[u64; 2]; 2], [[u64; 2]; 3]) {
            (self.services.each_ref().map(|traffic| traffic.taken_in()), self.servers.each_ref().map(|share| share.traffic.taken_in()))
        }
    }

    #[test]
    fn what_is_counted_is_the_real_servers_and_its_services() {
        let place = Place::new();
        place.count(FIRST, 100);
        place.count(FIRST, 50);
        place.count(SECOND, 7);
        assert_eq!(place.sums(), ([[3, 157], [0, 0]], [[2, 150], [1, 7], [0, 0]]));
        place.services[0].count_in(1000);
        place.servers[0].traffic.count_in(1000);
        assert_eq!(place.sums(), ([[4, 1157], [0, 0]], [[3, 1150], [1, 7], [0, 0]]));
    }

    #[test]
    fn what_was_counted_stays_when_the_place_is_another_ones() {
        let mut place = Place::new();
        place.count(FIRST, 100);
        place.owners.set_server(FIRST, None);
        assert_eq!(place.sums(), ([[1, 100], [0, 0]], [[1, 100], [0, 0], [0, 0]]));
        // What comes for nobody counts for nobody.
        place.count(FIRST, 1);
        place.owners.set_server(FIRST, Some((&place.servers[2], OTHER)));
        place.count(FIRST, 20);
        place.count(SECOND, 7);
        let (services, [_, second, third]) = place.sums();
        assert_eq!((services, second, third), ([[2, 107], [1, 20]], [1, 7], [1, 20]));
        let first = &place.servers[0].traffic;
        assert_eq!((first.in_packets.get(), first.in_bytes.get()), (1, 100));
        assert_eq!(place.owners.members(OTHER).collect::<Vec<_>>(), [FIRST]);
        place.give(SECOND, OTHER);
        place.count(SECOND, 3);
        assert_eq!(place.sums().0, [[2, 107], [2, 23]]);
        assert_eq!(place.owners.members(SERVICE).count(), 0);
    }

    #[test]
    fn a_replaced_service_keeps_what_came_for_it() {
        let mut place = Place::new();
        place.count(FIRST, 100);
        let new = Arc::default();
        place.owners.set_service(SERVICE, Some(&new));
        place.count(SECOND, 7);
        let old = &place.services[0];
        assert_eq!((old.in_packets.get(), old.in_bytes.get(), new.taken_in()), (1, 100, [1, 7]));
        place.owners.set_service(SERVICE, None);
        place.count(SECOND, 9);
        place.owners.settle(SECOND);
        assert_eq!((new.in_packets.get(), new.in_bytes.get(), place.servers[1].traffic.taken_in()), (1, 7, [2, 16]));
    }

    #[test]
    fn members_come_and_go_in_any_order() {
        let mut place = Place::new();
        place.servers[2] = Arc::default();
        place.give(ServerId(2), SERVICE);
        let members = |place: &Place| {
            let mut members: Vec<_> = place.owners.members(SERVICE).map(|id| id.0).collect();
            members.sort_unstable();
            members
        };
        assert_eq!(members(&place), [0, 1, 2]);
        place.owners.set_server(SECOND, None);
        assert_eq!(members(&place), [0, 2]);
        place.give(SECOND, SERVICE);
        place.owners.set_server(FIRST, None);
        assert_eq!(members(&place), [1, 2]);
        // There is no such service: what is counted is the real server's alone.
        place.give(FIRST, ServiceId(9));
        place.count(FIRST, 5);
        place.owners.set_server(FIRST, None);
        assert_eq!((members(&place), place.sums().1[0]), (vec![1, 2], [1, 5]));
        place.owners.set_server(ServerId(2), None);
        place.owners.set_server(SECOND, None);
        assert!(members(&place).is_empty());
    }

    #[test]
    fn a_tally_never_overflows() {
        let place = Place::new();
        let packets = (1_u64 << 33) / u64::from(u16::MAX);
        for _ in 0..packets {
            place.count(FIRST, u16::MAX);
        }
        let all = [packets, packets * u64::from(u16::MAX)];
        assert_eq!(place.sums(), ([all, [0, 0]], [all, [0, 0], [0, 0]]));
    }

    #[test]
    fn counters_never_go_back_for_whoever_reads_them_meanwhile() {
        const ROUNDS: u64 = 20_000;
        let mut place = Place::new();
        let (services, servers) = (place.services.clone(), place.servers.clone());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut seen, mut readings) = ([0; 3], 0_u64);
                while !done.load(Ordering::Relaxed) {
                    let now = [
                        services[0].taken_in()[0] + services[1].taken_in()[0],
                        servers[0].traffic.taken_in()[0],
                        servers[1].traffic.taken_in()[0],
                    ];
                    assert!(seen.iter().zip(&now).all(|(before, after)| before <= after), "{seen:?}, then {now:?}");
                    (seen, readings) = (now, readings + 1);
                    thread::yield_now();
                }
                readings
            });
            for round in 0..ROUNDS {
                place.count(FIRST, 60);
                place.count(SECOND, 60);
                match round % 4 {
                    0 => place.owners.settle(FIRST),
                    1 => place.owners.set_server(SECOND, None),
                    2 => place.give(SECOND, SERVICE),
                    _ => thread::yield_now(),
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(place.sums().1[0], [ROUNDS, ROUNDS * 60]);
    }
}
