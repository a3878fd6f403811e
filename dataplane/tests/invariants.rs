//! What holds for every frame, whoever made it: headers cut anywhere, and what direct routing may change.

mod common;
#[allow(dead_code, reason = "the differential test uses the rest")]
mod fuzzing;
#[allow(dead_code, reason = "the differential test uses the rest")]
mod reference;

use common::frame::*;
use common::*;
use dataplane::service::{Protocol::*, SchedulerKind::RoundRobin};
use dataplane::settings::{Settings, Ttl};
use dpdk::eal_test;
use fuzzing::choices::Choices;
use fuzzing::frames::{Places, frame};
use reference::wire;

/// One frame of every kind that the worker tells apart.
fn templates() -> Vec<Vec<u8>> {
    let (a, web, a6, web6) = ("198.51.100.1:1000", "10.10.24.88:80", "[2001:db8::1]:1000", "[fd00:10::88]:80");
    let (vip, router) = ([10, 10, 24, 88], [198, 51, 100, 7]);
    let mut frames = Vec::new();
    for (source, destination) in [(a, web), (a6, web6), (a, "10.10.24.88:81"), (a6, "[fd00:10::88]:81")] {
        let flow = tcp(source, destination).payload(b"a payload of some length");
        frames.extend([flow.syn(), flow.ack(), flow.fin(), flow.rst(), udp(source, destination)]);
    }
    // Longer headers: IPv4 options, TCP options.
    let mut options = tcp(a, web).payload(&[1; 40]).syn();
    options[14] = 0x4a;
    frames.push(mended(options));
    for source in [(a, web), (a6, web6)] {
        let mut options = tcp(source.0, source.1).payload(&[1; 40]).syn();
        let at = if source.0 == a { 46 } else { 66 };
        options[at] = 0xf0;
        frames.push(options);
    }
    // Extension headers: hop-by-hop and destination options, routing, a fragment.
    for chain in [&[0_u8][..], &[0, 60], &[43], &[44], &[60, 44], &[0, 43, 60, 60]] {
        let mut packet = tcp(a6, web6).payload(b"behind them").syn();
        let mut next = 6;
        for kind in chain.iter().rev() {
            packet.splice(54..54, [next, u8::from(*kind == 43), 0, 0, 0, 0, 0, 0]);
            if *kind == 43 {
                packet.splice(62..62, [0; 8]);
            }
            next = *kind;
        }
        packet[20] = next;
        let length = u16::try_from(packet.len() - 54).unwrap_or(u16::MAX);
        packet[18..20].copy_from_slice(&length.to_be_bytes());
        frames.push(packet);
    }
    let mut fragment = tcp(a, web).payload(&[7; 32]).syn();
    fragment[20] = 0x20;
    frames.push(mended(fragment.clone()));
    fragment[21] = 9;
    frames.push(mended(fragment));
    frames.push(arp_request(ROUTER_MAC, [10, 10, 24, 1], vip));
    frames.push(arp_request(ROUTER_MAC, [10, 10, 24, 1], [10, 10, 24, 99]));
    frames.push(arp_request(ROUTER_MAC, [10, 10, 24, 1], [10, 10, 24, 1]));
    frames.push(icmp_v4(router, vip, &[13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    frames.push(echo_request(router, vip));
    frames.push(fragmentation_needed(router, vip, &tcp("10.10.24.88:80", "198.51.100.1:1000").ack()[14..], 1400));
    let mut echo = vec![128, 0, 0, 0, 1, 2, 3, 4];
    echo.extend(b"ping");
    frames.push(icmpv6(OUR_MAC, "2001:db8::1", "fd00:10::88", 64, echo));
    frames.push(icmpv6(OUR_MAC, "2001:db8::1", "fd00:10::88", 255, solicitation("fd00:10::88", false)));
    frames.push(icmpv6([0x33, 0x33, 0xff, 0, 0, 0x88], "fe80::1", "ff02::1:ff00:88", 255, solicitation("fd00:10::88", true)));
    let mut too_big = vec![2, 0, 0, 0, 0, 0, 5, 0];
    too_big.extend(&tcp("[fd00:10::88]:80", "[2001:db8::1]:1000").ack()[14..]);
    frames.push(icmpv6(OUR_MAC, "2001:db8::9", "fd00:10::88", 64, too_big));
    frames
}

fn served(eal: dpdk::eal::Eal) -> Lab {
    let mut lab = Lab::new(eal);
    for (id, vip) in [(0, VIP), (1, VIP6)] {
        lab.service(id, Tcp, vip, 80, RoundRobin, &[server(21), server(22)]);
        lab.service(id + 2, Udp, vip, 80, RoundRobin, &[server(21), server(22)]);
    }
    lab
}

eal_test! {
    fn a_frame_cut_at_any_byte_gets_one_verdict_and_leaves_no_trace(eal) {
        let mut lab = served(eal);
        let templates = templates();
        assert!(templates.len() >= 40, "{}", templates.len());
        for whole in templates {
            for cut in 0..=whole.len() {
                let before = lab.counters();
                lab.send(&whole[..cut]);
                let after = lab.counters();
                let verdicts: u64 = dataplane::verdict::Verdict::ALL.iter().map(|v| after[v.label()] - before[v.label()]).sum();
                assert_eq!((verdicts, after["RECEIVED"] - before["RECEIVED"]), (1, 1), "{cut} bytes of {whole:02x?}");
                // A packet that is not all there is nobody's first.
                let packet = wire::read(&whole[..cut], OUR_MAC);
                if packet.is_err() {
                    assert_eq!((after["forwarded"], after["answered"]), (before["forwarded"], before["answered"]), "{cut} bytes of {whole:02x?}");
                }
            }
        }
        lab.kernel();
        lab.assert_no_leak();
    }

    /// Without `ttl = "decrement"` not a bit behind the Ethernet addresses; with it the TTL and, in IPv4, the header's checksum.
    fn direct_routing_changes_nothing_else(eal) {
        let mut lab = served(eal);
        let ours = [VIP, VIP6, DIP].map(|a| address(a).ip()).to_vec();
        let services = [(VIP, 6), (VIP, 17), (VIP6, 6), (VIP6, 17)].map(|(vip, protocol)| (protocol, (address(vip).ip(), 80).into()));
        let mut places = Places { ours, services: services.to_vec(), recent: Vec::new(), last: None };
        let nobody = reference::directors(&[OUR_MAC], &[], (16, 16), &[[0; 4]], [0; 4]);
        let c = &mut Choices::Seed(7);
        let mut forwarded = 0;
        for n in 0..30_000 {
            if n % 1_000 == 0 {
                let ttl = if n % 2_000 == 0 { Ttl::Preserve } else { Ttl::Decrement };
                lab.settings(Settings { ttl, sloppy_tcp: true, exception_rate: 1_000_000, ..Settings::default() });
            }
            let sent = frame(c, 0, &mut places, &nobody);
            let before = lab.counters()["forwarded"];
            let out = lab.send(&sent);
            lab.kernel();
            if lab.counters()["forwarded"] == before {
                continue;
            }
            forwarded += 1;
            let mut expected = sent.clone();
            expected[..6].copy_from_slice(&out[0][..6]);
            expected[6..12].copy_from_slice(&OUR_MAC);
            assert_eq!(expected[..5], [2, 0, 0, 0, 0], "a real server's MAC");
            if n / 1_000 % 2 == 1 {
                if expected[12] == 8 {
                    expected[22] -= 1;
                    expected[24..26].copy_from_slice(&out[0][24..26]);
                    assert_eq!(wire::checksum(&expected[14..14 + usize::from(expected[14] & 15) * 4]), 0, "mended");
                } else {
                    expected[21] -= 1;
                }
            }
            assert_eq!(out, [expected]);
        }
        assert!(forwarded > 3_000, "{forwarded}");
    }
}
