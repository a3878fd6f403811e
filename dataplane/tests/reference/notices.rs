//! What routers say about our tunnels (RFC 2003, RFC 2473), above all how long packets may be (RFC 1191, RFC 8201).

use std::net::{IpAddr, SocketAddr};

use dataplane::service::Method;

use super::connections::{Connection, Key};
use super::forward::{Cause, error_about};
use super::handover::Journey;
use super::turn::Turn;
use super::wire::{L3, Packet, be16, checksum, checksum_with, v4_at, v6_at};
use super::{Director, Fate, Kind};

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
    /// What becomes of an ICMP error about a tunnel of ours, which quotes a connection's request as we sent it: the client is told. `None`
    /// for any other packet.
    pub(super) fn about_tunnel(
        &mut self,
        frame: &[u8],
        packet: &Packet,
        side: usize,
        journey: &mut Journey,
        turn: &mut Turn,
    ) -> Option<Fate> {
        let v4 = packet.is_v4();
        let is_icmp = matches!(packet.kind, Kind::Icmp | Kind::Icmpv6);
        (is_icmp && self.is_local(packet.destination.ip(), side)).then_some(())?;
        let message = frame.get(packet.l4..L3 + packet.length).filter(|message| message.len() >= 8)?;
        let (kind, code) = (message[0], message[1]);
        let too_long = if v4 { (kind, code) == (3, 4) } else { kind == 2 };
        let kinds: &[u8] = if v4 { &[3, 4, 11] } else { &[1, 2, 3] };
        kinds.contains(&kind).then_some(())?;
        let (from, to, protocol, rest) = header(&message[8..], v4)?;
        let (inner_v4, inner) = inside(protocol, rest)?;
        let (source, destination, protocol, ports) = header(inner, inner_v4)?;
        let ports = ports.get(..4).filter(|_| matches!(protocol, 6 | 17 | 132) && from == packet.destination.ip())?;
        let (client, virtual_): (SocketAddr, SocketAddr) = ((source, be16(ports, 0)).into(), (destination, be16(ports, 2)).into());
        let key = Key { template: false, aside: 0, protocol, client, virtual_ };
        let Some(Connection { server, service: _, method, .. }) = self.connections.get(&key) else {
            let request = Packet { source: client, destination: virtual_, protocol, ..*packet };
            self.service_of(&request)?;
            let owner = self.owner(protocol, client, virtual_);
            return self.error_elsewhere(journey, owner);
        };
        let target = &self.servers.get(server).filter(|_| *method == Method::Tunnel)?.snapshot;
        (target.tunnel?.source.ip() == from && target.address.ip() == to).then_some(())?;
        let sum = if v4 { checksum(message) } else { checksum_with(packet.source.ip(), packet.destination.ip(), 58, message) };
        if sum != 0 {
            return Some(Fate::Drop("bad_checksum"));
        }
        let cause = if too_long {
            let mtu = if v4 { u32::from(be16(message, 6)) } else { u32::from(be16(message, 4)) << 16 | u32::from(be16(message, 6)) };
            let link = target.next_hop.map_or(u16::MAX, |hop| hop.mtu);
            self.shorten(to, mtu.min(0xffff) as u16)?;
            let overhead = message.len() - 8 - inner.len();
            let room = self.towards(to, link).saturating_sub(overhead as u16);
            if inner_v4 {
                (inner[6] & 0x40 != 0).then_some(Cause::TooBig(room))
            } else {
                let room = room.max(1280);
                (be16(inner, 4) > room - 40).then_some(Cause::TooBig(room))
            }
        } else if inner_v4 {
            // From another family: the host is unreachable, or the address.
            Some(if v4 { Cause::OfTunnel(kind, code) } else { Cause::OfTunnel(3, 1) })
        } else {
            Some(Cause::OfTunnel(1, 3))
        };
        if let Some(cause) = cause {
            self.tell(&key, inner, cause, turn);
        }
        Some(Fate::Drop("tunnel_error"))
    }

    /// Tells a client by its gateway what became of a packet that it sent.
    fn tell(&mut self, key: &Key, quoted: &[u8], cause: Cause, turn: &mut Turn) {
        let Some(hop) = self.way_to(key.client.ip(), None) else { return };
        let Some(our_mac) = self.macs.get(usize::from(hop.port)).copied() else { return };
        if !self.icmp.take() || turn.room.buffers == 0 {
            return;
        }
        turn.room.buffers -= 1;
        let answer = error_about(quoted, (key.virtual_.ip(), key.client.ip()), [hop.mac, our_mac], cause);
        turn.ready.push((hop.port, answer));
        self.count_answer(key, 1, quoted.len());
    }

    /// From now on only so much reaches a real server, if that may be said.
    fn shorten(&mut self, server: IpAddr, mtu: u16) -> Option<()> {
        // The least that the kernel believes, and the least that there is.
        if server.is_ipv6() && mtu < 1280 {
            return None;
        }
        let mtu = if server.is_ipv4() { mtu.max(552) } else { mtu };
        self.paths.retain(|path| path.server != server);
        self.paths.push(Path { server, mtu, until: self.now.wrapping_add(LIFETIME) });
        Some(())
    }

    /// The most bytes that reach a real server by a link that takes `mtu`.
    pub(super) fn towards(&mut self, server: IpAddr, mtu: u16) -> u16 {
        let now = self.now;
        self.paths.retain(|path| path.server != server || now.wrapping_sub(path.until) >= 1 << 31);
        self.paths.iter().find(|path| path.server == server).map_or(mtu, |path| path.mtu.min(mtu))
    }
}
