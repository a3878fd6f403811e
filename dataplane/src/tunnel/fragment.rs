//! Cuts an outer packet that is longer than the way to the real server takes (RFC 791, RFC 8200 section 4.5).

use arrayvec::ArrayVec;
use dpdk::burst::BURST;
use dpdk::mbuf::Mbuf;
use dpdk::mempool::Mempool;
use dpdk::net::{Ipv4Header, Ipv6FragmentHeader, Ipv6Header, protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::forward::Refusal;
use crate::parse::L3;
use crate::verdict::Verdict;

/// Headers in front of an IPv6 fragment's bytes.
const V6_HEADERS: usize = L3 + size_of::<Ipv6Header>() + size_of::<Ipv6FragmentHeader>();

/// Cuts the packet in `frame`, whose outer header has no options, into pieces of at most `mtu` bytes: the first stays in the
/// frame, the others come from `pool` and are put after `pieces`, with the port that they leave by.
pub(super) fn cut(
    frame: &mut Mbuf,
    v4: bool,
    id: u32,
    (mtu, port): (u16, u16),
    pool: &Mempool,
    pieces: &mut ArrayVec<(u16, Mbuf), BURST>,
) -> Result<(), Refusal> {
    let headers = if v4 { L3 + size_of::<Ipv4Header>() } else { V6_HEADERS };
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
            mark(bytes, v4, offset, more)?;
            Some(piece)
        });
        if copied.is_none_or(|piece| pieces.try_push((port, piece)).is_err()) {
            pieces.truncate(before);
            return Err((Verdict::NoBuffer, None));
        }
    }
    let _ = frame.truncate(headers + most);
    mark(frame.data_mut(), v4, 0, true).ok_or((Verdict::Short, None))
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

/// Makes the packet in `frame` the fragment at `offset`, a multiple of eight.
fn mark(frame: &mut [u8], v4: bool, offset: usize, more: bool) -> Option<()> {
    let length = u16::try_from(frame.len() - L3).ok()?;
    let offset = u16::try_from(offset).ok()?;
    let l3 = frame.get_mut(L3..)?;
    if v4 {
        let (ip, _) = Ipv4Header::mut_from_prefix(l3).ok()?;
        ip.total_length = length.into();
        ip.flags_fragment = ((offset / 8) | if more { Ipv4Header::MORE_FRAGMENTS } else { 0 }).into();
        ip.checksum = ip.expected_checksum().into();
    } else {
        let (ip, rest) = Ipv6Header::mut_from_prefix(l3).ok()?;
        // The IPv6 header does not count.
        ip.payload_length = length.checked_sub(40)?.into();
        let (fragment, _) = Ipv6FragmentHeader::mut_from_prefix(rest).ok()?;
        fragment.offset_flags = (offset | u16::from(more)).into();
    }
    Some(())
}
