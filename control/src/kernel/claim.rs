//! Who speaks for an address: questions for a VIP, and what answers and announcements say (RFC 826, RFC 5227, RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dpdk::net::checksum;

use super::announce::SHORTEST;
use super::message::Mac;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Somebody says that a VIP is his.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    /// The VIP.
    pub vip: IpAddr,
    /// The port's number that it was heard on.
    pub port: u16,
    /// Whose MAC was given.
    pub mac: [u8; 6],
}

/// The frame that asks who has `vip`; without a `source` of the VIP's family it is a probe, which changes nobody's table.
pub(super) fn question(mac: Mac, source: Option<IpAddr>, vip: IpAddr) -> Vec<u8> {
    match (vip, source) {
        (IpAddr::V4(vip), Some(IpAddr::V4(source))) => arp_request(mac, source, vip),
        (IpAddr::V4(vip), _) => arp_request(mac, Ipv4Addr::UNSPECIFIED, vip),
        (IpAddr::V6(vip), Some(IpAddr::V6(source))) => solicitation(mac, source, vip),
        (IpAddr::V6(vip), _) => solicitation(mac, Ipv6Addr::UNSPECIFIED, vip),
    }
}

fn arp_request(mac: Mac, source: Ipv4Addr, vip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(SHORTEST);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(ARP);
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(vip.octets());
    frame.resize(SHORTEST, 0);
    frame
}

/// To the solicited-node group of the VIP (RFC 4291 section 2.7.1), 86 bytes, or 78 without a source (RFC 4862 section 5.4.2).
fn solicitation(mac: Mac, source: Ipv6Addr, vip: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = vip.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c));
    let mut body = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    body.extend(vip.octets());
    if !source.is_unspecified() {
        body.extend([1, 1]);
        body.extend(mac);
    }
    let length = u8::try_from(body.len()).unwrap_or_default();
    let pseudo = checksum::pseudo_v6(&source.octets(), &group.octets(), ICMPV6, length.into());
    let sum = checksum::segment(pseudo, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(mac);
    frame.extend(IPV6);
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(body);
    frame
}

/// Whether a frame may say whose an address is: all that most frames are looked at for.
pub(super) fn may_claim(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some(kind) if kind == ARP => true,
        Some(kind) if kind == IPV6 => frame.get(20) == Some(&ICMPV6) && frame.get(54) == Some(&NEIGHBOUR_ADVERTISEMENT),
        _ => false,
    }
}

/// The address and the MAC that a frame says belong together. A probe (RFC 5227) says so of the address that it asks for.
pub(super) fn claimed(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    if !may_claim(frame) {
        return None;
    }
    let v4 = |at: usize| Some(Ipv4Addr::from(*frame.get(at..)?.first_chunk::<4>()?));
    if frame.get(12..14)? == ARP {
        let mac = *frame.get(22..)?.first_chunk()?;
        let sender = v4(28)?;
        let address = if sender.is_unspecified() { v4(38)? } else { sender };
        return Some((address.into(), mac));
    }
    let target = Ipv6Addr::from(*frame.get(62..)?.first_chunk::<16>()?);
    Some((target.into(), link_layer_address(frame.get(78..)?).or_else(|| frame.get(6..)?.first_chunk().copied())?))
}

/// The target link-layer address among an advertisement's options.
fn link_layer_address(mut options: &[u8]) -> Option<Mac> {
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    while let Some(&[kind, units]) = options.first_chunk() {
        if kind == TARGET_LINK_LAYER_ADDRESS && units == 1 {
            return options.get(2..8)?.first_chunk().copied();
        }
        // A length of zero would never end.
        options = options.get(usize::from(units) * 8..).filter(|_| units != 0)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::announce;
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn question_names_its_asker_and_a_probe_does_not() {
        let frame = question(MAC, Some(ip("10.10.24.10")), ip("10.10.24.88"));
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..22], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..32], [10, 10, 24, 10]);
        assert_eq!(frame[32..42], [0, 0, 0, 0, 0, 0, 10, 10, 24, 88]);
        assert_eq!(question(MAC, None, ip("10.10.24.88"))[28..32], [0; 4]);
        assert_eq!(question(MAC, Some(ip("fd00::1")), ip("10.10.24.88"))[28..32], [0; 4], "of the other family");
    }

    #[test]
    fn solicitation_goes_to_the_group_of_the_vip_and_sums_up() {
        for (source, length) in [(Some(ip("fd00:10::10")), 86), (None, 78)] {
            let frame = question(MAC, source, ip("fd00:10::12:3488"));
            assert_eq!(frame.len(), length);
            assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x88]);
            assert_eq!((frame[20], frame[21], frame[54]), (58, 255, 135));
            assert_eq!(frame[38..54], "ff02::1:ff12:3488".parse::<Ipv6Addr>().unwrap().octets());
            let body = frame.len() - 54;
            let pseudo = frame[22..54].iter().copied().chain([0, 0, 0, u8::try_from(body).unwrap(), 0, 0, 0, 58]);
            let all: Vec<u8> = pseudo.chain(frame[54..].iter().copied()).collect();
            let sum: u32 = all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    #[test]
    fn announcements_questions_and_probes_claim_what_they_say() {
        let vip = ip("10.10.24.88");
        assert_eq!(claimed(&announce::frame(MAC, vip)), Some((vip, MAC)));
        assert_eq!(claimed(&question(MAC, Some(ip("10.10.24.10")), vip)), Some((ip("10.10.24.10"), MAC)));
        assert_eq!(claimed(&question(MAC, None, vip)), Some((vip, MAC)), "a probe is for the address that it asks for");
        let vip6 = ip("fd00:10::88");
        let mut advertisement = announce::frame(MAC, vip6);
        assert_eq!(claimed(&advertisement), Some((vip6, MAC)));
        advertisement[78] = 3;
        advertisement[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        assert_eq!(claimed(&advertisement), Some((vip6, [2, 0, 0, 0, 0, 9])), "without the option, who sent it");
        advertisement[79] = 0;
        assert!(claimed(&advertisement).is_some(), "an option without a length ends the search");
        assert_eq!(claimed(&question(MAC, Some(ip("fd00:10::10")), vip6)), None);
    }

    #[test]
    fn frames_cut_short_claim_nothing() {
        for frame in [announce::frame(MAC, ip("10.10.24.88")), announce::frame(MAC, ip("fd00:10::88"))] {
            for end in 0..frame.len() {
                let _ = claimed(&frame[..end]);
            }
            assert_eq!(claimed(&frame[..30]), None);
        }
    }
}
