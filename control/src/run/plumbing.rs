//! How full rings and mempools are: read beside the workers when metrics are asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::handover::DEPTH;
use dpdk::mempool::Mempool;
use dpdk::ring::RingGauge;

use super::devices::{OpenPort, OpenVlan};
use super::plan;
use crate::api::{MempoolFill, Plumbing, RingFill};
use crate::config::Config;

/// What is read; shared with requests under way, and let go before the ports close.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges(Arc<Mutex<Read>>);

#[derive(Debug, Default)]
struct Read {
    rings: Vec<(&'static str, String, u32, RingGauge)>,
    mempools: BTreeMap<String, Mempool>,
}

impl Gauges {
    /// Of these ports and VLANs, and of the rings between workers: from, to, gauge.
    pub(super) fn new(config: &Config, ports: &[OpenPort], vlans: &[OpenVlan], between: Vec<(usize, usize, RingGauge)>) -> Self {
        let mut read = Read::default();
        let of_ports = config.ports.iter().zip(ports).map(|(port, open)| (&port.name, &open.to_kernel, &open.from_kernel));
        let of_vlans = config.vlans.iter().zip(vlans).map(|(vlan, open)| (&vlan.name, &open.to_kernel, &open.from_kernel));
        for (name, to_kernel, from_kernel) in of_ports.chain(of_vlans) {
            for (kind, ring) in [("to_kernel", to_kernel), ("from_kernel", from_kernel)] {
                read.rings.push((kind, name.clone(), plan::EXCEPTION_RING, ring.gauge()));
            }
        }
        read.rings.extend(between.into_iter().map(|(from, to, gauge)| ("hand_over", format!("{from}-{to}"), DEPTH, gauge)));
        for (port, open) in config.ports.iter().zip(ports) {
            let relays = open.relays.iter().map(|(worker, gauge)| ("relay", format!("{}-{worker}", port.name), DEPTH, gauge.clone()));
            read.rings.extend(relays);
            read.mempools.entry(open.pool_name.clone()).or_insert_with(|| open.pool.clone());
        }
        Self(Arc::new(Mutex::new(read)))
    }

    /// Lets go of all rings and mempools.
    pub(super) fn close(&self) {
        *self.lock() = Read::default();
    }

    /// The readings of this moment.
    pub(super) fn read(&self) -> Plumbing {
        let read = self.lock();
        let ring = |(kind, name, capacity, gauge): &(&'static str, String, u32, RingGauge)| RingFill {
            kind,
            name: name.clone(),
            frames: gauge.waiting() as u64,
            capacity: u64::from(*capacity),
        };
        let mempool = |(name, pool): (&String, &Mempool)| MempoolFill {
            name: name.clone(),
            in_use: u64::from(pool.in_use()),
            size: u64::from(pool.size()),
        };
        Plumbing { rings: read.rings.iter().map(ring).collect(), mempools: read.mempools.iter().map(mempool).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
