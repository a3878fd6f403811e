//! TCP and UDP.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bits of [`TcpHeader::flags`] (RFC 9293 section 3.1).
pub mod tcp_flags {
    /// The sender has no more to send.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Breaks a connection.
    pub const RST: u8 = 0x04;
    /// Hand the data on at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// TCP header without options, 20 bytes (RFC 9293 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// Port of the sender.
    pub source_port: U16,
    /// Port of the receiver.
    pub destination_port: U16,
    /// Number of the first byte of data.
    pub sequence: U32,
    /// Number of the byte expected next.
    pub acknowledgement: U32,
    /// Header length in 4-byte words (high 4 bits), reserved (low 4 bits).
    pub offset_reserved: u8,
    /// See [`tcp_flags`].
    pub flags: u8,
    /// Bytes that the sender can take.
    pub window: U16,
    /// Checksum over pseudo-header, header and data.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl TcpHeader {
    /// Bytes of the header without options.
    pub const LEN: usize = size_of::<Self>();

    /// Header length in bytes, options included: 0 to 60; at least 20 unless the bytes lie.
    #[inline(always)]
    pub fn data_offset(&self) -> usize {
        usize::from(self.offset_reserved >> 4) * 4
    }

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// UDP header, 8 bytes (RFC 768).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// Port of the sender.
    pub source_port: U16,
    /// Port of the receiver.
    pub destination_port: U16,
    /// Bytes of header and data.
    pub length: U16,
    /// Checksum over pseudo-header, header and data; 0 for none (IPv4 only).
    pub checksum: U16,
}

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
}
