//! What is said to the kernel over rtnetlink and what it says, as plain values: no socket here.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteMetric};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

/// A MAC.
pub(super) type Mac = [u8; 6];

/// An interface as the kernel shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkInfo {
    /// Its number.
    pub(super) index: u32,
    /// Its MAC; zeros when it has none.
    pub(super) mac: Mac,
    /// Whether it is set up.
    pub(super) up: bool,
    /// Whether it takes frames for any MAC.
    pub(super) promiscuous: bool,
}

/// A neighbour entry as the kernel shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The interface's number.
    pub(super) link: u32,
    /// The neighbour's address.
    pub(super) address: IpAddr,
    /// The kernel's state; `Failed` when the entry is gone.
    pub(super) state: NeighbourState,
    /// Its MAC, valid or not.
    pub(super) mac: Option<Mac>,
    /// Whether the kernel keeps it fresh by itself (`NTF_EXT_MANAGED`).
    pub(super) managed: bool,
}

/// Something that happened in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A neighbour entry changed.
    Neighbour(Entry),
    /// An interface is there, up or not.
    Link(LinkInfo),
    /// An interface is gone.
    LinkGone(u32),
    /// Events were lost (`ENOBUFS`): what is known may be wrong.
    Overrun,
}

/// How a neighbour entry is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// Resolve it, and keep it resolved (Linux 5.16 and later).
    Managed,
    /// Resolve it now.
    Use,
    /// It has this MAC for good.
    Static(Mac),
}

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The director's own, a source of what the kernel sends.
    Own,
    /// A VIP: answered for, never a source that the kernel picks.
    Vip,
}

/// What an unasked-for message means; `None` for what is of no interest.
pub(super) fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => entry(&message).map(Event::Neighbour),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
            entry(&message).map(|entry| Event::Neighbour(Entry { state: NeighbourState::Failed, mac: None, managed: false, ..entry }))
        }
        // Bridges tell of their ports under a family of their own, also when a port merely leaves the bridge.
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) if message.header.interface_family == AddressFamily::Unspec => {
            Some(Event::Link(link_info(&message)))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) if message.header.interface_family == AddressFamily::Unspec => {
            Some(Event::LinkGone(message.header.index))
        }
        NetlinkPayload::Overrun(_) => Some(Event::Overrun),
        _ => None,
    }
}

/// A neighbour message as an entry; `None` for what is neither IPv4 nor IPv6 (bridges have entries of their own).
pub(super) fn entry(message: &NeighbourMessage) -> Option<Entry> {
    let mut entry =
        Entry { link: message.header.ifindex, address: IpAddr::from([0; 4]), state: message.header.state, mac: None, managed: false };
    let mut found = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => (entry.address, found) = ((*address).into(), true),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => (entry.address, found) = ((*address).into(), true),
            NeighbourAttribute::LinkLayerAddress(bytes) => entry.mac = Mac::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::ExtFlags(flags) => entry.managed = flags.contains(NeighbourExtFlags::Managed),
            _ => {}
        }
    }
    found.then_some(entry)
}

/// A link message as an interface.
pub(super) fn link_info(message: &LinkMessage) -> LinkInfo {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    LinkInfo {
        index: message.header.index,
        mac: mac.unwrap_or_default(),
        up: message.header.flags.contains(LinkFlags::Up),
        promiscuous: message.header.flags.contains(LinkFlags::Promisc),
    }
}

/// The interface and the address of an address message.
pub(super) fn address_of(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    // On a point-to-point interface `Address` is the peer's and `Local` ours; IPv6 gives `Address` alone.
    find(true).or_else(|| find(false)).map(|address| (message.header.index, address))
}

/// An address of an interface, without duplicate address detection.
pub(super) fn address(link: u32, network: IpNet, purpose: Purpose) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(network.addr());
    message.header.prefix_len = network.prefix_len();
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(network.addr()));
    message.attributes.push(AddressAttribute::Address(network.addr()));
    match network {
        IpNet::V4(network) if network.prefix_len() < 31 => message.attributes.push(AddressAttribute::Broadcast(network.broadcast())),
        IpNet::V4(_) => {}
        IpNet::V6(network) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            if network.addr().is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
            if purpose == Purpose::Vip {
                // Deprecated (RFC 6724, rule 3): a longer match with a real server must not make the VIP its client.
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_valid = u32::MAX;
                message.attributes.push(AddressAttribute::CacheInfo(lifetime));
            }
        }
    }
    message
}

/// A default route by a gateway.
pub(super) fn default_route(link: u32, gateway: IpAddr, metric: u32) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().output_interface(link).gateway(gateway).priority(metric).build()
        }
        IpAddr::V6(gateway) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().output_interface(link).gateway(gateway).priority(metric).build()
        }
    }
}

/// The route to a port's probe addresses, by a gateway that is nowhere but in the neighbour table.
pub(super) fn probe_route(link: u32, network: IpNet, gateway: IpAddr, mtu: u32) -> RouteMessage {
    let mut message = match (network, gateway) {
        (IpNet::V6(network), IpAddr::V6(gateway)) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(network.addr(), network.prefix_len())
            .output_interface(link)
            .gateway(gateway)
            .build(),
        (network, gateway) => {
            let v4 = |address| if let IpAddr::V4(v4) = address { v4 } else { std::net::Ipv4Addr::UNSPECIFIED };
            RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(v4(network.addr()), network.prefix_len())
                .output_interface(link)
                .gateway(v4(gateway))
                .build()
        }
    };
    message.header.flags |= RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    message
}

/// A neighbour entry of an interface.
pub(super) fn neighbour(link: u32, address: IpAddr, ask: Option<Ask>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    match ask {
        Some(Ask::Managed) => message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed)),
        Some(Ask::Use) => message.header.flags = NeighbourFlags::Use,
        Some(Ask::Static(mac)) => {
            message.header.state = NeighbourState::Permanent;
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        }
        None => {}
    }
    message
}

/// The netlink family of an address.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    fn message(inner: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::from(inner)
    }

    #[test]
    fn a_neighbour_message_is_read_back_as_it_was_asked_for() {
        for address in ["10.10.24.21", "fd00:10::21"] {
            let address: IpAddr = address.parse().unwrap();
            let asked = neighbour(7, address, Some(Ask::Static(MAC)));
            let expected = Entry { link: 7, address, state: NeighbourState::Permanent, mac: Some(MAC), managed: false };
            assert_eq!(event(message(RouteNetlinkMessage::NewNeighbour(asked))), Some(Event::Neighbour(expected)));
            let managed = entry(&neighbour(7, address, Some(Ask::Managed))).unwrap();
            assert!(managed.managed && managed.mac.is_none());
        }
    }

    #[test]
    fn a_deleted_neighbour_has_no_mac_left() {
        let gone = neighbour(7, IpAddr::from([10, 0, 0, 1]), Some(Ask::Static(MAC)));
        let Some(Event::Neighbour(entry)) = event(message(RouteNetlinkMessage::DelNeighbour(gone))) else { panic!("no event") };
        assert_eq!((entry.mac, entry.state), (None, NeighbourState::Failed));
    }

    #[test]
    fn a_bridge_entry_is_no_neighbour() {
        let mut bridge = NeighbourMessage::default();
        bridge.header.family = AddressFamily::Bridge;
        bridge.attributes.push(NeighbourAttribute::LinkLayerAddress(MAC.to_vec()));
        assert_eq!(entry(&bridge), None);
    }

    #[test]
    fn a_mac_of_another_length_is_no_mac() {
        let mut odd = neighbour(7, IpAddr::from([10, 0, 0, 1]), None);
        odd.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![1; 20]));
        assert_eq!(entry(&odd).unwrap().mac, None);
    }

    #[test]
    fn an_ipv6_vip_is_deprecated_and_skips_duplicate_detection() {
        let vip = address(7, "fd00:10::88/128".parse().unwrap(), Purpose::Vip);
        assert!(vip.header.flags.contains(AddressHeaderFlags::Nodad));
        let lifetime = vip.attributes.iter().find_map(|a| if let AddressAttribute::CacheInfo(c) = a { Some(*c) } else { None }).unwrap();
        assert_eq!((lifetime.ifa_preferred, lifetime.ifa_valid), (0, u32::MAX));
        let own = address(7, "fd00:10::10/64".parse().unwrap(), Purpose::Own);
        assert!(!own.attributes.iter().any(|a| matches!(a, AddressAttribute::CacheInfo(_))));
    }

    #[test]
    fn a_lost_event_is_told() {
        let lost = NetlinkMessage::new(rtnetlink::packet_core::NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()));
        assert_eq!(event(lost), Some(Event::Overrun));
    }
}
