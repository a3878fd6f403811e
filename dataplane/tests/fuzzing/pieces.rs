//! Fragments, right ones and tricks, what routers say about tunnels, and the tags of VLANs.

use super::choices::Choices;
use super::frames::LONGEST;
use super::rig::ROUTER_MAC;
use crate::reference::vlans::Vlan;
use crate::reference::wire::{L3, be16, checksum, checksum_with, v4_at, v6_at};

/// Cuts the packet in a frame into fragments, in some order, of which some may be missing, twice there or in each other's place.
/// Frames that are no packets, or fragments already, stay as they are. `lossy`: most first ones are missing.
pub fn cut(c: &mut Choices<'_>, frame: &[u8], lossy: bool) -> Vec<Vec<u8>> {
    let v4 = frame.len() >= 34 && frame[12..15] == [8, 0, 0x45];
    let v6 = frame.len() >= 54 && frame[12..14] == [0x86, 0xdd] && matches!(frame[20], 6 | 17 | 58 | 132);
    let header = L3 + if v4 { 20 } else { 40 };
    if !(v4 || v6) || (v4 && be16(frame, 20) & 0x3fff != 0) {
        return vec![frame.to_vec()];
    }
    let end = (L3 + if v4 { usize::from(be16(frame, 16)) } else { 40 + usize::from(be16(frame, 18)) }).min(frame.len());
    let message = frame.get(header..end).unwrap_or_default();
    // Few ids, so that they meet those of others; or many, so that places for them run out.
    let id = if lossy { c.below(400) } else { c.below(4) } as u16;
    // More of one than may wait.
    let tiny = lossy && c.one_in(2);
    let mut cuts = vec![0];
    while let Some(last) = cuts.last().copied().filter(|last| *last < message.len()) {
        let longest = match (tiny, c.one_in(4)) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 40,
        };
        let step = 8 * (1 + c.below(longest));
        cuts.push((last + step).min(message.len()));
    }
    let mut pieces = Vec::new();
    for pair in cuts.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        if c.one_in(24) {
            from = from.saturating_sub(8);
        }
        let more = to < message.len();
        let mut piece = frame[..header].to_vec();
        if v4 {
            piece[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
            piece[18..20].copy_from_slice(&id.to_be_bytes());
            piece[20..22].copy_from_slice(&((from / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
            piece[24..26].fill(0);
            let sum = checksum(&piece[L3..]);
            piece[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            piece[18..20].copy_from_slice(&((8 + to - from) as u16).to_be_bytes());
            let next = std::mem::replace(&mut piece[20], 44);
            piece.extend([next, 0]);
            piece.extend((from as u16 | u16::from(more)).to_be_bytes());
            piece.extend([0, 0]);
            piece.extend(id.to_be_bytes());
        }
        piece.extend(&message[from..to]);
        if piece.len() < 60 && c.one_in(2) {
            // As no frame on a wire is shorter.
            piece.resize(60, c.pick(&[0, 0xee]));
        }
        let lost = if lossy && from == 0 { !c.one_in(4) } else { c.one_in(12) };
        if !lost {
            pieces.push(piece.clone());
        }
        if c.one_in(12) && !lost {
            pieces.push(piece);
        }
    }
    for at in (1..pieces.len()).rev() {
        if c.one_in(3) {
            pieces.swap(at, c.below(at + 1));
        }
    }
    pieces
}

/// What a router says that could not pass on an outer packet of ours: that it takes so many bytes only.
pub fn too_big(c: &mut Choices<'_>, sent: &[u8], our_mac: [u8; 6]) -> Option<Vec<u8>> {
    let v4 = sent.get(12..14)? == [8, 0];
    let mtu = c.pick(&[1400_u16, 1280, 576, 68, 0, 1500]);
    let [high, low] = mtu.to_be_bytes();
    let mut message = if v4 { vec![3, 4, 0, 0, 0, 0, high, low] } else { vec![2, 0, 0, 0, 0, 0, high, low] };
    let quoted = if c.one_in(4) { 28 } else { 200 };
    message.extend(sent.get(L3..)?.iter().take(quoted));
    let mut frame = [&our_mac[..], &ROUTER_MAC, sent.get(12..14)?].concat();
    let length = message.len() as u16;
    if v4 && sent.len() >= 34 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut header = [&[0x45, 0][..], &(20 + length).to_be_bytes(), &[0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 254]].concat();
        header.extend(v4_at(sent, 26).octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else if !v4 && sent.len() >= 54 {
        let (from, to) = (v6_at(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe], 0), v6_at(sent, 22));
        let sum = checksum_with(from.into(), to.into(), 58, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([58, 64]);
        frame.extend(from.octets());
        frame.extend(to.octets());
    }
    frame.extend(message);
    Some(frame)
}

/// A frame with the tags of a VLAN of its port, of none, or of one that there is not.
pub fn tag(c: &mut Choices<'_>, port: usize, vlans: &[Vlan], mut frame: Vec<u8>) -> Vec<u8> {
    frame.truncate(LONGEST);
    let of_port: Vec<&Vlan> = vlans.iter().filter(|vlan| vlan.port == port).collect();
    let tags = match c.below(32) {
        0..15 if !of_port.is_empty() => of_port[c.below(of_port.len())].tags.clone(),
        29 => vec![0],
        30 => vec![c.pick(&[0, 99, 100, 200]), c.pick(&[0, 100, 300])],
        31 => vec![c.short() & 0xfff],
        _ => return frame,
    };
    let Some((addresses, rest)) = frame.split_at_checked(12) else { return frame };
    let last = tags.len() - 1;
    let mut tagged = addresses.to_vec();
    for (n, id) in tags.into_iter().enumerate() {
        let kind: u16 = if n < last { c.pick(&[0x88a8, 0x8100]) } else { c.pick(&[0x8100, 0x8100, 0x8100, 0x88a8]) };
        // Priority and drop eligibility are nobody's business.
        let priority = if c.one_in(4) { u16::from(c.byte()) << 12 } else { 0 };
        tagged.extend(kind.to_be_bytes());
        tagged.extend((id | priority).to_be_bytes());
    }
    tagged.extend(rest);
    tagged.truncate(LONGEST);
    tagged
}
