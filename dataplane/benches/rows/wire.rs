//! A port between two rings: what is put into one is received, and what is sent comes out of the other.

use dpdk::eal::Eal;
use dpdk::mempool::Mempool;
use dpdk::port::{PortConfig, RxQueue, TxQueue};
use dpdk::ring::{Ring, ring_port};

pub struct Wire {
    pub rx: Ring,
    pub tx: Ring,
}

impl Wire {
    /// Rings for one frame less than `size`, a power of two.
    pub fn new(name: &str, size: u32) -> Self {
        let ring = |side: &str| Ring::new(&format!("{name}-{side}"), size, None).expect("ring");
        Self { rx: ring("rx"), tx: ring("tx") }
    }

    /// A port between them; several may take turns.
    pub fn port(&self, eal: &Eal, name: &str, pool: &Mempool) -> (RxQueue, TxQueue) {
        let mut port = ring_port(eal, name, &[&self.rx], &[&self.tx]).expect("port");
        let config = PortConfig { rx_queues: 1, tx_queues: 1, ..PortConfig::default() };
        let (mut rx, mut tx) = port.configure(&config, pool).expect("configured");
        port.start().expect("started");
        std::mem::forget(port);
        (rx.remove(0), tx.remove(0))
    }
}
