//! A port's TAP: the interface by which the kernel sees the port's network.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use nix::libc::EBUSY;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::LinkPlan;
use super::error::KernelError;
use super::message::{Ask, Mac, Purpose};
use super::netlink::Netlink;
use super::probes::{self, Probes};
use super::sysctl::{Setting, Sysctls};

/// The metric of the first default route; the next gateway's is one more. Above what a hand-set route has (0), below
/// what DHCP clients and the kernel choose (100, 1024).
const FIRST_METRIC: u32 = 16;

/// For `ipv4/conf`. The worker answers ARP for VIPs and DIP. Real servers must never learn a VIP as this machine's from a
/// request (`arp_announce`). All VIPs are on all TAPs, but the kernel may answer only for what is in the same network of
/// this interface as who asks (`arp_ignore`). A VIP's client may come in by another port than the way back takes (`rp_filter`).
const IPV4: &[Setting<'static>] =
    &[("arp_announce", "2"), ("arp_ignore", "2"), ("accept_redirects", "0"), ("send_redirects", "0"), ("rp_filter", "2")];

/// For `ipv6/conf`: nothing that the configuration did not give, and no waiting for duplicates.
const IPV6: &[Setting<'static>] = &[
    ("disable_ipv6", "0"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("addr_gen_mode", "1"),
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    ("accept_redirects", "0"),
];

/// A TAP that was made, not set up yet.
pub(super) struct Tap {
    /// The device; the interface goes when its last handle does.
    pub(super) device: SyncDevice,
    /// The interface's number.
    pub(super) link: u32,
}

/// Makes the TAP, down, with MAC, MTU and kernel settings, so that nothing is sent before it is as it should be.
pub(super) async fn make(netlink: &Netlink, plan: &LinkPlan) -> Result<Tap, KernelError> {
    let name = plan.name.as_str();
    if netlink.link(name).await?.is_some() {
        return Err(KernelError::NameTaken { name: name.into() });
    }
    let failed = |source: std::io::Error| match source.raw_os_error() {
        Some(EBUSY) => KernelError::NameTaken { name: name.into() },
        _ => KernelError::Tap { name: name.into(), source },
    };
    let builder = DeviceBuilder::new().name(name).layer(Layer::L2).mac_addr(plan.mac).mtu(plan.mtu).enable(false);
    let device = builder.build_sync().map_err(failed)?;
    device.set_nonblocking(true).map_err(failed)?;
    let link = device.if_index().map_err(failed)?;
    let mut settings = Sysctls::default();
    let set = set_up(&mut settings, name);
    // They go with the interface.
    settings.forget();
    set?;
    Ok(Tap { device, link })
}

fn set_up(settings: &mut Sysctls, name: &str) -> Result<(), KernelError> {
    settings.set_all(&format!("ipv4/conf/{name}"), IPV4)?;
    let ipv6 = format!("ipv6/conf/{name}");
    if settings.has(&ipv6) {
        settings.set_all(&ipv6, IPV6)?;
    }
    Ok(())
}

/// Sets the TAP up with its addresses, default routes and given neighbours. What is there already stays, so it also
/// mends an interface that was down. `gateways_before` is how many gateways the ports before this one have.
pub(super) async fn set(netlink: &Netlink, plan: &LinkPlan, link: u32, gateways_before: u32, probes: &Probes) -> Result<(), KernelError> {
    let name = plan.name.as_str();
    netlink.set_up(name, link, true).await?;
    // Neighbour solicitations that no packet asked for (managed entries) leave by a link-local address only.
    let has_ipv6 = Sysctls::default().has(&format!("ipv6/conf/{name}"));
    let has_link_local = plan.addresses.iter().any(|network| matches!(network.addr(), IpAddr::V6(own) if own.is_unicast_link_local()));
    if !has_link_local && has_ipv6 {
        netlink.add_address(name, link, link_local(plan.mac), Purpose::Own).await?;
    }
    for network in &plan.addresses {
        netlink.add_address(name, link, *network, Purpose::Own).await?;
    }
    for (metric, gateway) in (FIRST_METRIC + gateways_before..).zip(&plan.gateways) {
        netlink.put_default_route(name, link, *gateway, metric).await?;
    }
    for (address, mac) in &plan.static_neighbours {
        netlink.put_neighbour(name, link, *address, Ask::Static(*mac)).await?;
    }
    for (network, gateway) in probes.routes(plan.index) {
        if has_ipv6 || network.addr().is_ipv4() {
            netlink.put_neighbour(name, link, gateway, Ask::Static(probes::MAC)).await?;
            netlink.put_probe_route(name, link, network, gateway, probes::mtu(plan.mtu)).await?;
        }
    }
    Ok(())
}

/// The link-local network of a MAC (RFC 4291, appendix A).
fn link_local(mac: Mac) -> IpNet {
    let mut address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0).octets();
    address[8..11].copy_from_slice(&mac[..3]);
    address[13..].copy_from_slice(&mac[3..]);
    address[8] ^= 2;
    IpNet::V6(Ipv6Net::new_assert(address.into(), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_come_from_the_mac() {
        assert_eq!(link_local([0x02, 0x00, 0x5e, 0x10, 0x00, 0x07]).to_string(), "fe80::5eff:fe10:7/64");
        assert_eq!(link_local([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]).to_string(), "fe80::5054:ff:fe12:3456/64");
    }
}
