//! Ethernet, VLAN tags and ARP.

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Values of [`EthernetHeader::ether_type`] (IEEE 802 numbers, IANA).
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q VLAN tag follows.
    pub const VLAN: u16 = 0x8100;
    /// An outer 802.1ad VLAN tag follows.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// Ethernet II header, 14 bytes (IEEE 802.3 clause 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// MAC address of the receiver.
    pub destination: [u8; 6],
    /// MAC address of the sender.
    pub source: [u8; 6],
    /// What follows; see [`ether_type`].
    pub ether_type: U16,
}

impl EthernetHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
    /// The address of all stations.
    pub const BROADCAST: [u8; 6] = [0xff; 6];

    /// Whether the frame is for a group of stations: multicast or broadcast.
    #[inline(always)]
    pub fn is_multicast(&self) -> bool {
        self.destination[0] & 1 != 0
    }
}

/// What follows an ether type of [`ether_type::VLAN`], 4 bytes (IEEE 802.1Q clause 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN id (12 bits).
    pub tci: U16,
    /// What follows; see [`ether_type`].
    pub ether_type: U16,
}

impl VlanTag {
    /// Bytes of the tag.
    pub const LEN: usize = size_of::<Self>();

    /// VLAN id, 0 to 4095.
    #[inline(always)]
    pub fn id(&self) -> u16 {
        self.tci.get() & 0x0fff
    }
}

/// Values of [`ArpPacket::operation`] (RFC 826).
pub mod arp_operation {
    /// Who has the target address?
    pub const REQUEST: u16 = 1;
    /// The sender has.
    pub const REPLY: u16 = 2;
}

/// ARP for IPv4 over Ethernet, 28 bytes behind the Ethernet header (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    /// 1 for Ethernet.
    pub hardware_type: U16,
    /// 0x0800 for IPv4.
    pub protocol_type: U16,
    /// 6 for Ethernet.
    pub hardware_len: u8,
    /// 4 for IPv4.
    pub protocol_len: u8,
    /// Request or reply; see [`arp_operation`].
    pub operation: U16,
    /// MAC address of the sender.
    pub sender_mac: [u8; 6],
    /// IPv4 address of the sender.
    pub sender_ip: [u8; 4],
    /// MAC address of the target; zero in requests.
    pub target_mac: [u8; 6],
    /// IPv4 address that is asked for, or of the receiver of a reply.
    pub target_ip: [u8; 4],
}

impl ArpPacket {
    /// Bytes of the packet.
    pub const LEN: usize = size_of::<Self>();

    /// A packet for IPv4 over Ethernet.
    pub fn new(operation: u16, sender_mac: [u8; 6], sender_ip: Ipv4Addr, target_mac: [u8; 6], target_ip: Ipv4Addr) -> Self {
        Self {
            hardware_type: U16::new(1),
            protocol_type: U16::new(ether_type::IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac,
            sender_ip: sender_ip.octets(),
            target_mac,
            target_ip: target_ip.octets(),
        }
    }

    /// Whether the packet is about IPv4 over Ethernet, so that the addresses are where this type says.
    #[inline(always)]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware_type.get() == 1 && self.protocol_type.get() == ether_type::IPV4 && self.hardware_len == 6 && self.protocol_len == 4
    }
}
