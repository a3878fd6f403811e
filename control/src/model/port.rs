//! Ports as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which multicast groups a device lets in: neighbour discovery and routing protocols need some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Multicast {
    /// All, as it was told.
    All,
    /// What reaches it: it has no filter.
    Unfiltered,
}

/// How a port's frames come to all workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// There is one worker.
    OneWorker,
    /// The device's hash names the queue, and each worker reads one.
    Rss,
    /// Each worker reads a queue, which who stands behind the virtual device fills: the kernel's fanout, another program.
    Device,
    /// There are fewer queues than workers, or no RSS: who reads a queue hands the frames of others' flows on.
    Software,
}

impl Spread {
    /// In words, for `queues` receive queues.
    pub fn text(self, queues: u16) -> String {
        match self {
            Self::OneWorker => "for the one worker".to_owned(),
            Self::Rss => format!("spread over {queues} queues by RSS"),
            Self::Software => {
                let plural = if queues == 1 { "" } else { "s" };
                format!("shared out among all workers by software, from {queues} queue{plural}")
            }
            Self::Device => format!("spread over {queues} queues by the virtual device"),
        }
    }
}

/// A device of a bond.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The DPDK device.
    pub device: String,
    /// Whether its link is up.
    pub link_up: bool,
    /// Whether it carries the bond's traffic, or its share.
    pub active: bool,
}

/// A port as it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// Its name in the configuration.
    pub name: String,
    /// The DPDK device.
    pub device: String,
    /// Of a VLAN, which is listed as a port after them: its VLAN id, behind the outer one if it has two tags: `100`, `100.300`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    /// Of a bond: the devices that it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// The driver.
    pub driver: String,
    /// The NUMA node that the device, its packet buffers and the workers' tables are on; not said by virtual devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// The MAC.
    pub mac: String,
    /// Whether the link is up.
    pub link_up: bool,
    /// Link speed in Mbit/s; 0 when unknown.
    pub speed_mbps: u32,
    /// MTU in bytes.
    pub mtu: u16,
    /// Receive queues that are read.
    pub queues: u16,
    /// Whether the device spreads flows over its queues by a hash with our key.
    pub rss: bool,
    /// How frames come to all workers.
    pub spread: Spread,
    /// Whether the device lets in frames for other MACs than its own.
    pub promiscuous: bool,
    /// Which multicast groups it lets in.
    pub multicast: Multicast,
    /// What the device cannot do, and what is done in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Addresses from the configuration.
    pub addresses: Vec<String>,
    /// Frames that the device received; those of its VLANs count at the port.
    pub rx_packets: u64,
    /// Frames that it sent.
    pub tx_packets: u64,
    /// Frames that the device lost because no worker took them in time.
    pub rx_missed: u64,
    /// Receptions that failed because the mempool was empty.
    #[serde(default)]
    pub rx_no_mbuf: u64,
    /// Frames received with errors.
    #[serde(default)]
    pub rx_errors: u64,
    /// Frames that could not be sent.
    #[serde(default)]
    pub tx_errors: u64,
    /// Frames by verdict.
    pub verdicts: BTreeMap<String, u64>,
}
