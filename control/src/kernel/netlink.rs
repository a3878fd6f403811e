//! The rtnetlink socket: one request at a time, each with an error that names call and interface.

use std::io;
use std::net::IpAddr;
use std::pin::pin;

use futures_util::StreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc;

use super::error::KernelError;
use super::message::{self, Ask, Entry, Event, LinkInfo, Mac, Purpose};

/// Bytes of events that the kernel is asked to keep while we are busy; `net.core.rmem_max` caps it.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// A socket for requests. Requests run one after the other on the runtime that opened it.
pub(super) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket; call it inside a runtime.
    pub(super) fn open() -> Result<Self, KernelError> {
        let (connection, handle, _) = new_connection().map_err(KernelError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The interface of this name, if there is one.
    pub(super) async fn link(&self, name: &str) -> Result<Option<LinkInfo>, KernelError> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(|| "looking for the interface".into(), name, RouteNetlinkMessage::GetLink(wanted), 0).await {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(message::link_info(link)),
                _ => None,
            })),
            Err(error) if error.is(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets an interface up or down.
    pub(super) async fn set_up(&self, name: &str, link: u32, up: bool) -> Result<(), KernelError> {
        let change = LinkUnspec::new_with_index(link);
        let change = if up { change.up() } else { change.down() };
        let call = if up { "setting it up" } else { "setting it down" };
        self.ask(|| call.into(), name, RouteNetlinkMessage::SetLink(change.build()), NLM_F_ACK).await.map(drop)
    }

    /// Gives an interface a MAC.
    pub(super) async fn set_mac(&self, name: &str, link: u32, mac: Mac) -> Result<(), KernelError> {
        let change = LinkUnspec::new_with_index(link).address(mac.to_vec()).build();
        self.ask(|| "setting its MAC".into(), name, RouteNetlinkMessage::SetLink(change), NLM_F_ACK).await.map(drop)
    }

    /// Makes an interface take frames for any MAC, or not.
    pub(super) async fn set_promiscuous(&self, name: &str, link: u32, on: bool) -> Result<(), KernelError> {
        let change = LinkUnspec::new_with_index(link).promiscuous(on).build();
        self.ask(|| "setting it promiscuous".into(), name, RouteNetlinkMessage::SetLink(change), NLM_F_ACK).await.map(drop)
    }

    /// The addresses of an interface.
    pub(super) async fn addresses(&self, name: &str, link: u32) -> Result<Vec<IpAddr>, KernelError> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask(|| "listing addresses".into(), name, all, NLM_F_DUMP).await?;
        let addresses = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => message::address_of(address),
            _ => None,
        });
        Ok(addresses.filter(|(index, _)| *index == link).map(|(_, address)| address).collect())
    }

    /// Adds an address; one that is there already is well.
    pub(super) async fn add_address(&self, name: &str, link: u32, network: IpNet, purpose: Purpose) -> Result<(), KernelError> {
        let add = RouteNetlinkMessage::NewAddress(message::address(link, network, purpose));
        match self.ask(|| format!("adding address {network}"), name, add, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if !error.is(Errno::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes an address; one that is not there is well.
    pub(super) async fn remove_address(&self, name: &str, link: u32, network: IpNet) -> Result<(), KernelError> {
        let remove = RouteNetlinkMessage::DelAddress(message::address(link, network, Purpose::Own));
        match self.ask(|| format!("removing address {network}"), name, remove, NLM_F_ACK).await {
            Err(error) if !error.is(Errno::EADDRNOTAVAIL) => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts a default route by a gateway, in place of one with the same metric.
    pub(super) async fn put_default_route(&self, name: &str, link: u32, gateway: IpAddr, metric: u32) -> Result<(), KernelError> {
        let route = RouteNetlinkMessage::NewRoute(message::default_route(link, gateway, metric));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(|| format!("adding the default route via {gateway}"), name, route, flags).await.map(drop)
    }

    /// Puts the route to a port's probe addresses, in place of one that is there.
    pub(super) async fn put_probe_route(
        &self,
        name: &str,
        link: u32,
        network: IpNet,
        gateway: IpAddr,
        mtu: u32,
    ) -> Result<(), KernelError> {
        let route = RouteNetlinkMessage::NewRoute(message::probe_route(link, network, gateway, mtu));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(|| format!("adding the route to {network} for health checks"), name, route, flags).await.map(drop)
    }

    /// Every neighbour entry of every interface, IPv4 and IPv6.
    pub(super) async fn neighbours(&self) -> Result<Vec<Entry>, KernelError> {
        let mut entries = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = NeighbourMessage::default();
            all.header.family = family;
            let call = || "listing neighbours".into();
            let answers = self.ask(call, "all interfaces", RouteNetlinkMessage::GetNeighbour(all), NLM_F_DUMP).await?;
            entries.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(neighbour) => message::entry(neighbour),
                _ => None,
            }));
        }
        Ok(entries)
    }

    /// Asks for a neighbour entry, or asks again for one that is there.
    pub(super) async fn put_neighbour(&self, name: &str, link: u32, address: IpAddr, ask: Ask) -> Result<(), KernelError> {
        let put = RouteNetlinkMessage::NewNeighbour(message::neighbour(link, address, Some(ask)));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(|| format!("asking for neighbour {address}"), name, put, flags).await.map(drop)
    }

    /// Removes a neighbour entry; one that is not there is well.
    pub(super) async fn remove_neighbour(&self, name: &str, link: u32, address: IpAddr) -> Result<(), KernelError> {
        let remove = RouteNetlinkMessage::DelNeighbour(message::neighbour(link, address, None));
        match self.ask(|| format!("removing neighbour {address}"), name, remove, NLM_F_ACK).await {
            Err(error) if !error.is(Errno::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    async fn ask(
        &self,
        call: impl FnOnce() -> String,
        interface: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let failed = |errno| KernelError::Netlink { call: call(), interface: interface.to_owned(), errno };
        let Ok(answers) = self.handle.clone().request(request) else {
            return Err(failed(Errno::EPIPE));
        };
        let mut answers = pin!(answers);
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.raw_code() != 0 => return Err(failed(Errno::from_raw(error.raw_code().abs()))),
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Subscribes to what happens to interfaces and neighbours. The channel closes when the socket fails; call it inside a runtime.
pub(super) fn subscribe() -> Result<mpsc::UnboundedReceiver<Event>, KernelError> {
    let (mut connection, handle, mut messages) =
        new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Neigh]).map_err(KernelError::Socket)?;
    let grown: io::Result<()> = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER);
    if let Err(error) = grown {
        tracing::debug!(%error, "the netlink socket keeps its small buffer; lost events are asked for anew");
    }
    let (events, receiver) = mpsc::unbounded_channel();
    tokio::spawn(connection);
    tokio::spawn(async move {
        // The connection ends when nobody holds its handle.
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            if let Some(event) = message::event(message)
                && events.send(event).is_err()
            {
                break;
            }
        }
    });
    Ok(receiver)
}
