//! VLANs (IEEE 802.1Q, 802.1ad): each is a port of its own behind the ports, by its tags.

use super::wire::be16;

/// A VLAN: the port that it is on, and its tags, the outer one first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vlan {
    pub port: usize,
    pub tags: Vec<u16>,
}

/// The VLAN that a frame of a port is of, and the frame without its tags. A frame with tags of no VLAN stays as it is; one with
/// a priority tag, which has the id 0, only loses that.
pub fn untag(vlans: &[Vlan], ports: usize, port: usize, frame: Vec<u8>) -> (usize, Vec<u8>) {
    if vlans.is_empty() {
        return (port, frame);
    }
    let tags: Vec<u16> = (0..2)
        .map(|n| 12 + 4 * n)
        .take_while(|at| frame.len() >= at + 4 && matches!(be16(&frame, *at), 0x8100 | 0x88a8))
        .map(|at| be16(&frame, at + 2) & 0xfff)
        .collect();
    let side = if tags == [0] { Some(port) } else { vlans.iter().position(|v| v.port == port && v.tags == tags).map(|n| ports + n) };
    match side {
        Some(side) => (side, [&frame[..12], &frame[12 + 4 * tags.len()..]].concat()),
        None => (port, frame),
    }
}

/// The frame as it leaves for a port or a VLAN, and by which port.
pub fn tagged(vlans: &[Vlan], ports: usize, side: usize, frame: Vec<u8>) -> (usize, Vec<u8>) {
    let Some(vlan) = side.checked_sub(ports).map(|n| &vlans[n]) else { return (side, frame) };
    let tag = |n: usize, id: &u16| [if n + 1 == vlan.tags.len() { 0x8100 } else { 0x88a8 }, *id].map(u16::to_be_bytes).concat();
    let tags: Vec<u8> = vlan.tags.iter().enumerate().flat_map(|(n, id)| tag(n, id)).collect();
    (vlan.port, [&frame[..12], &tags, &frame[12..]].concat())
}
