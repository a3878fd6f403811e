//! The kernel beside us: a TAP per port, neighbours, routes, and the exception path's frames between TAPs and workers.
//!
//! ```text
//!  worker --to_kernel--> pump --> TAP --> kernel: neighbours, ssh, BGP, resets
//!  worker 0 <-from_kernel- pump <-- TAP <-- kernel
//! ```
//! The kernel resolves the MACs of real servers and gateways; each change is told as a [`NeighbourEvent`]. VIPs are on
//! every TAP as local addresses. The worker alone answers ARP, neighbour solicitations and echo for VIPs and DIPs.

mod announce;
mod claim;
mod device;
mod error;
mod keeper;
mod limit;
mod message;
mod neighbours;
mod netlink;
pub mod probes;
mod pump;
mod sysctl;
mod tap;
mod watch;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use dpdk::mempool::Mempool;
use dpdk::ring::Ring;
use ipnet::IpNet;
use tokio::sync::{mpsc, watch as watch_channel};

pub use claim::Claim;
pub use error::KernelError;
pub use pump::ExceptionStats;
pub use watch::{VipNews, WatchPlan};

use crate::director::Wanted;
use crate::model;
use keeper::{Keeper, SharedNeighbours};
use neighbours::Neighbours;
use probes::Probes;
use pump::{Lane, LaneCounters};
use watch::{Sight, Watch};

/// Changes of neighbours that wait to be read; more coalesce.
const EVENTS: usize = 64;

/// What the kernel's side of a port is to be.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// The port's number.
    pub index: u16,
    /// The port's name, which is the TAP's: up to 15 bytes.
    pub name: String,
    /// The port's MAC, which is the TAP's.
    pub mac: [u8; 6],
    /// The port's MTU in bytes, which is the TAP's.
    pub mtu: u16,
    /// The director's own addresses (DIPs) with their networks.
    pub addresses: Vec<IpNet>,
    /// Routers for everything else; each must be inside one of the networks.
    pub gateways: Vec<IpAddr>,
    /// The kernel's interfaces behind the port (`iface=` of `net_af_packet` and `net_af_xdp`), of a bond several.
    pub device_interfaces: Vec<String>,
    /// Neighbours whose MACs are given.
    pub static_neighbours: Vec<(IpAddr, [u8; 6])>,
    /// Frames from the workers.
    pub to_kernel: Arc<Ring>,
    /// Frames for the first worker to send.
    pub from_kernel: Arc<Ring>,
    /// Where the frames from the kernel are allocated.
    pub pool: Mempool,
}

/// A neighbour was found, changed its MAC, or was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourEvent {
    /// The port's number.
    pub port: u16,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its MAC; `None` when it is not known (any more).
    pub mac: Option<[u8; 6]>,
}

/// The running kernel side; clones are handles of the same. It stops with [`Self::stop`] or with its last handle.
#[derive(Clone)]
pub struct Kernel {
    neighbours: SharedNeighbours,
    exceptions: Arc<Vec<(String, Arc<LaneCounters>)>>,
    stop: Arc<watch_channel::Sender<bool>>,
    done: watch_channel::Receiver<bool>,
}

impl Kernel {
    /// Makes the TAPs and follows `wanted` from then on, on a thread of its own that starts with the caller's CPU affinity.
    ///
    /// Waits until the TAPs are up, about 20 ms a port. Every neighbour that gets or loses a usable MAC is told in the
    /// channel, given ones at once; while nobody reads it, changes coalesce and none is lost. `watched` says how VIPs are watched, and who
    /// is told of others that speak for them.
    ///
    /// Errors: no right to make a TAP, a name that is taken, an interface behind a port that has addresses of its own; what
    /// was done until then is undone.
    pub fn start(
        plans: Vec<LinkPlan>,
        wanted: watch_channel::Receiver<Wanted>,
        probes: Probes,
        watched: WatchPlan,
    ) -> Result<(Self, mpsc::Receiver<NeighbourEvent>), KernelError> {
        const NAME: &str = "baton-kernel";
        let failed = |source| KernelError::Thread { name: NAME, source };
        let names = plans.iter().map(|plan| (plan.index, plan.name.clone())).collect();
        let fixed = plans.iter().flat_map(|plan| plan.static_neighbours.iter().map(|(address, mac)| ((plan.index, *address), *mac)));
        let own = keeper::own_macs(&plans);
        let neighbours = Arc::new(Mutex::new(Neighbours::new(names, own.clone(), fixed)));
        let lane = |plan: &LinkPlan| Lane {
            to_kernel: Arc::clone(&plan.to_kernel),
            port: plan.index,
            from_kernel: Arc::clone(&plan.from_kernel),
            mempool: plan.pool.clone(),
            counters: Arc::default(),
        };
        let ports: Vec<(LinkPlan, Lane)> = plans.into_iter().map(|plan| (plan.clone(), lane(&plan))).collect();
        let exceptions = Arc::new(ports.iter().map(|(plan, lane)| (plan.name.clone(), Arc::clone(&lane.counters))).collect());

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (told, events) = mpsc::channel(EVENTS);
        let (stop, stopped) = watch_channel::channel(false);
        let (finished, done) = watch_channel::channel(false);
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let shared = Arc::clone(&neighbours);
        let watch = Watch::new(watched, Sight::new(own), Instant::now());
        let body = async move {
            match Keeper::start(ports, shared, probes, watch).await {
                Ok(keeper) => {
                    let _ = started.send(Ok(()));
                    keeper.run(wanted, told, stopped).await;
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
            finished.send_replace(true);
        };
        thread::Builder::new().name(NAME.into()).spawn(move || runtime.block_on(body)).map_err(failed)?;
        // Closed without a word only if the thread panicked.
        start.recv().map_err(|_| failed(std::io::ErrorKind::BrokenPipe.into()))??;
        Ok((Self { neighbours, exceptions, stop: Arc::new(stop), done }, events))
    }

    /// All neighbours that are wanted, given or gateways, by port and address.
    pub fn neighbours(&self) -> Vec<model::Neighbour> {
        keeper::lock(&self.neighbours).list()
    }

    /// What the exception path of each port has moved, by the port's name, in configuration order.
    pub fn exceptions(&self) -> Vec<(String, ExceptionStats)> {
        self.exceptions.iter().map(|(name, counters)| (name.clone(), counters.read())).collect()
    }

    /// Removes the TAPs, puts interfaces and kernel settings back to what they were, and returns when that is done.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut done = self.done.clone();
        // An error means that the thread is gone, which is what was wanted.
        let _ = done.wait_for(|done| *done).await;
    }
}

#[cfg(test)]
mod tests;
