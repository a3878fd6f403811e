//! Members of a bond: which have a link, and which carries its traffic, where one does for all (mode 1).

use std::time::Duration;

use super::{Port, id_of, name_of};
use crate::error::{DpdkError, check};

impl Port {
    /// Has this bond, before it is configured, ask the devices of these names, its members then, for their links from time to time. Otherwise it
    /// relies on interrupts of drivers that promise them, and some of those never come: `net_e1000_em` of an 82574 under vfio-pci, `net_vmxnet3` of
    /// QEMU's. What is no device, or no bond, is left alone.
    pub fn ask_members<'a>(&mut self, members: impl Iterator<Item = &'a str>, every: Duration) {
        for id in members.filter_map(|name| id_of(name).ok()) {
            // SAFETY: any id is allowed; the flags of a device that nobody has configured yet are changed.
            unsafe { dpdk_sys::baton_eth_link_by_asking(id) };
        }
        let milliseconds = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: a port that we hold; the call refuses one that is no bond.
        unsafe { dpdk_sys::rte_eth_bond_link_monitoring_set(self.inner.id, milliseconds) };
    }

    /// The names of the members that had a link when the bond last asked them; none for a port that is no bond.
    pub fn active_members(&self) -> Vec<String> {
        const ROOM: u16 = 32;
        let mut members = [0; ROOM as usize];
        // SAFETY: a port that we hold; the call refuses one that is no bond, and more members than there is room for.
        let count = unsafe { dpdk_sys::baton_bond_active(self.inner.id, members.as_mut_ptr(), ROOM) };
        members.iter().take(usize::try_from(count).unwrap_or(0)).filter_map(|id| name_of(*id)).collect()
    }

    /// The name of the member that carries the traffic; `None` for a port that is no bond, or has no member in use.
    pub fn primary(&self) -> Option<String> {
        // SAFETY: a port that we hold; the call refuses one that is no bond.
        let member = unsafe { dpdk_sys::rte_eth_bond_primary_get(self.inner.id) };
        u16::try_from(member).ok().and_then(name_of)
    }

    /// Makes the member of this name carry the traffic, under the bond's MAC.
    ///
    /// For drivers that do not tell the bond when a link goes: those that do have it changed by themselves. May be called while queues are used.
    ///
    /// Errors: [`crate::ErrorKind::PortNotFound`]; [`crate::ErrorKind::InvalidArgument`] for a port that is no bond.
    pub fn set_primary(&self, member: &str) -> Result<(), DpdkError> {
        let member = id_of(member)?;
        // SAFETY: a port that we hold; the call refuses what is no bond. The driver's bursts read the number of the member once each.
        check("rte_eth_bond_primary_set", unsafe { dpdk_sys::rte_eth_bond_primary_set(self.inner.id, member) })?;
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: self.mac() };
        // SAFETY: as above; six bytes are read.
        check("rte_eth_bond_mac_address_set", unsafe { dpdk_sys::rte_eth_bond_mac_address_set(self.inner.id, &raw mut address) }).map(drop)
    }
}
