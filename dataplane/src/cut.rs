//! Cuts a packet that is longer than the way takes into fragments (RFC 791, RFC 8200 section 4.5): the outer packet of a tunnel,
//! or an IPv4 packet that masquerading routes on.

use arrayvec::ArrayVec;
use dpdk::burst::BURST;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{Ipv4Header, Ipv6FragmentHeader, Ipv6Header, checksum, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::forward::Refusal;
use crate::lanes::{Fate, Lanes, each};
use crate::parse::L3;
use crate::rules::Rules;
use crate::verdict::Verdict;

/// Second and later fragments on their way out, with the port that each leaves by.
pub type Pieces = ArrayVec<(u16, Mbuf), BURST>;

/// Headers in front of an IPv6 fragment's bytes.
const V6_HEADERS: usize = L3 + size_of::<Ipv6Header>() + size_of::<Ipv6FragmentHeader>();

/// Stage: masqueraded packets that are longer than the link they leave by are cut. The first piece stays in its lane, the
/// others come from `pool` and go to `pieces`. Cost without masquerading: one comparison a burst.
#[inline]
pub fn cut_long(lanes: &mut Lanes, rules: &Rules, pool: &Mempool, pieces: &mut Pieces) {
    if lanes.long != 0 {
        cut_lanes(lanes, rules, pool, pieces);
    }
}

#[inline(never)]
fn cut_lanes(lanes: &mut Lanes, rules: &Rules, pool: &Mempool, pieces: &mut Pieces) {
    for i in each(std::mem::take(&mut lanes.long)) {
        let Fate::Send(port, _) = lanes.fates[i] else { continue };
        let length = lanes.packets[i].length;
        let mtu = rules.routes.ports().get(usize::from(port)).map(|port| port.mtu);
        if mtu.is_some_and(|mtu| length <= mtu) {
            continue;
        }
        let frame = &mut lanes.frames[i];
        // What a device added behind the packet to fill the frame is not of it.
        let _ = frame.truncate(L3 + usize::from(length));
        let done = match mtu {
            Some(mtu) => cut(frame, lanes.packets[i].v4, 0, (mtu, port), pool, pieces),
            None => Err((Verdict::TooBig, None)),
        };
        if let Err((verdict, _)) = done {
            lanes.fates[i] = Fate::Drop(verdict);
        }
    }
}

/// What the fragments of a packet have in common.
#[derive(Clone, Copy)]
struct Whole {
    v4: bool,
    /// Bytes of frame in front of what is cut.
    headers: usize,
    /// Where it lies in its datagram, of which it may be a fragment itself.
    offset: usize,
    /// Whether others of that datagram follow.
    more: bool,
}

impl Whole {
    fn of(frame: &[u8], v4: bool) -> Option<Self> {
        if !v4 {
            return Some(Self { v4, headers: V6_HEADERS, offset: 0, more: false });
        }
        let (ip, _) = Ipv4Header::ref_from_prefix(frame.get(L3..)?).ok()?;
        let more = ip.flags_fragment.get() & Ipv4Header::MORE_FRAGMENTS != 0;
        Some(Self { v4, headers: L3 + ip.header_len(), offset: ip.fragment_offset(), more })
    }
}

/// Cuts the packet in `frame`, which is in one segment, into pieces of at most `mtu` bytes: the first stays in the frame, the
/// others come from `pool` and are put after `pieces`, with the port that they leave by. `id` is for IPv6; an IPv4 header has one.
pub fn cut(frame: &mut Mbuf, v4: bool, id: u32, (mtu, port): (u16, u16), pool: &Mempool, pieces: &mut Pieces) -> Result<(), Refusal> {
    let of = Whole::of(frame.data(), v4).ok_or((Verdict::Short, None))?;
    let headers = of.headers;
    let before = pieces.len();
    // Offsets count in units of eight bytes.
    let most = usize::from(mtu).saturating_sub(headers - L3) & !7;
    if most == 0 {
        return Err((Verdict::TooBig, None));
    }
    if !v4 {
        make_room(frame, id).ok_or((Verdict::NoBuffer, None))?;
    }
    let whole = frame.len().saturating_sub(headers);
    for offset in (most..whole).step_by(most) {
        let length = most.min(whole - offset);
        let more = offset + length < whole;
        let copied = pool.alloc().and_then(|mut piece| {
            let bytes = piece.append(headers + length)?;
            bytes[..headers].copy_from_slice(frame.data().get(..headers)?);
            bytes[headers..].copy_from_slice(frame.data().get(headers + offset..headers + offset + length)?);
            mark(bytes, of, offset, more)?;
            Some(piece)
        });
        if copied.is_none_or(|piece| pieces.try_push((port, piece)).is_err()) {
            pieces.truncate(before);
            return Err((Verdict::NoBuffer, None));
        }
    }
    let _ = frame.truncate(headers + most);
    mark(frame.data_mut(), of, 0, true).ok_or((Verdict::Short, None))
}

/// Puts a fragment header behind the IPv6 header.
fn make_room(frame: &mut Mbuf, id: u32) -> Option<()> {
    const FIXED: usize = L3 + size_of::<Ipv6Header>();
    frame.prepend(size_of::<Ipv6FragmentHeader>())?;
    let bytes = frame.data_mut().get_mut(..V6_HEADERS)?;
    bytes.copy_within(size_of::<Ipv6FragmentHeader>().., 0);
    let (ip, _) = Ipv6Header::mut_from_prefix(bytes.get_mut(L3..)?).ok()?;
    let next_header = std::mem::replace(&mut ip.next_header, protocol::FRAGMENT);
    let header = Ipv6FragmentHeader { next_header, reserved: 0, offset_flags: 0.into(), identification: id.into() };
    header.write_to(bytes.get_mut(FIXED..)?).ok()
}

/// Makes the packet in `frame` the fragment at `offset`, a multiple of eight, of what was cut; `more` tells whether others of it follow.
fn mark(frame: &mut [u8], of: Whole, offset: usize, more: bool) -> Option<()> {
    let length = u16::try_from(frame.len() - L3).ok()?;
    let at = u16::try_from(of.offset + offset).ok()?;
    let more = more || of.more;
    let l3 = frame.get_mut(L3..)?;
    if of.v4 {
        let header = l3.get_mut(..of.headers - L3)?;
        if offset != 0 {
            keep_copied(header.get_mut(size_of::<Ipv4Header>()..)?);
        }
        let (ip, _) = Ipv4Header::mut_from_prefix(header).ok()?;
        ip.total_length = length.into();
        ip.flags_fragment = ((at / 8) | if more { Ipv4Header::MORE_FRAGMENTS } else { 0 }).into();
        ip.checksum = 0.into();
        let sum = checksum::internet(header);
        header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    } else {
        let (ip, rest) = Ipv6Header::mut_from_prefix(l3).ok()?;
        // The IPv6 header does not count.
        ip.payload_length = length.checked_sub(40)?.into();
        let (fragment, _) = Ipv6FragmentHeader::mut_from_prefix(rest).ok()?;
        fragment.offset_flags = (at | u16::from(more)).into();
    }
    Some(())
}

/// Blanks the options that belong into a first fragment only (RFC 791 section 3.1).
fn keep_copied(options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut rest = options;
    while let Some(&kind) = rest.first() {
        let length = match kind {
            END => return,
            NO_OPERATION => 1,
            _ => rest.get(1).map_or(0, |length| usize::from(*length)).max(2),
        };
        let Some((option, after)) = rest.split_at_mut_checked(length) else { return };
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_with_the_copied_flag_are_in_later_fragments() {
        // Record route, no operation, loose source route, timestamp, end.
        let mut options = [7, 3, 4, 1, 131, 3, 4, 68, 4, 5, 0, 0];
        keep_copied(&mut options);
        assert_eq!(options, [1, 1, 1, 1, 131, 3, 4, 1, 1, 1, 1, 0]);
        let mut broken = [7, 40, 1];
        keep_copied(&mut broken);
        assert_eq!(broken, [7, 40, 1]);
    }
}
