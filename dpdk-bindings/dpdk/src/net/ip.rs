//! IPv4 and IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;

/// Values of [`Ipv4Header::protocol`] and [`Ipv6Header::next_header`] (IANA protocol numbers).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// IPv4 header without options, 20 bytes (RFC 791 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (high 4 bits) and header length in 4-byte words (low 4 bits).
    pub version_ihl: u8,
    /// Type of service: DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Bytes of the packet, this header included.
    pub total_length: U16,
    /// Common to all fragments of one packet.
    pub identification: U16,
    /// Flags (3 bits) and fragment offset in 8-byte units (13 bits).
    pub flags_fragment: U16,
    /// Hops left.
    pub ttl: u8,
    /// What follows; see [`protocol`].
    pub protocol: u8,
    /// Checksum of the header, options included.
    pub checksum: U16,
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Bytes of the header without options.
    pub const LEN: usize = size_of::<Self>();
    /// Flag in [`Ipv4Header::flags_fragment`]: do not fragment.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// Flag in [`Ipv4Header::flags_fragment`]: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 0x2000;

    /// Version; 4 unless the bytes lie.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Header length in 4-byte words; at least 5 unless the bytes lie.
    #[inline(always)]
    pub fn ihl(&self) -> u8 {
        self.version_ihl & 0x0f
    }

    /// Header length in bytes, options included: 0 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.ihl()) * 4
    }

    /// Place of this fragment's payload in that of the packet, bytes.
    #[inline(always)]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_fragment.get() & 0x1fff) * 8
    }

    /// Whether the packet is a fragment: the first, one in the middle, or the last.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (Self::MORE_FRAGMENTS | 0x1fff) != 0
    }

    /// Whether the payload starts with a transport header: no fragment, or the first.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment_offset() == 0
    }

    /// Sender.
    #[inline(always)]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.source)
    }

    /// Receiver.
    #[inline(always)]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.destination)
    }

    /// Checksum that a header without options should have.
    ///
    /// With options, use [`checksum::internet`] over all of the header: 0 for a right one.
    pub fn expected_checksum(&self) -> u16 {
        let mut header = *self;
        header.checksum = U16::ZERO;
        checksum::internet(header.as_bytes())
    }

    /// Takes one hop off and mends the checksum (RFC 1624); `false`, and no change, when none is left to take.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) -> bool {
        if self.ttl == 0 {
            return false;
        }
        self.ttl -= 1;
        // The word with the TTL has become less by 0x100, so its complement is that much more, in whatever byte order; what does not fit goes
        // around, and 0xffff is written as 0.
        let sum = u32::from(u16::from_ne_bytes(self.checksum.to_bytes())) + u32::from(u16::from_ne_bytes([1, 0]));
        let [low, high, ..] = (sum + u32::from(sum >= 0xffff)).to_le_bytes();
        self.checksum = U16::from_bytes(u16::from_le_bytes([low, high]).to_ne_bytes());
        true
    }
}

/// IPv6 header, 40 bytes (RFC 8200 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_flow: U32,
    /// Bytes behind this header.
    pub payload_length: U16,
    /// What follows; see [`protocol`].
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Sender.
    pub source: [u8; 16],
    /// Receiver.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Version; 6 unless the bytes lie.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        (self.version_class_flow.as_bytes()[0]) >> 4
    }

    /// Traffic class: DSCP (6 bits) and ECN (2 bits).
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        let bytes = self.version_class_flow.as_bytes();
        bytes[0] << 4 | bytes[1] >> 4
    }

    /// Flow label, 20 bits.
    #[inline(always)]
    pub fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0x000f_ffff
    }

    /// Sender.
    #[inline(always)]
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.source)
    }

    /// Receiver.
    #[inline(always)]
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.destination)
    }
}

/// IPv6 fragment header, 8 bytes (RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6FragmentHeader {
    /// What follows; see [`protocol`].
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in 8-byte units (13 bits), reserved (2 bits), more fragments (1 bit).
    pub offset_flags: U16,
    /// Common to all fragments of one packet.
    pub identification: U32,
}

impl Ipv6FragmentHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Place of this fragment's payload in that of the packet, bytes.
    #[inline(always)]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.offset_flags.get() & !7)
    }

    /// Whether fragments follow this one.
    #[inline(always)]
    pub fn more_fragments(&self) -> bool {
        self.offset_flags.get() & 1 != 0
    }

    /// Whether the payload starts with a transport header.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment_offset() == 0
    }
}
