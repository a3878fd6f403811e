//! The ports while the director runs: what they are, what they cannot do, and what becomes of their links.

pub(super) mod features;
pub(super) mod links;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::devices::OpenPort;
use crate::config::{self, BondMode, Config, Device};
use crate::director::mac;
use crate::model::{Member, Multicast, Port};

/// The open ports, shared with requests under way; whoever ends the director takes them out, which closes them.
#[derive(Clone, Debug)]
pub(super) struct Ports(Arc<Mutex<Vec<OpenPort>>>);

impl Ports {
    pub(super) fn new(ports: Vec<OpenPort>) -> Self {
        Self(Arc::new(Mutex::new(ports)))
    }

    /// Closes every port whose queues are gone.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OpenPort>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each port has a link now, in the order of the configuration.
    fn links(&self, config: &Config) -> Vec<bool> {
        config.ports.iter().zip(self.lock().iter()).map(|(port, open)| links::is_up(port, &open.port)).collect()
    }

    /// Has a member with a link carry the traffic of each bond; the one that does, for each port in the order of the configuration.
    fn choose_members(&self, config: &Config) -> Vec<Option<Device>> {
        config.ports.iter().zip(self.lock().iter()).map(|(port, open)| links::choose_member(port, &open.port)).collect()
    }

    /// Why a port is of no use at the moment, in words.
    pub(super) fn missing(&self, config: &Config) -> Vec<String> {
        let links = self.links(config);
        let down = config.ports.iter().zip(links).filter(|(_, up)| !up);
        down.map(|(port, _)| format!("port {} has no link", port.name)).collect()
    }

    /// All ports and then their VLANs, as they are now.
    pub(super) fn list(&self, config: &Config) -> Vec<Port> {
        let open = self.lock();
        let ports = config.ports.iter().zip(open.iter()).map(|(port, open)| describe(port, open));
        let vlans = config.vlans.iter().filter_map(|vlan| {
            let port = describe(config.ports.get(vlan.port)?, open.get(vlan.port)?);
            Some(describe_vlan(vlan, port))
        });
        ports.chain(vlans).collect()
    }
}

/// A VLAN is what its port is, but for what it has of its own; the device counts no frames for it, and its lacks are told of the port.
fn describe_vlan(vlan: &config::Vlan, port: Port) -> Port {
    Port {
        name: vlan.name.clone(),
        vlan: Some(vlan.tags.to_string()),
        mtu: vlan.mtu.unwrap_or(port.mtu),
        addresses: vlan.addresses.iter().map(ToString::to_string).collect(),
        lacks: Vec::new(),
        rx_packets: 0,
        tx_packets: 0,
        rx_missed: 0,
        rx_no_mbuf: 0,
        rx_errors: 0,
        tx_errors: 0,
        ..port
    }
}

fn describe(port: &config::Port, open: &OpenPort) -> Port {
    let (link, stats) = (open.port.link(), open.port.stats());
    Port {
        name: port.name.clone(),
        device: port.device.to_string(),
        vlan: None,
        members: members(port, open),
        driver: open.driver.clone(),
        numa_node: open.node,
        mac: mac::format(open.mac),
        link_up: links::is_up(port, &open.port),
        speed_mbps: link.speed_mbps,
        mtu: open.mtu,
        queues: open.rx_queues,
        rss: open.port.rss_active(),
        spread: open.spread,
        promiscuous: open.port.is_promiscuous(),
        multicast: if open.port.is_all_multicast() { Multicast::All } else { Multicast::Unfiltered },
        lacks: open.lacks.clone(),
        addresses: port.addresses.iter().map(ToString::to_string).collect(),
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        rx_missed: stats.rx_missed,
        rx_no_mbuf: stats.rx_no_mbuf,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
        verdicts: std::collections::BTreeMap::new(),
    }
}

fn members(port: &config::Port, open: &OpenPort) -> Vec<Member> {
    let Some(bond) = &port.bond else { return Vec::new() };
    let one = if bond.mode == BondMode::ActiveBackup { open.port.primary() } else { None };
    let active = |member: &Device| one.as_deref().map_or(links::is_member_up(&open.port, member), |one| one == member.port_name());
    let member =
        |device: &Device| Member { device: device.to_string(), link_up: links::is_member_up(&open.port, device), active: active(device) };
    bond.members.iter().map(member).collect()
}
