//! Headers of frames, as typed views in place: [`crate::mbuf::Mbuf::view`] gives one at an offset.
//!
//! Every type has alignment 1 and no padding, holds numbers in network byte order, and accepts any bytes: a view says that
//! the bytes are there, never that they make sense. Accessors are total: no method panics, whatever the bytes.

pub mod checksum;
mod ethernet;
mod icmp;
mod ip;
mod transport;

pub use ethernet::{ArpPacket, EthernetHeader, VlanTag, arp_operation, ether_type};
pub use icmp::{Icmpv4Header, Icmpv6Header, LinkAddressOption, NeighbourAdvertisement, NeighbourSolicitation, icmpv4_kind, icmpv6_kind};
pub use ip::{Ipv4Header, Ipv6FragmentHeader, Ipv6Header, protocol};
pub use transport::{TcpHeader, UdpHeader, tcp_flags};
pub use zerocopy::byteorder::network_endian::{U16, U32};

#[cfg(test)]
mod tests;
