//! Opens the ports: pools, queues, rings to the kernel beside each.

use std::collections::BTreeMap;
use std::sync::Arc;

use dpdk::ErrorKind;
use dpdk::eal::Eal;
use dpdk::mempool::Mempool;
use dpdk::port::{Port, PortConfig, RxQueue, TxQueue};
use dpdk::ring::Ring;

use super::error::StartError;
use super::plan;
use crate::config::{self, Config, Device};

/// A port that is open and takes frames, with what workers and kernel need of it.
#[derive(Debug)]
pub(super) struct OpenPort {
    /// The device: closed when this and all its queues are gone.
    pub(super) port: Port,
    pub(super) driver: String,
    /// The NUMA node that it is on, and so are its packet buffers, its rings and the workers' tables; `None` when nobody says.
    pub(super) node: Option<u32>,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u16,
    /// Receive and transmit queue of each worker.
    pub(super) queues: Vec<(RxQueue, TxQueue)>,
    pub(super) pool: Mempool,
    pub(super) to_kernel: Arc<Ring>,
    pub(super) from_kernel: Arc<Ring>,
}

/// Opens and starts every configured port, in the order of the configuration.
///
/// # Errors
/// What DPDK refused, with what mends it: port not found, not enough queues, not enough memory.
pub(super) fn open(eal: &Eal, config: &Config) -> Result<Vec<OpenPort>, StartError> {
    let mut pools = BTreeMap::new();
    let mut open = Vec::with_capacity(config.ports.len());
    for (index, port) in config.ports.iter().enumerate() {
        open.push(open_one(eal, config, (index, port), &mut pools)?);
    }
    Ok(open)
}

/// The rings between the workers and the kernel's side of a VLAN.
#[derive(Debug)]
pub(super) struct OpenVlan {
    pub(super) to_kernel: Arc<Ring>,
    pub(super) from_kernel: Arc<Ring>,
}

/// Makes what every VLAN has of its own, in the order of the configuration.
///
/// # Errors
/// No memory for a ring.
pub(super) fn open_vlans(config: &Config, ports: &[OpenPort]) -> Result<Vec<OpenVlan>, StartError> {
    let ring = |direction: &str, index: usize, vlan: &config::Vlan| {
        let node = ports.get(vlan.port).and_then(|port| port.node);
        let made = Ring::new(&format!("{direction}-vlan-{index}"), plan::EXCEPTION_RING, node).map(Arc::new);
        made.map_err(|error| StartError::dpdk(&format!("VLAN '{}': cannot make a ring", vlan.name), &error))
    };
    let open = |(index, vlan): (usize, &config::Vlan)| {
        Ok(OpenVlan { to_kernel: ring("to-kernel", index, vlan)?, from_kernel: ring("from-kernel", index, vlan)? })
    };
    config.vlans.iter().enumerate().map(open).collect()
}

fn open_one(
    eal: &Eal,
    config: &Config,
    (index, port): (usize, &config::Port),
    pools: &mut BTreeMap<Option<u32>, Mempool>,
) -> Result<OpenPort, StartError> {
    let failed = |doing: &str| {
        let doing = format!("port '{}': cannot {doing}", port.name);
        move |error: dpdk::DpdkError| StartError::dpdk(&doing, &error)
    };
    let mut device = Port::by_name(eal, port.device.port_name()).map_err(|error| not_found(eal, port, &error))?;
    let info = device.info();
    enough_queues(port, config.workers.cores.len(), info.max_rx_queues.min(info.max_tx_queues))?;
    let pool = if let Some(pool) = pools.get(&info.socket) {
        Mempool::clone(pool)
    } else {
        let name = info.socket.map_or_else(|| "frames".to_owned(), |socket| format!("frames-{socket}"));
        let pool = Mempool::new(&name, plan::mbufs(config), plan::CACHE, plan::data_room(config), info.socket)
            .map_err(failed("make its pool of packet buffers"))?;
        pools.insert(info.socket, pool.clone());
        pool
    };
    let workers = u16::try_from(config.workers.cores.len()).unwrap_or(u16::MAX);
    let wanted = PortConfig {
        rx_queues: workers,
        tx_queues: workers,
        rx_descriptors: plan::DESCRIPTORS,
        tx_descriptors: plan::DESCRIPTORS,
        mtu: port.mtu,
        rss: workers > 1,
        promiscuous: false,
        // Neighbour discovery and routing protocols of the kernel beside us arrive by multicast.
        all_multicast: true,
    };
    let (rx, tx) = device.configure(&wanted, &pool).map_err(failed("configure the device"))?;
    if device.mac() == [0; 6] {
        // net_null and the like have none, and a frame must come from somebody.
        let last = u8::try_from(index + 1).unwrap_or(u8::MAX);
        device.set_mac([2, 0, 0, 0, 0, last]).map_err(failed("give the device a MAC"))?;
    }
    let ring = |direction: &str| Ring::new(&format!("{direction}-{index}"), plan::EXCEPTION_RING, info.socket).map(Arc::new);
    let to_kernel = ring("to-kernel").map_err(failed("make a ring"))?;
    let from_kernel = ring("from-kernel").map_err(failed("make a ring"))?;
    device.start().map_err(failed("start the device"))?;
    let (mac, mtu) = (device.mac(), device.mtu());
    let queues = rx.into_iter().zip(tx).collect();
    Ok(OpenPort { port: device, driver: info.driver, node: info.socket, mac, mtu, queues, pool, to_kernel, from_kernel })
}

fn not_found(eal: &Eal, port: &config::Port, error: &dpdk::DpdkError) -> StartError {
    let doing = format!("port '{}': cannot open {}", port.name, port.device);
    if error.kind != ErrorKind::PortNotFound {
        return StartError::dpdk(&doing, error);
    }
    let known: Vec<String> = Port::all(eal).iter().map(Port::name).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    StartError::new(
        format!("port '{}': DPDK has no port for {}; it has {known}", port.name, port.device),
        match port.device {
            Device::Virtual(_) => {
                "check the arguments in port.device: DPDK's own messages above say what its driver refused, or which file it misses"
            }
            Device::Pci(_) => {
                "check port.device, install the driver's package (librte-net-*-23 on Debian 12), and see `dpdk-devbind.py --status-dev net`; \
                 DPDK's own messages above say more"
            }
        },
    )
}

fn enough_queues(port: &config::Port, workers: usize, queues: u16) -> Result<(), StartError> {
    if usize::from(queues) >= workers {
        return Ok(());
    }
    let more = match port.device.driver() {
        Some("net_af_packet") => format!("give the device qpairs={workers}"),
        Some("net_af_xdp") => format!("give the interface more (ethtool -L {} combined {workers}) and the device queue_count={workers}", {
            port.device.kernel_interface().unwrap_or("IFACE")
        }),
        Some(_) => "take another virtual device".to_owned(),
        None => "take another NIC".to_owned(),
    };
    Err(StartError::new(
        format!("port '{}': {} has {queues} queues, and {workers} workers need one each", port.name, port.device),
        format!("{more}, or take only {queues} of workers.cores"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_queues_are_refused_with_what_gives_more() {
        let port = |device: &str| config::Port {
            name: "lan".to_owned(),
            device: device.parse().unwrap(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            neighbours: Vec::new(),
        };
        assert_eq!(enough_queues(&port("net_null0"), 2, 2), Ok(()));
        let refused = enough_queues(&port("net_af_packet0,iface=d0,qpairs=1"), 3, 1).unwrap_err();
        assert_eq!(refused.what, "port 'lan': net_af_packet0,iface=d0,qpairs=1 has 1 queues, and 3 workers need one each");
        assert_eq!(refused.mend, "give the device qpairs=3, or take only 1 of workers.cores");
        assert!(enough_queues(&port("net_af_xdp0,iface=d0"), 2, 1).unwrap_err().mend.contains("ethtool -L d0 combined 2"));
        assert!(enough_queues(&port("03:00.0"), 8, 2).unwrap_err().mend.starts_with("take another NIC"));
    }
}
