//! ARP (RFC 826), neighbour discovery (RFC 4861) and echo (RFC 792, RFC 4443) for addresses of our own.

use std::net::{IpAddr, Ipv6Addr};

use super::wire::{L3, Packet, be16, checksum, checksum_with, v4_at, v6_at};

pub enum Answer {
    /// This frame goes back.
    Send(Vec<u8>),
    Kernel,
    Drop(&'static str),
}

/// `local` tells whether an address is ours on the port that the frame came by, `vip` whether it is a VIP.
pub fn arp(frame: &[u8], our_mac: [u8; 6], local: impl Fn(IpAddr) -> bool, vip: impl Fn(IpAddr) -> bool) -> Answer {
    let arp = &frame[L3..];
    if arp.len() < 6 {
        return Answer::Drop("short");
    }
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return Answer::Drop("bad_neighbour_message");
    }
    if arp.len() < 28 {
        return Answer::Drop("short");
    }
    let (sender_mac, sender, target) = (&arp[8..14], v4_at(arp, 14), v4_at(arp, 24));
    if *sender_mac != frame[6..12] || sender_mac[0] % 2 == 1 {
        return Answer::Drop("bad_neighbour_message");
    }
    if vip(sender.into()) {
        return Answer::Kernel;
    }
    if local(sender.into()) {
        return Answer::Drop("own_source");
    }
    match be16(arp, 6) {
        1 if local(target.into()) => {
            let mut reply =
                [sender_mac, &our_mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &our_mac, &target.octets(), sender_mac, &sender.octets()].concat();
            reply.extend(&arp[28..]);
            Answer::Send(reply)
        }
        1 if sender.is_unspecified() && vip(target.into()) => Answer::Kernel,
        1 if sender != target => Answer::Drop("not_for_us"),
        1 | 2 => Answer::Kernel,
        _ => Answer::Drop("bad_neighbour_message"),
    }
}

/// The same frame with the Ethernet addresses of its way back.
fn back(frame: &[u8], our_mac: [u8; 6]) -> Vec<u8> {
    [&frame[6..12], &our_mac, &frame[12..]].concat()
}

pub fn echo(frame: &[u8], packet: &Packet, our_mac: [u8; 6]) -> Answer {
    let end = L3 + packet.length;
    let icmp = &frame[packet.l4..end];
    if icmp.len() < 8 {
        return Answer::Drop("bad_length");
    }
    if icmp[0] != 8 || icmp[1] != 0 || packet.l4 != L3 + 20 {
        return Answer::Kernel;
    }
    if checksum(icmp) != 0 {
        return Answer::Drop("bad_checksum");
    }
    let mut reply = back(frame, our_mac);
    reply[22] = 64;
    reply[26..30].copy_from_slice(&frame[30..34]);
    reply[30..34].copy_from_slice(&frame[26..30]);
    reply[24..26].fill(0);
    let sum = checksum(&reply[14..34]);
    reply[24..26].copy_from_slice(&sum.to_be_bytes());
    reply[34] = 0;
    reply[36..38].fill(0);
    let sum = checksum(&reply[34..end]);
    reply[36..38].copy_from_slice(&sum.to_be_bytes());
    Answer::Send(reply)
}

pub fn icmpv6(frame: &[u8], packet: &Packet, our_mac: [u8; 6], local: impl Fn(IpAddr) -> bool) -> Answer {
    let end = L3 + packet.length;
    let icmp = &frame[packet.l4..end];
    if icmp.len() < 8 {
        return Answer::Drop("bad_length");
    }
    let discovery = (133..=137).contains(&icmp[0]);
    if icmp[0] != 128 && !discovery {
        return Answer::Kernel;
    }
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    if checksum_with(source, destination, 58, icmp) != 0 {
        return Answer::Drop("bad_checksum");
    }
    if !discovery {
        if !local(destination) {
            return Answer::Kernel;
        }
        let mut reply = back(frame, our_mac);
        reply[21] = 64;
        reply[22..38].copy_from_slice(&frame[38..54]);
        reply[38..54].copy_from_slice(&frame[22..38]);
        reply[packet.l4] = 129;
        reply[packet.l4 + 2..packet.l4 + 4].fill(0);
        let sum = checksum_with(destination, source, 58, &reply[packet.l4..end]);
        reply[packet.l4 + 2..packet.l4 + 4].copy_from_slice(&sum.to_be_bytes());
        return Answer::Send(reply);
    }
    let hop_limit = frame[L3 + 7];
    if hop_limit != 255 || icmp[1] != 0 || packet.l4 != L3 + 40 {
        return Answer::Drop("bad_neighbour_message");
    }
    if icmp[0] != 135 {
        return Answer::Kernel;
    }
    if !has_whole_options(icmp) {
        return Answer::Drop("bad_neighbour_message");
    }
    let target = v6_at(icmp, 8);
    if !local(target.into()) {
        return Answer::Drop("not_for_us");
    }
    Answer::Send(advertisement(frame, our_mac, source, target))
}

/// A solicitation's target, then options that each say their length, never 0, and fill the message.
fn has_whole_options(icmp: &[u8]) -> bool {
    let mut at = 24;
    while at + 2 <= icmp.len() && icmp[at + 1] != 0 {
        at += 8 * usize::from(icmp[at + 1]);
    }
    at == icmp.len()
}

fn advertisement(solicitation: &[u8], our_mac: [u8; 6], asker: IpAddr, target: Ipv6Addr) -> Vec<u8> {
    let all_nodes: Ipv6Addr = "ff02::1".parse().expect("an address");
    let IpAddr::V6(asker) = asker else { panic!("IPv6") };
    let (to_mac, to, flags): (&[u8], _, _) =
        if asker.is_unspecified() { (&[0x33, 0x33, 0, 0, 0, 1], all_nodes, 0x20) } else { (&solicitation[6..12], asker, 0x60) };
    let mut icmp = vec![136, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([2, 1]);
    icmp.extend(our_mac);
    let sum = checksum_with(target.into(), to.into(), 58, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    [to_mac, &our_mac, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255], &target.octets(), &to.octets(), &icmp].concat()
}
