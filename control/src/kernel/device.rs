//! The kernel interface behind a port that DPDK opens through the kernel (`net_af_packet`, `net_af_xdp`).
//!
//! The kernel sees every frame that such a port receives, too. It must not answer: the director answers, and the kernel
//! answers once more by the TAP where that is its job.

use std::net::IpAddr;

use super::LinkPlan;
use super::error::KernelError;
use super::neighbours::show;
use super::netlink::Netlink;
use super::sysctl::{Setting, Sysctls};

/// For `ipv4/conf`: no answer to ARP for any address, and no packet accepted whose way back is by another interface.
/// This interface has no address, so no way back is by it.
const IPV4: &[Setting<'static>] = &[("arp_ignore", "8"), ("rp_filter", "1")];

/// An interface that was made quiet, and how to make it what it was.
pub(super) struct QuietDevice {
    name: String,
    link: u32,
    settings: Sysctls,
    was_down: bool,
    made_promiscuous: bool,
}

impl QuietDevice {
    /// Makes the interface behind `plan`'s port quiet and sets it up.
    ///
    /// Errors: it does not exist; it has addresses of its own that are not link-local; the kernel's settings refuse.
    pub(super) async fn make(netlink: &Netlink, plan: &LinkPlan, device: &str) -> Result<Self, KernelError> {
        let (port, name) = (plan.name.clone(), device.to_owned());
        let Some(info) = netlink.link(device).await? else {
            return Err(KernelError::NoSuchDevice { port, device: name });
        };
        let mut addresses = netlink.addresses(device, info.index).await?;
        addresses.retain(|address| !is_link_local(address));
        if !addresses.is_empty() {
            return Err(KernelError::DeviceHasAddresses { port, device: name, addresses });
        }
        let mut settings = Sysctls::default();
        if settings.get("ipv4/conf/all/rp_filter")? == "2" {
            return Err(KernelError::LooseReversePath { port, device: name });
        }
        settings.set_all(&format!("ipv4/conf/{device}"), IPV4)?;
        let ipv6 = format!("ipv6/conf/{device}");
        if settings.has(&ipv6) {
            settings.set_all(&ipv6, &[("disable_ipv6", "1")])?;
        }
        let mut quiet = Self { name, link: info.index, settings, was_down: !info.up, made_promiscuous: false };
        if !info.up {
            netlink.set_up(device, info.index, true).await?;
        }
        if info.mac != plan.mac && !info.promiscuous {
            tracing::info!(port, device, port_mac = show(plan.mac), device_mac = show(info.mac), "interface set promiscuous: MACs differ");
            netlink.set_promiscuous(device, info.index, true).await?;
            quiet.made_promiscuous = true;
        }
        tracing::info!(port, device, "the kernel's own stack is quiet on this interface: arp_ignore=8 rp_filter=1 disable_ipv6=1");
        Ok(quiet)
    }

    /// Puts the interface back to what it was.
    pub(super) async fn restore(mut self, netlink: &Netlink) {
        let mut results = Vec::new();
        if self.made_promiscuous {
            results.push(netlink.set_promiscuous(&self.name, self.link, false).await);
        }
        if self.was_down {
            results.push(netlink.set_up(&self.name, self.link, false).await);
        }
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(device = self.name, %error, "interface could not be restored");
        }
        self.settings.restore();
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
