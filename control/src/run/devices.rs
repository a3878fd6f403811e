//! Opens the ports: pools, queues, rings to the kernel beside each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dataplane::handover;
use dataplane::link::Exit;
use dpdk::ErrorKind;
use dpdk::eal::Eal;
use dpdk::mempool::Mempool;
use dpdk::port::{Port, PortConfig, RxQueue, TxQueue};
use dpdk::ring::{Ring, RingGauge, RingReceiver};

use super::error::StartError;
use super::plan;
use super::ports::features;
use crate::config::{self, BondMode, Config, Device};
use crate::model::Spread;

/// How often a bond asks its members for their links. DPDK's own 10 ms would keep a NIC with a slow PHY busy.
const ASK_MEMBERS_EVERY: Duration = Duration::from_millis(100);

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
    /// How its frames come to all workers.
    pub(super) spread: Spread,
    /// Receive queues that are read.
    pub(super) rx_queues: u16,
    /// What the device cannot do and what is done in its place.
    pub(super) lacks: Vec<String>,
    /// Whether its receive queues can wake a worker that waits.
    pub(super) interrupts: bool,
    /// What each worker has of it.
    pub(super) ways: Vec<Ways>,
    pub(super) relays: Vec<Relay>,
    pub(super) pool: Mempool,
    pub(super) pool_name: String,
    pub(super) to_kernel: Arc<Ring>,
    pub(super) from_kernel: Arc<Ring>,
}

/// A worker without a transmit queue, and how full the ring is that it sends into.
type Relay = (usize, RingGauge);

/// A worker's part of a port.
#[derive(Debug)]
pub(super) struct Ways {
    /// Its receive queue, if it has one.
    pub(super) rx: Option<RxQueue>,
    pub(super) tx: Exit,
    /// From workers without a transmit queue.
    pub(super) relays: Vec<RingReceiver>,
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
    let info = features::info(port, device.info());
    let interrupts = config.workers.idle.contains(&config::Idle::Interrupt);
    let pool_name = info.socket.map_or_else(|| "frames".to_owned(), |socket| format!("frames-{socket}"));
    let pool = if let Some(pool) = pools.get(&info.socket) {
        Mempool::clone(pool)
    } else {
        let pool = Mempool::new(&pool_name, plan::mbufs(config), plan::CACHE, plan::data_room(config), info.socket)
            .map_err(failed("make its pool of packet buffers"))?;
        pools.insert(info.socket, pool.clone());
        pool
    };
    let workers = u16::try_from(config.workers.cores.len()).unwrap_or(u16::MAX);
    let (rx_queues, tx_queues) = features::queues(port, &info, workers);
    let wanted = PortConfig {
        rx_queues,
        tx_queues,
        rx_descriptors: plan::DESCRIPTORS,
        tx_descriptors: plan::DESCRIPTORS,
        mtu: features::mtu(port, &info)?,
        rss: rx_queues > 1 && info.has_rss(),
        rx_interrupts: interrupts,
        // Neighbour discovery and routing protocols of the kernel beside us arrive by multicast.
        all_multicast: true,
    };
    if let Some(bond) = &port.bond {
        device.ask_members(bond.members.iter().map(Device::port_name), ASK_MEMBERS_EVERY);
    }
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
    let spread = match (workers, device.rss_active()) {
        (1, _) => Spread::OneWorker,
        _ if rx_queues < workers => Spread::Software,
        (_, true) => Spread::Rss,
        (_, false) => Spread::Device,
    };
    let mut lacks = features::lacks(port, &info, workers, device.is_all_multicast(), spread);
    let interrupts = interrupts && device.has_rx_interrupts(rx_queues);
    if !interrupts && config.workers.idle.contains(&config::Idle::Interrupt) {
        lacks.push("no receive interrupts: workers that are to wait for them sleep as with idle = \"adaptive\"".to_owned());
    }
    let (ways, relays) = ways((index, port), rx, tx, workers, info.socket).map_err(failed("make a ring"))?;
    Ok(OpenPort {
        mac: device.mac(),
        mtu: port.mtu.unwrap_or_else(|| device.mtu()),
        lacks,
        interrupts,
        spread,
        rx_queues,
        ways,
        relays,
        driver: info.driver,
        node: info.socket,
        port: device,
        pool,
        pool_name,
        to_kernel,
        from_kernel,
    })
}

/// Gives each worker its queues; those beyond the last transmit queue give what they send to the others in turn.
fn ways(
    (index, port): (usize, &config::Port),
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    workers: u16,
    socket: Option<u32>,
) -> Result<(Vec<Ways>, Vec<Relay>), dpdk::DpdkError> {
    let mut rx = rx.into_iter();
    // LACP's frames leave when a queue of the bond is used, ten times a second at least; one is enough.
    let speaks = port.bond.as_ref().is_some_and(|bond| bond.mode == BondMode::Lacp);
    let exit = |(worker, tx)| if speaks && worker == 0 { Exit::Speaking(tx) } else { Exit::Queue(tx) };
    let mut ways: Vec<Ways> = tx.into_iter().enumerate().map(|tx| Ways { rx: rx.next(), tx: exit(tx), relays: Vec::new() }).collect();
    let senders = ways.len().max(1);
    let mut gauges = Vec::new();
    for worker in ways.len()..usize::from(workers) {
        let (exit, relay) = Ring::one_way(&format!("relay-{index}-{worker}"), handover::DEPTH, socket)?;
        gauges.push((worker, relay.gauge()));
        if let Some(sender) = ways.get_mut(worker % senders) {
            sender.relays.push(relay);
        }
        ways.push(Ways { rx: rx.next(), tx: Exit::Relay(exit), relays: Vec::new() });
    }
    Ok((ways, gauges))
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
