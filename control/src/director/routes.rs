//! Where a real server is: on a network that a port is connected to, or behind a port's gateway.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Link;
use super::neighbours::Hop;

/// The port whose connected network holds `address`: the longest prefix, then the first in the configuration.
pub(super) fn link_for(links: &[Link], address: IpAddr) -> Option<(u16, &Link)> {
    let mut best: Option<(u8, u16, &Link)> = None;
    for (index, link) in (0_u16..).zip(links) {
        let longest = link.networks.iter().filter(|n| n.contains(&address)).map(IpNet::prefix_len).max();
        if let Some(length) = longest
            && best.is_none_or(|(other, ..)| length > other)
        {
            best = Some((length, index, link));
        }
    }
    best.map(|(_, index, link)| (index, link))
}

/// The neighbour that packets to `address` are given to: itself on a connected network, else the first port's gateway of
/// its family.
pub(super) fn hop_for(links: &[Link], address: IpAddr) -> Option<Hop> {
    let gateway = || {
        let all = (0_u16..).zip(links).flat_map(|(index, link)| link.gateways.iter().map(move |gateway| (index, *gateway)));
        all.into_iter().find(|(_, gateway)| gateway.is_ipv4() == address.is_ipv4())
    };
    link_for(links, address).map(|(index, _)| (index, address)).or_else(gateway)
}

/// Our own address on the network of `neighbour`, or else the first one of its family.
pub(super) fn source_towards(link: &Link, neighbour: IpAddr) -> Option<IpAddr> {
    let of_network = link.networks.iter().filter(|n| n.contains(&neighbour)).max_by_key(|n| n.prefix_len());
    of_network.or_else(|| link.networks.iter().find(|n| n.addr().is_ipv4() == neighbour.is_ipv4())).map(IpNet::addr)
}

#[cfg(test)]
mod tests {
    use super::super::scripted::links;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_on_no_network_is_behind_the_gateway_of_its_family() {
        let links = links();
        assert_eq!(hop_for(&links, ip("10.20.1.2")), Some((1, ip("10.20.1.2"))));
        assert_eq!(hop_for(&links, ip("192.0.2.7")), Some((0, ip("10.10.24.1"))));
        assert_eq!(hop_for(&links, ip("2001:db8::7")), None, "no port has a gateway for IPv6");
    }

    #[test]
    fn the_source_is_of_the_neighbours_network_or_else_of_its_family() {
        let links = links();
        assert_eq!(source_towards(&links[0], ip("10.10.24.1")), Some(ip("10.10.24.10")));
        assert_eq!(source_towards(&links[0], ip("fd00:10::21")), Some(ip("fd00:10::10")));
        assert_eq!(source_towards(&links[0], ip("192.0.2.1")), Some(ip("10.10.24.10")));
        assert_eq!(source_towards(&links[1], ip("fd00:10::21")), None);
    }
}
