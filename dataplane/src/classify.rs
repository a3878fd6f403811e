//! Which way a frame goes: flows on to the connection stages, questions for us to the answers, the rest to the kernel.

use dpdk::mbuf::Mbuf;

use crate::address::Address;
use crate::answer::{self, Answer};
use crate::connection::ConnectionTable;
use crate::handover::{HandOver, Journey};
use crate::icmp_related;
use crate::lanes::{Fate, Lanes, each};
use crate::parse::{Kind, Packet, parse};
use crate::rules::Rules;
use crate::track::Tracker;
use crate::verdict::Verdict;

/// Stage: reads the frames that are not plain; what breaks its own rules is done for.
#[inline]
pub fn parse_unusual(lanes: &mut Lanes, our_mac: [u8; 6], table: &ConnectionTable) {
    let unusual = lanes.all() & !lanes.plain.all();
    (lanes.flows, lanes.others) = (0, 0);
    for i in each(unusual) {
        let frame = &lanes.frames[i];
        lanes.fates[i] = Fate::Undecided;
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

/// What the classify stage looks at beside the frames.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The port that they came by.
    pub port: u16,
    /// The ports' MACs, by port.
    pub macs: &'a [[u8; 6]],
    /// The rules.
    pub rules: &'a Rules,
    /// The connections.
    pub tracker: &'a Tracker,
}

/// Stage: decides about everything that is not a flow.
#[inline]
pub fn classify(lanes: &mut Lanes, sight: Sight<'_>, handover: &mut Option<HandOver>) {
    while lanes.others != 0 {
        let i = lanes.others.trailing_zeros() as usize;
        lanes.others &= lanes.others - 1;
        let packet = lanes.packets[i];
        let handover = handover.as_mut().map(|handover| (handover, &mut lanes.journeys[i]));
        lanes.fates[i] = other(&mut lanes.frames[i], &packet, sight, handover);
        lanes.unrelated |= u64::from(lanes.fates[i] == Fate::Undecided) << i;
    }
}

#[inline(never)]
fn other(frame: &mut Mbuf, packet: &Packet, sight: Sight<'_>, handover: Option<(&mut HandOver, &mut Journey)>) -> Fate {
    let Sight { port, macs, rules, tracker } = sight;
    let our_mac = macs.get(usize::from(port)).copied().unwrap_or_default();
    let local = |address: Address| rules.is_local(address, port);
    if matches!(packet.kind, Kind::Icmp | Kind::Icmpv6)
        && let Some(fate) = icmp_related::decide(frame, packet, rules, tracker, macs, handover)
    {
        return fate;
    }
    let answer = match packet.kind {
        Kind::Arp => answer::arp(frame.data_mut(), our_mac, local, |address| rules.is_vip(address)),
        Kind::Icmp if local(packet.key.virtual_) => answer::echo_v4(frame.data_mut(), packet, our_mac),
        Kind::Icmpv6 | Kind::Discovery => answer::icmpv6(frame, packet, our_mac, local),
        Kind::Icmp | Kind::Fragment | Kind::Other | Kind::Flow => Answer::Kernel,
    };
    match answer {
        // Our own check of a real server that lost the VIP, and sends on what is not for it: an answer would speak for that real server.
        Answer::Ready if matches!(packet.kind, Kind::Icmp | Kind::Icmpv6) && rules.is_own(packet.key.client) => {
            Fate::Drop(Verdict::OwnSource)
        }
        Answer::Ready => Fate::Send(port, Verdict::Answered),
        Answer::Kernel => Fate::Kernel,
        Answer::Drop(verdict) => Fate::Drop(verdict),
    }
}
