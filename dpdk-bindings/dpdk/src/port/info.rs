//! What a device is and can do.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use super::Port;

/// What a device is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortInfo {
    /// Name of the driver, such as `net_af_packet`.
    pub driver: String,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most transmit queues.
    pub max_tx_queues: u16,
    /// Kinds of traffic that it can spread over queues, as DPDK's `RTE_ETH_RSS_*` bits; 0 for none.
    pub rss_types: u64,
    /// Slots of its redirection table; 0 for none.
    pub reta_size: u16,
    /// Bytes of its hash key; 0 for none.
    pub hash_key_size: u8,
    /// NUMA node, when there is one.
    pub socket: Option<u32>,
    /// Smallest MTU, bytes.
    pub min_mtu: u16,
    /// Largest MTU, bytes.
    pub max_mtu: u16,
    /// Longest frame that it receives, in bytes, check sequence included.
    pub max_rx_frame: u32,
    /// Whether it checks IPv4 header checksums of received frames.
    pub rx_ip_checksum: bool,
    /// Receive offloads, as DPDK's `RTE_ETH_RX_OFFLOAD_*` bits.
    pub rx_offloads: u64,
}

/// State of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// Mbit/s; 0 when unknown.
    pub speed_mbps: u32,
    /// Whether both directions pass at once.
    pub full_duplex: bool,
}

impl PortInfo {
    /// Whether it can spread TCP and UDP flows over several queues by a hash with our key.
    pub fn has_rss(&self) -> bool {
        self.max_rx_queues > 1 && self.rss_types & dpdk_sys::BATON_RSS_TYPES != 0
    }

    /// The longest IP packet that DPDK lets the device be configured for, in bytes, as `rte_eth_dev_configure` reckons: what a driver
    /// does not say of its own overhead is taken for an Ethernet header and a check sequence.
    pub fn largest_mtu(&self) -> u16 {
        const ETHERNET: u32 = 14 + 4;
        let overhead = if self.max_mtu != u16::MAX && self.max_rx_frame > u32::from(self.max_mtu) {
            self.max_rx_frame - u32::from(self.max_mtu)
        } else {
            ETHERNET
        };
        self.max_mtu.min(u16::try_from(self.max_rx_frame.saturating_sub(overhead)).unwrap_or(u16::MAX))
    }
}

impl Port {
    /// Whether frames for any MAC are let in, as the device stands now.
    pub fn is_promiscuous(&self) -> bool {
        // SAFETY: a port that we hold.
        unsafe { dpdk_sys::rte_eth_promiscuous_get(self.inner.id) == 1 }
    }

    /// Whether frames for any multicast group are let in, as the device stands now.
    pub fn is_all_multicast(&self) -> bool {
        // SAFETY: a port that we hold.
        unsafe { dpdk_sys::rte_eth_allmulticast_get(self.inner.id) == 1 }
    }

    /// What the device is and can do.
    pub fn info(&self) -> PortInfo {
        info_of(self.inner.id)
    }

    /// State of the link, as far as the driver knows it now; does not wait.
    pub fn link(&self) -> Link {
        link_of(self.inner.id)
    }

    /// Largest IP packet in bytes.
    pub fn mtu(&self) -> u16 {
        let mut mtu = 0;
        // SAFETY: a port that we hold; one u16 is written. It fails for unknown ports only.
        unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.inner.id, &raw mut mtu) };
        mtu
    }
}

/// What the device with this id is and can do; empty for an id that is none.
pub(super) fn info_of(id: u16) -> PortInfo {
    // SAFETY: a plain C struct, for which all zero is valid.
    let mut raw: dpdk_sys::rte_eth_dev_info = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: any id is allowed; one struct is written.
    if unsafe { dpdk_sys::rte_eth_dev_info_get(id, &raw mut raw) } != 0 {
        return PortInfo::default();
    }
    let driver = if raw.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: a driver's name is a string constant of its library, which stays loaded.
        unsafe { CStr::from_ptr(raw.driver_name) }.to_string_lossy().into_owned()
    };
    // SAFETY: any id is allowed.
    let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) };
    PortInfo {
        driver,
        max_rx_queues: raw.max_rx_queues,
        max_tx_queues: raw.max_tx_queues,
        rss_types: raw.flow_type_rss_offloads,
        reta_size: raw.reta_size,
        hash_key_size: raw.hash_key_size,
        socket: u32::try_from(socket).ok(),
        min_mtu: raw.min_mtu,
        max_mtu: raw.max_mtu,
        max_rx_frame: raw.max_rx_pktlen,
        rx_ip_checksum: raw.rx_offload_capa & dpdk_sys::BATON_RX_OFFLOAD_IPV4_CKSUM != 0,
        rx_offloads: raw.rx_offload_capa,
    }
}

/// State of the link of the device with this id; down for an id that is none.
pub(super) fn link_of(id: u16) -> Link {
    let (mut speed_mbps, mut full_duplex, mut up) = (0, 0, 0);
    // SAFETY: any id is allowed; three integers are written.
    unsafe { dpdk_sys::baton_eth_link(id, &raw mut speed_mbps, &raw mut full_duplex, &raw mut up) };
    Link { up: up != 0, speed_mbps, full_duplex: full_duplex != 0 }
}
