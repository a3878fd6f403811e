//! ICMP for IPv4 and IPv6, and neighbour discovery.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Values of [`Icmpv4Header::kind`] (RFC 792).
pub mod icmpv4_kind {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// The packet could not be delivered.
    pub const UNREACHABLE: u8 = 3;
    /// Asks for an answer with the same data.
    pub const ECHO_REQUEST: u8 = 8;
    /// The packet ran out of hops, or of time for reassembly.
    pub const TIME_EXCEEDED: u8 = 11;
    /// The header makes no sense.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Values of [`Icmpv6Header::kind`] (RFC 4443, RFC 4861).
pub mod icmpv6_kind {
    /// The packet could not be delivered.
    pub const UNREACHABLE: u8 = 1;
    /// The packet is larger than the next link's MTU.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// The packet ran out of hops, or of time for reassembly.
    pub const TIME_EXCEEDED: u8 = 3;
    /// The header makes no sense.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Asks for an answer with the same data.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// Asks for a router.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// A router tells of itself.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Who has the target address?
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// The sender has.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// Start of every ICMP message, 8 bytes (RFC 792).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmpv4Header {
    /// What the message is; see [`icmpv4_kind`].
    pub kind: u8,
    /// Which of that kind.
    pub code: u8,
    /// Checksum over the message.
    pub checksum: U16,
    /// Echo: identifier and sequence number; unreachable with code 4: zero and the MTU.
    pub rest: [U16; 2],
}

impl Icmpv4Header {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
}

/// Start of most ICMP messages for IPv6, 8 bytes (RFC 4443 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmpv6Header {
    /// What the message is; see [`icmpv6_kind`].
    pub kind: u8,
    /// Which of that kind.
    pub code: u8,
    /// Checksum over pseudo-header and message.
    pub checksum: U16,
    /// Echo: identifier and sequence number; packet too big: the MTU.
    pub rest: [U16; 2],
}

impl Icmpv6Header {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
}

/// Neighbour solicitation without options, 24 bytes (RFC 4861 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NeighbourSolicitation {
    /// [`icmpv6_kind::NEIGHBOUR_SOLICITATION`].
    pub kind: u8,
    /// 0.
    pub code: u8,
    /// Checksum over pseudo-header and message.
    pub checksum: U16,
    /// Zero.
    pub reserved: U32,
    /// Address that is asked for.
    pub target: [u8; 16],
}

impl NeighbourSolicitation {
    /// Bytes of the message without options.
    pub const LEN: usize = size_of::<Self>();
}

/// Neighbour advertisement without options, 24 bytes (RFC 4861 section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NeighbourAdvertisement {
    /// [`icmpv6_kind::NEIGHBOUR_ADVERTISEMENT`].
    pub kind: u8,
    /// 0.
    pub code: u8,
    /// Checksum over pseudo-header and message.
    pub checksum: U16,
    /// [`Self::ROUTER`], [`Self::SOLICITED`], [`Self::OVERRIDE`]; the rest zero.
    pub flags: U32,
    /// Address that the sender has.
    pub target: [u8; 16],
}

impl NeighbourAdvertisement {
    /// Bytes of the message without options.
    pub const LEN: usize = size_of::<Self>();
    /// The sender is a router.
    pub const ROUTER: u32 = 0x8000_0000;
    /// Answers a solicitation.
    pub const SOLICITED: u32 = 0x4000_0000;
    /// Replaces what the receiver knew.
    pub const OVERRIDE: u32 = 0x2000_0000;
}

/// Option of neighbour discovery that carries an Ethernet address, 8 bytes (RFC 4861 section 4.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LinkAddressOption {
    /// [`Self::SOURCE`] or [`Self::TARGET`].
    pub kind: u8,
    /// Length of the option in 8-byte units: 1.
    pub length: u8,
    /// The address.
    pub mac: [u8; 6],
}

impl LinkAddressOption {
    /// Bytes of the option.
    pub const LEN: usize = size_of::<Self>();
    /// Address of the sender, in solicitations.
    pub const SOURCE: u8 = 1;
    /// Address of the target, in advertisements.
    pub const TARGET: u8 = 2;
}
