//! How a port is set up: queues, receive-side scaling, filters.

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::PoisonError;

use super::{Port, PortInfo, RxQueue, TxQueue};
use crate::error::{DpdkError, ErrorKind, check};
use crate::mempool::Mempool;

/// How to set a port up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues: one per worker.
    pub rx_queues: u16,
    /// Transmit queues: one per worker.
    pub tx_queues: u16,
    /// Descriptors of each rx queue; brought within what the device can do.
    pub rx_descriptors: u16,
    /// Descriptors of each tx queue; brought within what the device can do.
    pub tx_descriptors: u16,
    /// Largest IP packet in bytes; `None` for 1,500.
    pub mtu: Option<u16>,
    /// Spread flows over the rx queues by addresses and TCP or UDP ports, with a random key of our own, where the
    /// device can; [`Port::rss_active`] tells.
    pub rss: bool,
    /// Make receive interrupts possible, where the driver has them; [`Port::has_rx_interrupts`] tells.
    pub rx_interrupts: bool,
    /// Receive all multicast frames.
    pub all_multicast: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            rss: true,
            rx_interrupts: false,
            all_multicast: false,
        }
    }
}

impl Port {
    /// Sets the device up and gives its queues, in order of their numbers; received frames come from `mempool`.
    ///
    /// Where the device can, it also checks IPv4 header checksums and tells its hash of each frame. It is not made promiscuous.
    ///
    /// Errors: [`ErrorKind::QueuesInUse`] while queues of an earlier call exist; [`ErrorKind::NotEnoughQueues`];
    /// [`ErrorKind::InvalidArgument`] such as an MTU that the device or the mempool's buffers cannot hold.
    pub fn configure(&mut self, config: &PortConfig, mempool: &Mempool) -> Result<(Vec<RxQueue>, Vec<TxQueue>), DpdkError> {
        self.without_queues("rte_eth_dev_configure")?;
        self.inner.stop()?;
        let info = self.info();
        self.check_queues(config, &info)?;
        self.configure_device(config, &info)?;
        self.set_up_queues(config, mempool, &info)?;
        *self.inner.mempool.lock().unwrap_or_else(PoisonError::into_inner) = Some(mempool.clone());
        if config.all_multicast {
            all_multicast(self.inner.id)?;
        }
        let rx = (0..config.rx_queues).map(|queue| RxQueue::new(&self.inner, queue)).collect();
        let tx = (0..config.tx_queues).map(|queue| TxQueue::new(&self.inner, queue)).collect();
        Ok((rx, tx))
    }

    fn check_queues(&self, config: &PortConfig, info: &PortInfo) -> Result<(), DpdkError> {
        let (rx, tx) = (config.rx_queues, config.tx_queues);
        if (1..=info.max_rx_queues).contains(&rx) && (1..=info.max_tx_queues).contains(&tx) {
            return Ok(());
        }
        Err(DpdkError::refused(
            "rte_eth_dev_configure",
            ErrorKind::NotEnoughQueues,
            format!("port {} has {} rx and {} tx queues, {rx} and {tx} wanted", self.name(), info.max_rx_queues, info.max_tx_queues),
        ))
    }

    fn configure_device(&mut self, config: &PortConfig, info: &PortInfo) -> Result<(), DpdkError> {
        // SAFETY: for this plain C struct, all zero is DPDK's "everything off, all defaults".
        let mut wanted: dpdk_sys::rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        wanted.rxmode.mtu = u32::from(config.mtu.unwrap_or(0));
        wanted.rxmode.offloads = info.rx_offloads & (dpdk_sys::BATON_RX_OFFLOAD_IPV4_CKSUM | dpdk_sys::BATON_RX_OFFLOAD_RSS_HASH);
        wanted.intr_conf.set_rxq(u32::from(config.rx_interrupts));
        let types = info.rss_types & dpdk_sys::BATON_RSS_TYPES;
        self.rss = config.rss && types != 0;
        let mut key = vec![0u8; usize::from(info.hash_key_size)];
        if self.rss {
            random(&mut key)?;
            wanted.rxmode.mq_mode = dpdk_sys::BATON_MQ_RX_RSS;
            wanted.rx_adv_conf.rss_conf.rss_hf = types;
            if !key.is_empty() {
                wanted.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                wanted.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
            }
        } else {
            wanted.rxmode.offloads &= !dpdk_sys::BATON_RX_OFFLOAD_RSS_HASH;
        }
        self.reta = (self.rss && info.reta_size > 0).then_some((info.reta_size, config.rx_queues));
        // SAFETY: a stopped port that we hold; the configuration, and the key in it, outlive the call, which copies them.
        let status = unsafe { dpdk_sys::rte_eth_dev_configure(self.inner.id, config.rx_queues, config.tx_queues, &raw const wanted) };
        check("rte_eth_dev_configure", status).map(drop).map_err(|error| error.with_hint(format!("port {}: {config:?}", self.name())))
    }

    fn set_up_queues(&self, config: &PortConfig, mempool: &Mempool, info: &PortInfo) -> Result<(), DpdkError> {
        let id = self.inner.id;
        let explain = |error: DpdkError| error.with_hint(format!("port {}", self.name()));
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: a port that we hold; two u16 are read and written.
        let status = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx, &raw mut tx) };
        check("rte_eth_dev_adjust_nb_rx_tx_desc", status).map_err(explain)?;
        // SOCKET_ID_ANY, as the unsigned number that these calls take.
        let socket = info.socket.unwrap_or(u32::MAX);
        for queue in 0..config.rx_queues {
            // SAFETY: a stopped port that we hold, a queue that it was configured with, default settings (null), and a
            // mempool that is not freed while the EAL runs.
            let status = unsafe { dpdk_sys::rte_eth_rx_queue_setup(id, queue, rx, socket, ptr::null(), mempool.as_ptr()) };
            check("rte_eth_rx_queue_setup", status).map_err(explain)?;
        }
        for queue in 0..config.tx_queues {
            // SAFETY: a stopped port that we hold, a queue that it was configured with, default settings (null).
            let status = unsafe { dpdk_sys::rte_eth_tx_queue_setup(id, queue, tx, socket, ptr::null()) };
            check("rte_eth_tx_queue_setup", status).map_err(explain)?;
        }
        Ok(())
    }
}

/// Takes "the device cannot" for an answer.
fn supported(result: Result<(), DpdkError>) -> Result<(), DpdkError> {
    match result {
        Err(error) if error.kind == ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

/// Lets all multicast frames in, where the device filters at all.
pub(super) fn all_multicast(id: u16) -> Result<(), DpdkError> {
    // SAFETY: the caller holds the port.
    let status = unsafe { dpdk_sys::rte_eth_allmulticast_enable(id) };
    supported(check("rte_eth_allmulticast_enable", status).map(drop))
}

/// Spreads the redirection table over the queues, round robin.
///
/// Done after start, since some drivers write their default table then. One that refuses keeps its own table, which is
/// round robin too.
pub(super) fn write_reta(id: u16, size: u16, queues: u16) {
    let mut table = round_robin(size, queues);
    // SAFETY: the caller holds the port; the table has one entry per 64 slots, as the size says.
    unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(id, table.as_mut_ptr(), size) };
}

/// A redirection table of `size` slots, in groups of 64, that names the queues in turn.
pub(super) fn round_robin(size: u16, queues: u16) -> Vec<dpdk_sys::rte_eth_rss_reta_entry64> {
    const GROUP: u16 = 64;
    (0..size.div_ceil(GROUP))
        .map(|group| {
            let mut entry = dpdk_sys::rte_eth_rss_reta_entry64 { mask: u64::MAX, reta: [0; 64] };
            for (slot, queue) in (group * GROUP..).zip(&mut entry.reta) {
                *queue = slot % queues.max(1);
            }
            let slots = size - group * GROUP;
            if slots < GROUP {
                entry.mask = (1 << slots) - 1;
            }
            entry
        })
        .collect()
}

/// Fills `key` from the kernel: a predictable key would let a sender aim all flows at one worker.
fn random(key: &mut [u8]) -> Result<(), DpdkError> {
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(key))
        .map_err(|error| DpdkError::from_errno("read /dev/urandom", error.raw_os_error().unwrap_or(0)))
}
