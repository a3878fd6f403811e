//! What a real server needs for its VIPs: the addresses, and the sysctls that keep its kernel from answering ARP for them.

use std::net::IpAddr;

use super::host::{HostError, Interface, Key, default_routes, interfaces};
use crate::cli::args::Host;

/// A sysctl that must have a certain value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Which one.
    pub key: Key,
    /// The value that apply sets.
    pub value: &'static str,
    /// Another value that does as well.
    pub also: Option<&'static str>,
    /// What goes wrong without it.
    pub else_what: String,
}

impl Wanted {
    /// Whether `value` will do.
    pub fn accepts(&self, value: &str) -> bool {
        value == self.value || Some(value) == self.also
    }
}

/// What is wanted on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The VIPs, each once, in the order given.
    pub vips: Vec<IpAddr>,
    /// The device that carries them.
    pub dev: String,
    /// The device that tunnelled requests come out of.
    pub tunnel: Option<String>,
    /// Sysctls, in the order in which they are set.
    pub sysctls: Vec<Wanted>,
    /// Everything that there is now.
    pub interfaces: Vec<Interface>,
}

impl Plan {
    /// Works out what is wanted for `host` on this machine.
    ///
    /// # Errors
    /// A device that was named and is not here; `ip` does not work.
    pub fn new(host: &Host) -> Result<Self, HostError> {
        let interfaces = interfaces()?;
        require(&interfaces, "--dev", &host.dev, "")?;
        for name in &host.interfaces {
            require(&interfaces, "--interface", name, "")?;
        }
        if let Some(name) = &host.tunnel {
            require(&interfaces, "--tunnel", name, "; for IP-in-IP: modprobe ipip")?;
        }
        let mut vips = host.vips.clone();
        let mut seen = std::collections::HashSet::new();
        vips.retain(|vip| seen.insert(*vip));
        let mut sysctls = Vec::new();
        if vips.iter().any(IpAddr::is_ipv4) {
            let incoming = if host.interfaces.is_empty() { incoming(&interfaces, &vips, host)? } else { host.interfaces.clone() };
            for name in std::iter::once("all").chain(incoming.iter().map(String::as_str)) {
                sysctls.extend(arp(name));
            }
        }
        if let Some(name) = &host.tunnel {
            sysctls.push(reverse_path(name));
        }
        Ok(Self { vips, dev: host.dev.clone(), tunnel: host.tunnel.clone(), sysctls, interfaces })
    }

    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The devices that must be up: a VIP on a device that is down is not ours to the kernel.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        let tunnel = self.tunnel.as_deref().filter(|tunnel| *tunnel != self.dev);
        std::iter::once(self.dev.as_str()).chain(tunnel)
    }
}

/// `ADDRESS/32` or `ADDRESS/128`.
pub fn host_prefix(vip: IpAddr) -> String {
    format!("{vip}/{}", whole_length(vip))
}

/// 32 or 128.
pub fn whole_length(vip: IpAddr) -> u8 {
    if vip.is_ipv4() { 32 } else { 128 }
}

/// The arguments after `ip address` that put `vip` on `dev`. An IPv6 VIP is not probed for duplicates, since every
/// real server has it, and deprecated, so that no connection of the machine's own starts from it.
pub fn address_arguments(verb: &str, vip: IpAddr, dev: &str) -> Vec<String> {
    let mut arguments: Vec<String> = ["address", verb, &host_prefix(vip), "dev", dev].map(str::to_owned).into();
    if vip.is_ipv6() && verb != "del" {
        arguments.extend(["nodad", "preferred_lft", "0"].map(str::to_owned));
    }
    arguments
}

fn require(interfaces: &[Interface], option: &str, name: &str, hint: &str) -> Result<(), HostError> {
    if interfaces.iter().any(|interface| interface.name == name) {
        return Ok(());
    }
    let there: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    Err(HostError::Given(format!("{option}: there is no device '{name}' here: there are {}{hint}", there.join(", "))))
}

/// The interfaces that ARP requests for the VIP can come in by: every one with an address of its own, and those of the
/// default routes.
fn incoming(interfaces: &[Interface], vips: &[IpAddr], host: &Host) -> Result<Vec<String>, HostError> {
    let routes = default_routes(false)?;
    let apart = |interface: &&Interface| {
        interface.name != host.dev
            && Some(&interface.name) != host.tunnel.as_ref()
            && !interface.flags.iter().any(|flag| flag == "LOOPBACK")
    };
    let own = |interface: &&Interface| {
        let addressed =
            interface.addresses.iter().any(|carried| carried.local.is_some_and(|local| local.is_ipv4() && !vips.contains(&local)));
        addressed || routes.iter().any(|(dev, _)| *dev == interface.name)
    };
    Ok(interfaces.iter().filter(apart).filter(own).map(|interface| interface.name.clone()).collect())
}

/// The kernel uses the larger value of `all` and of the interface (ip-sysctl.rst), so both are set: `all` covers
/// interfaces that come later, the interface's own covers someone else's change of `all`.
fn arp(interface: &str) -> [Wanted; 2] {
    let whose = if interface == "all" { "an interface that has 0 itself".to_owned() } else { interface.to_owned() };
    [
        Wanted {
            key: Key::ipv4(interface, "arp_ignore"),
            value: "1",
            also: Some("2"),
            else_what: format!("{whose} would answer ARP for the VIP, and clients would bypass the director"),
        },
        Wanted {
            key: Key::ipv4(interface, "arp_announce"),
            value: "2",
            also: None,
            else_what: format!("ARP requests sent by {whose} would carry the VIP and teach neighbours our MAC for it"),
        },
    ]
}

/// Requests come out of the tunnel with clients' addresses, which the routes lead elsewhere. 2 (loose) wins over any
/// value of `all` and needs no other interface to be opened; 0 does too where `all` is 0.
fn reverse_path(tunnel: &str) -> Wanted {
    let strict_for_all = Key::ipv4("all", "rp_filter").read().is_ok_and(|value| value == "1");
    Wanted {
        key: Key::ipv4(tunnel, "rp_filter"),
        value: "2",
        also: (!strict_for_all).then_some("0"),
        else_what: format!("requests that come out of {tunnel} would be dropped, since answers leave by another interface"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_vip_is_neither_probed_nor_a_source() {
        let line = address_arguments("add", "fd00:10::88".parse().unwrap(), "lo").join(" ");
        assert_eq!(line, "address add fd00:10::88/128 dev lo nodad preferred_lft 0");
        let line = address_arguments("add", "10.10.24.88".parse().unwrap(), "lo").join(" ");
        assert_eq!(line, "address add 10.10.24.88/32 dev lo");
    }

    #[test]
    fn keys_have_slashes_where_an_interface_has_dots() {
        assert_eq!(Key::ipv4("eth0", "arp_ignore").to_string(), "net.ipv4.conf.eth0.arp_ignore");
        assert_eq!(Key::ipv4("eth0.7", "arp_ignore").to_string(), "net/ipv4/conf/eth0.7/arp_ignore");
    }
}
