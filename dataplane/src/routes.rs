//! Ways to clients: what a reply of a masquerading real server needs to know of the networks around us.

use crate::address::Address;
use crate::connection::Way;
use crate::service::NextHop;

/// A network that a port is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its addresses in the bits of `mask`; the others are 0.
    pub prefix: Address,
    /// The bits that all its addresses have in common, as [`Address`] holds them.
    pub mask: u128,
    /// Our own address in it.
    pub own: Address,
}

/// A port's networks and routers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortRoutes {
    /// What it is connected to; a client there gets its replies directly.
    pub networks: Vec<Network>,
    /// The IPv4 and the IPv6 gateway, where their MACs are known.
    pub gateways: [Option<NextHop>; 2],
    /// The longest IP packet that it sends, in bytes.
    pub mtu: u16,
}

/// All ports' routes, in the configuration's order; a snapshot that the control plane replaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Routes {
    ports: Vec<PortRoutes>,
    /// All networks that a port is connected to.
    networks: Vec<Network>,
    /// The first IPv4 and the first IPv6 gateway.
    gateways: [Option<NextHop>; 2],
}

impl Routes {
    /// Those of these ports.
    pub fn new(ports: Vec<PortRoutes>) -> Self {
        let networks = ports.iter().flat_map(|port| &port.networks).copied().collect();
        let gateways = [0, 1].map(|family| ports.iter().find_map(|port| port.gateways[family]));
        Self { ports, networks, gateways }
    }

    /// One for each port.
    pub fn ports(&self) -> &[PortRoutes] {
        &self.ports
    }

    /// Our own address that `neighbour` knows us by: the one in its network, else the first of its family. Cost: one comparison for
    /// each network that a port is connected to.
    pub fn own_address_towards(&self, neighbour: Address) -> Option<Address> {
        let of_network = self.networks.iter().filter(|n| neighbour.0 & n.mask == n.prefix.0).max_by_key(|n| n.mask);
        of_network.or_else(|| self.networks.iter().find(|n| n.own.is_v4() == neighbour.is_v4())).map(|n| n.own)
    }

    /// Where a reply to `client` goes.
    ///
    /// A client on a network of ours gets it at the MAC that it sends from, and any other by the gateway of the port that its
    /// packets come by, else by the first gateway of its family: so a gateway whose MAC moves to another router takes the
    /// replies with it at once. Without a gateway they go back to where the client's packets come from. Cost: one comparison
    /// for each network that a port is connected to.
    #[inline(always)]
    pub fn way_to(&self, client: Address, learned: Option<Way>) -> Option<NextHop> {
        let learned = learned.and_then(|way| Some((way, self.ports.get(usize::from(way.port))?)));
        if !self.networks.iter().any(|n| client.0 & n.mask == n.prefix.0) {
            let family = usize::from(!client.is_v4());
            let own = learned.and_then(|(_, port)| port.gateways[family]);
            if let Some(gateway) = own.or(self.gateways[family]) {
                return Some(gateway);
            }
        }
        learned.map(|(way, port)| NextHop { port: way.port, mac: way.mac, mtu: port.mtu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(port: u16, last: u8) -> NextHop {
        NextHop { port, mac: [2, 0, 0, 0, 0, last], mtu: 1500 }
    }

    fn port(network: Option<u32>, gateway: Option<NextHop>) -> PortRoutes {
        let networks = network.map(|n| Network { prefix: Address::v4(n), mask: u128::MAX << 8, own: Address::v4(n + 10) });
        PortRoutes { networks: networks.into_iter().collect(), gateways: [gateway, None], mtu: 1500 }
    }

    const AWAY: Address = Address::v4(0xc633_6401);
    const NEAR: Address = Address::v4(0x0a0a_1899);

    #[test]
    fn a_client_elsewhere_is_answered_by_the_gateway_of_its_port() {
        let routes = Routes::new(vec![port(Some(0x0a0a_1800), Some(hop(0, 1))), port(None, Some(hop(1, 2)))]);
        let learned = |port| Some(Way { port, mac: [2, 0, 0, 0, 0, 9] });
        assert_eq!(routes.way_to(AWAY, learned(0)), Some(hop(0, 1)));
        assert_eq!(routes.way_to(AWAY, learned(1)), Some(hop(1, 2)));
        assert_eq!(routes.way_to(AWAY, None), Some(hop(0, 1)));
    }

    #[test]
    fn a_neighbour_knows_us_by_the_address_in_its_network() {
        let routes = Routes::new(vec![port(Some(0x0a14_0000), None), port(Some(0x0a0a_1800), None)]);
        assert_eq!(routes.own_address_towards(NEAR), Some(Address::v4(0x0a0a_180a)));
        assert_eq!(routes.own_address_towards(AWAY), Some(Address::v4(0x0a14_000a)), "the first of its family");
        assert_eq!(routes.own_address_towards(Address(0x2001_0db8 << 96 | 1)), None);
    }

    #[test]
    fn a_client_near_by_is_answered_where_it_sends_from() {
        let routes = Routes::new(vec![port(Some(0x0a0a_1800), Some(hop(0, 1)))]);
        assert_eq!(routes.way_to(NEAR, Some(Way { port: 0, mac: hop(0, 9).mac })), Some(hop(0, 9)));
        assert_eq!(routes.way_to(NEAR, None), None, "nobody knows its MAC yet");
    }

    #[test]
    fn without_a_gateway_of_the_family_replies_go_back_where_requests_come_from() {
        let routes = Routes::new(vec![port(None, Some(hop(0, 1)))]);
        let client = Address(0x2001_0db8 << 96 | 1);
        assert_eq!(routes.way_to(client, Some(Way { port: 0, mac: hop(0, 9).mac })), Some(hop(0, 9)));
        assert_eq!(routes.way_to(client, None), None);
        assert_eq!(Routes::default().way_to(AWAY, Some(Way { port: 0, mac: hop(0, 9).mac })), None, "a port that is not there");
    }
}
