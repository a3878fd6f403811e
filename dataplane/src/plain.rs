//! Plain packets: TCP or UDP addressed to us, without IP options or extension headers, not fragmented, with nothing wrong.
//!
//! Nearly every packet is one. Whoever has only to know to which connection a plain packet belongs reads the words that he
//! needs from their places in the frame, and no [`Packet`](crate::parse::Packet) is made of it.

use dpdk::mbuf::Mbuf;

use crate::connection::{Addresses, Hasher, Key};
use crate::exits::Lifetimes;
use crate::parse::{Kind, L3, Packet, check_v4, check_v6};
use crate::service::Protocol;
use crate::tcp::{self, State};
use crate::verdict::Verdict;

/// Bytes of a TCP segment's headers over IPv4 without any options; no frame on a wire is shorter than 60.
pub type HeadV4 = [u8; 54];
/// Bytes of a TCP segment's headers over IPv6 without any options or extension headers.
pub type HeadV6 = [u8; 74];

/// In an IPv4 header, behind the identification: what only fragments have (more to come, or an offset), and the protocol.
const MASK_WHOLE: u32 = u32::from_le_bytes([0x3f, 255, 0, 255]);
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Bytes behind an IPv6 header in the longest packet of which the length fits 16 bits.
const LONGEST_V6: usize = 0xffff - IPV6_HEADER;

/// Flags of which an ordinary segment has the last alone.
const TELLING: u8 = tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK;

/// Eight bytes from `AT` on, the first one lowest. Cost: one load.
#[inline(always)]
pub(crate) fn word<const AT: usize, const N: usize>(head: &[u8; N]) -> u64 {
    head[AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Four bytes from `AT` on, the first one lowest. Cost: one load.
#[inline(always)]
pub(crate) fn half<const AT: usize, const N: usize>(head: &[u8; N]) -> u32 {
    head[AT..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Two bytes from `AT` on, in network order. Cost: a load and a rotation.
#[inline(always)]
fn number<const AT: usize, const N: usize>(head: &[u8; N]) -> u16 {
    u16::from_be_bytes([head[AT], head[AT + 1]])
}

/// The last 20 bytes. Cost: none.
#[inline(always)]
fn last<const N: usize>(head: &[u8; N]) -> &[u8; 20] {
    const { assert!(N >= 20) };
    head.last_chunk().unwrap_or(&[0; 20])
}

/// How plain frames to one of our ports begin: from another station's own address to ours. A station whose address ends in the
/// same four bytes as ours is not told apart from us.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet {
    destination: u64,
    source: u32,
}

/// In the first eight bytes, the destination and the group bit of the source.
const DESTINATION: u64 = 0x0001_ffff_ffff_ffff;
/// The type of IPv4 and, behind it, version and length of a header without options.
const TYPE_V4: u32 = u32::from_le_bytes([8, 0, 0x45, 0]);
/// The bits that make it so.
const MASK_V4: u32 = u32::from_le_bytes([255, 255, 255, 0]);
/// The type and the version of IPv6.
const TYPE_V6: u32 = u32::from_le_bytes([0x86, 0xdd, 0x60, 0]);
/// The bits that make it so.
const MASK_V6: u32 = u32::from_le_bytes([255, 255, 0xf0, 0]);

impl Ethernet {
    /// Of the port with this MAC.
    pub const fn to(our_mac: [u8; 6]) -> Self {
        let [m0, m1, m2, m3, m4, m5] = our_mac;
        Self { destination: u64::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0]), source: u32::from_le_bytes([m2, m3, m4, m5]) }
    }

    #[inline(always)]
    fn begins<const N: usize>(&self, head: &[u8; N]) -> bool {
        (word::<0, N>(head) ^ self.destination) & DESTINATION == 0 && half::<8, N>(head) != self.source
    }
}

/// What a plain packet is of.
pub trait Transport {
    /// Its IP protocol number.
    const PROTOCOL: Protocol;
    /// The state of an established connection.
    const ESTABLISHED: State;
    /// Whether the header, of which these are the first 20 bytes, is a right one behind `ip` bytes in a packet of `length`.
    fn is_right(head: &[u8; 20], ip: usize, length: usize) -> bool;
    /// Whether a packet with this header changes nothing about an established connection but its time.
    fn continues(head: &[u8; 20]) -> bool;
    /// Ticks that an established connection lives without a packet.
    fn timeout(lifetimes: Lifetimes) -> u32;
}

/// TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;
/// UDP.
#[derive(Clone, Copy, Debug)]
pub struct Udp;

impl Transport for Tcp {
    const PROTOCOL: Protocol = Protocol::Tcp;
    const ESTABLISHED: State = State::Established;

    #[inline(always)]
    fn is_right(head: &[u8; 20], ip: usize, length: usize) -> bool {
        let words = usize::from(head[12]) >> 4;
        words >= 5 && ip + words * 4 <= length
    }

    #[inline(always)]
    fn continues(head: &[u8; 20]) -> bool {
        head[13] & TELLING == tcp::ACK
    }

    #[inline(always)]
    fn timeout(lifetimes: Lifetimes) -> u32 {
        lifetimes.tcp
    }
}

impl Transport for Udp {
    const PROTOCOL: Protocol = Protocol::Udp;
    const ESTABLISHED: State = State::None;

    #[inline(always)]
    fn is_right(head: &[u8; 20], ip: usize, length: usize) -> bool {
        let claimed = number::<4, 20>(head);
        claimed >= 8 && ip + usize::from(claimed) <= length
    }

    #[inline(always)]
    fn continues(_: &[u8; 20]) -> bool {
        true
    }

    #[inline(always)]
    fn timeout(lifetimes: Lifetimes) -> u32 {
        lifetimes.udp
    }
}

/// What the short way reads of a plain packet of one family.
pub trait Family {
    /// The bytes that it reads.
    type Head;
    /// Whether it is IPv4.
    const V4: bool;

    /// Asks for the lines of a frame that the rest reads.
    fn prefetch(frame: &Mbuf);
    /// The beginning of a frame, if it is long enough.
    fn head(frame: &[u8]) -> Option<&Self::Head>;
    /// Whether a frame of `whole` bytes is a plain packet of `T`.
    ///
    /// Addresses are not looked at: no connection is made for wrong ones, so that what the connection table knows is right. All that
    /// is plain [`parse`](crate::parse::parse) accepts as a flow or, for its addresses, drops. `doubted` is the device's word on the
    /// IPv4 header checksum, see [`doubts_ip_checksum`](dpdk::mbuf::Mbuf::doubts_ip_checksum).
    fn is_plain<T: Transport>(head: &Self::Head, whole: usize, doubted: bool, ethernet: &Ethernet) -> bool;
    /// The beginning of the transport header.
    fn transport(head: &Self::Head) -> &[u8; 20];
    /// CIP and VIP as one [`word`](Hasher::word).
    fn word(head: &Self::Head, hasher: &Hasher) -> u64;
    /// CIP and VIP.
    fn addresses(head: &Self::Head) -> Addresses;
    /// The ports, as in [`Key::ports`](crate::connection::Key::ports).
    fn ports(head: &Self::Head) -> u32;
    /// Bytes of the IP packet.
    fn length(head: &Self::Head) -> u16;
    /// The whole packet, which is a plain one of `T`; the verdict on wrong addresses.
    fn read<T: Transport>(head: &Self::Head) -> Result<Packet, Verdict> {
        let (transport, protocol) = (Self::transport(head), T::PROTOCOL as u8);
        let key = Key::of(Self::addresses(head), Self::ports(head), protocol);
        let ip = size_of::<Self::Head>() - transport.len() - L3;
        if let (Some(client), Some(vip)) = (key.client.as_v4().filter(|_| Self::V4), key.virtual_.as_v4().filter(|_| Self::V4)) {
            check_v4(client, vip)?;
        } else {
            check_v6(key.client, key.virtual_)?;
            if key.client.0 == 0 {
                // Only duplicate address detection speaks without an address (RFC 4862 section 5.4.2).
                return Err(Verdict::MartianSource);
            }
        }
        let tcp_flags = if T::PROTOCOL as u8 == Protocol::Tcp as u8 { transport[13] } else { 0 };
        // At most 54.
        let l4 = u16::try_from(L3 + ip).unwrap_or_default();
        Ok(Packet { kind: Kind::Flow, v4: Self::V4, to_us: true, tcp_flags, l4, length: Self::length(head), key })
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
    fn both(head: &HeadV4) -> u64 {
        word::<26, 54>(head)
    }

    /// Whether the checksum is right, for a header whose fragment offset is known to be 0.
    ///
    /// A right header's 16-bit words add up to a multiple of 65535 and not to 0 (RFC 1071), whatever their byte order, and so do
    /// words of 64 bits, as 2^64 is one more than such a multiple.
    #[inline(always)]
    fn is_right_sum(head: &HeadV4) -> bool {
        // Multiples of an odd number are what its inverse makes small; written out, as a division is not always taken for that.
        const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
        // The last byte of the first word is of the fragment offset, so the first sum does not overflow.
        let sum = word::<14, 54>(head).wrapping_add(u64::from(half::<22, 54>(head)));
        let (sum, over) = sum.overflowing_add(Self::both(head));
        sum.wrapping_add(u64::from(over)).wrapping_mul(INVERSE) <= u64::MAX / 0xffff
    }
}

impl Family for V4 {
    type Head = HeadV4;
    const V4: bool = true;

    #[inline(always)]
    fn prefetch(frame: &Mbuf) {
        frame.prefetch(0);
    }

    #[inline(always)]
    fn head(frame: &[u8]) -> Option<&HeadV4> {
        frame.first_chunk()
    }

    #[inline(always)]
    fn is_plain<T: Transport>(head: &HeadV4, whole: usize, doubted: bool, ethernet: &Ethernet) -> bool {
        let length = usize::from(Self::length(head));
        half::<20, 54>(head) & MASK_WHOLE == u32::from_le_bytes([0, 0, 0, T::PROTOCOL as u8])
            && half::<12, 54>(head) & MASK_V4 == TYPE_V4
            && ethernet.begins(head)
            && !doubted
            && length + L3 <= whole
            && T::is_right(Self::transport(head), 20, length)
            && Self::is_right_sum(head)
    }

    #[inline(always)]
    fn transport(head: &HeadV4) -> &[u8; 20] {
        last(head)
    }

    #[inline(always)]
    fn word(head: &HeadV4, _: &Hasher) -> u64 {
        Self::both(head)
    }

    fn addresses(head: &HeadV4) -> Addresses {
        Addresses::V4(Self::both(head))
    }

    #[inline(always)]
    fn ports(head: &HeadV4) -> u32 {
        half::<34, 54>(head)
    }

    #[inline(always)]
    fn length(head: &HeadV4) -> u16 {
        number::<16, 54>(head)
    }
}

impl V6 {
    /// CIP and VIP.
    #[inline(always)]
    fn both(head: &HeadV6) -> [u64; 4] {
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
    fn prefetch(frame: &Mbuf) {
        frame.prefetch(0);
        // Where its ports are.
        frame.prefetch(64);
    }

    #[inline(always)]
    fn head(frame: &[u8]) -> Option<&HeadV6> {
        frame.first_chunk()
    }

    #[inline(always)]
    fn is_plain<T: Transport>(head: &HeadV6, whole: usize, _: bool, ethernet: &Ethernet) -> bool {
        let room = usize::from(Self::room(head));
        head[20] == T::PROTOCOL as u8
            && half::<12, 74>(head) & MASK_V6 == TYPE_V6
            && ethernet.begins(head)
            // Longer ones would need a length that 16 bits do not hold, and no link of ours carries them.
            && room <= LONGEST_V6
            && room + IPV6_HEADER + L3 <= whole
            && T::is_right(Self::transport(head), 0, room)
    }

    #[inline(always)]
    fn transport(head: &HeadV6) -> &[u8; 20] {
        last(head)
    }

    #[inline(always)]
    fn word(head: &HeadV6, hasher: &Hasher) -> u64 {
        hasher.digest(&Self::both(head))
    }

    fn addresses(head: &HeadV6) -> Addresses {
        Addresses::V6(Self::both(head))
    }

    #[inline(always)]
    fn ports(head: &HeadV6) -> u32 {
        half::<54, 74>(head)
    }

    #[inline(always)]
    fn length(head: &HeadV6) -> u16 {
        Self::room(head).wrapping_add(40)
    }
}

#[cfg(test)]
mod tests;
