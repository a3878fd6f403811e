//! What the API tells of ports and neighbours: asked of the devices and the kernel when it is asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::devices::OpenPort;
use crate::api::{Facts, Reread};
use crate::config::Config;
use crate::director::mac;
use crate::events::Events;
use crate::kernel::Kernel;
use crate::model::{Port, What};

/// How often links are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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

    /// Why a port is of no use at the moment, in words.
    fn missing(&self, config: &Config) -> Vec<String> {
        let ports = self.lock();
        let down = config.ports.iter().zip(ports.iter()).filter(|(_, open)| !open.port.link().up);
        down.map(|(port, _)| format!("port {} has no link", port.name)).collect()
    }

    fn list(&self, config: &Config) -> Vec<Port> {
        let open = self.lock();
        let workers = config.workers.cores.len();
        let ports = config.ports.iter().zip(open.iter()).map(|(port, open)| describe(port, open, workers));
        let vlans = config.vlans.iter().filter_map(|vlan| {
            let port = describe(config.ports.get(vlan.port)?, open.get(vlan.port)?, workers);
            Some(describe_vlan(vlan, port))
        });
        ports.chain(vlans).collect()
    }
}

/// Tells of links that come and go. Never ends.
pub(super) async fn watch_links(ports: Ports, config: Config, events: Events) {
    let links = || ports.lock().iter().map(|open| open.port.link().up).collect::<Vec<bool>>();
    let mut before = links();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = links();
        for (port, (was, is)) in config.ports.iter().zip(before.iter().zip(&now)) {
            let port = port.name.clone();
            match (was, is) {
                (false, true) => events.raise(What::LinkUp { port }, "the device has a link"),
                (true, false) => events.raise(What::LinkDown { port }, "the device has no link"),
                _ => {}
            }
        }
        before = now;
    }
}

/// A VLAN is what its port is, but for what it has of its own; the device counts no frames for it.
fn describe_vlan(vlan: &crate::config::Vlan, port: Port) -> Port {
    Port {
        name: vlan.name.clone(),
        vlan: Some(vlan.tags.to_string()),
        mtu: vlan.mtu.unwrap_or(port.mtu),
        addresses: vlan.addresses.iter().map(ToString::to_string).collect(),
        rx_packets: 0,
        tx_packets: 0,
        rx_missed: 0,
        ..port
    }
}

fn describe(port: &crate::config::Port, open: &OpenPort, workers: usize) -> Port {
    let (link, stats) = (open.port.link(), open.port.stats());
    Port {
        name: port.name.clone(),
        device: port.device.to_string(),
        vlan: None,
        driver: open.driver.clone(),
        numa_node: open.node,
        mac: mac::format(open.mac),
        link_up: link.up,
        speed_mbps: link.speed_mbps,
        mtu: open.mtu,
        queues: u16::try_from(workers).unwrap_or(u16::MAX),
        rss: open.port.rss_active(),
        addresses: port.addresses.iter().map(ToString::to_string).collect(),
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        rx_missed: stats.rx_missed,
        verdicts: std::collections::BTreeMap::new(),
    }
}

/// What the API tells that the director does not know.
///
/// `settled` is false until real servers were given their time to answer for their MACs.
pub(super) fn of(config: &Config, ports: &Ports, kernel: &Kernel, settled: &Arc<AtomicBool>, reread: &Reread) -> Facts {
    let config = Arc::new(config.clone());
    let (listed, watched, kernel) = (ports.clone(), ports.clone(), kernel.clone());
    let settled = Arc::clone(settled);
    let (for_list, for_missing) = (Arc::clone(&config), Arc::clone(&config));
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        cores: config.workers.cores.clone(),
        ports: Arc::new(move || listed.list(&for_list)),
        neighbours: Arc::new(move || kernel.neighbours()),
        missing: Arc::new(move || {
            let mut missing = watched.missing(&for_missing);
            if !settled.load(Ordering::Relaxed) {
                missing.push("real servers are being asked for their MACs".to_owned());
            }
            missing
        }),
        reread: Arc::clone(reread),
    }
}
