//! Telling the neighbours of a port that a VIP is here: gratuitous ARP and unsolicited neighbour advertisements.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use dpdk::net::checksum;

use super::message::Mac;

/// How often a VIP that appeared is announced (RFC 5227, section 2.3 has two; a third outlives a busy switch).
const TIMES: u8 = 3;

/// The least time between two announcements of a VIP.
const APART: Duration = Duration::from_secs(1);

/// Bytes of the shortest Ethernet frame, its checksum left out (IEEE 802.3).
pub(super) const SHORTEST: usize = 60;

/// The frame that announces `vip` at `mac`.
pub(super) fn frame(mac: Mac, vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => gratuitous_arp(mac, vip),
        IpAddr::V6(vip) => unsolicited_advertisement(mac, vip),
    }
}

/// An ARP request for the sender's own address (RFC 5227, section 2.3), padded to 60 bytes.
fn gratuitous_arp(mac: Mac, vip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(SHORTEST);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, the lengths of their addresses, request.
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(vip.octets());
    frame.extend([0; 6]);
    frame.extend(vip.octets());
    frame.resize(SHORTEST, 0);
    frame
}

/// A neighbour advertisement to all nodes with the override flag (RFC 4861, sections 4.4 and 7.2.6), 86 bytes.
fn unsolicited_advertisement(mac: Mac, vip: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const LENGTH: u8 = 32;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    body.extend(vip.octets());
    body.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    body.extend(mac);
    let pseudo = checksum::pseudo_v6(&vip.octets(), &all_nodes.octets(), ICMPV6, LENGTH.into());
    let sum = checksum::segment(pseudo, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(mac);
    frame.extend([0x86, 0xdd]);
    // Version 6, the length, what follows, hop limit 255.
    frame.extend([0x60, 0, 0, 0, 0, LENGTH, ICMPV6, 255]);
    frame.extend(vip.octets());
    frame.extend(all_nodes.octets());
    frame.extend(body);
    frame
}

/// The VIPs that are being announced, with how often each still is.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    left: BTreeMap<IpAddr, (u8, Instant)>,
}

impl Announcements {
    /// A VIP appeared: it is due now.
    pub(super) fn begin(&mut self, vip: IpAddr, now: Instant) {
        self.left.insert(vip, (TIMES, now));
    }

    /// A VIP is gone: it is announced no more.
    pub(super) fn end(&mut self, vip: IpAddr) {
        self.left.remove(&vip);
    }

    /// The VIPs to announce now; each is given once a second, three times in all.
    pub(super) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut due = Vec::new();
        self.left.retain(|vip, (left, next)| {
            if *next <= now {
                due.push(*vip);
                *left -= 1;
                *next = now + APART;
            }
            *left > 0
        });
        due
    }

    /// When the next announcement is due, if any is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.left.values().map(|(_, next)| *next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn gratuitous_arp_asks_everyone_for_the_own_address() {
        let frame = frame(MAC, "10.10.24.88".parse().unwrap());
        let mut expected = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 10, 24, 88, 0, 0, 0, 0, 0, 0, 10, 10, 24, 88]);
        expected.resize(60, 0);
        assert_eq!(frame, expected);
    }

    #[test]
    fn unsolicited_advertisement_overrides_and_sums_up() {
        let vip: Ipv6Addr = "fd00:10::88".parse().unwrap();
        let frame = frame(MAC, vip.into());
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
        assert_eq!((frame[20], frame[21]), (58, 255), "ICMPv6, hop limit 255");
        assert_eq!(frame[22..38], vip.octets());
        assert_eq!((frame[54], frame[58]), (136, 0x20), "advertisement, override alone");
        assert_eq!(frame[62..78], vip.octets());
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 7]);
        // Summed with its checksum, pseudo header included, a message gives all ones.
        let pseudo = frame[22..54].iter().chain(&[0, 0, 0, 32, 0, 0, 0, 58]).chain(&frame[54..]).copied().collect::<Vec<u8>>();
        let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn a_vip_is_announced_three_times_a_second_apart() {
        let vip = IpAddr::from([10, 0, 0, 1]);
        let start = Instant::now();
        let mut all = Announcements::default();
        all.begin(vip, start);
        let times: Vec<u64> = (0..40).filter(|tenth| !all.due(start + Duration::from_millis(tenth * 100)).is_empty()).collect();
        assert_eq!(times, [0, 10, 20]);
        assert_eq!(all.next(), None);
    }

    #[test]
    fn a_vip_that_left_is_announced_no_more() {
        let vip = IpAddr::from([10, 0, 0, 1]);
        let start = Instant::now();
        let mut all = Announcements::default();
        all.begin(vip, start);
        assert_eq!(all.due(start), [vip]);
        all.end(vip);
        assert_eq!(all.due(start + APART * 2), [] as [IpAddr; 0]);
    }
}
