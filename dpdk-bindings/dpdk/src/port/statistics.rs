//! Counters that the device or its driver keeps.

use std::mem::MaybeUninit;
use std::ptr;

use super::Port;

/// Counters that every device has, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames lost because no descriptor was free: the worker was too slow.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Receptions that failed because the mempool was empty.
    pub rx_no_mbuf: u64,
}

impl Port {
    /// Counters that every device has; zeros when the driver gives none. Not for the path: some drivers ask the device.
    pub fn stats(&self) -> PortStats {
        // SAFETY: a plain C struct of integers, for which all zero is valid.
        let mut raw: dpdk_sys::rte_eth_stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: a port that we hold; one struct is written. A driver without counters leaves it zero.
        unsafe { dpdk_sys::rte_eth_stats_get(self.inner.id, &raw mut raw) };
        PortStats {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            tx_errors: raw.oerrors,
            rx_no_mbuf: raw.rx_nombuf,
        }
    }

    /// All counters of driver and queues by name, such as `rx_good_packets` and `rx_q0_packets`; empty when there are none.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let id = self.inner.id;
        // SAFETY: a port that we hold; with no array, only the number is asked for.
        let Ok(count) = u32::try_from(unsafe { dpdk_sys::rte_eth_xstats_get_names(id, ptr::null_mut(), 0) }) else {
            return Vec::new();
        };
        let capacity = count as usize;
        let mut names = vec![dpdk_sys::rte_eth_xstat_name { name: [0; 64] }; capacity];
        // SAFETY: a port that we hold; at most `count` names are written.
        let known = unsafe { dpdk_sys::rte_eth_xstats_get_names(id, names.as_mut_ptr(), count) };
        let mut values = vec![dpdk_sys::rte_eth_xstat { id: 0, value: 0 }; capacity];
        // SAFETY: a port that we hold; at most `count` values are written.
        let read = unsafe { dpdk_sys::rte_eth_xstats_get(id, values.as_mut_ptr(), count) };
        // An error, or more than a moment ago: nothing consistent was written.
        let fits = |status: i32| usize::try_from(status).ok().filter(|&count| count <= capacity);
        let (Some(known), Some(read)) = (fits(known), fits(read)) else {
            return Vec::new();
        };
        let names = names.get(..known).unwrap_or_default();
        values
            .iter()
            .take(read)
            .filter_map(|value| {
                let name = names.get(usize::try_from(value.id).ok()?)?;
                Some((crate::error::text(&name.name), value.value))
            })
            .collect()
    }
}
