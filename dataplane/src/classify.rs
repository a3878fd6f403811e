//! Which way a frame goes: flows on to the connection stages, questions for us to the answers, the rest to the kernel.

use dpdk::mbuf::Mbuf;

use crate::address::Address;
use crate::answer::{self, Answer};
use crate::icmp_related;
use crate::lanes::{Fate, Lanes};
use crate::parse::{Kind, Packet, parse, parse_plain};
use crate::rules::Rules;
use crate::track::Tracker;
use crate::verdict::Verdict;

/// Stage: reads every frame of the burst; what breaks its own rules is done for.
#[inline]
pub fn parse_all(lanes: &mut Lanes, our_mac: [u8; 6]) {
    let Lanes { frames, packets, fates, others, .. } = lanes;
    *others = 0;
    for frame in frames.iter() {
        frame.prefetch();
    }
    for (i, ((frame, packet), fate)) in frames.iter().zip(packets).zip(fates).enumerate() {
        let (data, whole, checksum_bad) = (frame.data(), frame.packet_len(), frame.bad_ip_checksum());
        *fate = Fate::Undecided;
        if parse_plain(data, whole, our_mac, checksum_bad, packet) {
            continue;
        }
        match parse(data, whole, our_mac, checksum_bad) {
            Ok(other) => {
                *others |= u64::from(other.kind != Kind::Flow) << i;
                *packet = other;
            }
            Err(verdict) => *fate = Fate::Drop(verdict),
        }
    }
}

/// Stage: decides about everything that is not a flow, on port `port`; `macs` are the ports' own, by port.
#[inline]
pub fn classify(lanes: &mut Lanes, port: u16, macs: &[[u8; 6]], rules: &Rules, tracker: &Tracker) {
    while lanes.others != 0 {
        let i = lanes.others.trailing_zeros() as usize;
        lanes.others &= lanes.others - 1;
        let packet = lanes.packets[i];
        lanes.fates[i] = other(&mut lanes.frames[i], &packet, port, macs, rules, tracker);
    }
}

#[inline(never)]
fn other(frame: &mut Mbuf, packet: &Packet, port: u16, macs: &[[u8; 6]], rules: &Rules, tracker: &Tracker) -> Fate {
    let our_mac = macs.get(usize::from(port)).copied().unwrap_or_default();
    let local = |address: Address| rules.is_local(address, port);
    let answer = match packet.kind {
        Kind::Arp => answer::arp(frame.data_mut(), our_mac, local),
        Kind::Icmp => {
            if let Some(fate) = icmp_related::decide(frame, packet, rules, tracker, macs) {
                return fate;
            }
            if local(packet.key.virtual_) { answer::echo_v4(frame.data_mut(), packet, our_mac) } else { Answer::Kernel }
        }
        Kind::Icmpv6 => {
            if let Some(fate) = icmp_related::decide(frame, packet, rules, tracker, macs) {
                return fate;
            }
            answer::icmpv6(frame, packet, our_mac, local)
        }
        Kind::Discovery => answer::icmpv6(frame, packet, our_mac, local),
        Kind::Fragment if rules.is_service_address(packet.key.virtual_) => Answer::Drop(Verdict::Fragment),
        Kind::Fragment | Kind::Other | Kind::Flow => Answer::Kernel,
    };
    match answer {
        Answer::Ready => Fate::Send(port, Verdict::Answered),
        Answer::Kernel => Fate::Kernel,
        Answer::Drop(verdict) => Fate::Drop(verdict),
    }
}
