//! What the established stage needs of the rules, packed so that a packet touches little of it.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::rules::{ServerRules, ServiceRules};
use crate::service::{Method, ServerId, ServiceId};
use crate::settings::Timeouts;
use crate::stats::{ServerShare, Traffic};
use crate::tick::Tick;

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
        Self { servers: vec![nobody.clone(); servers as usize], services: terms, macs, nobody, unserved }
    }

    /// The way to the real server at a place.
    #[inline(always)]
    pub fn way(&self, id: ServerId) -> Option<&Way> {
        self.servers.get(id.0 as usize)
    }

    /// What holds for the service at a place.
    #[inline(always)]
    pub fn terms(&self, id: ServiceId) -> Option<&Terms> {
        self.services.get(id.0 as usize)
    }

    /// Leads to `target` from now on, or to nobody.
    pub fn lead(&mut self, id: ServerId, target: Option<&ServerRules>) {
        let Some(place) = self.servers.get_mut(id.0 as usize) else { return };
        let macs = &self.macs;
        *place = target.and_then(|target| Way::to(target, macs)).unwrap_or_else(|| self.nobody.clone());
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
        let mut addresses = [0; 12];
        let (destination, source) = addresses.split_at_mut(6);
        destination.copy_from_slice(&hop.mac);
        source.copy_from_slice(macs.get(usize::from(hop.port))?);
        Some(Self { addresses, mtu: hop.mtu, port: hop.port, share: Arc::clone(&target.share) })
    }
}

impl Terms {
    fn new(traffic: &Arc<CachePadded<Traffic>>, timeouts: &Timeouts) -> Self {
        let ticks = |seconds: u32| seconds * Tick::PER_SECOND;
        Self { traffic: Arc::clone(traffic), tcp: ticks(timeouts.tcp), udp: ticks(timeouts.udp) }
    }
}
