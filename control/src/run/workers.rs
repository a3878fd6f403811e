//! Starts the workers on their cores, and notices when one ends.

use std::io::Read as _;
use std::sync::mpsc;
use std::time::Duration;

use dataplane::command::{ControlEnd, channel};
use dataplane::handover::{self, HandOver};
use dataplane::link::PortQueues;
use dataplane::vlan::VlanQueues;
use dataplane::worker::{Idle, Worker, WorkerConfig};
use dpdk::eal::{Eal, Lcore};
use dpdk::numa;
use dpdk::ring::RingGauge;

use super::devices::{OpenPort, OpenVlan, Ways};
use super::error::StartError;
use crate::config::{self, Config};
use crate::model::Spread;

/// Commands that may wait for a worker: a full ring only delays.
const COMMANDS: usize = 64;
/// Making the tables takes milliseconds; a machine that swaps takes longer.
const LONGEST_START: Duration = Duration::from_secs(30);
/// A worker looks at the stop flag once a turn: milliseconds at most.
const LONGEST_END: Duration = Duration::from_secs(1);
/// How often it is looked whether a worker still runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The workers as they run.
#[derive(Debug)]
pub(super) struct Workers {
    running: Vec<Option<Lcore<()>>>,
    ends: Vec<ControlEnd>,
    /// The rings between workers: from, to, gauge.
    pub(super) between: Vec<(usize, usize, RingGauge)>,
}

impl Workers {
    /// Starts one worker a core, each with its queue of every port, and waits until all have made their tables.
    ///
    /// # Errors
    /// A worker's tables did not find memory, or DPDK did not launch it. Workers that run by then end.
    pub(super) fn start(eal: &Eal, config: &Config, ports: &mut [OpenPort], vlans: &[OpenVlan]) -> Result<Self, StartError> {
        let mut workers = Self { running: Vec::new(), ends: Vec::new(), between: Vec::new() };
        let mut ways: Vec<_> = ports.iter_mut().map(|port| std::mem::take(&mut port.ways).into_iter()).collect();
        let (ready, started) = mpsc::channel();
        let (node, seed) = (node_of(ports), seed()?);
        let mesh = numa::on_node(node, || handover::mesh(config.workers.cores.len(), config.limits.connections, seed))
            .map_err(|error| StartError::dpdk("cannot make the rings between the workers", &error))?;
        for ((index, core), handover) in config.workers.cores.iter().enumerate().zip(mesh) {
            let own = ports.iter().zip(&mut ways).filter_map(|(port, ways)| {
                let Ways { rx, tx, relays } = ways.next()?;
                Some(PortQueues {
                    rx,
                    tx,
                    spread: port.spread == Spread::Software,
                    relays,
                    mac: port.mac,
                    pool: port.pool.clone(),
                    to_kernel: port.to_kernel.clone(),
                    from_kernel: (index == 0).then(|| port.from_kernel.clone()),
                })
            });
            workers.between.extend(handover.iter().flat_map(HandOver::gauges).map(|(from, gauge)| (from, index, gauge)));
            let own = worker_config(config, index, own.collect(), vlans, handover)?;
            let own = WorkerConfig { idle: idle(config, index, ports), ..own };
            let (end, worker_end) = channel(COMMANDS, ports.len() + vlans.len());
            workers.ends.push(end);
            let ready = ready.clone();
            let run = move || match numa::on_node(node, || Worker::new(own, worker_end)) {
                Ok(worker) => {
                    // Nobody waits any more when another worker has failed; this one is told to end then.
                    let _ = ready.send(Ok(()));
                    worker.run();
                }
                Err(why) => drop(ready.send(Err(why.to_string()))),
            };
            let lcore = eal.launch(index, run);
            let lcore = lcore.map_err(|error| StartError::dpdk(&format!("cannot launch worker {index} on core {core}"), &error))?;
            workers.running.push(Some(lcore));
        }
        // The last sender goes with the last worker: a worker that panics ends the wait below.
        drop(ready);
        for _ in 0..workers.running.len() {
            let failed = match started.recv_timeout(LONGEST_START) {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => format!("a worker cannot make its tables: {why}"),
                Err(_) => "a worker did not start".to_owned(),
            };
            return Err(StartError::new(
                failed,
                "lower limits.connections, limits.services or limits.real_servers, or give the machine more memory",
            ));
        }
        Ok(workers)
    }

    /// Workers that a test launched itself.
    #[cfg(test)]
    pub(super) fn of(running: Vec<Lcore<()>>) -> Self {
        Self { running: running.into_iter().map(Some).collect(), ends: Vec::new(), between: Vec::new() }
    }

    /// The control plane's end of each worker's rings.
    pub(super) fn ends(&self) -> Vec<ControlEnd> {
        self.ends.clone()
    }

    /// Waits until a worker has ended, and says which and why.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (index, slot) in self.running.iter_mut().enumerate() {
                if let Some(lcore) = slot.take_if(|lcore| lcore.is_finished()) {
                    let why = lcore.join().map_or_else(|panic| panic_text(panic.as_ref()), |()| "it returned".to_owned());
                    return format!("worker {index} has ended: {why}");
                }
            }
        }
    }

    /// Whether all workers have ended.
    fn all_ended(&self) -> bool {
        self.running.iter().flatten().all(Lcore::is_finished)
    }

    /// Tells all workers to end and waits until they have, `longest` at most; whether they have.
    pub(super) fn stop_and_wait(&self, longest: Duration) -> bool {
        for end in &self.ends {
            end.stop();
        }
        let until = std::time::Instant::now() + longest;
        while !self.all_ended() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.all_ended()
    }
}

impl Drop for Workers {
    /// Whatever ends the director: workers must not turn on with queues whose ports are being closed.
    fn drop(&mut self) {
        self.stop_and_wait(LONGEST_END);
    }
}

/// What a worker does without traffic: it can wait for interrupts only if all ports that it reads have them.
fn idle(config: &Config, index: usize, ports: &[OpenPort]) -> Idle {
    match config.workers.idle.get(index).copied().unwrap_or_default() {
        config::Idle::Poll => Idle::Poll,
        config::Idle::Interrupt if ports.iter().all(|port| port.interrupts || usize::from(port.rx_queues) <= index) => Idle::Interrupt,
        config::Idle::Adaptive | config::Idle::Interrupt => Idle::Adaptive,
    }
}

/// Where the workers' tables belong: on the node of the ports. With ports on several, each worker's on that of its core.
fn node_of(ports: &[OpenPort]) -> Option<u32> {
    let node = ports.first()?.node;
    node.filter(|_| ports.iter().all(|port| port.node == node))
}

fn worker_config(
    config: &Config,
    index: usize,
    ports: Vec<PortQueues>,
    vlans: &[OpenVlan],
    handover: Option<HandOver>,
) -> Result<WorkerConfig, StartError> {
    let queues = |(vlan, open): (&config::Vlan, &OpenVlan)| VlanQueues {
        // Ports are few.
        port: u16::try_from(vlan.port).unwrap_or(u16::MAX),
        tags: vlan.tags,
        to_kernel: open.to_kernel.clone(),
        from_kernel: (index == 0).then(|| open.from_kernel.clone()),
    };
    Ok(WorkerConfig {
        index,
        workers: config.workers.cores.len(),
        connections: config.limits.connections,
        half_open: config.limits.half_open(),
        services: config.limits.services,
        servers: config.limits.real_servers,
        ports,
        vlans: config.vlans.iter().zip(vlans).map(queues).collect(),
        idle: Idle::default(),
        seed: seed()?,
        handover,
    })
}

/// A secret from the kernel: who could guess it could aim all connections at one place of the table.
fn seed() -> Result<[u64; 4], StartError> {
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).map_err(|why| {
        StartError::new(format!("cannot read /dev/urandom: {why}"), "give the process this device, which every container has by default")
    })?;
    let mut seed = [0; 4];
    for (word, chunk) in seed.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*chunk);
    }
    Ok(seed)
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.map_or_else(|| "it panicked".to_owned(), |text| format!("it panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ() {
        assert_ne!(seed().unwrap(), seed().unwrap());
    }

    #[test]
    fn panic_says_what_it_said() {
        let panic = std::panic::catch_unwind(|| panic!("row {}", 3)).unwrap_err();
        assert_eq!(panic_text(panic.as_ref()), "it panicked: row 3");
    }
}
