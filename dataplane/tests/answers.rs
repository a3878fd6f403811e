//! What the worker answers itself, what it refuses, and what it leaves to the kernel.
mod common;

use common::frame::{self, arp_request, echo_request, icmpv6, mended, solicitation, tcp, udp};
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal_test;
use dpdk::net::checksum;

const WEB: &str = "10.10.24.88:80";
const ASKER: [u8; 4] = [10, 10, 24, 1];

eal_test! {
    fn arp_requests_for_vip_and_dip_are_answered_to_who_asked(eal) {
        let mut lab = Lab::new(eal);
        for last in [88, 10] {
            let out = lab.expect(&arp_request(ROUTER_MAC, ASKER, [10, 10, 24, last]), &["answered"]).remove(0);
            assert_eq!((&out[..6], &out[6..12]), (&ROUTER_MAC[..], &OUR_MAC[..]));
            assert_eq!(out[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2], "an ARP reply");
            assert_eq!((&out[22..28], &out[28..32]), (&OUR_MAC[..], &[10, 10, 24, last][..]));
            assert_eq!((&out[32..38], &out[38..42]), (&ROUTER_MAC[..], &ASKER[..]));
        }
        lab.expect(&arp_request(ROUTER_MAC, [0; 4], [10, 10, 24, 88]), &["answered"]);
        assert!(lab.kernel().is_empty(), "the kernel never sees requests for our addresses");
        lab.assert_no_leak();
    }

    fn other_arp_is_the_kernels_or_nobodys(eal) {
        let mut lab = Lab::new(eal);
        lab.expect(&arp_request(ROUTER_MAC, ASKER, [10, 10, 24, 77]), &["not_for_us"]);
        lab.expect(&arp_request(ROUTER_MAC, ASKER, ASKER), &["exception"]);
        let mut reply = arp_request(ROUTER_MAC, ASKER, [10, 10, 24, 10]);
        reply[..6].copy_from_slice(&OUR_MAC);
        reply[21] = 2;
        lab.expect(&reply, &["exception"]);
        assert_eq!(lab.kernel().len(), 2);
        let mut forged = reply.clone();
        forged[22..28].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
        lab.expect(&forged, &["bad_neighbour_message"]);
        lab.expect(&arp_request(ROUTER_MAC, [10, 10, 24, 10], [10, 10, 24, 10]), &["own_source"]);
        let mut token_ring = reply.clone();
        token_ring[15] = 6;
        lab.expect(&token_ring, &["bad_neighbour_message"]);
        lab.expect(&reply[..30], &["short"]);
    }

    fn who_else_speaks_for_a_vip_is_let_through_to_the_watch(eal) {
        const VIP: [u8; 4] = [10, 10, 24, 88];
        let mut lab = Lab::new(eal);
        let mut reply = arp_request(ROUTER_MAC, VIP, [10, 10, 24, 10]);
        reply[21] = 2;
        for claim in [arp_request(ROUTER_MAC, VIP, VIP), arp_request(ROUTER_MAC, VIP, ASKER), reply] {
            lab.expect(&claim, &["exception"]);
        }
        assert_eq!(lab.kernel().len(), 3);
        lab.expect(&arp_request(OUR_MAC, VIP, VIP), &["own_mac_source"]);
        assert!(lab.kernel().is_empty(), "our own announcement that came back claims nothing");
    }

    fn neighbour_solicitations_are_answered(eal) {
        let mut lab = Lab::new(eal);
        let group = [0x33, 0x33, 0xff, 0, 0, 0x88];
        for (source, bare) in [("fd00:10::1", false), ("fd00:10::1", true)] {
            let ask = icmpv6(group, source, "ff02::1:ff00:88", 255, solicitation(VIP6, bare));
            let out = lab.expect(&ask, &["answered"]).remove(0);
            assert_eq!(out.len(), 86);
            assert_eq!((&out[..6], out[21], out[54]), (&ROUTER_MAC[..], 255, 136));
            assert_eq!(out[58] & 0xe0, 0x60, "solicited, override");
            assert_eq!((&out[78..80], &out[80..86]), (&[2, 1][..], &OUR_MAC[..]));
            let pseudo = checksum::pseudo_v6(out[22..38].try_into().unwrap(), out[38..54].try_into().unwrap(), 58, 32);
            assert_eq!(checksum::segment(pseudo, &out[54..]), 0);
        }
        let dad = icmpv6(group, "::", "ff02::1:ff00:88", 255, solicitation(VIP6, true));
        let out = lab.expect(&dad, &["answered"]).remove(0);
        assert_eq!(out[..6], [0x33, 0x33, 0, 0, 0, 1], "to all nodes");
        assert_eq!(out[58] & 0xe0, 0x20, "not solicited");
        lab.assert_no_leak();
    }

    fn bad_neighbour_solicitations_are_dropped(eal) {
        let mut lab = Lab::new(eal);
        let group = [0x33, 0x33, 0xff, 0, 0, 0x88];
        let from = |hop, message| icmpv6(group, "fd00:10::1", "ff02::1:ff00:88", hop, message);
        lab.expect(&from(64, solicitation(VIP6, false)), &["bad_neighbour_message"]);
        let mut endless = solicitation(VIP6, false);
        endless[25] = 0;
        lab.expect(&from(255, endless), &["bad_neighbour_message"]);
        let mut cut = solicitation(VIP6, false);
        cut.truncate(28);
        lab.expect(&from(255, cut), &["bad_neighbour_message"]);
        lab.expect(&from(255, solicitation("fd00:10::77", false)), &["not_for_us"]);
        let mut wrong = from(255, solicitation(VIP6, false));
        wrong[56] ^= 1;
        lab.expect(&wrong, &["bad_checksum"]);
    }

    fn echo_to_vip_and_dip_is_answered(eal) {
        let mut lab = Lab::new(eal);
        for last in [88, 10] {
            let ask = echo_request([198, 51, 100, 1], [10, 10, 24, last]);
            let out = lab.expect(&ask, &["answered"]).remove(0);
            assert_eq!((out[34], &out[38..]), (0, &ask[38..]), "a reply with the same id, number and data");
            assert_eq!((&out[26..30], &out[30..34]), (&ask[30..34], &ask[26..30]));
            assert_eq!((checksum::internet(&out[14..34]), checksum::internet(&out[34..])), (0, 0));
        }
        let mut wrong = echo_request([198, 51, 100, 1], [10, 10, 24, 88]);
        wrong[40] ^= 1;
        lab.expect(&wrong, &["bad_checksum"]);
        lab.expect(&echo_request([198, 51, 100, 1], [10, 10, 24, 77]), &["exception"]);
        lab.expect(&echo_request([10, 10, 24, 10], [10, 10, 24, 88]), &["own_source"]);
        let ask = icmpv6(OUR_MAC, "2001:db8::4", VIP6, 64, vec![128, 0, 0, 0, 0x61, 0, 4, 1]);
        let out = lab.expect(&ask, &["answered"]).remove(0);
        assert_eq!((out[54], out[21], &out[58..]), (129, 64, &ask[58..]));
    }

    fn what_belongs_to_no_service_goes_to_the_kernel_at_a_limited_rate(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        let ssh = tcp("198.51.100.1:1000", "10.10.24.10:22").syn();
        lab.expect(&ssh, &["exception"]);
        assert_eq!(lab.kernel(), std::slice::from_ref(&ssh), "as it came");
        lab.expect(&udp("198.51.100.1:1000", "10.10.24.88:80"), &["exception"]);
        lab.kernel();
        lab.settings(Settings { exception_rate: 0, ..Settings::default() });
        lab.expect(&ssh, &["exception_rate"]);
        let mut reply = arp_request(ROUTER_MAC, ASKER, [10, 10, 24, 10]);
        reply[..6].copy_from_slice(&OUR_MAC);
        reply[21] = 2;
        lab.expect(&reply, &["exception"]);
        let mut advertisement = solicitation("fd00:10::1", true);
        advertisement[0] = 136;
        lab.expect(&icmpv6(OUR_MAC, "fd00:10::1", "fd00:10::10", 255, advertisement), &["exception"]);
        // A flood of pings is no answer to the kernel's questions, and has no part in their share.
        lab.expect(&icmpv6(OUR_MAC, "2001:db8::4", "fd00:10::77", 64, vec![128, 0, 0, 0, 0x61, 0, 4, 1]), &["exception_rate"]);
        assert_eq!(lab.kernel().len(), 2);
        lab.assert_no_leak();
    }

    fn every_malformed_frame_is_dropped_under_its_own_reason(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        lab.service(1, Udp, VIP, 53, RoundRobin, &[server(21)]);
        let good = tcp("198.51.100.1:1000", WEB).syn();
        let with = |at: usize, bytes: &[u8]| { let mut f = good.clone(); f[at..at + bytes.len()].copy_from_slice(bytes); f };
        let dns = udp("198.51.100.1:1000", "10.10.24.88:53");
        let dns_with = |at: usize, byte: u8| { let mut f = dns.clone(); f[at] = byte; f };
        let v6 = tcp("[2001:db8::1]:1000", "[fd00:10::88]:80").syn();
        let v6_with = |at: usize, bytes: &[u8]| { let mut f = v6.clone(); f[at..at + bytes.len()].copy_from_slice(bytes); f };
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("ten bytes", good[..10].to_vec(), "short"),
            ("half an IP header", good[..24].to_vec(), "short"),
            ("not our MAC", with(0, &[2, 0, 0, 0, 0xee, 0xee]), "not_our_mac"),
            ("broadcast with one host's address", with(0, &[0xff; 6]), "not_our_mac"),
            ("from our own MAC", with(6, &OUR_MAC), "own_mac_source"),
            ("from a group", with(6, &[1, 0, 0x5e, 0, 0, 1]), "martian_source"),
            ("VLAN tag", with(12, &[0x81, 0]), "unknown_vlan"),
            ("LLDP", with(12, &[0x88, 0xcc]), "ether_type"),
            ("version 6 in IPv4", mended(with(14, &[0x65])), "bad_version"),
            ("IHL 4", with(14, &[0x44]), "bad_header_length"),
            ("total length 16", mended(with(16, &[0, 16])), "bad_length"),
            ("total length beyond the frame", mended(with(16, &[5, 0xdc])), "bad_length"),
            ("truncated segment", good[..44].to_vec(), "bad_length"),
            ("bad IP checksum", with(24, &[0, 0]), "bad_checksum"),
            ("from loopback", mended(with(26, &[127, 0, 0, 1])), "martian_source"),
            ("from multicast", mended(with(26, &[224, 0, 0, 1])), "martian_source"),
            ("from nowhere", mended(with(26, &[0, 0, 0, 0])), "martian_source"),
            ("from everywhere", mended(with(26, &[255, 255, 255, 255])), "martian_source"),
            ("from the VIP itself", mended(with(26, &[10, 10, 24, 88])), "own_source"),
            ("TCP header of 16 bytes", with(46, &[0x40]), "bad_header_length"),
            ("TCP header beyond the packet", with(46, &[0xf0]), "bad_header_length"),
            ("UDP length 7", dns_with(39, 7), "bad_length"),
            ("UDP length beyond the packet", dns_with(38, 1), "bad_length"),
            ("fragment of 20 bytes that is not the last", mended(with(20, &[0x20, 0])), "fragment_bad"),
            ("fragment past the longest packet", mended(with(20, &[0x1f, 0xff])), "fragment_bad"),
            ("version 4 in IPv6", v6_with(14, &[0x40]), "bad_version"),
            ("IPv6 payload beyond the frame", v6_with(18, &[1, 0]), "bad_length"),
            ("IPv6 from multicast", v6_with(22, &[0xff]), "martian_source"),
            ("IPv6 from loopback", v6_with(22, &std::net::Ipv6Addr::LOCALHOST.octets()), "martian_source"),
            ("IPv6 from nowhere", v6_with(22, &[0; 16]), "martian_source"),
            ("IPv6 from a mapped address", v6_with(22, &std::net::Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().octets()), "martian_source"),
            ("to loopback", mended(with(30, &[127, 0, 0, 1])), "martian_destination"),
            ("to nowhere", mended(with(30, &[0, 0, 0, 0])), "martian_destination"),
            ("IPv6 to loopback", v6_with(38, &std::net::Ipv6Addr::LOCALHOST.octets()), "martian_destination"),
            ("IPv6 to the VIP's mapped address", v6_with(38, &std::net::Ipv4Addr::new(10, 10, 24, 88).to_ipv6_mapped().octets()), "martian_destination"),
            ("hop-by-hop options beyond the packet", v6_with(20, &[0]), "bad_header_length"),
        ];
        for (what, frame, reason) in cases {
            println!("{what}");
            assert!(lab.expect(&frame, &[reason]).is_empty(), "{what}: nothing is sent");
        }
        assert!(lab.connections().is_empty());
        lab.assert_no_leak();
    }

    fn options_do_not_hide_the_ports(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21)]);
        lab.service(1, Tcp, VIP6, 80, RoundRobin, &[server(21)]);
        let good = tcp("198.51.100.1:1000", WEB).syn();
        let mut options = good[..34].to_vec();
        options[14] = 0x46;
        options[17] += 4;
        options.extend([1, 1, 1, 0]);
        options.extend(&good[34..]);
        lab.expect(&mended(options), &["forwarded"]);
        let v6 = tcp("[2001:db8::1]:1000", "[fd00:10::88]:80").syn();
        let mut hop_by_hop = v6[..54].to_vec();
        hop_by_hop[19] += 8;
        hop_by_hop[20] = 0;
        hop_by_hop.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        hop_by_hop.extend(&v6[54..]);
        lab.expect(&hop_by_hop, &["forwarded"]);
    }

    fn frames_of_random_bytes_get_one_verdict_each_and_leak_nothing(eal) {
        use proptest::prelude::*;
        let mut lab = Lab::new(eal);
        lab.service(0, Tcp, VIP, 80, RoundRobin, &[server(21), server(22)]);
        lab.service(1, Tcp, VIP6, 80, WeightedLeastConnections, &[server(21), server(22)]);
        let templates = [
            tcp("198.51.100.1:1000", WEB).syn(), udp("198.51.100.1:9", WEB), arp_request(ROUTER_MAC, ASKER, [10, 10, 24, 88]),
            echo_request([1, 2, 3, 4], [10, 10, 24, 88]), tcp("[2001:db8::1]:1000", "[fd00:10::88]:80").syn(),
            icmpv6(OUR_MAC, "fd00:10::1", VIP6, 255, solicitation(VIP6, false)),
            frame::fragmentation_needed([9, 9, 9, 9], [10, 10, 24, 88], &tcp(WEB, "198.51.100.1:1000").ack()[14..], 1400),
        ];
        let mutation = (0..templates.len(), prop::collection::vec((0_usize..120, any::<u8>()), 0..6), 0_usize..140, any::<bool>());
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 20_000, ..ProptestConfig::default() });
        let lab = std::cell::RefCell::new(lab);
        runner.run(&mutation, |(template, changes, length, mend)| {
            let mut lab = lab.borrow_mut();
            let mut bytes = templates[template].clone();
            for (at, value) in changes {
                if at < bytes.len() { bytes[at] = value; }
            }
            bytes.truncate(length.max(1));
            if mend && bytes.len() >= 34 && bytes[12..14] == [8, 0] && bytes.len() >= 14 + usize::from(bytes[14] & 15) * 4 && bytes[14] & 15 >= 3 {
                bytes = mended(bytes);
            }
            let before = lab.counters();
            let out = lab.send(&bytes);
            let up = lab.kernel().len();
            if lab.pool.in_use() != 0 {
                // A later fragment counts once it has waited long enough.
                lab.pass_seconds(3);
            }
            let after = lab.counters();
            prop_assert_eq!(after["RECEIVED"] - before["RECEIVED"], 1);
            prop_assert_eq!(lab.control.report().verdicts[0].total(), after["RECEIVED"]);
            prop_assert_eq!(after["exception"] - before["exception"], up as u64);
            prop_assert_eq!(after["SENT"] - before["SENT"], out.len() as u64);
            prop_assert_eq!(lab.pool.in_use(), 0);
            for frame in &out {
                prop_assert_ne!(&frame[..6], &OUR_MAC[..]);
            }
            Ok(())
        }).unwrap();
    }

    fn answer_to_a_health_check_is_the_kernels_and_nothing_else_from_a_vip(eal) {
        let mut lab = Lab::new(eal);
        // Checks take the clients' path to the IPv6 VIP only.
        for (from, to, verdict) in [
            ("[fd00:10::88]:80", "[fd00:10::10]:40000", "exception"),
            ("[fd00:10::88]:80", "[fd00:10::88]:80", "own_source"),
            ("[fd00:10::10]:40000", "[fd00:10::88]:80", "own_source"),
            ("10.10.24.88:80", "10.10.24.10:40000", "own_source"),
        ] {
            lab.expect(&tcp(from, to).ack(), &[verdict]);
        }
        assert_eq!(lab.kernel().len(), 1);
        lab.assert_no_leak();
    }

    fn answers_to_health_checks_have_a_share_of_their_own(eal) {
        let mut lab = Lab::new(eal);
        lab.settings(Settings { exception_rate: 0, ..Settings::default() });
        lab.expect(&tcp("198.51.100.1:10000", "10.10.24.10:22").syn(), &["exception_rate"]);
        lab.expect(&tcp("[fd00:10::88]:80", "[fd00:10::10]:40000").ack(), &["exception"]);
        assert_eq!(lab.kernel().len(), 1);
        lab.assert_no_leak();
    }
}
