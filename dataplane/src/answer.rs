//! What the worker answers itself: ARP, neighbour solicitations and echo requests for addresses of our own.
//!
//! Every answer is the request turned round in place, and goes back to the MAC it came from, so that the answers never
//! depend on a neighbour table or on the kernel.

use dpdk::mbuf::Mbuf;
use dpdk::net::{checksum, icmpv4_kind, icmpv6_kind, protocol};

use crate::address::Address;
use crate::parse::{L3, Packet};
use crate::verdict::Verdict;

/// What became of a frame that might be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The frame now holds the answer.
    Ready,
    /// The kernel is to have it: an answer to a question of its own.
    Kernel,
    /// Not for us, or against the rules.
    Drop(Verdict),
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.first_chunk().copied()
}

/// The checksum of an ICMPv6 message; 0 over a right one (RFC 4443 section 2.3).
fn icmpv6_checksum(source: &[u8; 16], destination: &[u8; 16], icmp: &[u8]) -> u16 {
    // A message is shorter than the 16-bit length of its packet.
    let length = u32::try_from(icmp.len()).unwrap_or_default();
    checksum::segment(checksum::pseudo_v6(source, destination, protocol::ICMPV6, length), icmp)
}

/// ARP (RFC 826, RFC 5227): requests for our addresses are answered, replies are the kernel's.
///
/// A gratuitous request is the kernel's too: it may know that neighbour. `local` tells whether an address is ours on this port, `vip`
/// whether it is a VIP, taken or about to be. Whoever else speaks for a VIP, or probes for one that is not taken yet (RFC 5227
/// section 2.1.1), is let through: the control plane watches for that on the exception path.
pub fn arp(frame: &mut [u8], our_mac: [u8; 6], local: impl Fn(Address) -> bool, vip: impl Fn(Address) -> bool) -> Answer {
    const BAD: Answer = Answer::Drop(Verdict::BadNeighbourMessage);
    const REQUEST: [u8; 2] = [0, 1];
    const REPLY: [u8; 2] = [0, 2];
    let Some(head) = bytes::<6>(frame, L3) else { return Answer::Drop(Verdict::Short) };
    // Ethernet, IPv4, address lengths 6 and 4.
    if head != [0, 1, 8, 0, 6, 4] {
        return BAD;
    }
    let (Some(operation), Some(sender_mac), Some(sender), Some(target)) =
        (bytes::<2>(frame, L3 + 6), bytes::<6>(frame, L3 + 8), bytes::<4>(frame, L3 + 14), bytes::<4>(frame, L3 + 24))
    else {
        return Answer::Drop(Verdict::Short);
    };
    let source = bytes::<6>(frame, 6).unwrap_or_default();
    // A sender that is not who the frame says it is, or a group, is a forgery.
    if sender_mac != source || sender_mac[0] & 1 != 0 {
        return BAD;
    }
    let address = |a: [u8; 4]| Address::v4(u32::from_be_bytes(a));
    if vip(address(sender)) {
        return Answer::Kernel;
    }
    if local(address(sender)) {
        return Answer::Drop(Verdict::OwnSource);
    }
    match operation {
        REQUEST if local(address(target)) => {
            let Some(arp) = frame.get_mut(L3..L3 + 28) else { return Answer::Drop(Verdict::Short) };
            arp[6..8].copy_from_slice(&REPLY);
            arp[8..14].copy_from_slice(&our_mac);
            arp[14..18].copy_from_slice(&target);
            arp[18..24].copy_from_slice(&sender_mac);
            arp[24..28].copy_from_slice(&sender);
            turn_round(frame, our_mac);
            Answer::Ready
        }
        REQUEST if sender == [0; 4] && vip(address(target)) => Answer::Kernel,
        REQUEST if sender != target => Answer::Drop(Verdict::NotForUs),
        REQUEST | REPLY => Answer::Kernel,
        _ => BAD,
    }
}

/// Sends the frame back where it came from.
fn turn_round(frame: &mut [u8], our_mac: [u8; 6]) {
    if let Some(ethernet) = frame.get_mut(..12) {
        let (destination, source) = ethernet.split_at_mut(6);
        destination.copy_from_slice(source);
        source.copy_from_slice(&our_mac);
    }
}

/// An echo request for an address of ours becomes its reply (RFC 792, RFC 1122 section 3.2.2.6); anything else is the kernel's.
pub fn echo_v4(frame: &mut [u8], packet: &Packet, our_mac: [u8; 6]) -> Answer {
    const PLAIN_HEADER: usize = 20;
    let l4 = usize::from(packet.l4);
    let end = L3 + usize::from(packet.length);
    let Some(icmp) = frame.get(l4..end).filter(|icmp| icmp.len() >= 8) else { return Answer::Drop(Verdict::BadLength) };
    // Options that record a route would have to be answered with a route.
    if icmp[0] != icmpv4_kind::ECHO_REQUEST || icmp[1] != 0 || l4 != L3 + PLAIN_HEADER {
        return Answer::Kernel;
    }
    if checksum::internet(icmp) != 0 {
        return Answer::Drop(Verdict::BadChecksum);
    }
    let (Some(source), Some(destination)) = (bytes::<4>(frame, L3 + 12), bytes::<4>(frame, L3 + 16)) else {
        return Answer::Drop(Verdict::Short);
    };
    if let Some(ip) = frame.get_mut(L3..l4) {
        ip[8] = 64;
        ip[10..12].fill(0);
        ip[12..16].copy_from_slice(&destination);
        ip[16..20].copy_from_slice(&source);
        let sum = checksum::internet(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if let Some(icmp) = frame.get_mut(l4..end) {
        icmp[0] = icmpv4_kind::ECHO_REPLY;
        icmp[2..4].fill(0);
        let sum = checksum::internet(icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    turn_round(frame, our_mac);
    Answer::Ready
}

/// ICMPv6 for the director: echo requests and neighbour solicitations are answered (RFC 4443, RFC 4861), the rest is the kernel's.
pub fn icmpv6(frame: &mut Mbuf, packet: &Packet, our_mac: [u8; 6], local: impl Fn(Address) -> bool) -> Answer {
    const REDIRECT: u8 = 137;
    let l4 = usize::from(packet.l4);
    let data = frame.data_mut();
    let (Some(source), Some(destination)) = (bytes::<16>(data, L3 + 8), bytes::<16>(data, L3 + 24)) else {
        return Answer::Drop(Verdict::Short);
    };
    let hop_limit = data[L3 + 7];
    let Some(icmp) = data.get_mut(l4..L3 + usize::from(packet.length)).filter(|icmp| icmp.len() >= 8) else {
        return Answer::Drop(Verdict::BadLength);
    };
    let kind = icmp[0];
    let discovery = (icmpv6_kind::ROUTER_SOLICITATION..=REDIRECT).contains(&kind);
    if !discovery && kind != icmpv6_kind::ECHO_REQUEST {
        return Answer::Kernel;
    }
    if icmpv6_checksum(&source, &destination, icmp) != 0 {
        return Answer::Drop(Verdict::BadChecksum);
    }
    if kind == icmpv6_kind::ECHO_REQUEST {
        if !local(packet.key.virtual_) {
            return Answer::Kernel;
        }
        icmp[0] = icmpv6_kind::ECHO_REPLY;
        icmp[2..4].fill(0);
        let sum = icmpv6_checksum(&destination, &source, icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        data[L3 + 7] = 64;
        data[L3 + 8..L3 + 24].copy_from_slice(&destination);
        data[L3 + 24..L3 + 40].copy_from_slice(&source);
        turn_round(data, our_mac);
        return Answer::Ready;
    }
    // RFC 4861 sections 6.1 and 7.1: what has been forwarded, or carries a code, is not neighbour discovery.
    if hop_limit != 255 || icmp[1] != 0 || l4 != L3 + 40 {
        return Answer::Drop(Verdict::BadNeighbourMessage);
    }
    if kind != icmpv6_kind::NEIGHBOUR_SOLICITATION {
        return Answer::Kernel;
    }
    match solicited(icmp) {
        None => Answer::Drop(Verdict::BadNeighbourMessage),
        Some(target) if !local(target) => Answer::Drop(Verdict::NotForUs),
        Some(target) => advertise(frame, target, our_mac, source),
    }
}

/// The target of a well-formed neighbour solicitation (RFC 4861 section 7.1.1).
fn solicited(icmp: &[u8]) -> Option<Address> {
    let target = Address(u128::from_be_bytes(bytes(icmp, 8)?));
    let mut options = icmp.get(24..)?;
    while let Some(&[_, units]) = options.first_chunk() {
        // A length of zero would never end.
        options = options.get(usize::from(units) * 8..).filter(|_| units != 0)?;
    }
    options.is_empty().then_some(target)
}

/// Turns the solicitation into the advertisement of our MAC (RFC 4861 section 4.4), to all nodes when the asker has no address.
fn advertise(frame: &mut Mbuf, target: Address, our_mac: [u8; 6], asker: [u8; 16]) -> Answer {
    const LENGTH: usize = L3 + 40 + 32;
    const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let have = frame.len();
    let fits = if have < LENGTH { frame.append(LENGTH - have).is_some() } else { frame.truncate(LENGTH).is_some() };
    if !fits {
        return Answer::Drop(Verdict::BadNeighbourMessage);
    }
    let data = frame.data_mut();
    turn_round(data, our_mac);
    let anonymous = asker == [0; 16];
    if anonymous {
        data[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    }
    let source = target.0.to_be_bytes();
    let destination = if anonymous { ALL_NODES } else { asker };
    data[L3..L3 + 8].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, protocol::ICMPV6, 255]);
    data[L3 + 8..L3 + 24].copy_from_slice(&source);
    data[L3 + 24..L3 + 40].copy_from_slice(&destination);
    let icmp = &mut data[L3 + 40..];
    icmp[..8].copy_from_slice(&[
        icmpv6_kind::NEIGHBOUR_ADVERTISEMENT,
        0,
        0,
        0,
        if anonymous { OVERRIDE } else { SOLICITED | OVERRIDE },
        0,
        0,
        0,
    ]);
    icmp[8..24].copy_from_slice(&source);
    icmp[24..26].copy_from_slice(&[2, 1]);
    icmp[26..32].copy_from_slice(&our_mac);
    let sum = icmpv6_checksum(&source, &destination, icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Answer::Ready
}
