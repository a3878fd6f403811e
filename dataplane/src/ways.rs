//! What the short way needs of the rules, packed so that a packet touches little of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use dpdk::DpdkError;
use dpdk::hugemem::HugeArray;
use dpdk::prefetch;
use zerocopy::FromBytes;

use crate::exits::{Exit, Exits, Lifetimes};
use crate::owners::Owners;
use crate::rules::{ServerRules, ServiceRules};
use crate::service::{Method, NextHop, ServerId, ServiceId};
use crate::settings::Timeouts;
use crate::stats::{ServerShare, Traffic};
use crate::tally::Tally;
use crate::translate::plain::{Words, port_word, words};
use crate::tunnel::Prepared;

/// Real servers whose ways stay in the cache of a core: 64 KiB.
const MANY: usize = 4096;

/// How packets of established connections get to a real server, and how many have gone: a quarter of a cache line, so that packets by direct
/// routing touch nothing else of it. Written by one worker; whoever else looks at it reads its tally alone.
#[derive(Debug, Default, FromBytes)]
#[repr(C, align(16))]
pub struct Way {
    hop: AtomicU64,
    tally: Tally,
}

const _: () = assert!(size_of::<Way>() == 16);

/// Where a way leads by direct routing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hop(u64);

/// How packets of established connections get to a real server by another method than direct routing: two cache lines, of which
/// the second one is for long headers.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub enum Detour {
    /// There is none, or it takes a look at each packet as a whole.
    #[default]
    None,
    /// Through a tunnel, and how long the connections live.
    Tunnel(Lifetimes, Prepared),
    /// By masquerading, likewise.
    Masquerade(Lifetimes, Masquerade),
}

/// How requests of masqueraded connections get to a real server, and what answers come from.
#[derive(Clone, Debug)]
pub struct Masquerade {
    /// The Ethernet header's addresses: the real server's MAC, then our port's.
    pub addresses: [u8; 12],
    /// The longest IP packet in bytes that may go this way.
    pub mtu: u16,
    /// The port that frames leave by.
    pub port: u16,
    /// This worker's share of its counters, for answers.
    pub share: Arc<CachePadded<ServerShare>>,
    /// The RIP.
    pub address: Words,
    /// Whether that is of IPv4.
    pub v4: bool,
    /// The real server's port as a [`port_word`]; 0 for that of the service.
    server_port: u16,
}

/// Ways by place, for as many real servers and services as there are places.
#[derive(Debug)]
pub struct Ways {
    servers: Arc<HugeArray<Way>>,
    exits: Exits,
    detours: Vec<Detour>,
    /// Places of real servers that were ever led to, from the first one on.
    used: usize,
    owners: Owners,
    /// How long connections of each service live.
    lifetimes: Vec<Lifetimes>,
    /// Our ports' MACs.
    macs: Vec<[u8; 6]>,
}

impl Ways {
    /// No ways yet, over ports with these MACs; nothing is allocated later. Those to 131 072 real servers are just one huge page, where there is one.
    ///
    /// Errors: [`OutOfMemory`](dpdk::ErrorKind::OutOfMemory).
    pub fn new(services: u32, servers: u32, macs: Vec<[u8; 6]>) -> Result<Self, DpdkError> {
        let mut ways = HugeArray::anonymous(servers as usize)?;
        ways.prefault()?;
        let ways = Arc::new(ways);
        Ok(Self {
            owners: Owners::new(services, &ways),
            servers: ways,
            exits: Exits::default(),
            detours: vec![Detour::None; servers as usize],
            used: 0,
            lifetimes: vec![Lifetimes::of(&Timeouts::default()); services as usize],
            macs,
        })
    }

    /// The way to the real server at a place.
    #[inline(always)]
    pub fn way(&self, id: ServerId) -> Option<&Way> {
        self.servers.get(id.0 as usize)
    }

    /// Where a way leaves. Cost: one line, which nearly all ways have in common.
    #[inline(always)]
    pub fn exit(&self, hop: Hop) -> &Exit {
        self.exits.at(hop.exit())
    }

    /// Counts a packet of this length on the way to a real server.
    #[inline(always)]
    pub fn count(&self, id: ServerId, way: &Way, length: u16) {
        if way.tally.count(length) {
            self.owners.settle(id);
        }
    }

    /// Whether ways are so many that a packet's is hardly in the cache.
    #[inline]
    pub const fn are_many(&self) -> bool {
        self.used > MANY
    }

    /// Asks for the line of a way.
    #[inline(always)]
    pub fn prefetch(&self, id: ServerId) {
        prefetch::slot(&self.servers, id.0 as usize);
    }

    /// The way to the real server at a place that is not by direct routing.
    #[inline(always)]
    pub fn detour(&self, id: ServerId) -> Option<&Detour> {
        self.detours.get(id.0 as usize)
    }

    /// Asks for the line that [`detour`](Self::detour) reads.
    #[inline(always)]
    pub fn prefetch_detour(&self, id: ServerId) {
        prefetch::slot(&self.detours, id.0 as usize);
    }

    /// This worker's share of the counters of the service at a place, for answers.
    #[inline(always)]
    pub fn answers(&self, id: ServiceId) -> Option<&Traffic> {
        self.owners.service(id)
    }

    /// Leads to `target` from now on, or to nobody. What is counted here counts for `target` and its service from now on.
    pub fn lead(&mut self, id: ServerId, target: Option<&ServerRules>) {
        let place = id.0 as usize;
        if place >= self.servers.len() {
            return;
        }
        let target = target.filter(|target| target.available);
        self.owners.set_server(id, target.map(|target| (&target.share, target.server.service)));
        self.used = self.used.max(place + 1);
        let (hop, detour) = target.and_then(|target| self.towards(target)).unwrap_or_default();
        self.detours[place] = detour;
        self.exits.leave(self.servers[place].turn(hop).exit());
    }

    /// How a real server is reached. `None` if only packets that are looked at as a whole reach it.
    fn towards(&mut self, target: &ServerRules) -> Option<(Hop, Detour)> {
        let next = target.next_hop?;
        let source = *self.macs.get(usize::from(next.port))?;
        let lifetimes = *self.lifetimes.get(target.server.service.0 as usize)?;
        Some(match target.method {
            Method::DirectRouting => {
                let exit = self.exits.enter(Exit::by(next.port, source, next.mtu).lasting(lifetimes))?;
                (Hop::new(next.mac, exit), Detour::None)
            }
            Method::Tunnel => {
                let prepared = Prepared::new(target.server.tunnel?, target.server.address, next, source)?;
                (Hop::default(), Detour::Tunnel(lifetimes, prepared))
            }
            Method::Masquerading => (Hop::default(), Detour::Masquerade(lifetimes, Masquerade::new(target, next, source))),
        })
    }

    /// Holds what `service` says from now on, or the director's timeouts where there is none. What is counted here counts for `service` from now
    /// on.
    pub fn agree(&mut self, id: ServiceId, service: Option<&ServiceRules>, timeouts: &Timeouts) {
        self.owners.set_service(id, service.map(|service| &service.traffic));
        let lifetimes = Lifetimes::of(service.and_then(|service| service.timeouts.as_ref()).unwrap_or(timeouts));
        let Some(old) = self.lifetimes.get_mut(id.0 as usize) else { return };
        if std::mem::replace(old, lifetimes) == lifetimes {
            return;
        }
        for server in self.owners.members(id).map(|server| server.0 as usize) {
            if let Detour::Tunnel(old, _) | Detour::Masquerade(old, _) = &mut self.detours[server] {
                *old = lifetimes;
            }
            let hop = self.servers[server].hop();
            if hop.exit() != 0 {
                let exit = self.exits.enter(self.exits.at(hop.exit()).lasting(lifetimes));
                self.servers[server].turn(exit.map_or(Hop::default(), |exit| hop.by(exit)));
                self.exits.leave(hop.exit());
            }
        }
    }
}

impl Way {
    /// Where it leads by direct routing.
    #[inline(always)]
    pub fn hop(&self) -> Hop {
        Hop(self.hop.load(Ordering::Relaxed))
    }

    /// What has gone this way, and no counter has taken over.
    #[inline(always)]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Leads elsewhere; gives where it led.
    fn turn(&self, hop: Hop) -> Hop {
        let old = self.hop();
        self.hop.store(hop.0, Ordering::Relaxed);
        old
    }
}

impl Hop {
    /// To this MAC, by the exit at this place.
    fn new([m0, m1, m2, m3, m4, m5]: [u8; 6], exit: u16) -> Self {
        Self(u64::from_le_bytes([0, 0, m0, m1, m2, m3, m4, m5]) | u64::from(exit))
    }

    /// To the same MAC, by the exit at this place.
    fn by(self, exit: u16) -> Self {
        Self(self.mac() << 16 | u64::from(exit))
    }

    /// The real server's MAC, its first byte lowest.
    #[inline(always)]
    pub const fn mac(self) -> u64 {
        self.0 >> 16
    }

    /// The place of the exit; 0 for that of nobody.
    #[inline(always)]
    const fn exit(self) -> u16 {
        let [e0, e1, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([e0, e1])
    }
}

impl Masquerade {
    fn new(target: &ServerRules, next: NextHop, source: [u8; 6]) -> Self {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&next.mac);
        addresses[6..].copy_from_slice(&source);
        Self {
            addresses,
            mtu: next.mtu,
            port: next.port,
            share: Arc::clone(&target.share),
            address: words(target.server.address),
            v4: target.server.address.is_v4(),
            server_port: port_word(target.server.port),
        }
    }

    /// The port on the real server that a vport leads to, both as [`port_word`]s.
    #[inline(always)]
    pub const fn port_for(&self, vport: u16) -> u16 {
        if self.server_port == 0 { vport } else { self.server_port }
    }
}
