//! What is no packet of a connection: questions that we answer, errors about connections, and the kernel's.

use std::net::IpAddr;

use super::connections::{Beginning, Key};
use super::handover::Journey;
use super::wire::{self, Kind, Packet};
use super::{Director, Fate, answers};

impl Director {
    /// What is no packet of a connection.
    pub(super) fn other(&mut self, frame: &mut Vec<u8>, packet: &Packet, port: usize, journey: &mut Journey) -> Fate {
        let our_mac = self.macs[port];
        if matches!(packet.kind, Kind::Icmp | Kind::Icmpv6)
            && let Some(fate) = self.about_connection(frame, packet, journey)
        {
            return fate;
        }
        let local = |address: IpAddr| self.is_local(address, port);
        let destination = packet.destination.ip();
        let answer = match packet.kind {
            Kind::Arp => answers::arp(frame, our_mac, local, |address| self.is_vip(address)),
            Kind::Icmp | Kind::Icmpv6 => {
                if packet.kind == Kind::Icmpv6 {
                    answers::icmpv6(frame, packet, our_mac, local)
                } else if local(destination) {
                    answers::echo(frame, packet, our_mac)
                } else {
                    answers::Answer::Kernel
                }
            }
            Kind::Discovery => answers::icmpv6(frame, packet, our_mac, local),
            _ => answers::Answer::Kernel,
        };
        match answer {
            answers::Answer::Send(_) if matches!(packet.kind, Kind::Icmp | Kind::Icmpv6) && self.is_own(packet.source.ip()) => {
                Fate::Drop("own_source")
            }
            answers::Answer::Send(reply) => {
                *frame = reply;
                Fate::Send(port as u16, "answered")
            }
            answers::Answer::Kernel => Fate::Kernel,
            answers::Answer::Drop(verdict) => Fate::Drop(verdict),
        }
    }

    /// What becomes of an ICMP error (destination unreachable, source quench, time exceeded, packet too big, parameter problem)
    /// that was sent to whom the packet that it quotes came from, where that was a service.
    fn about_connection(&mut self, frame: &mut [u8], packet: &Packet, journey: &mut Journey) -> Option<Fate> {
        let message = &frame[packet.l4..wire::L3 + packet.length];
        let kinds: &[u8] = if packet.is_v4() { &[3, 4, 11] } else { &[1, 2, 3, 4] };
        if !kinds.contains(message.first()?) {
            return None;
        }
        let (protocol, virtual_, client) = wire::quoted(message, packet.is_v4())?;
        if virtual_.ip() != packet.destination.ip() {
            return None;
        }
        let sum = if packet.is_v4() {
            wire::checksum(message)
        } else {
            wire::checksum_with(packet.source.ip(), packet.destination.ip(), 58, message)
        };
        let key = Key { template: false, aside: 0, protocol, client, virtual_ };
        if let Some((server, service, method)) = self.connections.get(&key).map(|c| (c.server, c.service, c.method)) {
            if sum != 0 {
                return Some(Fate::Drop("bad_checksum"));
            }
            if self.servers.get(&server).is_some_and(|target| target.snapshot.available) {
                self.count(server, service, packet, false);
            }
            return Some(Fate::Server(server, method));
        }
        // What answers the quoted packet would come from where it went.
        if self.is_masquerading()
            && let Some(key) = self.answered(protocol, client, virtual_)
        {
            return Some(if sum == 0 { self.answer_error(frame, packet, &key) } else { Fate::Drop("bad_checksum") });
        }
        let request = Packet { source: client, destination: virtual_, protocol, ..*packet };
        let of_service = self.service_of(&request).is_some();
        let owner = self.owner(protocol, client, virtual_);
        let asks = of_service || (owner.is_some() && self.is_masquerading());
        let elsewhere = if asks { self.error_elsewhere(journey, owner) } else { None };
        // With `schedule_icmp` it may begin a connection.
        let begins = self.settings.schedule_icmp && sum == 0;
        elsewhere.or(of_service.then_some(if begins { Fate::Unrelated } else { Fate::Drop("unrelated_icmp_error") }))
    }

    /// An ICMP error about no connection, but of a service, begins one: that of the packet that it quotes, or would answer.
    pub(super) fn begin_with_error(&mut self, frame: &[u8], packet: &Packet) -> Fate {
        let message = &frame[packet.l4..wire::L3 + packet.length];
        let quoted = wire::quoted(message, packet.is_v4()).filter(|(_, _, client)| !self.is_own(client.ip()));
        let Some((protocol, virtual_, client)) = quoted else { return Fate::Drop("unrelated_icmp_error") };
        let request = Packet { source: client, destination: virtual_, protocol, ..*packet };
        match self.connections.get(&Key::of(&request)) {
            Some(known) => Fate::Server(known.server, known.method),
            None => self.first(&request, Beginning { apart: true, anew: false }),
        }
    }
}
