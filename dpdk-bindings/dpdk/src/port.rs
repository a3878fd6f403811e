//! A network port: a NIC, a software device, or a pair of rings.

mod bond;
mod config;
mod info;
mod interrupts;
mod queue;
mod statistics;

use std::ffi::c_char;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use config::PortConfig;
pub use info::{Link, PortInfo};
pub use interrupts::wait;
pub use queue::{RxQueue, TxQueue};
pub use statistics::PortStats;

use crate::eal::{Eal, EalInner};
use crate::error::{DpdkError, ErrorKind, c_string, check};
use crate::mempool::Mempool;
use crate::ring::RingInner;

/// A port, held by one owner in this process.
///
/// Life: by name, [`Port::configure`] (gives the queues), [`Port::start`], bursts on the queues, then drop. The device is
/// stopped and closed when the port and all its queues are gone; while queues exist, it can be neither stopped nor
/// configured anew.
pub struct Port {
    inner: Arc<PortInner>,
    /// Entries of the redirection table to write at start: (size of the table, queues to spread over).
    reta: Option<(u16, u16)>,
    rss: bool,
}

/// What a port and its queues share; the device is closed with the last of them.
pub(crate) struct PortInner {
    id: u16,
    started: AtomicBool,
    mempool: std::sync::Mutex<Option<Mempool>>,
    _rings: Vec<Arc<RingInner>>,
    eal: Arc<EalInner>,
}

impl Port {
    /// Opens the port of that name: the device part of a vdev string (`net_af_packet0`), or a PCI address.
    ///
    /// Whatever follows a comma is ignored, so the string given to the EAL can be used again.
    ///
    /// Errors: [`ErrorKind::PortNotFound`]; [`ErrorKind::PortInUse`].
    pub fn by_name(eal: &Eal, name: &str) -> Result<Self, DpdkError> {
        Self::claim(eal, id_of(name)?, Vec::new())
    }

    /// What the device of that name is and can do, without opening it: one that belongs to a bond.
    pub fn look_at(name: &str) -> Option<PortInfo> {
        let _eal = crate::eal::running("rte_eth_dev_get_port_by_name").ok()?;
        let id = id_of(name).ok()?;
        Some(info::info_of(id))
    }

    /// Ports that DPDK has, held or not; 0 while the EAL does not run.
    pub fn count() -> u16 {
        const CALL: &str = "rte_eth_dev_count_avail";
        // SAFETY: the EAL runs while its handle is held; counts attached devices.
        crate::eal::running(CALL).map_or(0, |_eal| unsafe { dpdk_sys::rte_eth_dev_count_avail() })
    }

    /// Opens every port that is not held yet, in order of their ids.
    pub fn all(eal: &Eal) -> Vec<Self> {
        all_ids().filter_map(|id| Self::claim(eal, id, Vec::new()).ok()).collect()
    }

    pub(crate) fn claim(eal: &Eal, id: u16, rings: Vec<Arc<RingInner>>) -> Result<Self, DpdkError> {
        let eal = Arc::clone(eal.inner());
        if !eal.claim_port(id) {
            let name = name_of(id).unwrap_or_default();
            return Err(DpdkError::refused("rte_eth_dev_get_port_by_name", ErrorKind::PortInUse, format!("port {name} is open already")));
        }
        let inner = PortInner { id, started: AtomicBool::new(false), mempool: std::sync::Mutex::default(), _rings: rings, eal };
        Ok(Self { inner: Arc::new(inner), reta: None, rss: false })
    }

    /// DPDK's number of the port: what [`crate::mbuf::Mbuf::port`] says of its frames.
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    /// DPDK's name of the port.
    pub fn name(&self) -> String {
        name_of(self.inner.id).unwrap_or_default()
    }

    /// Starts reception and transmission on all queues.
    pub fn start(&mut self) -> Result<(), DpdkError> {
        let id = self.inner.id;
        if self.inner.started.load(Ordering::Acquire) {
            return Ok(());
        }
        // SAFETY: a port that we hold; no queue of it is used before `started` is set below.
        check("rte_eth_dev_start", unsafe { dpdk_sys::rte_eth_dev_start(id) })
            .map_err(|error| error.with_hint(format!("port {}", self.name())))?;
        if let Some((size, queues)) = self.reta {
            config::write_reta(id, size, queues);
        }
        self.inner.started.store(true, Ordering::Release);
        Ok(())
    }

    /// Stops the port.
    ///
    /// Errors: [`ErrorKind::QueuesInUse`] while one of its queues exists: a device must not stop under a burst.
    pub fn stop(&mut self) -> Result<(), DpdkError> {
        self.without_queues("rte_eth_dev_stop")?;
        self.inner.stop()
    }

    /// Refuses while queues exist; none can appear while the caller holds the port exclusively.
    fn without_queues(&mut self, call: &'static str) -> Result<(), DpdkError> {
        if Arc::get_mut(&mut self.inner).is_some() {
            return Ok(());
        }
        let hint = format!("drop the queues of port {} first", self.name());
        Err(DpdkError::refused(call, ErrorKind::QueuesInUse, hint))
    }

    /// The port's own MAC address.
    pub fn mac(&self) -> [u8; 6] {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: a port that we hold; six bytes are written. It fails for unknown ports only.
        unsafe { dpdk_sys::rte_eth_macaddr_get(self.inner.id, &raw mut address) };
        address.addr_bytes
    }

    /// Gives the port another MAC address.
    ///
    /// Errors: [`ErrorKind::Unsupported`]; [`ErrorKind::InvalidArgument`] for a multicast or zero address.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), DpdkError> {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: a port that we hold; six bytes are read.
        let status = unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(self.inner.id, &raw mut address) };
        check("rte_eth_dev_default_mac_addr_set", status).map(drop)
    }

    /// Receives these multicast addresses, in place of those set before; a device without such a filter takes all.
    pub fn set_multicast(&mut self, addresses: &[[u8; 6]]) -> Result<(), DpdkError> {
        const CALL: &str = "rte_eth_dev_set_mc_addr_list";
        let mut list: Vec<_> = addresses.iter().map(|&addr_bytes| dpdk_sys::rte_ether_addr { addr_bytes }).collect();
        let count = u32::try_from(list.len()).map_err(|_| DpdkError::from_errno(CALL, nix::errno::Errno::EINVAL as i32))?;
        // SAFETY: a port that we hold; `count` addresses are read.
        let status = unsafe { dpdk_sys::rte_eth_dev_set_mc_addr_list(self.inner.id, list.as_mut_ptr(), count) };
        match check(CALL, status) {
            Err(error) if error.kind == ErrorKind::Unsupported => config::all_multicast(self.inner.id),
            result => result.map(drop),
        }
    }

    /// Whether the device spreads flows over the rx queues by a hash with our key.
    pub fn rss_active(&self) -> bool {
        self.rss
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("id", &self.id()).field("name", &self.name()).finish()
    }
}

impl PortInner {
    fn stop(&self) -> Result<(), DpdkError> {
        if !self.started.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: a port that we hold, and no queue of it exists: callers make sure.
        check("rte_eth_dev_stop", unsafe { dpdk_sys::rte_eth_dev_stop(self.id) }).map(drop)
    }
}

impl Drop for PortInner {
    fn drop(&mut self) {
        // A device that does not stop is closed all the same: there is nobody left to tell.
        let _ = self.stop();
        // SAFETY: a port that we hold; its queues, each holding a reference to `self`, are gone.
        unsafe { dpdk_sys::rte_eth_dev_close(self.id) };
        self.eal.release_port(self.id);
    }
}

/// The id of the port of that name, whatever follows a comma in it.
fn id_of(name: &str) -> Result<u16, DpdkError> {
    const CALL: &str = "rte_eth_dev_get_port_by_name";
    let device = name.split(',').next().unwrap_or(name);
    let c_name = c_string(CALL, device)?;
    let mut id = 0;
    // SAFETY: the EAL runs, as callers see to; the name is NUL-terminated; one u16 is written.
    let status = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) };
    if status == 0 {
        return Ok(id);
    }
    let known: Vec<String> = all_ids().filter_map(name_of).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(DpdkError::from_status(CALL, status).with_kind(ErrorKind::PortNotFound).with_hint(format!("no port {device}; DPDK has: {known}")))
}

/// Ids of all ports that DPDK has.
fn all_ids() -> impl Iterator<Item = u16> {
    let next = |from: u16| {
        // SAFETY: looks the id up in a table; any id is allowed.
        let found = unsafe { dpdk_sys::rte_eth_find_next_owned_by(from, u64::from(dpdk_sys::RTE_ETH_DEV_NO_OWNER)) };
        u16::try_from(found).ok().filter(|&id| u32::from(id) < dpdk_sys::RTE_MAX_ETHPORTS)
    };
    std::iter::successors(next(0), move |&id| next(id + 1))
}

fn name_of(id: u16) -> Option<String> {
    let mut name: [c_char; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize] = [0; _];
    // SAFETY: the buffer has the length that the call demands.
    let status = unsafe { dpdk_sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) };
    (status == 0).then(|| crate::error::text(&name))
}

#[cfg(test)]
mod tests;
