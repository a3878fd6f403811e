//! Which way a frame goes: flows on to the connection stages, questions for us to the answers, the rest to the kernel.

use dpdk::mbuf::Mbuf;

use crate::address::Address;
use crate::answer::{self, Answer};
use crate::connection::{ConnectionTable, Key};
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{Kind, L3, Packet, parse, parse_plain};
use crate::rules::Rules;
use crate::service::ServerId;
use crate::track::Tracker;
use crate::verdict::Verdict;

/// Stage: reads every frame of the burst; what breaks its own rules is done for. Hashes the flows and asks for their lines of
/// the connection table's index, so that cache misses overlap.
#[inline]
pub fn parse_all(lanes: &mut Lanes, our_mac: [u8; 6], table: &ConnectionTable) {
    let mut unusual = 0_u64;
    let all = lanes.all();
    let Lanes { frames, packets, fates, hashes, .. } = &mut *lanes;
    for frame in frames.iter() {
        frame.prefetch();
    }
    for (i, (((frame, packet), fate), hash)) in frames.iter().zip(packets).zip(fates).zip(hashes).enumerate() {
        *fate = Fate::Undecided;
        if parse_plain(frame.data(), frame.packet_len(), our_mac, frame.bad_ip_checksum(), packet) {
            *hash = table.hash(&packet.key);
            table.prefetch_bucket(*hash);
        } else {
            unusual |= 1 << i;
        }
    }
    (lanes.flows, lanes.others) = (all & !unusual, 0);
    for i in each(unusual) {
        let frame = &lanes.frames[i];
        match parse(frame.data(), frame.packet_len(), our_mac, frame.bad_ip_checksum()) {
            Ok(packet) => {
                *if packet.kind == Kind::Flow { &mut lanes.flows } else { &mut lanes.others } |= 1 << i;
                lanes.hashes[i] = table.hash(&packet.key);
                lanes.packets[i] = packet;
            }
            Err(verdict) => lanes.fates[i] = Fate::Drop(verdict),
        }
    }
}

/// Stage: decides about everything that is not a flow, on port `port` with MAC `our_mac`.
#[inline]
pub fn classify(lanes: &mut Lanes, port: u16, our_mac: [u8; 6], rules: &Rules, tracker: &Tracker) {
    while lanes.others != 0 {
        let i = lanes.others.trailing_zeros() as usize;
        lanes.others &= lanes.others - 1;
        let packet = lanes.packets[i];
        lanes.fates[i] = other(&mut lanes.frames[i], &packet, port, our_mac, rules, tracker);
    }
}

#[inline(never)]
fn other(frame: &mut Mbuf, packet: &Packet, port: u16, our_mac: [u8; 6], rules: &Rules, tracker: &Tracker) -> Fate {
    let local = |address: Address| rules.is_local(address, port);
    let answer = match packet.kind {
        Kind::Arp => answer::arp(frame.data_mut(), our_mac, local),
        Kind::Icmp => {
            if let Some(server) = about_connection(frame.data(), packet, tracker) {
                return Fate::Server(server);
            }
            if local(packet.key.virtual_) { answer::echo_v4(frame.data_mut(), packet, our_mac) } else { Answer::Kernel }
        }
        Kind::Icmpv6 => {
            if let Some(server) = about_connection(frame.data(), packet, tracker) {
                return Fate::Server(server);
            }
            answer::icmpv6(frame, packet, our_mac, local)
        }
        Kind::Discovery => answer::icmpv6(frame, packet, our_mac, local),
        Kind::Fragment | Kind::Other | Kind::Flow => Answer::Kernel,
    };
    match answer {
        Answer::Ready => Fate::Send(port, Verdict::Answered),
        Answer::Kernel => Fate::Kernel,
        Answer::Drop(verdict) => Fate::Drop(verdict),
    }
}

/// The real server of the connection that an ICMP error is about (RFC 792, RFC 4443): destination unreachable, source quench,
/// time exceeded, packet too big. The error quotes a packet from the VIP to the client, so the quote's key is reversed.
fn about_connection(frame: &[u8], packet: &Packet, tracker: &Tracker) -> Option<ServerId> {
    const ICMP_HEADER: usize = 8;
    let l4 = usize::from(packet.l4);
    let icmp = frame.get(l4..L3 + usize::from(packet.length))?;
    let error = if packet.v4 { matches!(icmp.first()?, 3 | 4 | 11) } else { matches!(icmp.first()?, 1..=3) };
    if !error {
        return None;
    }
    let key = quoted_key(icmp.get(ICMP_HEADER..)?, packet.v4)?;
    // Only who was written to may be told about it: the quote's source is the error's destination.
    if key.virtual_ != packet.key.virtual_ {
        return None;
    }
    tracker.server_of(&key)
}

fn quoted_key(quote: &[u8], v4: bool) -> Option<Key> {
    let be16 = |at: usize| Some(u16::from_be_bytes([*quote.get(at)?, *quote.get(at + 1)?]));
    let (protocol, source, destination, l4);
    if v4 {
        let header = usize::from(quote.first()? & 15) * 4;
        let later_fragment = be16(6)? & 0x1fff != 0;
        if quote.first()? >> 4 != 4 || header < 20 || later_fragment {
            return None;
        }
        let address = |at: usize| Some(Address::v4(u32::from_be_bytes(*quote.get(at..)?.first_chunk()?)));
        (protocol, source, destination, l4) = (*quote.get(9)?, address(12)?, address(16)?, header);
    } else {
        let address = |at: usize| Some(Address(u128::from_be_bytes(*quote.get(at..)?.first_chunk()?)));
        if quote.first()? >> 4 != 6 {
            return None;
        }
        (protocol, source, destination, l4) = (*quote.get(6)?, address(8)?, address(24)?, 40);
    }
    matches!(protocol, 6 | 17 | 132).then_some(())?;
    Some(Key { client: destination, virtual_: source, client_port: be16(l4 + 2)?, virtual_port: be16(l4)?, protocol })
}
