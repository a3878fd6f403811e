//! What the established stage needs of the rules, packed so that a packet touches little of it.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use dpdk::prefetch;

use crate::rules::{ServerRules, ServiceRules};
use crate::service::{Method, NextHop, ServerId, ServiceId};
use crate::settings::Timeouts;
use crate::stats::{ServerShare, Traffic};
use crate::tick::Tick;
use crate::translate::plain::{Words, port_word, words};
use crate::tunnel::Prepared;

/// Real servers whose ways and counters stay in the cache of a core: half a MiB.
const MANY: usize = 2048;

/// How packets of established connections get to a real server by direct routing: half a cache line.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub struct Way {
    /// The Ethernet header's addresses: the real server's MAC, then our port's.
    pub addresses: [u8; 12],
    /// The longest IP packet in bytes that may go this way; 0 for a real server that is removed, has no next hop or is reached
    /// by another method.
    pub mtu: u16,
    /// The port that frames leave by.
    pub port: u16,
    /// This worker's share of its counters.
    pub share: Arc<CachePadded<ServerShare>>,
}

/// How packets of established connections get to a real server by another method than direct routing: two cache lines, of which
/// the second one is for long headers.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub enum Detour {
    /// There is none, or it takes a look at each packet as a whole.
    None,
    /// Through a tunnel; with this worker's share of the counters.
    Tunnel(Arc<CachePadded<ServerShare>>, Prepared),
    /// By masquerading.
    Masquerade(Masquerade),
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
    /// This worker's share of its counters.
    pub share: Arc<CachePadded<ServerShare>>,
    /// The RIP.
    pub address: Words,
    /// Whether that is of IPv4.
    pub v4: bool,
    /// The real server's port as a [`port_word`]; 0 for that of the service.
    server_port: u16,
}

/// What holds for established connections of a service.
#[derive(Clone, Debug)]
pub struct Terms {
    /// This worker's share of its counters.
    pub traffic: Arc<CachePadded<Traffic>>,
    /// Ticks that an established TCP connection lives without a packet.
    pub tcp: u32,
    /// Ticks that a UDP one does.
    pub udp: u32,
}

/// Ways and terms by place, for as many real servers and services as there are places.
#[derive(Debug)]
pub struct Ways {
    servers: Vec<Way>,
    detours: Vec<Detour>,
    /// Places of real servers that were ever led to, from the first one on.
    used: usize,
    services: Vec<Terms>,
    /// Our ports' MACs.
    macs: Vec<[u8; 6]>,
    /// Stands where there is no real server.
    nobody: Way,
    /// Counts nothing that anyone reads.
    unserved: Arc<CachePadded<Traffic>>,
}

impl Ways {
    /// No ways yet, over ports with these MACs; nothing is allocated later.
    pub fn new(services: u32, servers: u32, macs: Vec<[u8; 6]>) -> Self {
        let nobody = Way { addresses: [0; 12], mtu: 0, port: 0, share: Arc::default() };
        let unserved = Arc::default();
        let terms = vec![Terms::new(&unserved, &Timeouts::default()); services as usize];
        let detours = vec![Detour::None; servers as usize];
        Self { servers: vec![nobody.clone(); servers as usize], detours, used: 0, services: terms, macs, nobody, unserved }
    }

    /// The way to the real server at a place.
    #[inline(always)]
    pub fn way(&self, id: ServerId) -> Option<&Way> {
        self.servers.get(id.0 as usize)
    }

    /// Whether ways and counters are so many that a packet's are hardly in the cache.
    #[inline]
    pub const fn are_many(&self) -> bool {
        self.used > MANY
    }

    /// Asks for the lines of a way and of what holds for a service.
    #[inline(always)]
    pub fn prefetch(&self, server: ServerId, service: ServiceId) {
        prefetch::slot(&self.servers, server.0 as usize);
        prefetch::slot(&self.services, service.0 as usize);
    }

    /// Asks for the lines of both's counters; reads the lines that [`prefetch`](Self::prefetch) asks for.
    #[inline(always)]
    pub fn prefetch_counters(&self, server: ServerId, service: ServiceId) {
        if let (Some(way), Some(terms)) = (self.way(server), self.terms(service)) {
            prefetch::read(&**way.share);
            prefetch::read(&**terms.traffic);
        }
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

    /// What holds for the service at a place.
    #[inline(always)]
    pub fn terms(&self, id: ServiceId) -> Option<&Terms> {
        self.services.get(id.0 as usize)
    }

    /// Leads to `target` from now on, or to nobody.
    pub fn lead(&mut self, id: ServerId, target: Option<&ServerRules>) {
        let (Some(place), Some(detour)) = (self.servers.get_mut(id.0 as usize), self.detours.get_mut(id.0 as usize)) else { return };
        let macs = &self.macs;
        *place = target.and_then(|target| Way::to(target, macs)).unwrap_or_else(|| self.nobody.clone());
        self.used = self.used.max(id.0 as usize + 1);
        *detour = target.and_then(|target| Detour::to(target, macs)).unwrap_or(Detour::None);
    }

    /// Holds what `service` says from now on, or the director's timeouts where there is none.
    pub fn agree(&mut self, id: ServiceId, service: Option<&ServiceRules>, timeouts: &Timeouts) {
        let Some(place) = self.services.get_mut(id.0 as usize) else { return };
        *place = match service {
            Some(service) => Terms::new(&service.traffic, service.timeouts.as_ref().unwrap_or(timeouts)),
            None => Terms::new(&self.unserved, timeouts),
        };
    }
}

impl Way {
    fn to(target: &ServerRules, macs: &[[u8; 6]]) -> Option<Self> {
        let hop = target.next_hop.filter(|_| target.available && target.method == Method::DirectRouting)?;
        Some(Self { addresses: addresses(hop, macs)?, mtu: hop.mtu, port: hop.port, share: Arc::clone(&target.share) })
    }
}

/// The Ethernet addresses of frames that leave by `hop`.
fn addresses(hop: NextHop, macs: &[[u8; 6]]) -> Option<[u8; 12]> {
    let mut addresses = [0; 12];
    let (destination, source) = addresses.split_at_mut(6);
    destination.copy_from_slice(&hop.mac);
    source.copy_from_slice(macs.get(usize::from(hop.port))?);
    Some(addresses)
}

impl Detour {
    fn to(target: &ServerRules, macs: &[[u8; 6]]) -> Option<Self> {
        let hop = target.next_hop.filter(|_| target.available)?;
        let (server, share) = (&target.server, Arc::clone(&target.share));
        match target.method {
            Method::DirectRouting => None,
            Method::Tunnel => {
                let prepared = Prepared::new(server.tunnel?, server.address, hop, *macs.get(usize::from(hop.port))?)?;
                Some(Self::Tunnel(share, prepared))
            }
            Method::Masquerading => Some(Self::Masquerade(Masquerade {
                addresses: addresses(hop, macs)?,
                mtu: hop.mtu,
                port: hop.port,
                share,
                address: words(server.address),
                v4: server.address.is_v4(),
                server_port: port_word(server.port),
            })),
        }
    }
}

impl Masquerade {
    /// The port on the real server that a vport leads to, both as [`port_word`]s.
    #[inline(always)]
    pub const fn port_for(&self, vport: u16) -> u16 {
        if self.server_port == 0 { vport } else { self.server_port }
    }
}

impl Terms {
    fn new(traffic: &Arc<CachePadded<Traffic>>, timeouts: &Timeouts) -> Self {
        let ticks = |seconds: u32| seconds * Tick::PER_SECOND;
        Self { traffic: Arc::clone(traffic), tcp: ticks(timeouts.tcp), udp: ticks(timeouts.udp) }
    }
}
