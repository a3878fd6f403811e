//! The director's place in the network: addresses, VLANs, and ways to real servers and clients.

use std::net::IpAddr;

use dataplane::address::Address;
use dataplane::command::LocalAddresses;
use dataplane::routes::{self, PortRoutes, Routes};
use dataplane::service::NextHop;

use super::choices::Choices;
use super::rig::MACS;
use crate::reference::vlans::Vlan;

pub const VIPS: [&str; 4] = ["10.10.24.88", "10.10.24.89", "fd00:10::88", "fd00:10::89"];
/// DIPs with the ports that each is on.
const DIPS: [(&str, u64); 4] = [("10.10.24.10", 1), ("fd00:10::10", 1), ("172.16.0.10", 2), ("fd00:16::10", 2)];

pub fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

/// VIPs and DIPs.
pub fn our_addresses() -> Vec<IpAddr> {
    VIPS.iter().chain(DIPS.iter().map(|(dip, _)| dip)).map(|a| address(a).ip()).collect()
}

/// What stays as it is in a case.
pub struct Network {
    pub vlans: Vec<Vlan>,
    /// Longest IP packets, by port and VLAN.
    mtus: Vec<u16>,
}

impl Network {
    pub fn choose(c: &mut Choices<'_>) -> Self {
        let vlan = |port, tags: &[u16]| Vlan { port, tags: tags.to_vec() };
        let all = [vlan(0, &[100]), vlan(1, &[100]), vlan(0, &[200, 300])];
        let count = if c.one_in(2) { 1 + c.below(all.len()) } else { 0 };
        let vlans = all[..count].to_vec();
        let mtus = (0..MACS.len() + count).map(|_| c.pick(&[1500, 1500, 1500, 1500, 1280, 1300, 576, 68, 9000])).collect();
        Self { vlans, mtus }
    }

    /// How many ports and VLANs there are.
    pub fn sides(&self) -> usize {
        self.mtus.len()
    }

    /// With all VIPs, or with one of them taken away.
    pub fn locals(&self, all: bool) -> LocalAddresses {
        let vips = &VIPS[..if all { VIPS.len() } else { VIPS.len() - 1 }];
        let everywhere = (1 << self.sides()) - 1;
        // The DIPs of a port are those of its VLANs, too.
        let of_port = |ports: u64| {
            let has = |port: usize| ports >> port & 1 == 1;
            let vlans = self.vlans.iter().enumerate().filter(|(_, vlan)| has(vlan.port));
            vlans.fold(ports, |ports, (n, _)| ports | 1 << (MACS.len() + n))
        };
        let dips = DIPS.iter().map(|(dip, ports)| (*dip, of_port(*ports)));
        LocalAddresses {
            addresses: vips.iter().map(|vip| (*vip, everywhere)).chain(dips).map(|(a, ports)| (address(a), ports)).collect(),
            vips: vips.iter().map(|vip| address(vip)).collect(),
            macs: MACS.to_vec(),
            ..LocalAddresses::default()
        }
    }

    /// The way to a real server with a place, if there is one.
    pub fn next_hop(&self, c: &mut Choices<'_>, place: u32) -> Option<NextHop> {
        if c.one_in(10) {
            return None;
        }
        let mac = if c.one_in(24) { c.pick(&MACS) } else { [2, 0, 0, 1, 0, place as u8] };
        let side = match c.below(40) {
            39 => self.sides(),
            0..20 => 0,
            _ => c.below(self.sides()),
        };
        Some(NextHop { port: side as u16, mac, mtu: self.mtus.get(side).copied().unwrap_or(1500) })
    }

    /// Ways to clients: networks on the link, gateways, or neither.
    pub fn routes(&self, c: &mut Choices<'_>) -> Routes {
        let near = routes::Network { prefix: address("10.10.24.0"), mask: u128::MAX << 8, own: address("10.10.24.10") };
        let mut of_side = |side: usize| {
            let mtu = self.mtus[side];
            let gateway = NextHop { port: side as u16, mac: [2, 0, 0, 0, 7, side as u8], mtu };
            let gateways = [c.one_in(3), c.one_in(3)].map(|there| there.then_some(gateway));
            PortRoutes { networks: if side == 0 { vec![near] } else { Vec::new() }, gateways, mtu }
        };
        Routes::new((0..self.sides()).map(&mut of_side).collect())
    }
}
