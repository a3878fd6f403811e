//! What routers say about the length of our tunnels' packets (RFC 1191, RFC 8201).

use std::net::{IpAddr, SocketAddr};

use super::connections::Key;
use super::wire::{L3, Packet, be16, checksum, checksum_with, v4_at, v6_at};
use super::{Director, Kind};

/// Ten minutes.
const LIFETIME: u32 = 60_000;

/// How long a packet may be on its way to a real server.
#[derive(Clone)]
pub struct Path {
    server: IpAddr,
    mtu: u16,
    until: u32,
}

/// Source, destination, protocol and what follows of an IP packet that is not a later fragment.
fn header(bytes: &[u8], v4: bool) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    if v4 {
        let length = usize::from(bytes.first()? & 15) * 4;
        let right = bytes.len() >= 20 && bytes[0] >> 4 == 4 && length >= 20;
        (right && matches!(be16(bytes, 6) & 0x1fff, 0)).then_some(())?;
        Some((v4_at(bytes, 12).into(), v4_at(bytes, 16).into(), bytes[9], bytes.get(length..)?))
    } else {
        (bytes.len() >= 40 && bytes[0] >> 4 == 6).then_some(())?;
        Some((v6_at(bytes, 8).into(), v6_at(bytes, 24).into(), bytes[6], &bytes[40..]))
    }
}

/// What is in a tunnel's packet behind its IP header, and of which family.
fn inside(protocol: u8, bytes: &[u8]) -> Option<(bool, &[u8])> {
    match protocol {
        4 => Some((true, bytes)),
        41 => Some((false, bytes)),
        17 => {
            // UDP, then GUE of version 0 with a length of options.
            let gue = bytes.get(8..).filter(|gue| gue.len() >= 4 && gue[0] & 0xe0 == 0)?;
            let inner = gue.get(4 + usize::from(gue[0] & 31) * 4..)?;
            matches!(gue[1], 4 | 41).then_some((gue[1] == 4, inner))
        }
        47 => {
            let flags = bytes.get(..4)?;
            let inner = match (flags[0], flags[1]) {
                (0, 0) => bytes.get(4..)?,
                (0x80, 0) => bytes.get(8..)?,
                _ => return None,
            };
            matches!(be16(flags, 2), 0x0800 | 0x86dd).then_some((be16(flags, 2) == 0x0800, inner))
        }
        _ => None,
    }
}

impl Director {
    /// Whether the frame says that packets of a tunnel of ours are too long: then that is believed, if it quotes one of them.
    pub(super) fn takes_notice(&mut self, frame: &[u8], packet: &Packet, port: usize) -> bool {
        if !matches!(packet.kind, Kind::Icmp | Kind::Icmpv6) || !self.is_local(packet.destination.ip(), port) {
            return false;
        }
        self.notice(frame, packet).is_some()
    }

    fn notice(&mut self, frame: &[u8], packet: &Packet) -> Option<()> {
        let v4 = packet.is_v4();
        let message = frame.get(packet.l4..L3 + packet.length).filter(|message| message.len() >= 8)?;
        let (sum, mtu) = if v4 {
            (checksum(message), u32::from(be16(message, 6)))
        } else {
            (
                checksum_with(packet.source.ip(), packet.destination.ip(), 58, message),
                u32::from(be16(message, 4)) << 16 | u32::from(be16(message, 6)),
            )
        };
        let kind: [u8; 2] = if v4 { [3, 4] } else { [2, 0] };
        (message[..2] == kind && sum == 0).then_some(())?;
        let (from, to, protocol, rest) = header(&message[8..], v4)?;
        let (inner_v4, inner) = inside(protocol, rest)?;
        let (source, destination, protocol, ports) = header(inner, inner_v4)?;
        let ports = ports.get(..4)?;
        let (client, virtual_): (SocketAddr, SocketAddr) = ((source, be16(ports, 0)).into(), (destination, be16(ports, 2)).into());
        let key = Key { template: false, aside: 0, protocol, client, virtual_ };
        let target = &self.servers.get(&self.connections.get(&key)?.server)?.snapshot;
        let source = target.tunnel?.source.ip();
        (source == from && target.address.ip() == to && from == packet.destination.ip()).then_some(())?;
        let mtu = mtu.min(0xffff) as u16;
        // The least that the kernel believes, and the least that there is.
        if to.is_ipv6() && mtu < 1280 {
            return None;
        }
        let mtu = if to.is_ipv4() { mtu.max(552) } else { mtu };
        self.paths.retain(|path| path.server != to);
        self.paths.push(Path { server: to, mtu, until: self.now.wrapping_add(LIFETIME) });
        Some(())
    }

    /// The most bytes that reach a real server by a link that takes `mtu`.
    pub(super) fn towards(&mut self, server: IpAddr, mtu: u16) -> u16 {
        let now = self.now;
        self.paths.retain(|path| path.server != server || now.wrapping_sub(path.until) >= 1 << 31);
        self.paths.iter().find(|path| path.server == server).map_or(mtu, |path| path.mtu.min(mtu))
    }
}
