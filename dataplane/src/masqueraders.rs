//! Which real servers masquerade: whose packets may be answers to requests.

use hashbrown::HashMap;

use crate::address::Address;
use crate::service::{Method, Protocol, RealServer};

/// Counts how many real servers have an address, or a port of it.
type Counts<K> = HashMap<K, u32>;

/// Real servers that masquerade, and those that did while they are in their place: connections keep the method that they were made with.
#[derive(Debug)]
pub struct Masqueraders {
    count: u32,
    rips: Counts<Address>,
    /// Protocol, RIP and rport of those that masquerade now and are members of their services; [`Protocol::Ip`] stands for all protocols.
    ports: Counts<(Protocol, Address, u16)>,
}

impl Masqueraders {
    /// None, with room for so many; nothing is allocated later.
    pub fn new(servers: u32) -> Self {
        // Twice the room: a hash table that is at most half full never rehashes on the packet path.
        let room = 2 * servers as usize;
        Self { count: 0, rips: HashMap::with_capacity(room), ports: HashMap::with_capacity(room) }
    }

    /// Whether there is any.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this is the RIP of one. Cost: one hash lookup, or a load where there is none.
    #[inline]
    pub fn have(&self, address: Address) -> bool {
        self.count != 0 && self.rips.contains_key(&address)
    }

    /// Whether a member of a service of this protocol, or of one by mark, masquerades at this address and port. Cost: two hash lookups.
    pub fn serve(&self, protocol: Protocol, address: Address, port: u16) -> bool {
        [protocol, Protocol::Ip].iter().any(|protocol| self.ports.contains_key(&(*protocol, address, port)))
    }

    /// One came, or another snapshot of one that [`leave`](Self::leave) was told to have left.
    pub fn enter(&mut self, server: &RealServer) {
        self.count += 1;
        *self.rips.entry(server.address).or_default() += 1;
        if let Some(port) = served(server) {
            *self.ports.entry(port).or_default() += 1;
        }
    }

    /// One left that had come.
    pub fn leave(&mut self, server: &RealServer) {
        self.count -= 1;
        take(&mut self.rips, &server.address);
        if let Some(port) = served(server) {
            take(&mut self.ports, &port);
        }
    }
}

fn served(server: &RealServer) -> Option<(Protocol, Address, u16)> {
    let serves = server.available && server.method == Method::Masquerading;
    serves.then_some((server.protocol, server.address, server.port))
}

fn take<K: std::hash::Hash + Eq>(counts: &mut Counts<K>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
