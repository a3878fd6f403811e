//! ICMP errors about connections: destination unreachable, source quench, time exceeded, packet too big, parameter problem
//! (RFC 792, RFC 4443). Each quotes the packet that it is about.

use dpdk::mbuf::Mbuf;
use dpdk::net::{checksum, protocol};

use crate::address::Address;
use crate::connection::Key;
use crate::handover::{HandOver, Journey};
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{L3, Packet};
use crate::rules::Rules;
use crate::service::{Protocol, ServerId, ServiceId, ServiceKey};
use crate::tick::Tick;
use crate::track::{First, Tracker, count_packet};
use crate::verdict::Verdict;

const ICMP_HEADER: usize = 8;

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// The key of a packet that answers the quoted one: its source as `virtual_`, its destination as `client`.
    ///
    /// For a quote from a VIP to a client that is the connection's own key; for one to a masquerading real server it is the
    /// key of its replies.
    pub key: Key,
    /// Offset of the quoted transport header from the start of the frame.
    pub l4: usize,
}

impl Quote {
    /// What the ICMP message in `frame` quotes; `None` if it is no error, or quotes no ports, or was sent to somebody
    /// else than the sender of what it quotes.
    pub fn of(frame: &[u8], packet: &Packet) -> Option<Self> {
        let start = usize::from(packet.l4);
        let icmp = frame.get(start..L3 + usize::from(packet.length))?;
        let error = if packet.v4 { matches!(icmp.first()?, 3 | 4 | 11) } else { matches!(icmp.first()?, 1..=4) };
        if !error {
            return None;
        }
        let (key, header) = reversed(icmp.get(ICMP_HEADER..)?, packet.v4)?;
        // Only who sent a packet may be told about it.
        (key.virtual_ == packet.key.virtual_).then_some(Self { key, l4: start + ICMP_HEADER + header })
    }
}

/// The key of an answer to the packet that `quote` begins with, and the length of that packet's IP header.
fn reversed(quote: &[u8], v4: bool) -> Option<(Key, usize)> {
    let be16 = |at: usize| Some(u16::from_be_bytes([*quote.get(at)?, *quote.get(at + 1)?]));
    let (transport, source, destination, l4);
    if v4 {
        let header = usize::from(quote.first()? & 15) * 4;
        let later_fragment = be16(6)? & 0x1fff != 0;
        if quote.first()? >> 4 != 4 || header < 20 || later_fragment {
            return None;
        }
        let address = |at: usize| Some(Address::v4(u32::from_be_bytes(*quote.get(at..)?.first_chunk()?)));
        (transport, source, destination, l4) = (*quote.get(9)?, address(12)?, address(16)?, header);
    } else {
        let address = |at: usize| Some(Address(u128::from_be_bytes(*quote.get(at..)?.first_chunk()?)));
        if quote.first()? >> 4 != 6 {
            return None;
        }
        (transport, source, destination, l4) = (*quote.get(6)?, address(8)?, address(24)?, 40);
    }
    matches!(transport, protocol::TCP | protocol::UDP | protocol::SCTP).then_some(())?;
    let key = Key { client: destination, virtual_: source, client_port: be16(l4 + 2)?, virtual_port: be16(l4)?, protocol: transport };
    Some((key, l4))
}

/// Where an ICMP error about a connection goes: to the real server, as one from the VIP to the client, or to the worker that
/// has the connection. `None` for any other message, which is not about us.
///
/// One that quotes a packet of a service, but of no connection of any worker, is a forgery or comes late: dropped and counted, or
/// `Undecided` where it is to begin a connection (`schedule_icmp`).
pub fn decide(
    frame: &mut Mbuf,
    packet: &Packet,
    rules: &Rules,
    tracker: &Tracker,
    macs: &[[u8; 6]],
    handover: Option<(&mut HandOver, &mut Journey)>,
) -> Option<Fate> {
    let quote = Quote::of(frame.data(), packet)?;
    let hash = tracker.connections.hash(&quote.key);
    if let Some(id) = tracker.connections.find(hash, &quote.key) {
        if !is_intact(frame.data(), packet) {
            return Some(Fate::Drop(Verdict::BadChecksum));
        }
        let entry = tracker.connections.entry(id);
        count(entry.server(), entry.service(), packet, rules);
        return Some(Fate::Server(entry.server(), entry.method()));
    }
    if !rules.masqueraders.is_empty()
        && let Some(id) = tracker.find_reply(hash, &quote.key, rules)
    {
        if !is_intact(frame.data(), packet) {
            return Some(Fate::Drop(Verdict::BadChecksum));
        }
        return Some(tracker.reply_error(id, frame, packet, &quote, rules, macs).unwrap_or_else(|fate| fate));
    }
    let of_service = is_of_service(&quote.key, rules);
    let owner = tracker.directory.as_ref().and_then(|directory| directory.owner(&quote.key));
    let elsewhere = handover.filter(|_| of_service || owner.is_some() && !rules.masqueraders.is_empty());
    elsewhere.and_then(|(handover, journey)| handover.error_elsewhere(journey, owner)).or_else(|| {
        let begins = rules.settings.schedule_icmp && is_intact(frame.data(), packet);
        of_service.then_some(if begins { Fate::Undecided } else { Fate::Drop(Verdict::UnrelatedError) })
    })
}

impl Tracker {
    /// What the schedule stage does with ICMP errors about packets that belong to no connection, but are of services (`schedule_icmp`):
    /// they begin one, as in IPVS.
    #[inline(never)]
    pub(crate) fn schedule_errors(&mut self, lanes: &mut Lanes, rules: &mut Rules, now: Tick) {
        for i in each(std::mem::take(&mut lanes.unrelated)) {
            let packet = lanes.packets[i];
            let quote = Quote::of(lanes.frames[i].data(), &packet).filter(|quote| !rules.is_own(quote.key.client));
            lanes.fates[i] = match quote {
                Some(Quote { key, .. }) => {
                    let hash = self.connections.hash(&key);
                    match self.connections.find(hash, &key).map(|id| self.connections.entry(id)) {
                        // An earlier frame of this very burst made it.
                        Some(entry) => Fate::Server(entry.server(), entry.method()),
                        None => {
                            self.first_packet(hash, &Packet { key, tcp_flags: 0, ..packet }, First { apart: true, anew: false }, rules, now)
                        }
                    }
                }
                None => Fate::Drop(Verdict::UnrelatedError),
            };
        }
    }
}

/// Whether packets with this key are for a service of ours.
pub(crate) fn is_of_service(key: &Key, rules: &Rules) -> bool {
    let service = ServiceKey { protocol: Protocol::of_flow(key.protocol), address: key.virtual_, port: key.virtual_port };
    rules.find_marked(key).is_some() || rules.find(&service).is_some()
}

/// Whether the message's checksum is right (RFC 792, RFC 4443 section 2.3). One in several segments is taken to be.
pub(crate) fn is_intact(frame: &[u8], packet: &Packet) -> bool {
    let Some(icmp) = frame.get(usize::from(packet.l4)..L3 + usize::from(packet.length)) else { return true };
    if packet.v4 {
        return checksum::internet(icmp) == 0;
    }
    let (source, destination) = (packet.key.client.0.to_be_bytes(), packet.key.virtual_.0.to_be_bytes());
    let length = u32::try_from(icmp.len()).unwrap_or_default();
    checksum::segment(checksum::pseudo_v6(&source, &destination, protocol::ICMPV6, length), icmp) == 0
}

/// Counts an error as a packet from the client, unless the real server was removed, as IPVS does.
fn count(server: ServerId, service: ServiceId, packet: &Packet, rules: &Rules) {
    let Some(target) = rules.server(server).filter(|target| target.available) else { return };
    count_packet(&target.share.traffic, packet);
    if let Some(service) = rules.service_ref(service) {
        count_packet(&service.traffic, packet);
    }
}
