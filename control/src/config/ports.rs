//! `[[port]]`: devices, addresses, gateways.

use std::net::IpAddr;

use ipnet::IpNet;

use super::faults::Collector;
use super::reader::{Item, Section};
use super::values::{Device, UnicastMac};
use super::{Port, StaticNeighbour, Vlan, bonds, vlans};

/// DPDK's `RTE_MAX_ETHPORTS`.
const MOST_PORTS: usize = 32;
/// The longest name of a network interface (`IFNAMSIZ` - 1, netdevice(7)).
const LONGEST_NAME: usize = 15;

/// What no two ports or VLANs may share.
#[derive(Debug, Default)]
pub(super) struct Taken {
    names: Vec<String>,
    addresses: Vec<(IpAddr, String)>,
}

impl Taken {
    /// Takes a name; `false` when it is taken.
    pub(super) fn add_name(&mut self, name: &str) -> bool {
        let free = !self.names.iter().any(|other| other == name);
        if free {
            self.names.push(name.to_owned());
        }
        free
    }
}

/// The ports and their VLANs.
pub(super) fn read(root: &mut Section<'_>, faults: &mut Collector<'_>) -> (Vec<Port>, Vec<Vlan>) {
    let Some(item) = root.take("port") else {
        faults.add_missing(0..0, "port", "at least one [[port]] with name and device is needed");
        return (Vec::new(), Vec::new());
    };
    let sections = item.sections(faults);
    if item.is_empty_list() || sections.len() > MOST_PORTS {
        item.refuse(faults, format_args!("1 to {MOST_PORTS} ports are needed"));
    }
    let (mut ports, mut vlans, mut taken) = (Vec::new(), Vec::new(), Taken::default());
    for mut section in sections {
        let port = read_port(&mut section, &ports, &mut taken, faults);
        vlans::read(&mut section, (ports.len(), &port.name), port.mtu, &mut taken, &mut vlans, faults);
        section.finish(faults);
        ports.push(port);
    }
    vlans::check_count(ports.len(), &vlans, faults);
    (ports, vlans)
}

fn read_port(section: &mut Section<'_>, earlier: &[Port], taken: &mut Taken, faults: &mut Collector<'_>) -> Port {
    let name = section
        .need("name", "the port's name, which its network interface gets too", faults)
        .and_then(|item| take_name(&item, taken, faults));
    let bond = bonds::read(section, earlier, faults);
    let device = match (section.take("device"), &bond) {
        (None, Some(_)) => Some(Device::Virtual(format!("net_bonding{}", earlier.len()))),
        (Some(item), Some(_)) => {
            item.refuse(faults, "a port has a device or members");
            None
        }
        (None, None) => section.need("device", Device::EXPECTED, faults).and(None),
        (Some(item), None) => read_device(&item, earlier, faults),
    };
    // A port whose name or device is at fault still counts, so that services on its networks are not blamed as well.
    let name = name.unwrap_or_else(|| section.path().to_owned());
    let addresses = section.take("addresses").map_or_else(Vec::new, |item| read_addresses(&item, &name, taken, faults));
    let gateways = section.take("gateways").map_or_else(Vec::new, |item| read_gateways(&item, &addresses, faults));
    let mtu = section.take("mtu").and_then(|item| item.number(faults, 1280..=9600));
    let neighbours = read_neighbours(section, &addresses, faults);
    let device = device.unwrap_or_else(|| Device::Virtual(String::new()));
    Port { name, device, bond, addresses, gateways, mtu, neighbours }
}

/// The name of a port or VLAN, which no other has.
pub(super) fn take_name(item: &Item<'_>, taken: &mut Taken, faults: &mut Collector<'_>) -> Option<String> {
    let name = interface_name(item, faults)?;
    if !taken.add_name(&name) {
        item.refuse(faults, "another port has this name");
    }
    Some(name)
}

/// Whether a network interface may have this name.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('-')
}

fn interface_name(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<String> {
    let expected = "1 to 15 letters, digits, '-', '_' or '.', as for a network interface";
    let text = item.text(faults, expected)?;
    let reserved = ["lo", "all", "default", ".", ".."].contains(&text);
    if is_name(text) && !reserved {
        return Some(text.to_owned());
    }
    item.refuse(faults, if reserved { "the kernel uses this name itself" } else { "expected 1 to 15 letters, digits, '-', '_' or '.'" });
    None
}

/// The device that `item` names, which none of `earlier` has.
pub(super) fn read_device(item: &Item<'_>, earlier: &[Port], faults: &mut Collector<'_>) -> Option<Device> {
    let device: Device = item.parsed(faults, Device::EXPECTED)?;
    if let Some(port) = earlier.iter().find(|port| port.devices().iter().any(|other| other.is_same(&device))) {
        item.refuse(faults, format_args!("port '{}' has this device already", port.name));
        return None;
    }
    if device.driver() == Some("net_bonding") {
        item.refuse(faults, "a bond is a port with members in place of a device");
        return None;
    }
    if matches!(device.driver(), Some("net_af_packet" | "net_af_xdp")) && device.kernel_interface().is_none() {
        item.refuse(faults, "this driver needs the kernel's interface: iface=NAME");
        return None;
    }
    Some(device)
}

/// The addresses of the port or VLAN `name`, which no other has.
pub(super) fn read_addresses(item: &Item<'_>, name: &str, taken: &mut Taken, faults: &mut Collector<'_>) -> Vec<IpNet> {
    let mut addresses: Vec<IpNet> = Vec::new();
    for entry in item.list(faults) {
        let expected = "an address with the length of its network's prefix, such as \"10.10.24.10/24\" or \"fd00:10::10/64\"";
        let Some(net) = entry.parsed::<IpNet>(faults, expected) else { continue };
        if let Some(why) = unfit_for_host(net) {
            entry.refuse(faults, why);
        } else if addresses.iter().any(|other| other.addr() == net.addr()) {
            entry.refuse(faults, "this port has this address already");
        } else if let Some((_, port)) = taken.addresses.iter().find(|other| other.0 == net.addr()) {
            entry.refuse(faults, format_args!("port '{port}' has this address already"));
        } else {
            addresses.push(net);
            taken.addresses.push((net.addr(), name.to_owned()));
        }
    }
    addresses
}

/// Why `net.addr()` cannot be a director's own address on `net`.
fn unfit_for_host(net: IpNet) -> Option<&'static str> {
    let address = net.addr();
    if let Some(why) = unfit(address) {
        return Some(why);
    }
    match net {
        IpNet::V4(v4) if v4.prefix_len() == 0 => Some("a prefix of length 0 is the whole Internet, not a connected network"),
        IpNet::V6(v6) if v6.prefix_len() == 0 => Some("a prefix of length 0 is the whole Internet, not a connected network"),
        // RFC 3021: a /31 has neither a network's nor a broadcast address.
        IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.network() => {
            Some("this is the network's own address: give the director's address in it")
        }
        IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.broadcast() => Some("this is the network's broadcast address"),
        _ => None,
    }
}

/// Why no host can have this address.
fn unfit(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() {
        Some("the unspecified address is nobody's")
    } else if address.is_loopback() {
        Some("a loopback address never appears on a wire")
    } else if address.is_multicast() {
        Some("a multicast address is no host's own")
    } else if broadcast {
        Some("the broadcast address is no host's own")
    } else if mapped {
        Some("write an IPv4 address as such")
    } else {
        None
    }
}

pub(super) fn read_gateways(item: &Item<'_>, addresses: &[IpNet], faults: &mut Collector<'_>) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = Vec::new();
    for entry in item.list(faults) {
        let Some(gateway) = entry.parsed::<IpAddr>(faults, "an address such as \"10.10.24.1\"") else { continue };
        if gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            entry.refuse(faults, "one gateway of each family is allowed");
        } else if let Some(why) = unfit(gateway).map(str::to_owned).or_else(|| unreachable_neighbour(gateway, addresses)) {
            entry.refuse(faults, why);
        } else {
            gateways.push(gateway);
        }
    }
    gateways
}

/// Why `address` is not a neighbour on one of the networks.
fn unreachable_neighbour(address: IpAddr, networks: &[IpNet]) -> Option<String> {
    if networks.iter().any(|net| net.addr() == address) {
        return Some("this is the port's own address".to_owned());
    }
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if link_local || networks.iter().any(|net| net.contains(&address)) {
        return None;
    }
    let list = networks.iter().map(|net| net.trunc().to_string()).collect::<Vec<_>>().join(", ");
    let list = if list.is_empty() { "none, because it has no addresses".to_owned() } else { list };
    Some(format!("it must be on one of the port's connected networks ({list})"))
}

pub(super) fn read_neighbours(section: &mut Section<'_>, addresses: &[IpNet], faults: &mut Collector<'_>) -> Vec<StaticNeighbour> {
    let mut neighbours: Vec<StaticNeighbour> = Vec::new();
    for mut entry in section.take_sections("neighbour", faults) {
        let address = entry.need("address", "the neighbour's address", faults).and_then(|item| {
            let address: IpAddr = item.parsed(faults, "an address such as \"10.10.24.1\"")?;
            let why = unfit(address).map(str::to_owned).or_else(|| unreachable_neighbour(address, addresses));
            let twice = neighbours.iter().any(|other| other.address == address).then(|| "it has a static MAC already".to_owned());
            match why.or(twice) {
                Some(why) => item.refuse(faults, why),
                None => return Some(address),
            }
            None
        });
        let mac = entry.need("mac", UnicastMac::EXPECTED, faults).and_then(|item| item.parsed(faults, UnicastMac::EXPECTED));
        entry.finish(faults);
        if let (Some(address), Some(UnicastMac(mac))) = (address, mac) {
            neighbours.push(StaticNeighbour { address, mac });
        }
    }
    neighbours
}
