//! Plain packets: TCP or UDP addressed to us, without IP options or extension headers, not fragmented, with nothing wrong.
//!
//! Nearly every packet is one. Whoever has only to know to which connection a plain packet belongs reads the words that he
//! needs from their places in the frame, and no [`Packet`](crate::parse::Packet) is made of it.

use dpdk::net::{ether_type, protocol};

use crate::connection::entry::Plain;
use crate::connection::{Addresses, ConnectionTable, Entry, EntryId, Hasher, Key};
use crate::parse::L3;
use crate::service::Protocol;
use crate::tcp::{self, State};

/// Bytes of a TCP segment's headers over IPv4 without any options; no frame on a wire is shorter than 60.
pub type HeadV4 = [u8; 54];
/// Bytes of a TCP segment's headers over IPv6 without any options or extension headers.
pub type HeadV6 = [u8; 74];

/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Bytes behind an IPv6 header in the longest packet of which the length fits 16 bits.
const LONGEST_V6: usize = 0xffff - IPV6_HEADER;

/// Flags of which an ordinary segment has the last alone.
const TELLING: u8 = tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK;

/// Eight bytes from `AT` on, the first one lowest. Cost: one load.
#[inline(always)]
fn word<const AT: usize, const N: usize>(head: &[u8; N]) -> u64 {
    head[AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Four bytes from `AT` on, the first one lowest. Cost: one load.
#[inline(always)]
fn half<const AT: usize, const N: usize>(head: &[u8; N]) -> u32 {
    head[AT..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Two bytes from `AT` on, in network order. Cost: a load and a rotation.
#[inline(always)]
fn number<const AT: usize, const N: usize>(head: &[u8; N]) -> u16 {
    u16::from_be_bytes([head[AT], head[AT + 1]])
}

/// How the first 16 bytes of plain frames to one of our ports begin: from another station's own address to ours, with the type
/// and the first byte of IP. A station whose address ends in the same four bytes as ours is not told apart from us.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet {
    v4: u128,
    v6: u128,
    ours: [u8; 4],
}

/// The bits that must be so: all of the destination and the type, the source's group bit, version and length of the IP header.
const MASK_V4: u128 = u128::from_le_bytes([255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 255, 255, 255, 0]);
/// For IPv6 the version alone.
const MASK_V6: u128 = u128::from_le_bytes([255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 255, 255, 0xf0, 0]);

impl Ethernet {
    /// Of the port with this MAC.
    pub const fn to(our_mac: [u8; 6]) -> Self {
        let [m0, m1, ours @ ..] = our_mac;
        let [m2, m3, m4, m5] = ours;
        let ([v4, v4_low], [v6, v6_low]) = (ether_type::IPV4.to_be_bytes(), ether_type::IPV6.to_be_bytes());
        Self {
            v4: u128::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0, 0, 0, 0, 0, v4, v4_low, 0x45, 0]),
            v6: u128::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0, 0, 0, 0, 0, v6, v6_low, 0x60, 0]),
            ours,
        }
    }

    #[inline(always)]
    fn is_before<const N: usize>(&self, head: &[u8; N], wanted: u128, mask: u128) -> bool {
        let first = head.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        (first ^ wanted) & mask == 0 && half::<8, N>(head) != u32::from_le_bytes(self.ours)
    }
}

/// Whether the transport header is a right one behind an IP header of `header` bytes in a whole packet of `length`. `offset` is
/// that byte of a TCP header, `claimed` the length of a UDP one.
#[inline(always)]
fn is_right_transport(protocol: u8, header: usize, length: usize, offset: u8, claimed: u16) -> bool {
    if protocol == protocol::TCP {
        return offset >= 5 << 4 && header + usize::from(offset >> 4) * 4 <= length;
    }
    protocol == protocol::UDP && claimed >= 8 && header + usize::from(claimed) <= length
}

/// What the short way reads of a plain packet of one family.
pub trait Family {
    /// The bytes that it reads.
    type Head;
    /// Whether it is IPv4.
    const V4: bool;

    /// The beginning of a frame, if it is long enough.
    fn head(frame: &[u8]) -> Option<&Self::Head>;
    /// Whether a frame of `whole` bytes is a plain packet, addresses aside: no connection is made for wrong ones, so that what the
    /// connection table knows is right. All that is plain [`parse`](crate::parse::parse) accepts as a flow or, for its addresses,
    /// drops. `doubted` is the device's word on the IPv4 header checksum, see
    /// [`doubts_ip_checksum`](dpdk::mbuf::Mbuf::doubts_ip_checksum).
    fn is_plain(head: &Self::Head, whole: usize, doubted: bool, ethernet: &Ethernet) -> bool;
    /// The hash of its key.
    fn hash(head: &Self::Head, hasher: &Hasher) -> u64;
    /// Its key.
    fn key(head: &Self::Head) -> Key;
    /// The ports, as in [`Key::ports`](crate::connection::Key::ports).
    fn ports(head: &Self::Head) -> u32;
    /// The IP protocol number.
    fn protocol(head: &Self::Head) -> u8;
    /// TCP's flags.
    fn tcp_flags(head: &Self::Head) -> u8;
    /// Bytes of the IP packet.
    fn length(head: &Self::Head) -> u16;
    /// The entry at `guess`, if it is as `plain` says and has this packet's addresses and ports.
    fn entry<'t>(table: &'t mut ConnectionTable, guess: EntryId, plain: Plain, head: &Self::Head) -> Option<&'t mut Entry>;

    /// What the entry of an established connection is like that this packet changes nothing about but its time; `None` for a
    /// packet that may change more. With it, whether it is TCP's.
    #[inline(always)]
    fn continues(head: &Self::Head) -> Option<(Plain, bool)> {
        if Self::protocol(head) == protocol::TCP {
            let usual = Self::tcp_flags(head) & TELLING == tcp::ACK;
            return usual.then_some((const { Plain::new(Protocol::Tcp, State::Established, Self::V4) }, true));
        }
        Some((const { Plain::new(Protocol::Udp, State::None, Self::V4) }, false))
    }
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl V4 {
    /// CIP and VIP.
    #[inline(always)]
    pub fn addresses(head: &HeadV4) -> u64 {
        word::<26, 54>(head)
    }

    /// Whether the checksum is right, for a header whose fragment offset is known to be 0.
    ///
    /// A right header's 16-bit words add up to a multiple of 65535 and not to 0 (RFC 1071), whatever their byte order, and so do
    /// words of 64 bits, as 2^64 is one more than such a multiple.
    #[inline(always)]
    fn is_right_sum(head: &HeadV4) -> bool {
        // The last byte of the first word is of the fragment offset, so the first sum does not overflow.
        let sum = word::<14, 54>(head).wrapping_add(u64::from(half::<22, 54>(head)));
        let (sum, over) = sum.overflowing_add(word::<26, 54>(head));
        (sum.wrapping_add(u64::from(over))).is_multiple_of(0xffff)
    }
}

impl Family for V4 {
    type Head = HeadV4;
    const V4: bool = true;

    #[inline(always)]
    fn head(frame: &[u8]) -> Option<&HeadV4> {
        frame.first_chunk()
    }

    #[inline(always)]
    fn is_plain(head: &HeadV4, whole: usize, doubted: bool, ethernet: &Ethernet) -> bool {
        let length = usize::from(Self::length(head));
        ethernet.is_before(head, ethernet.v4, MASK_V4)
            && (head[20] & 0x3f) | head[21] == 0 // neither more fragments nor an offset
            && Self::is_right_sum(head)
            && !doubted
            && length + L3 <= whole
            && is_right_transport(Self::protocol(head), 20, length, head[46], number::<38, 54>(head))
    }

    #[inline(always)]
    fn hash(head: &HeadV4, hasher: &Hasher) -> u64 {
        hasher.mix(Self::addresses(head), Self::ports(head), Self::protocol(head))
    }

    fn key(head: &HeadV4) -> Key {
        Key::of(Addresses::V4(Self::addresses(head)), Self::ports(head), Self::protocol(head))
    }

    #[inline(always)]
    fn ports(head: &HeadV4) -> u32 {
        half::<34, 54>(head)
    }

    #[inline(always)]
    fn protocol(head: &HeadV4) -> u8 {
        head[23]
    }

    #[inline(always)]
    fn tcp_flags(head: &HeadV4) -> u8 {
        head[47]
    }

    #[inline(always)]
    fn length(head: &HeadV4) -> u16 {
        number::<16, 54>(head)
    }

    #[inline(always)]
    fn entry<'t>(table: &'t mut ConnectionTable, guess: EntryId, plain: Plain, head: &HeadV4) -> Option<&'t mut Entry> {
        table.plain_v4(guess, plain, Self::addresses(head), Self::ports(head))
    }
}

impl V6 {
    /// CIP and VIP.
    #[inline(always)]
    fn addresses(head: &HeadV6) -> [u64; 4] {
        [word::<22, 74>(head), word::<30, 74>(head), word::<38, 74>(head), word::<46, 74>(head)]
    }

    /// Bytes behind the IP header.
    #[inline(always)]
    fn room(head: &HeadV6) -> u16 {
        number::<18, 74>(head)
    }
}

impl Family for V6 {
    type Head = HeadV6;
    const V4: bool = false;

    #[inline(always)]
    fn head(frame: &[u8]) -> Option<&HeadV6> {
        frame.first_chunk()
    }

    #[inline(always)]
    fn is_plain(head: &HeadV6, whole: usize, _: bool, ethernet: &Ethernet) -> bool {
        let room = usize::from(Self::room(head));
        ethernet.is_before(head, ethernet.v6, MASK_V6)
            && room + IPV6_HEADER + L3 <= whole
            // Longer ones would need a length that 16 bits do not hold, and no link of ours carries them.
            && room <= LONGEST_V6
            && is_right_transport(Self::protocol(head), 0, room, head[66], number::<58, 74>(head))
    }

    #[inline(always)]
    fn hash(head: &HeadV6, hasher: &Hasher) -> u64 {
        hasher.mix(hasher.digest(&Self::addresses(head)), Self::ports(head), Self::protocol(head))
    }

    fn key(head: &HeadV6) -> Key {
        Key::of(Addresses::V6(Self::addresses(head)), Self::ports(head), Self::protocol(head))
    }

    #[inline(always)]
    fn ports(head: &HeadV6) -> u32 {
        half::<54, 74>(head)
    }

    #[inline(always)]
    fn protocol(head: &HeadV6) -> u8 {
        head[20]
    }

    #[inline(always)]
    fn tcp_flags(head: &HeadV6) -> u8 {
        head[67]
    }

    #[inline(always)]
    fn length(head: &HeadV6) -> u16 {
        Self::room(head).wrapping_add(40)
    }

    #[inline(always)]
    fn entry<'t>(table: &'t mut ConnectionTable, guess: EntryId, plain: Plain, head: &HeadV6) -> Option<&'t mut Entry> {
        table.plain_v6(guess, plain, &Self::addresses(head), Self::ports(head))
    }
}

#[cfg(test)]
mod tests;
