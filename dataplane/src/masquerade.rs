//! Masquerading: requests go to the real server's address and port, replies come back as those of the VIP (RFC 3022).
//!
//! The real server's way to clients leads through the director. Both ways are routing, so the TTL or hop limit is always
//! lowered (RFC 1812 section 5.3.1), as IPVS does.

use dpdk::mbuf::Mbuf;

use crate::connection::{EntryId, Key, Way, reply_key};
use crate::forward::{Refusal, decrement};
use crate::handover::HandOver;
use crate::icmp_error::{Cause, IcmpErrors};
use crate::icmp_related::Quote;
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{Kind, L3, Packet};
use crate::rules::{Rules, ServerRules};
use crate::sctp;
use crate::service::{NextHop, Protocol, ServerId, ServiceId};
use crate::stats::Traffic;
use crate::tcp::{self, State, Table};
use crate::tick::Tick;
use crate::track::{Tracker, recount};
use crate::translate::{self, End};
use crate::verdict::Verdict;

/// Stage: every frame that forward left for masquerading gets the real server's address and port. `port` is the one that the
/// burst came by, `macs` are the ports' own, by port. Cost without masquerading: one comparison a burst.
#[inline]
pub fn masquerade(lanes: &mut Lanes, port: u16, rules: &Rules, tracker: &mut Tracker, macs: &[[u8; 6]], errors: &mut IcmpErrors) {
    for i in each(lanes.masqueraded) {
        if let Some(entry) = lanes.entries[i] {
            tracker.connections.prefetch_way(entry);
        }
    }
    while lanes.masqueraded != 0 {
        let i = lanes.masqueraded.trailing_zeros() as usize;
        lanes.masqueraded &= lanes.masqueraded - 1;
        let Fate::Server(server, _) = lanes.fates[i] else { continue };
        let packet = lanes.packets[i];
        let frame = &mut lanes.frames[i];
        let way = Mbuf::data(frame).get(6..12).and_then(|mac| mac.first_chunk()).map(|mac| Way { port, mac: *mac });
        let sent = match rules.server(server) {
            Some(target) => {
                lanes.long |= u64::from(target.next_hop.is_some_and(|hop| packet.length > hop.mtu)) << i;
                to_server(frame, &packet, target, macs)
            }
            None => Err((Verdict::RealServerRemoved, None)),
        };
        lanes.fates[i] = match sent {
            Ok(port) => {
                if packet.kind == Kind::Flow
                    && let Some(way) = way
                    && let Some(entry) = tracker.connections.find(lanes.hashes[i], &packet.key)
                {
                    tracker.connections.set_way(entry, way);
                }
                Fate::Send(port, Verdict::Forwarded)
            }
            Err((verdict, cause)) => {
                if let Some(cause) = cause.filter(|_| packet.kind == Kind::Flow) {
                    errors.ask(i, cause);
                }
                Fate::Drop(verdict)
            }
        };
    }
}

/// Makes the frame, a request, a fragment of one or an ICMP error about a reply, one for `target`; gives the port that it leaves by.
fn to_server(frame: &mut Mbuf, packet: &Packet, target: &ServerRules, macs: &[[u8; 6]]) -> Result<u16, Refusal> {
    let Some(hop) = target.next_hop else {
        return Err((if target.loops { Verdict::WouldLoop } else { Verdict::NoNextHop }, None));
    };
    let Some(mac) = macs.get(usize::from(hop.port)) else { return Err((Verdict::NoNextHop, None)) };
    let data = frame.data_mut();
    if !decrement(data, packet.v4) {
        return Err((Verdict::TtlExpired, Some(Cause::TimeExceeded)));
    }
    if packet.length > hop.mtu && !may_be_cut(data, packet) {
        return Err((Verdict::TooBig, refuses_fragments(data, packet.v4).then_some(Cause::TooBig(hop.mtu))));
    }
    let server = &target.server;
    match packet.kind {
        Kind::Flow => {
            let port = server.port_for(packet.key.virtual_port);
            translate::packet(data, packet, End::Destination, server.address, port)
        }
        Kind::Fragment => translate::later_fragment(data, packet, End::Destination, server.address),
        _ => Quote::of(data, packet).and_then(|quote| {
            let port = server.port_for(quote.key.virtual_port);
            translate::icmp_error(data, packet.v4, usize::from(packet.l4), quote.l4, End::Destination, server.address, port)
        }),
    }
    .ok_or((Verdict::Short, None))?;
    address_frame(data, hop.mac, *mac);
    Ok(hop.port)
}

/// Whether the packet must not be fragmented on its way.
fn refuses_fragments(frame: &[u8], v4: bool) -> bool {
    !v4 || frame.get(L3 + 6).is_some_and(|flags| flags & 0x40 != 0)
}

/// Whether a packet longer than a link takes can leave in pieces: it allows that and lies in one segment.
fn may_be_cut(data: &[u8], packet: &Packet) -> bool {
    let is_request_or_answer = matches!(packet.kind, Kind::Flow | Kind::Fragment);
    is_request_or_answer && !refuses_fragments(data, packet.v4) && data.len() >= L3 + usize::from(packet.length)
}

/// Writes both MACs of a frame.
#[inline]
pub(crate) fn address_frame(frame: &mut [u8], destination: [u8; 6], source: [u8; 6]) {
    // Parse has seen an Ethernet header.
    if let Some(addresses) = frame.first_chunk_mut::<12>() {
        addresses[..6].copy_from_slice(&destination);
        addresses[6..].copy_from_slice(&source);
    }
}

/// What the stages of answers look at beside the frames.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// The ports' MACs, by port.
    pub macs: &'a [[u8; 6]],
    /// The way to other workers.
    pub handover: Option<&'a HandOver>,
    /// The present.
    pub now: Tick,
}

/// Whether a packet that no connection has comes from a masquerading real server's port, which is to be told so (`nat_icmp_send`); a
/// reset or ABORT is not answered.
fn is_of_no_connection(packet: &Packet, rules: &Rules) -> bool {
    rules.settings.nat_icmp_send
        && packet.tcp_flags & tcp::RST == 0
        && rules.masqueraders.serve(Protocol::of_flow(packet.key.protocol), packet.key.client, packet.key.client_port)
}

/// Tells a real server, in the director's own name, that nobody waits for its packet.
fn notify(lane: usize, packet: &Packet, rules: &Rules, errors: &mut IcmpErrors) -> Fate {
    if let Some(own) = rules.routes.own_address_towards(packet.key.client) {
        errors.ask_from(lane, Cause::PortUnreachable, Some(own));
    }
    Fate::Drop(Verdict::NoConnection)
}

impl Tracker {
    /// Which flows may be packets of masquerading real servers to their clients, if they have no entry of their own. Asks for all index lines
    /// of those first, so that cache misses overlap. Cost without masquerading: one comparison a burst.
    #[inline]
    pub(crate) fn seek_answers(&self, lanes: &Lanes, rules: &Rules) -> u64 {
        if lanes.flows == 0 || rules.masqueraders.is_empty() { 0 } else { self.seek_answers_among(lanes, rules) }
    }

    #[inline(never)]
    fn seek_answers_among(&self, lanes: &Lanes, rules: &Rules) -> u64 {
        let may_be = |i: &usize| !rules.is_own(lanes.packets[*i].key.virtual_);
        let answers = each(lanes.flows).filter(may_be).fold(0_u64, |lanes, i| lanes | 1 << i);
        let without_entry = || each(answers).filter(|i| lanes.entries[*i].is_none());
        without_entry().for_each(|i| self.connections.prefetch_reply(lanes.hashes[i]));
        for i in without_entry() {
            self.connections.prefetch_answered(lanes.hashes[i]);
        }
        answers
    }

    /// Decides about a packet of a masquerading real server to its client, if it is one; one of another worker's connection is handed over.
    #[inline(never)]
    pub(crate) fn answer(&mut self, i: usize, lanes: &mut Lanes, Ends { rules, macs, handover, now }: Ends<'_>, errors: &mut IcmpErrors) {
        let packet = lanes.packets[i];
        let decided = if let Some(entry) = self.find_reply(lanes.hashes[i], &packet.key, rules) {
            Some(self.reply(entry, &mut lanes.frames[i], &packet, rules, macs, now).unwrap_or_else(|fate| fate))
        } else {
            // Where nobody ever had such a connection, nobody is asked.
            let owner = self.directory.as_ref().and_then(|directory| directory.owner(&packet.key));
            let elsewhere = owner.and_then(|owner| handover?.elsewhere(&mut lanes.journeys[i], Some(owner)));
            elsewhere.or_else(|| is_of_no_connection(&packet, rules).then(|| notify(i, &packet, rules, errors)))
        };
        if let Some(fate) = decided {
            lanes.long |= u64::from(matches!(fate, Fate::Send(..))) << i;
            lanes.fates[i] = fate;
        }
    }

    /// The masqueraded connection that a packet with this key answers.
    pub(crate) fn find_reply(&self, hash: u64, key: &Key, rules: &Rules) -> Option<EntryId> {
        self.connections.find_reply(hash, key, |entry| {
            let server = rules.server(entry.server()).map(|target| &target.server);
            server.is_some_and(|s| s.address == key.client && s.port_for(entry.virtual_port()) == key.client_port)
        })
    }

    /// Lets replies find a new connection.
    pub(crate) fn await_replies(&mut self, entry: EntryId, key: &Key, target: &ServerRules) -> bool {
        let reply = reply_key(key, target.server.address, target.server.port_for(key.virtual_port));
        self.note(&reply);
        self.connections.masquerade(entry, &reply)
    }

    /// Addresses a frame to the client of connection `id`; of one that cannot leave nothing is changed. Gives the port that it
    /// leaves by and its fate.
    pub(crate) fn to_client(&self, id: EntryId, frame: &mut [u8], packet: &Packet, rules: &Rules, macs: &[[u8; 6]]) -> Result<Fate, Fate> {
        let hop = rules.routes.way_to(packet.key.virtual_, self.connections.way(id)).ok_or(Fate::Drop(Verdict::NoNextHop))?;
        leave(frame, packet, hop, macs)?;
        Ok(Fate::Send(hop.port, Verdict::Forwarded))
    }

    /// A reply becomes one of the VIP's: counted, and with its part in the connection's state.
    fn reply(&mut self, id: EntryId, frame: &mut Mbuf, packet: &Packet, rules: &Rules, macs: &[[u8; 6]], now: Tick) -> Result<Fate, Fate> {
        let entry = *self.connections.entry(id);
        let key = self.connections.key(id);
        let fate = self.to_client(id, frame.data_mut(), packet, rules, macs)?;
        translate::packet(frame.data_mut(), packet, End::Source, key.virtual_, key.virtual_port).ok_or(Fate::Drop(Verdict::Short))?;
        count_reply(entry.server(), entry.service(), packet, rules);
        self.packet_out(id, packet, rules, now);
        Ok(fate)
    }

    /// A later fragment of an answer with this key becomes one of the VIP's, and counts as so many bytes of it.
    ///
    /// One of a connection that has ended meanwhile is dropped. Cost: that of a reply's lookup.
    pub(crate) fn reply_fragment(
        &self,
        key: &Key,
        frame: &mut Mbuf,
        packet: &Packet,
        bytes: u64,
        rules: &Rules,
        macs: &[[u8; 6]],
    ) -> Result<Fate, Fate> {
        let id = self.find_reply(self.connections.hash(key), key, rules).ok_or(Fate::Drop(Verdict::Fragment))?;
        let entry = self.connections.entry(id);
        let fate = self.to_client(id, frame.data_mut(), packet, rules, macs)?;
        translate::later_fragment(frame.data_mut(), packet, End::Source, self.connections.key(id).virtual_)
            .ok_or(Fate::Drop(Verdict::Short))?;
        for_reply(entry.server(), entry.service(), rules, |traffic| traffic.out_bytes.add(bytes));
        Ok(fate)
    }

    /// An ICMP error from the real server's side, about a request, becomes one from the VIP, about what the client sent.
    pub(crate) fn reply_error(
        &self,
        id: EntryId,
        frame: &mut Mbuf,
        packet: &Packet,
        quote: &Quote,
        rules: &Rules,
        macs: &[[u8; 6]],
    ) -> Result<Fate, Fate> {
        let entry = self.connections.entry(id);
        let fate = self.to_client(id, frame.data_mut(), packet, rules, macs)?;
        let (key, l4) = (self.connections.key(id), usize::from(packet.l4));
        translate::icmp_error(frame.data_mut(), packet.v4, l4, quote.l4, End::Source, key.virtual_, key.virtual_port)
            .ok_or(Fate::Drop(Verdict::Short))?;
        count_reply(entry.server(), entry.service(), packet, rules);
        Ok(fate)
    }

    /// Moves the state of a connection by its real server's packet and restarts its timer.
    pub(crate) fn packet_out(&mut self, id: EntryId, packet: &Packet, rules: &Rules, now: Tick) {
        let entry = *self.connections.entry(id);
        let own = rules.service_ref(entry.service()).and_then(|service| service.timeouts.as_ref());
        let timeouts = own.unwrap_or(&rules.settings.timeouts);
        let was_active = entry.counts_as_active();
        // An answer over UDP shows that somebody is there, as a handshake does elsewhere.
        let confirmed = match Protocol::of_flow(entry.protocol) {
            Protocol::Tcp => {
                let table = if self.defence.secure { Table::SecureOutput } else { Table::Output };
                let new = tcp::next(table, entry.state(), packet.tcp_flags);
                self.connections.set_state(id, new, now, new.timeout(timeouts) * Tick::PER_SECOND);
                new == State::Established && entry.state() != new
            }
            Protocol::Sctp => {
                let new = sctp::next(sctp::Table::Output, entry.association(), sctp::event(packet.tcp_flags));
                self.connections.set_state_value(id, new as u8, now, new.timeout() * Tick::PER_SECOND);
                new == sctp::State::Established && entry.association() != new
            }
            Protocol::Udp | Protocol::Ip => {
                self.connections.renew(id, now, timeouts.udp * Tick::PER_SECOND);
                self.connections.confirm(id);
                true
            }
        };
        let is_active = self.connections.entry(id).counts_as_active();
        if is_active != was_active
            && let Some(target) = rules.server(entry.server())
        {
            recount(&target.share, was_active, is_active);
        }
        if confirmed && let Some(template) = self.connections.template(id) {
            self.connections.assure(template);
        }
    }
}

/// Makes a frame ready to leave for a client by `hop`; of one that cannot leave nothing is changed.
///
/// What the real server must be told about its packet, the kernel tells it: it has the addresses for that.
fn leave(frame: &mut [u8], packet: &Packet, hop: NextHop, macs: &[[u8; 6]]) -> Result<(), Fate> {
    let Some(mac) = macs.get(usize::from(hop.port)) else { return Err(Fate::Drop(Verdict::NoNextHop)) };
    if packet.length > hop.mtu && !may_be_cut(frame, packet) {
        return Err(if refuses_fragments(frame, packet.v4) { Fate::Kernel } else { Fate::Drop(Verdict::TooBig) });
    }
    if !decrement(frame, packet.v4) {
        return Err(Fate::Kernel);
    }
    address_frame(frame, hop.mac, *mac);
    Ok(())
}

/// Counts a packet to a client.
pub(crate) fn count_reply(server: ServerId, service: ServiceId, packet: &Packet, rules: &Rules) {
    for_reply(server, service, rules, |traffic| traffic.count_out(packet.length));
}

/// Counts with what is the real server's and what is the service's, unless the real server was removed, as IPVS does.
pub(crate) fn for_reply(server: ServerId, service: ServiceId, rules: &Rules, count: impl Fn(&Traffic)) {
    let Some(target) = rules.server(server).filter(|target| target.available) else { return };
    count(&target.share.traffic);
    if let Some(service) = rules.service_ref(service) {
        count(&service.traffic);
    }
}
