//! Masquerading: requests get the real server's address and port, answers those of the VIP (RFC 3022, ipvsadm(8) `-m`).

use std::net::{IpAddr, SocketAddr};

use dataplane::address::Address;
use dataplane::service::{Method, NextHop, RealServer};

use super::connections::{Key, Learned, SECOND, advance};
use super::forward::{Cause, Refusal, lower_ttl};
use super::translate::{self, End};
use super::wire::{self, Kind, L3, Packet, be16};
use super::{Director, Fate};

/// The port on a real server that a vport leads to.
pub fn port_of(server: &RealServer, vport: u16) -> u16 {
    if server.port == 0 { vport } else { server.port }
}

/// Whether a packet that is too long may leave in pieces.
fn may_be_cut(frame: &[u8], packet: &Packet) -> bool {
    packet.is_v4() && frame[L3 + 6] & 0x40 == 0 && (packet.is_flow() || packet.kind == Kind::Fragment)
}

fn may_be_told(frame: &[u8], packet: &Packet) -> bool {
    !packet.is_v4() || frame[L3 + 6] & 0x40 != 0
}

fn address_frame(frame: &mut [u8], to: [u8; 6], from: [u8; 6]) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
}

impl Director {
    pub(super) fn is_masquerading(&self) -> bool {
        self.servers.values().any(|server| server.masqueraded)
    }

    /// Whether this is the RIP of a masquerading real server.
    pub(super) fn is_masquerading_server(&self, address: IpAddr) -> bool {
        self.servers.values().any(|server| server.masqueraded && server.snapshot.address.ip() == address)
    }

    /// RIP and rport of a connection's packets as they leave.
    pub(super) fn real_end(&self, server: u32, vport: u16) -> Option<SocketAddr> {
        let server = &self.servers.get(&server)?.snapshot;
        Some((server.address.ip(), port_of(server, vport)).into())
    }

    /// Where a masqueraded connection's real server answers from.
    pub fn answers_from(&self, key: &Key) -> Option<SocketAddr> {
        self.connections.get(key)?.masqueraded
    }

    /// A request, a fragment of one, or an ICMP error about an answer becomes one for the real server.
    pub(super) fn masquerade(
        &mut self,
        server: u32,
        frame: &mut [u8],
        packet: &Packet,
        hop: &NextHop,
        port: usize,
    ) -> Result<u16, Refusal> {
        if !lower_ttl(frame, packet.is_v4()) {
            return Err(("ttl_expired", Some(Cause::TimeExceeded)));
        }
        if packet.length > usize::from(hop.mtu) && !may_be_cut(frame, packet) {
            return Err(("too_big", may_be_told(frame, packet).then_some(Cause::TooBig(hop.mtu))));
        }
        let from = [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]];
        let end = |vport| self.real_end(server, vport).expect("a known real server");
        match packet.kind {
            Kind::Icmp | Kind::Icmpv6 => {
                let (_, virtual_, _) = quoted(frame, packet).expect("an error about a connection");
                translate::icmp_error(frame, packet, End::Destination, end(virtual_.port()));
            }
            Kind::Fragment => translate::later_fragment(frame, End::Destination, end(0).ip()),
            _ => {
                translate::packet(frame, packet, End::Destination, end(packet.destination.port()));
                let key = Key::of(packet);
                if let Some(connection) = self.connections.get_mut(&key).filter(|connection| connection.masqueraded.is_some()) {
                    // Nobody has the MAC of zeros.
                    connection.way = match connection.way {
                        _ if from == [0; 6] => Learned::Nothing,
                        Learned::Nothing | Learned::Hearsay(..) if self.replaced.contains(&key) => Learned::Hearsay(port, from),
                        _ => Learned::Way(port, from),
                    };
                }
            }
        }
        address_frame(frame, hop.mac, self.macs[usize::from(hop.port)]);
        Ok(hop.port)
    }

    /// The masqueraded connection that a packet from a real server to a client answers. Of several, any one may be meant.
    pub(super) fn answered(&mut self, protocol: u8, from: SocketAddr, client: SocketAddr) -> Option<Key> {
        let is_it = |key: &Key, connection: &super::connections::Connection| {
            (key.protocol, key.client, connection.masqueraded) == (protocol, client, Some(from))
                && self.real_end(connection.server, key.virtual_.port()) == Some(from)
        };
        let mut found: Vec<Key> = self.connections.iter().filter(|(key, connection)| is_it(key, connection)).map(|(key, _)| *key).collect();
        found.sort();
        match found.len() {
            0 => None,
            1 => found.pop(),
            many => Some(found[self.choose(many)]),
        }
    }

    /// Where what answers `client` goes: to itself on a network of ours, else to the gateway of the port that it comes by, to any
    /// gateway, or back to where it comes from.
    pub(super) fn way_to(&self, client: IpAddr, learned: Option<(usize, [u8; 6])>) -> Option<NextHop> {
        let back = learned.and_then(|(port, mac)| Some(NextHop { port: port as u16, mac, mtu: self.routes.ports().get(port)?.mtu }));
        let near = self.routes.ports().iter().flat_map(|port| &port.networks).any(|n| Address::from(client).0 & n.mask == n.prefix.0);
        if near {
            return back;
        }
        let mut order: Vec<usize> = learned.iter().map(|(port, _)| *port).collect();
        order.extend(0..self.routes.ports().len());
        let family = usize::from(client.is_ipv6());
        order.iter().find_map(|port| self.routes.ports().get(*port)?.gateways[family]).or(back)
    }

    /// Makes a frame ready to leave for a client.
    fn leave(&mut self, frame: &mut [u8], packet: &Packet, key: &Key) -> Result<NextHop, Fate> {
        let way = self.connections[key].way;
        let learned = match way {
            Learned::Hearsay(..) if self.choose(2) == 1 => None,
            Learned::Way(port, from) | Learned::Hearsay(port, from) => Some((port, from)),
            Learned::Nothing => None,
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.way = learned.map_or(Learned::Nothing, |(port, from)| Learned::Way(port, from));
        }
        let hop = self.way_to(packet.destination.ip(), learned).ok_or(Fate::Drop("no_next_hop"))?;
        let our_mac = *self.macs.get(usize::from(hop.port)).ok_or(Fate::Drop("no_next_hop"))?;
        if packet.length > usize::from(hop.mtu) && !may_be_cut(frame, packet) {
            // The kernel tells the real server.
            return Err(if may_be_told(frame, packet) { Fate::Kernel } else { Fate::Drop("too_big") });
        }
        if !lower_ttl(frame, packet.is_v4()) {
            return Err(Fate::Kernel);
        }
        address_frame(frame, hop.mac, our_mac);
        Ok(hop)
    }

    /// Whether a packet of no connection comes from a real server's port that masquerades, which is to be told.
    pub(super) fn is_of_no_connection(&self, packet: &Packet) -> bool {
        let sent_it = |server: &RealServer| {
            let protocol = server.protocol as u8;
            server.available
                && server.method == Method::Masquerading
                && (protocol == 0 || protocol == packet.protocol)
                && (server.address.ip(), server.port) == (packet.source.ip(), packet.source.port())
        };
        self.settings.nat_icmp_send && !packet.aborts() && self.servers.values().any(|server| sent_it(&server.snapshot))
    }

    /// Our own address in a neighbour's network, the smallest, or else the first one of its family.
    pub(super) fn own_address_towards(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let networks = || self.routes.ports().iter().flat_map(|port| &port.networks);
        let near = networks().filter(|n| Address::from(neighbour).0 & n.mask == n.prefix.0).max_by_key(|n| n.mask.count_ones());
        near.or_else(|| networks().find(|n| n.own.is_v4() == neighbour.is_ipv4())).map(|n| n.own.ip())
    }

    /// What a packet does that may be a masqueraded connection's answer.
    pub(super) fn answer(&mut self, frame: &mut [u8], packet: &Packet) -> Option<(Key, Fate)> {
        let key = self.answered(packet.protocol, packet.source, packet.destination)?;
        let fate = match self.leave(frame, packet, &key) {
            Err(fate) => fate,
            Ok(hop) => {
                translate::packet(frame, packet, End::Source, key.virtual_);
                self.count_answer(&key, 1, packet.length);
                self.answered_state(&key, packet);
                Fate::Send(hop.port, "forwarded")
            }
        };
        Some((key, fate))
    }

    /// What a packet from an address of ours does: over IPv6 it may be the answer of a real server whose way to clients leads through us.
    pub(super) fn passing_answer(&mut self, frame: &mut [u8], packet: &Packet) -> Option<Fate> {
        let key = Key { template: false, aside: 0, protocol: packet.protocol, client: packet.destination, virtual_: packet.source };
        if self.connections.get(&key)?.masqueraded.is_some() {
            return None;
        }
        Some(match self.leave(frame, packet, &key) {
            Err(fate) => fate,
            Ok(hop) => {
                self.count_answer(&key, 1, packet.length);
                self.answered_state(&key, packet);
                self.connections.get_mut(&key).expect("answered").answered = true;
                Fate::Send(hop.port, "forwarded")
            }
        })
    }

    /// A later fragment of an answer, by the ports of its first one.
    pub(super) fn answer_fragment(&mut self, frame: &mut [u8], packet: &Packet, ports: (u16, u16), protocol: u8, bytes: usize) -> Fate {
        let (from, client) = ((packet.source.ip(), ports.0).into(), (packet.destination.ip(), ports.1).into());
        let Some(key) = self.answered(protocol, from, client) else { return Fate::Drop("fragment") };
        match self.leave(frame, packet, &key) {
            Err(fate) => fate,
            Ok(hop) => {
                translate::later_fragment(frame, End::Source, key.virtual_.ip());
                self.count_answer(&key, 0, bytes);
                Fate::Send(hop.port, "forwarded")
            }
        }
    }

    /// An ICMP error about a request as it left us.
    pub(super) fn answer_error(&mut self, frame: &mut [u8], packet: &Packet, key: &Key) -> Fate {
        match self.leave(frame, packet, key) {
            Err(fate) => fate,
            Ok(hop) => {
                translate::icmp_error(frame, packet, End::Source, key.virtual_);
                self.count_answer(key, 1, packet.length);
                Fate::Send(hop.port, "forwarded")
            }
        }
    }

    /// Counts what goes to a client, unless its real server was removed.
    pub(super) fn count_answer(&mut self, key: &Key, packets: u64, bytes: usize) {
        let (server, service) = (self.connections[key].server, self.connections[key].service);
        if !self.servers.get(&server).is_some_and(|target| target.snapshot.available) {
            return;
        }
        self.traffic(server, service, |traffic| {
            traffic.out_packets += packets;
            traffic.out_bytes += bytes as u64;
        });
    }

    fn answered_state(&mut self, key: &Key, packet: &Packet) {
        let timeouts = self.timeouts(self.connections[key].service);
        let (now, secure) = (self.now, self.secure);
        let connection = self.connections.get_mut(key).expect("answered");
        let (was_active, before) = (connection.is_active(key), connection.state);
        let (state, seconds) = advance("output", before, packet, secure, &timeouts);
        (connection.state, connection.expires) = (state, now.wrapping_add(seconds * SECOND));
        let (server, template, is_active) = (connection.server, connection.template, connection.is_active(key));
        self.recount(server, was_active, is_active);
        self.confirm(key);
        // An answer over UDP is as good as a handshake.
        if packet.protocol == 17 || (state == "ES" && before != "ES") {
            self.assure(template);
        }
    }

    /// Cuts a masqueraded packet that is longer than the link takes (RFC 791); its pieces, or the verdict.
    pub(super) fn cut(&self, frame: &[u8], packet: &Packet, port: u16) -> Result<Vec<Vec<u8>>, &'static str> {
        let mtu = self.routes.ports().get(usize::from(port)).map(|port| usize::from(port.mtu)).ok_or("too_big")?;
        if packet.length <= mtu {
            return Ok(vec![frame.to_vec()]);
        }
        let header = usize::from(frame[L3] & 15) * 4;
        let most = mtu.saturating_sub(header) / 8 * 8;
        if most == 0 {
            return Err("too_big");
        }
        let flags = be16(frame, L3 + 6);
        let body = &frame[L3 + header..L3 + packet.length];
        let count = body.len().div_ceil(most);
        let piece = |(n, bytes): (usize, &[u8])| {
            let mut piece = frame[..L3 + header].to_vec();
            let more = n + 1 < count || flags & 0x2000 != 0;
            let at = usize::from(flags & 0x1fff) + n * most / 8;
            piece[L3 + 2..L3 + 4].copy_from_slice(&((header + bytes.len()) as u16).to_be_bytes());
            piece[L3 + 6..L3 + 8].copy_from_slice(&(at as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
            if n > 0 {
                blank_options(&mut piece[L3 + 20..]);
            }
            piece[L3 + 10..L3 + 12].fill(0);
            let sum = wire::checksum(&piece[L3..]);
            piece[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
            piece.extend(bytes);
            piece
        };
        Ok(body.chunks(most).enumerate().map(piece).collect())
    }
}

/// Options without the flag "copied" are in the first fragment only (RFC 791 section 3.1).
fn blank_options(options: &mut [u8]) {
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        let length = if options[at] == 1 { 1 } else { options.get(at + 1).map_or(2, |length| usize::from(*length).max(2)) };
        if at + length > options.len() {
            return;
        }
        if options[at] & 0x80 == 0 {
            options[at..at + length].fill(1);
        }
        at += length;
    }
}

/// What the ICMP error in a frame quotes.
fn quoted(frame: &[u8], packet: &Packet) -> Option<(u8, SocketAddr, SocketAddr)> {
    wire::quoted(&frame[packet.l4..L3 + packet.length], packet.is_v4())
}
