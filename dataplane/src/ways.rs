//! What the established stage needs of the rules, packed so that a packet touches little of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use dpdk::prefetch;

use crate::rules::{ServerRules, ServiceRules};
use crate::service::{Method, NextHop, ServerId, ServiceId};
use crate::settings::Timeouts;
use crate::stats::{Beside, ServerShare, Tally, Traffic};
use crate::tick::Tick;
use crate::translate::plain::{Words, port_word, words};
use crate::tunnel::Prepared;

/// Real servers whose ways stay in the cache of a core: 64 KiB.
const MANY: usize = 2048;

/// How packets of established connections get to a real server by direct routing, and how many have gone: half a cache line, so that such a
/// packet touches no other one of its real server. Written by one worker; whoever else looks at it reads its tally alone.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct Way {
    /// The Ethernet header's addresses, the real server's MAC, then our port's: the first eight bytes, the first one lowest.
    addresses: AtomicU64,
    /// The other four.
    addresses_left: AtomicU32,
    mtu: AtomicU16,
    port: AtomicU16,
    tally: Tally,
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

/// What holds for established connections of a service, and how many packets have come: half a cache line, as [`Way`].
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct Terms {
    tcp: AtomicU32,
    udp: AtomicU32,
    tally: Tally,
}

const _: () = assert!(size_of::<Way>() == 32 && size_of::<Terms>() == 32);

/// Ways and terms by place, for as many real servers and services as there are places.
#[derive(Debug)]
pub struct Ways {
    servers: Arc<[Way]>,
    detours: Vec<Detour>,
    /// Places of real servers that were ever led to, from the first one on.
    used: usize,
    services: Arc<[Terms]>,
    /// This worker's share of each service's counters, for answers.
    answers: Vec<Arc<CachePadded<Traffic>>>,
    /// Our ports' MACs.
    macs: Vec<[u8; 6]>,
    /// Counts nothing that anyone reads.
    unserved: Arc<CachePadded<Traffic>>,
}

impl Ways {
    /// No ways yet, over ports with these MACs; nothing is allocated later.
    pub fn new(services: u32, servers: u32, macs: Vec<[u8; 6]>) -> Self {
        let unserved = Arc::default();
        Self {
            servers: (0..servers).map(|_| Way::default()).collect(),
            detours: vec![Detour::None; servers as usize],
            used: 0,
            services: (0..services).map(|_| Terms::default()).collect(),
            answers: vec![Arc::clone(&unserved); services as usize],
            macs,
            unserved,
        }
    }

    /// The way to the real server at a place.
    #[inline(always)]
    pub fn way(&self, id: ServerId) -> Option<&Way> {
        self.servers.get(id.0 as usize)
    }

    /// Whether ways are so many that a packet's is hardly in the cache.
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

    /// This worker's share of the counters of the service at a place, for answers.
    #[inline(always)]
    pub fn answers(&self, id: ServiceId) -> Option<&Traffic> {
        self.answers.get(id.0 as usize).map(|traffic| &***traffic)
    }

    /// Leads to `target` from now on, or to nobody. What is counted here counts for `target` from now on.
    pub fn lead(&mut self, id: ServerId, target: Option<&ServerRules>) {
        let place = id.0 as usize;
        let (Some(way), Some(detour)) = (self.servers.get(place), self.detours.get_mut(place)) else { return };
        if let Some(target) = target {
            target.share.traffic.count_beside(|| Beside::server(&self.servers, place));
        }
        let macs = &self.macs;
        way.lead(target, macs);
        self.used = self.used.max(place + 1);
        *detour = target.and_then(|target| Detour::to(target, macs)).unwrap_or(Detour::None);
    }

    /// Holds what `service` says from now on, or the director's timeouts where there is none. What is counted here counts for `service` from now
    /// on.
    pub fn agree(&mut self, id: ServiceId, service: Option<&ServiceRules>, timeouts: &Timeouts) {
        let place = id.0 as usize;
        let (Some(terms), Some(answers)) = (self.services.get(place), self.answers.get_mut(place)) else { return };
        if let Some(service) = service {
            service.traffic.count_beside(|| Beside::service(&self.services, place));
        }
        terms.set(service.and_then(|service| service.timeouts.as_ref()).unwrap_or(timeouts));
        *answers = Arc::clone(service.map_or(&self.unserved, |service| &service.traffic));
    }
}

impl Way {
    /// The longest IP packet in bytes that may go this way; 0 for a real server that is removed, has no next hop or is reached by another
    /// method.
    #[inline(always)]
    pub fn mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// The port that frames leave by.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Writes the Ethernet header's addresses, where there is room for them. Cost: two loads and stores.
    #[inline(always)]
    pub fn address(&self, frame: &mut [u8]) -> Option<()> {
        let header: &mut [u8; 12] = frame.first_chunk_mut()?;
        header[..8].copy_from_slice(&self.addresses.load(Ordering::Relaxed).to_le_bytes());
        header[8..].copy_from_slice(&self.addresses_left.load(Ordering::Relaxed).to_le_bytes());
        Some(())
    }

    fn lead(&self, target: Option<&ServerRules>, macs: &[[u8; 6]]) {
        let direct = target.filter(|target| target.available && target.method == Method::DirectRouting);
        let hop = direct.and_then(|target| target.next_hop).and_then(|hop| Some((hop, addresses(hop, macs)?)));
        let (mtu, port, addresses) = hop.map_or((0, 0, [0; 12]), |(hop, both)| (hop.mtu, hop.port, both));
        self.addresses.store(addresses.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)), Ordering::Relaxed);
        self.addresses_left.store(addresses.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)), Ordering::Relaxed);
        self.mtu.store(mtu, Ordering::Relaxed);
        self.port.store(port, Ordering::Relaxed);
    }

    /// What has gone this way.
    #[inline(always)]
    pub const fn tally(&self) -> &Tally {
        &self.tally
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
    /// Ticks that an established TCP connection lives without a packet.
    #[inline(always)]
    pub fn tcp(&self) -> u32 {
        self.tcp.load(Ordering::Relaxed)
    }

    /// Ticks that a UDP one does.
    #[inline(always)]
    pub fn udp(&self) -> u32 {
        self.udp.load(Ordering::Relaxed)
    }

    /// What has come.
    #[inline(always)]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    fn set(&self, timeouts: &Timeouts) {
        self.tcp.store(timeouts.tcp * Tick::PER_SECOND, Ordering::Relaxed);
        self.udp.store(timeouts.udp * Tick::PER_SECOND, Ordering::Relaxed);
    }
}
