//! Which member of a bond carries its traffic, where one does for all (mode 1).

use super::{Port, id_of, name_of};
use crate::error::{DpdkError, check};

impl Port {
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
