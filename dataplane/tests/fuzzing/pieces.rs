//! Fragments, right ones and tricks, what routers say about tunnels, and what real servers answer: things of which only the worker
//! is asked.

use super::choices::Choices;
use super::rig::ROUTER_MAC;
use crate::reference::wire::{L3, be16, checksum, checksum_with, v4_at, v6_at};

/// Cuts the packet in a frame into fragments, in some order, of which some may be missing, twice there or in each other's place.
/// Frames that are no packets, or fragments already, stay as they are.
pub fn cut(c: &mut Choices<'_>, frame: &[u8]) -> Vec<Vec<u8>> {
    let v4 = frame.len() >= 34 && frame[12..15] == [8, 0, 0x45];
    let v6 = frame.len() >= 54 && frame[12..14] == [0x86, 0xdd] && matches!(frame[20], 6 | 17 | 58 | 132);
    let header = L3 + if v4 { 20 } else { 40 };
    if !(v4 || v6) || (v4 && be16(frame, 20) & 0x3fff != 0) {
        return vec![frame.to_vec()];
    }
    let end = (L3 + if v4 { usize::from(be16(frame, 16)) } else { 40 + usize::from(be16(frame, 18)) }).min(frame.len());
    let message = frame.get(header..end).unwrap_or_default();
    // Few ids, so that they meet those of others.
    let id = c.below(4) as u16;
    let mut cuts = vec![0];
    while let Some(last) = cuts.last().copied().filter(|last| *last < message.len()) {
        let longest = if c.one_in(4) { 2 } else { 40 };
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
        if !c.one_in(12) {
            pieces.push(piece.clone());
        }
        if c.one_in(12) {
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

/// What a real server answers to a frame of ours, as it would with the director for its router.
pub fn answer(c: &mut Choices<'_>, sent: &[u8], our_mac: [u8; 6]) -> Option<Vec<u8>> {
    let mut frame = [&our_mac, sent.get(..6)?, sent.get(12..)?].concat();
    let (source, destination, length, l4) = match sent.get(12..15)? {
        [8, 0, 0x45] => (26, 30, 4, 34),
        [0x86, 0xdd, _] => (22, 38, 16, 54),
        _ => return None,
    };
    let ports = sent.get(l4..l4 + 4)?;
    frame[source..source + length].copy_from_slice(&sent[destination..destination + length]);
    frame[destination..destination + length].copy_from_slice(&sent[source..source + length]);
    frame[l4..l4 + 4].copy_from_slice(&[ports[2], ports[3], ports[0], ports[1]]);
    if let Some(flags) = frame.get_mut(l4 + 13).filter(|_| c.one_in(2)) {
        *flags = c.pick(&[0x12, 0x10, 0x11, 0x04, 0x18]);
    }
    Some(frame)
}
