//! Translation of plain packets: makes the bytes that [`packet`](super::packet) makes one hop later, with every checksum folded once.
//!
//! Words are added as they lie in the packet: a ones' complement sum is the same in either byte order (RFC 1071 section 2).

use dpdk::net::checksum;

use super::{End, TCP_CHECKSUM, UDP_CHECKSUM};
use crate::address::Address;
use crate::connection::{ConnectionTable, EntryId};
use crate::plain::{Family, HeadV4, HeadV6, Transport, V4, V6, half, word};
use crate::service::Protocol;

/// An address as words of a header, of which the first byte is the lowest; one of IPv4 is the low half of the first.
pub type Words = [u64; 2];

/// The words of an address.
pub fn words(address: Address) -> Words {
    match address.as_v4() {
        Some(v4) => [u64::from(v4.swap_bytes()), 0],
        None => [word::<0, 16>(&address.0.to_be_bytes()), word::<8, 16>(&address.0.to_be_bytes())],
    }
}

/// A port as two bytes of a header, the first one lowest.
#[inline(always)]
pub const fn port_word(port: u16) -> u16 {
    port.swap_bytes()
}

/// Both [`Key::ports`](crate::connection::Key::ports) as [`port_word`]s, the source's first.
#[inline(always)]
pub const fn port_words(ports: u32) -> [u16; 2] {
    let [a, b, c, d] = ports.to_le_bytes();
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}

/// What is read and written of a plain packet that is translated.
pub trait Translated: Family {
    /// The beginning of a frame, to change, if it is long enough.
    fn head_mut(frame: &mut [u8]) -> Option<&mut Self::Head>;
    /// Writes two bytes of the transport header, the first one lowest.
    fn set_transport(head: &mut Self::Head, at: usize, pair: u16);
    /// TTL or hop limit.
    fn hops(head: &Self::Head) -> u8;
    /// An address.
    fn address(head: &Self::Head, end: End) -> Words;
    /// The address that a packet goes to.
    fn destination(head: &Self::Head) -> Address;
    /// The VIP of the entry in a place, if it is of this family.
    fn vip(table: &ConnectionTable, id: EntryId) -> Option<Words>;
    /// Writes `to` over an address and takes a hop, of which there are more than one; gives what is to be added to the checksums over
    /// the address, which `to` makes more than 0: two words at most.
    fn rewrite(head: &mut Self::Head, end: End, to: Words) -> u32;
}

/// What is to be added to the sum over an IPv4 header that loses a hop: the TTL is the low byte of its word here, so that this, 1 less than
/// before, and the complement of what it was always make the same.
const HOP_TAKEN: u32 = 0xfffe;

/// The sum of a word's halves, unfolded.
#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}

/// Bytes `at` and behind it, the first one lowest.
#[inline(always)]
fn pair<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn set_pair<const N: usize>(bytes: &mut [u8; N], at: usize, pair: u16) {
    [bytes[at], bytes[at + 1]] = pair.to_le_bytes();
}

impl Translated for V4 {
    #[inline(always)]
    fn head_mut(frame: &mut [u8]) -> Option<&mut HeadV4> {
        frame.first_chunk_mut()
    }

    #[inline(always)]
    fn set_transport(head: &mut HeadV4, at: usize, pair: u16) {
        set_pair(head, head.len() - 20 + at, pair);
    }

    #[inline(always)]
    fn hops(head: &HeadV4) -> u8 {
        head[22]
    }

    #[inline(always)]
    fn address(head: &HeadV4, end: End) -> Words {
        let address = if end == End::Source { half::<26, 54>(head) } else { half::<30, 54>(head) };
        [u64::from(address), 0]
    }

    #[inline(always)]
    fn destination(head: &HeadV4) -> Address {
        Address::v4(u32::from_be(half::<30, 54>(head)))
    }

    #[inline(always)]
    fn vip(table: &ConnectionTable, id: EntryId) -> Option<Words> {
        table.addresses_v4(id).map(|both| [both >> 32, 0])
    }

    #[inline(always)]
    fn rewrite(head: &mut HeadV4, end: End, [to, _]: Words) -> u32 {
        let [old, _] = Self::address(head, end);
        let change = checksum::shorten((!old & 0xffff_ffff) + to);
        head[22] -= 1;
        let sum = u32::from(!pair(head, 24)) + HOP_TAKEN + change;
        set_pair(head, 24, checksum::finish_few(sum));
        let [b0, b1, b2, b3, ..] = to.to_le_bytes();
        let at = if end == End::Source { 26 } else { 30 };
        head[at..at + 4].copy_from_slice(&[b0, b1, b2, b3]);
        change
    }
}

impl Translated for V6 {
    #[inline(always)]
    fn head_mut(frame: &mut [u8]) -> Option<&mut HeadV6> {
        frame.first_chunk_mut()
    }

    #[inline(always)]
    fn set_transport(head: &mut HeadV6, at: usize, pair: u16) {
        set_pair(head, head.len() - 20 + at, pair);
    }

    #[inline(always)]
    fn hops(head: &HeadV6) -> u8 {
        head[21]
    }

    #[inline(always)]
    fn address(head: &HeadV6, end: End) -> Words {
        match end {
            End::Source => [word::<22, 74>(head), word::<30, 74>(head)],
            End::Destination => [word::<38, 74>(head), word::<46, 74>(head)],
        }
    }

    #[inline(always)]
    fn destination(head: &HeadV6) -> Address {
        let [high, low] = Self::address(head, End::Destination).map(|word| u128::from(word.swap_bytes()));
        Address(high << 64 | low)
    }

    #[inline(always)]
    fn vip(table: &ConnectionTable, id: EntryId) -> Option<Words> {
        table.addresses_v6(id).map(|[_, _, first, second]| [first, second])
    }

    #[inline(always)]
    fn rewrite(head: &mut HeadV6, end: End, to: Words) -> u32 {
        let [first, second] = Self::address(head, end);
        head[21] -= 1;
        let at = if end == End::Source { 22 } else { 38 };
        head[at..at + 8].copy_from_slice(&to[0].to_le_bytes());
        head[at + 8..at + 16].copy_from_slice(&to[1].to_le_bytes());
        checksum::shorten(halves(!first) + halves(!second) + halves(to[0]) + halves(to[1]))
    }
}

/// Translates one end of a plain packet of `T` and takes a hop of the more than one that it has; `port` is a [`port_word`]. `None`, and
/// nothing is changed, for a UDP datagram without a checksum, which is to get one. Cost: two checksums mended, for IPv6 one.
#[inline(always)]
pub fn plain<F: Translated, T: Transport>(head: &mut F::Head, end: End, address: Words, port: u16) -> Option<()> {
    let udp = T::PROTOCOL as u8 == Protocol::Udp as u8;
    let (at, checksum_at) = (if end == End::Source { 0 } else { 2 }, if udp { UDP_CHECKSUM } else { TCP_CHECKSUM });
    let (old, old_port) = (pair(F::transport(head), checksum_at), pair(F::transport(head), at));
    if udp && old == 0 {
        return None;
    }
    let change = F::rewrite(head, end, address);
    let sum = checksum::finish_few(u32::from(!old) + change + u32::from(!old_port) + u32::from(port));
    F::set_transport(head, at, port);
    F::set_transport(head, checksum_at, if udp && sum == 0 { u16::MAX } else { sum });
    Some(())
}

#[cfg(test)]
mod tests;
