//! `--tun-remcsum`: a receiver finds in our datagrams what it finds in those of a kernel that left the inner checksum to it
//! (draft-herbert-remotecsumoffload-02, draft-ietf-intarea-gue-09; Linux: `net/ipv4/fou.c`, `include/net/gue.h`).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod common;

use common::frame::tcp;
use common::*;
use dataplane::service::{Encapsulation::Gue, Protocol::*, SchedulerKind::*};
use dpdk::eal_test;
use dpdk::net::checksum;

const A: &str = "198.51.100.1:1000";
const WEB: &str = "10.10.24.88:80";
const RIP: [u8; 4] = [192, 0, 2, 7];
const OWN: [u8; 4] = [10, 10, 24, 10];
const PORT: u16 = 6080;

/// "Private flags present", the last of the GUE header's flags, and the first of the private ones: "remote checksum offload".
const PRIVATE: u16 = 1;
const REMOTE_CHECKSUM: u32 = 1 << 31;

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

/// The ones' complement sum that a checksum field holds the complement of.
fn sum(start: u64, bytes: &[u8]) -> u16 {
    !checksum::segment(start, bytes)
}

fn of_tunnel(length: usize) -> u64 {
    checksum::pseudo_v4(OWN, RIP, 17, length as u16)
}

/// What a receiver hands on of a GUE datagram; `None` for one that it drops.
///
/// The option says from where on the inner checksum goes and where it belongs, both from the end of the GUE header. What stands in its
/// place until then is the sum over the pseudo-header.
fn decapsulate(datagram: &[u8]) -> Option<Vec<u8>> {
    if datagram[6..8] != [0, 0] && checksum::segment(of_tunnel(datagram.len()), datagram) != 0 {
        return None;
    }
    let (version_and_control, words) = (datagram[8] >> 5, usize::from(datagram[8] & 0x1f));
    let (options, inner) = datagram[12..].split_at_checked(words * 4)?;
    let mut inner = inner.to_vec();
    let flags = be16(datagram, 10);
    if version_and_control != 0 || datagram[9] != 4 || flags & !PRIVATE != 0 {
        return None;
    }
    if flags & PRIVATE != 0 && u32::from_be_bytes(options.get(..4)?.try_into().ok()?) & REMOTE_CHECKSUM != 0 {
        let (start, place) = (usize::from(be16(options, 4)), usize::from(be16(options, 6)));
        let whole = !sum(0, inner.get(start..)?);
        inner.get_mut(place..place + 2)?.copy_from_slice(&whole.to_be_bytes());
    }
    Some(inner)
}

/// What a kernel sends of a segment of its own whose checksum a device was to fill in (`CHECKSUM_PARTIAL`).
fn offloaded(inner: &[u8]) -> Vec<u8> {
    let (ip, segment) = inner.split_at(20);
    let pseudo = checksum::pseudo_v4(ip[12..16].try_into().unwrap(), ip[16..20].try_into().unwrap(), 6, segment.len() as u16);
    let mut open = inner.to_vec();
    open[36..38].copy_from_slice(&sum(pseudo, &[]).to_be_bytes());
    let length = 8 + 4 + 8 + inner.len();
    let mut datagram = [33_000, PORT, length as u16, 0].map(u16::to_be_bytes).concat();
    // Version 0, no control message, two words of options; IPv4; private flags; their word; start 20 and place 20 + 16.
    datagram.extend([2, 4, 0, 1, 0x80, 0, 0, 0, 0, 20, 0, 36]);
    datagram.extend(open);
    let outer = checksum::udp_segment(of_tunnel(length), &datagram);
    datagram[6..8].copy_from_slice(&outer.to_be_bytes());
    datagram
}

eal_test! {
    fn a_receiver_finds_in_our_datagram_what_it_finds_in_an_offloaded_one(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21).tunnel("192.0.2.7", DIP).encapsulation(Gue { port: PORT, checksum: true })]);
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1400]] {
            let sent = tcp(A, WEB).payload(payload).syn();
            let frame = lab.expect(&sent, &["forwarded"]).remove(0);
            let ours = &frame[34..];
            assert_eq!((be16(ours, 2), usize::from(be16(ours, 4))), (PORT, ours.len()));
            // A packet from a wire has its checksum, so there is nothing to leave to the receiver, and no option says so.
            assert_eq!(ours[8..12], [0, 4, 0, 0], "no options, IPv4, no flags");
            assert_ne!(ours[6..8], [0, 0], "the outer checksum");
            let inner = decapsulate(ours).unwrap();
            assert_eq!(inner[20..], sent[34..], "with the checksum that the client gave it");
            let theirs = offloaded(&inner);
            assert_eq!(decapsulate(&theirs).unwrap(), inner);
            assert_ne!(theirs[20 + 36..20 + 38], inner[36..38], "open on the way");
            for damaged in [30, ours.len() - 1] {
                let mut ours = ours.to_vec();
                ours[damaged] ^= 4;
                assert_eq!(decapsulate(&ours), None, "the outer checksum covers all of it");
            }
        }
        lab.assert_no_leak();
    }
}
