//! What leaves: direct routing, tunnels, and the ICMP errors about what cannot leave.

use std::net::IpAddr;

use dataplane::service::{Method, NextHop, Tunnel};
use dataplane::settings::Ttl;

use super::wire::{L3, Packet, be16, checksum, checksum_with};
use super::{Director, Server, encapsulation};

/// Why a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    PortUnreachable,
    TimeExceeded,
    TooBig(u16),
    /// What a router said of a tunnel: type and code.
    OfTunnel(u8, u8),
    Reset,
}

/// Everything leaves by one method before the next one's turn.
pub const ORDER: [Method; 3] = [Method::DirectRouting, Method::Tunnel, Method::Masquerading];

pub(super) type Refusal = (&'static str, Option<Cause>);

/// One hop later; `false`, and no change, when there would be none left.
pub(super) fn lower_ttl(frame: &mut [u8], v4: bool) -> bool {
    let at = if v4 { L3 + 8 } else { L3 + 7 };
    if frame[at] <= 1 {
        return false;
    }
    if v4 {
        // RFC 1624, equation 3: the word of TTL and protocol is 256 less.
        let before = be16(frame, at);
        frame[at] -= 1;
        let (sum, after) = (be16(frame, at + 2), be16(frame, at));
        let mut new = u32::from(!sum) + u32::from(!before) + u32::from(after);
        while new > 0xffff {
            new = (new >> 16) + (new & 0xffff);
        }
        frame[at + 2..at + 4].copy_from_slice(&(!(new as u16)).to_be_bytes());
    } else {
        frame[at] -= 1;
    }
    true
}

pub fn with_ethernet(to: [u8; 6], from: [u8; 6], v4: bool, packets: &[&[u8]]) -> Vec<u8> {
    let ether_type: &[u8] = if v4 { &[8, 0] } else { &[0x86, 0xdd] };
    [&to, &from, ether_type, &packets.concat()].concat()
}

#[expect(clippy::too_many_arguments, reason = "a header has as many fields")]
pub fn v4_header(tos: u8, length: usize, id: u16, flags_and_offset: u16, ttl: u8, protocol: u8, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let mut header = vec![0x45, tos];
    header.extend((length as u16).to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(flags_and_offset.to_be_bytes());
    header.extend([ttl, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

pub fn v6_header(class: u8, payload: usize, next: u8, hops: u8, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("IPv6") };
    let mut header = vec![0x60 | class >> 4, class << 4, 0, 0];
    header.extend((payload as u16).to_be_bytes());
    header.extend([next, hops]);
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

impl Director {
    /// Makes the frame, which came by `side`, one for the real server; gives the port that it leaves by. Further pieces of it go
    /// to `later`.
    pub(super) fn forward(
        &mut self,
        (server, method): (u32, Method),
        frame: &mut Vec<u8>,
        packet: &Packet,
        side: usize,
        later: &mut Vec<Vec<u8>>,
    ) -> Result<u16, Refusal> {
        let Some(Server { snapshot, loops, .. }) = self.servers.get(&server) else { return Err(("real_server_removed", None)) };
        if *loops {
            return Err(("would_loop", None));
        }
        let hop = snapshot.next_hop.filter(|hop| usize::from(hop.port) < self.macs.len()).ok_or(("no_next_hop", None))?;
        let our_mac = self.macs[usize::from(hop.port)];
        match method {
            Method::DirectRouting => {
                if packet.length > usize::from(hop.mtu) {
                    let may_tell = !packet.is_v4() || frame[L3 + 6] & 0x40 != 0;
                    return Err(("too_big", may_tell.then_some(Cause::TooBig(hop.mtu))));
                }
                if self.settings.ttl == Ttl::Decrement && !lower_ttl(frame, packet.is_v4()) {
                    return Err(("ttl_expired", Some(Cause::TimeExceeded)));
                }
                frame[..6].copy_from_slice(&hop.mac);
                frame[6..12].copy_from_slice(&our_mac);
                Ok(hop.port)
            }
            Method::Tunnel => {
                let (to, tunnel) = (snapshot.address.ip(), snapshot.tunnel.ok_or(("no_next_hop", None))?);
                self.tunnel(frame, packet, &hop, tunnel, to, later)
            }
            Method::Masquerading => self.masquerade(server, frame, packet, &hop, side),
        }
    }

    /// RFC 2003 and RFC 2473 as the kernel has them: the outer header takes over class, hops and "do not fragment"; a mark of
    /// congestion stays inside.
    fn tunnel(
        &mut self,
        frame: &mut Vec<u8>,
        packet: &Packet,
        hop: &NextHop,
        tunnel: Tunnel,
        to: IpAddr,
        later: &mut Vec<Vec<u8>>,
    ) -> Result<u16, Refusal> {
        if !lower_ttl(frame, packet.is_v4()) {
            return Err(("ttl_expired", Some(Cause::TimeExceeded)));
        }
        let from = tunnel.source.ip();
        let inner = frame[L3..L3 + packet.length].to_vec();
        let (class, hops, may_fragment, protocol) =
            if packet.is_v4() { (inner[1], inner[8], inner[6] & 0x40 == 0, 4) } else { ((be16(&inner, 0) >> 4) as u8, inner[7], true, 41) };
        let may_fragment = may_fragment || !self.settings.pmtu_disc;
        let class = if class & 3 == 3 { class & 0xfc | 2 } else { class };
        let (protocol, inner) = encapsulation::wrap(tunnel.encapsulation, packet, protocol, &inner, from, to);
        let header = if to.is_ipv4() { 20 } else { 40 } + (inner.len() - packet.length) as u16;
        let mtu = self.towards(to, hop.mtu);
        let room = mtu.saturating_sub(header);
        let fits = packet.length <= usize::from(room);
        if !fits {
            // Who may not be told to send less than the least that every link carries.
            let told = if packet.is_v4() { (!may_fragment).then_some(room) } else { Some(room.max(1280)) };
            if let Some(told) = told.filter(|told| packet.length > usize::from(*told)) {
                return Err(("too_big", Some(Cause::TooBig(told))));
            }
        }
        let our_mac = self.macs[usize::from(hop.port)];
        if to.is_ipv6() && fits {
            let outer = v6_header(class, inner.len(), protocol, hops, from, to);
            *frame = with_ethernet(hop.mac, our_mac, false, &[&outer, &inner]);
            return Ok(hop.port);
        }
        if may_fragment {
            self.last_id = self.last_id.wrapping_add(self.workers as u32);
        }
        let id = if may_fragment { self.last_id } else { 0 };
        let piece = |offset: usize, length: usize, flags: u16| {
            let bytes = &inner[offset..offset + length];
            if to.is_ipv6() {
                let outer = v6_header(class, 8 + length, 44, hops, from, to);
                let mut header = vec![protocol, 0];
                header.extend((offset as u16 | flags >> 13).to_be_bytes());
                header.extend(id.to_be_bytes());
                return with_ethernet(hop.mac, our_mac, false, &[&outer, &header, bytes]);
            }
            let outer = v4_header(class, 20 + length, id as u16, flags | (offset / 8) as u16, hops, protocol, from, to);
            with_ethernet(hop.mac, our_mac, true, &[&outer, bytes])
        };
        if fits {
            *frame = piece(0, inner.len(), if may_fragment { 0 } else { 0x4000 });
            return Ok(hop.port);
        }
        let most = usize::from(mtu.saturating_sub(if to.is_ipv6() { 48 } else { 20 })) / 8 * 8;
        if most == 0 {
            return Err(("too_big", None));
        }
        let offsets: Vec<usize> = (0..inner.len()).step_by(most).collect();
        for (n, offset) in offsets.iter().enumerate() {
            let length = most.min(inner.len() - offset);
            let fragment = piece(*offset, length, if n + 1 < offsets.len() { 0x2000 } else { 0 });
            if n == 0 {
                *frame = fragment;
            } else {
                later.push(fragment);
            }
        }
        Ok(hop.port)
    }
}

/// The ICMP error about a frame, to the MAC that it came from, as from `own` or the address that it was sent to.
pub fn icmp_error(frame: &[u8], packet: &Packet, our_mac: [u8; 6], cause: Cause, own: Option<IpAddr>) -> Vec<u8> {
    let sender = [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]];
    let (from, to) = (own.unwrap_or(packet.destination.ip()), packet.source.ip());
    error_about(&frame[L3..L3 + packet.length], (from, to), [sender, our_mac], cause)
}

/// The ICMP error about a packet, from and to these addresses and MACs, of which the receiver's comes first.
pub fn error_about(packet: &[u8], (from, to): (IpAddr, IpAddr), [to_mac, our_mac]: [[u8; 6]; 2], cause: Cause) -> Vec<u8> {
    let v4 = from.is_ipv4();
    let (most, header) = if v4 { (576, 20) } else { (1280, 40) };
    let quote = &packet[..packet.len().min(most - header - 8)];
    let (kind, code, value): (u8, u8, u32) = match (cause, v4) {
        (Cause::Reset, _) => panic!("no ICMP error"),
        (Cause::PortUnreachable, true) => (3, 3, 0),
        (Cause::PortUnreachable, false) => (1, 4, 0),
        (Cause::TimeExceeded, true) => (11, 0, 0),
        (Cause::TimeExceeded, false) => (3, 0, 0),
        (Cause::TooBig(mtu), true) => (3, 4, u32::from(mtu)),
        (Cause::TooBig(mtu), false) => (2, 0, u32::from(mtu)),
        (Cause::OfTunnel(kind, code), _) => (kind, code, 0),
    };
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(value.to_be_bytes());
    icmp.extend(quote);
    let sum = if v4 { checksum(&icmp) } else { checksum_with(from, to, 58, &icmp) };
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let outer = if v4 { v4_header(0xc0, 20 + icmp.len(), 0, 0x4000, 64, 1, from, to) } else { v6_header(0, icmp.len(), 58, 64, from, to) };
    with_ethernet(to_mac, our_mac, v4, &[&outer, &icmp])
}
