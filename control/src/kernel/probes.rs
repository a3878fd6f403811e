//! Health checks on the clients' path: what the kernel sends to a probe address leaves for the VIP at one real server.
//!
//! A VIP is a local address of the kernel's, so no socket of ours can ask a real server for it. It asks a probe address
//! instead, one for each real server and VIP:
//! ```text
//!  socket: DIP -> probe address    pump: DIP -> VIP, real server's MAC or tunnel    real server
//!  socket: DIP <- probe address    pump: DIP <- VIP                                 real server
//! ```
//! Answers are told apart by the port of ours that they go to, which is why sockets have to be bound before they connect.

mod packet;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::service::Encapsulation;
use dataplane::tunnel;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::health::check::Path;
use packet::Packet;

/// The MAC that frames to probe addresses have between kernel and pump; never on a wire.
pub(super) const MAC: [u8; 6] = [0x02, 0x62, 0x61, 0x74, 0x6f, 0x6e];

/// The gateway of IPv6 probe addresses: a link-local address that only the TAP's neighbour table has.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x62, 0x6174, 0x6f6e);

/// Bits of a probe network that say the port, by family.
const PORT_BITS: (u8, u8) = (8, 16);

/// The first number that a probe gets within its port's part; 1 is the gateway.
const FIRST: u32 = 2;

const ETHERNET: usize = 14;

/// The MTU of routes to probe addresses on a port with MTU `port`: with room for a tunnel's outer header.
pub(super) fn mtu(port: u16) -> u32 {
    u32::from(port.saturating_sub(80).max(1280))
}

/// The networks that probe addresses are of: nothing else that the director's own programs speak to may be in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Networks {
    /// IPv4, /4 to /16.
    pub v4: Ipv4Net,
    /// IPv6, /16 to /64.
    pub v6: Ipv6Net,
}

impl Default for Networks {
    /// 240.0.0.0/8, which RFC 1112 section 4 reserves and nobody is given, and a unique local network (RFC 4193).
    fn default() -> Self {
        Self {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 8),
            v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd62, 0x6174, 0x6f6e, 0, 0, 0, 0, 0), 48),
        }
    }
}

impl Networks {
    fn of_port(&self, link: u16, ipv6: bool) -> IpNet {
        if ipv6 {
            let length = self.v6.prefix_len() + PORT_BITS.1;
            let address = self.v6.network().to_bits() | u128::from(link) << (128 - u32::from(length));
            IpNet::V6(Ipv6Net::new_assert(address.into(), length))
        } else {
            let length = self.v4.prefix_len() + PORT_BITS.0;
            let address = self.v4.network().to_bits() | u32::from(link & 0xff) << (32 - u32::from(length));
            IpNet::V4(Ipv4Net::new_assert(address.into(), length))
        }
    }

    /// The probe address with this number on a port; `None` when its part is used up.
    fn address(&self, link: u16, ipv6: bool, number: u32) -> Option<IpAddr> {
        let network = self.of_port(link, ipv6);
        let address: IpAddr = match network.network() {
            IpAddr::V4(first) => Ipv4Addr::from(first.to_bits().checked_add(number)?).into(),
            IpAddr::V6(first) => Ipv6Addr::from(first.to_bits() | u128::from(number)).into(),
        };
        (network.contains(&address) && network.broadcast() != address).then_some(address)
    }
}

/// Where frames to a probe address go.
#[derive(Clone, Copy, Debug)]
struct Target {
    path: Path,
    mac: Option<[u8; 6]>,
}

/// A connection that a check has opened.
#[derive(Clone, Copy, Debug)]
struct Flow {
    vip: IpAddr,
    vport: u16,
    probe: IpAddr,
}

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<Path, IpAddr>,
    targets: HashMap<IpAddr, Target>,
    vips: HashSet<IpAddr>,
    /// By protocol, our address and our port: so it is bounded by those.
    flows: HashMap<(u8, IpAddr, u16), Flow>,
    next: HashMap<(u16, bool), u32>,
    free: HashMap<(u16, bool), Vec<IpAddr>>,
}

/// All probe addresses; clones are handles of the same. Locks are held for moments.
#[derive(Clone, Debug)]
pub struct Probes {
    networks: Networks,
    table: Arc<Mutex<Table>>,
}

impl Probes {
    /// None yet, in these networks.
    pub fn new(networks: Networks) -> Self {
        Self { networks, table: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A port's probe networks, each with its gateway, which has [`MAC`].
    pub(super) fn routes(&self, link: u16) -> [(IpNet, IpAddr); 2] {
        let v4 = self.networks.of_port(link, false);
        let gateway = self.networks.address(link, false, 1).unwrap_or(v4.network());
        [(v4, gateway), (self.networks.of_port(link, true), GATEWAY6.into())]
    }

    /// Makes these all ways that checks take, with the MACs that frames get on them. Cost: linear.
    pub fn put(&self, wanted: &HashMap<Path, Option<[u8; 6]>>) {
        let mut table = self.lock();
        let table = &mut *table;
        let gone: Vec<Path> = table.addresses.keys().filter(|path| !wanted.contains_key(path)).copied().collect();
        for path in &gone {
            if let Some(address) = table.addresses.remove(path) {
                table.targets.remove(&address);
                table.free.entry((path.link, path.vip.is_ipv6())).or_default().push(address);
            }
        }
        for (path, mac) in wanted {
            let place = (path.link, path.vip.is_ipv6());
            let known = table.addresses.get(path).copied();
            let address = known.or_else(|| table.free.get_mut(&place)?.pop()).or_else(|| {
                let next = table.next.entry(place).or_insert(FIRST);
                let address = self.networks.address(place.0, place.1, *next)?;
                *next += 1;
                Some(address)
            });
            if let Some(address) = address {
                table.addresses.insert(*path, address);
                table.targets.insert(address, Target { path: *path, mac: *mac });
            }
        }
        table.vips = wanted.keys().map(|path| path.vip).collect();
        if !gone.is_empty() {
            let targets = &table.targets;
            table.flows.retain(|_, flow| targets.contains_key(&flow.probe));
        }
    }

    /// The probe address for a way, and whether there is a MAC for it.
    pub fn address(&self, path: &Path) -> Option<(IpAddr, bool)> {
        let table = self.lock();
        let address = *table.addresses.get(path)?;
        Some((address, table.targets.get(&address)?.mac.is_some()))
    }

    /// What becomes of a frame of the kernel's, at `frame` in `buffer`: where it stands now, or `None` when it goes nowhere.
    ///
    /// One to a probe address is turned into one for its VIP; a tunnel's header needs 40 bytes before it.
    pub(super) fn go_out(&self, buffer: &mut [u8], frame: Range<usize>) -> Option<Range<usize>> {
        let bytes = buffer.get_mut(frame.clone())?;
        if bytes.get(..6) != Some(&MAC) {
            return Some(frame);
        }
        let packet = Packet::of(bytes)?;
        let (source, probe) = (packet.source, packet.destination);
        let mut table = self.lock();
        let target = *table.targets.get(&probe)?;
        let mac = target.mac?;
        if let Some((own_port, vport)) = packet.ports {
            let flow = Flow { vip: target.path.vip, vport, probe };
            table.flows.insert((packet.protocol, source, own_port), flow);
        }
        drop(table);
        packet.set_destination(bytes, target.path.vip)?;
        bytes.get_mut(..6)?.copy_from_slice(&mac);
        match target.path.tunnel {
            Some((source, rip, kind)) => wrap(buffer, frame, source, rip, kind),
            None => Some(frame),
        }
    }

    /// Whether a frame from the wire goes on to the kernel. An answer to a check is turned into one from its probe address, and so
    /// is an ICMP error about a check; anything else that says to be from a VIP is somebody's lie.
    pub(super) fn come_back(&self, frame: &mut [u8]) -> bool {
        let Some(packet) = Packet::of(frame) else { return true };
        let table = self.lock();
        let from_vip = table.vips.contains(&packet.source);
        if let Some(quote) = packet.quote(frame).filter(|quote| table.vips.contains(&quote.destination)) {
            let flow = quote.ports.and_then(|(own, vport)| table.flow(quote.protocol, quote.source, own, quote.destination, vport));
            drop(table);
            let Some(flow) = flow else { return !from_vip };
            let told =
                quote.set_destination(frame, flow.probe).is_some() && packet.mend_icmp(frame, quote.destination, flow.probe).is_some();
            return told && (!from_vip || packet.set_source(frame, flow.probe).is_some());
        }
        if !from_vip {
            return true;
        }
        let Some((vport, own)) = packet.ports else { return false };
        let flow = table.flow(packet.protocol, packet.destination, own, packet.source, vport);
        drop(table);
        flow.is_some_and(|flow| packet.set_source(frame, flow.probe).is_some())
    }
}

impl Table {
    /// The check that speaks from `own_port` of ours, at `own`, to `vip` and `vport`.
    fn flow(&self, protocol: u8, own: IpAddr, own_port: u16, vip: IpAddr, vport: u16) -> Option<Flow> {
        self.flows.get(&(protocol, own, own_port)).filter(|flow| flow.vip == vip && flow.vport == vport).copied()
    }
}

/// Puts the packet at `frame` into a tunnel: the outer headers go before it.
fn wrap(buffer: &mut [u8], frame: Range<usize>, source: IpAddr, rip: IpAddr, kind: Encapsulation) -> Option<Range<usize>> {
    let start = frame.start.checked_sub(tunnel::outer_length(rip.into(), kind))?;
    let ethernet: [u8; ETHERNET] = *buffer.get(frame.clone())?.first_chunk()?;
    buffer.get_mut(start..)?.first_chunk_mut::<ETHERNET>()?.copy_from_slice(&ethernet);
    tunnel::write_outer(buffer.get_mut(start..frame.end)?, source.into(), rip.into(), kind)?;
    Some(start..frame.end)
}

#[cfg(test)]
mod tests;
