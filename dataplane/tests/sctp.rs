//! SCTP: what begins an association, how its state follows the client's packets, and when it ends.
mod common;

use common::frame::{cut, fragmentation_needed, mended, sctp};
use common::*;
use dataplane::service::{Drain, Persistence};
use dataplane::service::{Protocol::*, SchedulerKind::*};
use dataplane::settings::Settings;
use dpdk::eal_test;

const A: &str = "198.51.100.1:1000";
const DIAMETER: &str = "10.10.24.88:3868";
const DATA: u8 = 0;
const INIT: u8 = 1;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const COOKIE_ECHO: u8 = 10;
const SHUTDOWN_COMPLETE: u8 = 14;

fn lab(eal: dpdk::eal::Eal) -> Lab {
    let mut lab = Lab::new(eal);
    lab.service(0, Sctp, VIP, 3868, RoundRobin, &[server(21), server(22)]);
    lab
}

eal_test! {
    fn direct_routing_leaves_the_packet_with_its_checksum_as_it_is(eal) {
        let mut lab = lab(eal);
        let sent = sctp(A, DIAMETER, INIT);
        let out = lab.expect(&sent, &["forwarded"]).remove(0);
        assert_eq!((out[..6].to_vec(), &out[12..]), (server_mac(22).to_vec(), &sent[12..]));
        lab.assert_no_leak();
    }

    fn states_follow_the_clients_chunks_with_the_kernels_times(eal) {
        let mut lab = lab(eal);
        let steps = [
            (INIT, "INIT1", 4, (0, 1)), (INIT, "INIT", 61, (0, 1)), (COOKIE_ECHO, "ESTABLISHED", 900, (1, 0)), (DATA, "ESTABLISHED", 900, (1, 0)),
            (SHUTDOWN, "S-RECEIVED", 61, (0, 1)), (SHUTDOWN_COMPLETE, "CLOSED", 61, (0, 1)),
        ];
        for (chunk, state, seconds, counts) in steps {
            assert_eq!(lab.forwarded_to(&sctp(A, DIAMETER, chunk)), 22);
            let row = lab.connections()[0];
            assert_eq!((row.protocol, row.state, row.expires_in), (Sctp, state, seconds * 100));
            assert_eq!((lab.active(0, 22), lab.inactive(0, 22)), counts);
        }
        assert_eq!(lab.forwarded_to(&sctp(A, DIAMETER, INIT)), 21, "an INIT on a closed association is scheduled anew");
        lab.settings(Settings { conn_reuse_mode: 0, ..Settings::default() });
        assert_eq!(lab.forwarded_to(&sctp(A, DIAMETER, ABORT)), 21);
        assert_eq!(lab.connections()[0].state, "CLOSED");
        assert_eq!(lab.forwarded_to(&sctp(A, DIAMETER, INIT)), 21, "and is not with conn_reuse_mode 0");
        assert_eq!(lab.connections()[0].state, "INIT");
        lab.pass_seconds(63);
        assert!(lab.connections().is_empty());
        assert_eq!((lab.inactive(0, 21), lab.inactive(0, 22)), (0, 0));
    }

    fn a_lost_init_is_forgotten_after_four_seconds(eal) {
        let mut lab = lab(eal);
        lab.forwarded_to(&sctp(A, DIAMETER, INIT));
        lab.pass_seconds(5);
        assert!(lab.connections().is_empty());
    }

    fn only_init_opens_an_association_unless_sloppy(eal) {
        let mut lab = lab(eal);
        for chunk in [DATA, COOKIE_ECHO, ABORT, SHUTDOWN] {
            lab.expect(&sctp(A, DIAMETER, chunk), &["exception"]);
        }
        lab.settings(Settings { sloppy_tcp: true, ..Settings::default() });
        lab.expect(&sctp(A, DIAMETER, DATA), &["exception"]);
        lab.settings(Settings { sloppy_sctp: true, ..Settings::default() });
        lab.expect(&sctp(A, DIAMETER, ABORT), &["exception"]);
        lab.expect(&sctp(A, DIAMETER, DATA), &["forwarded"]);
        let row = lab.connections()[0];
        assert_eq!((row.state, row.expires_in, lab.active(0, 22)), ("ESTABLISHED", 90_000, 1));
        assert_eq!(lab.kernel().len(), 6);
        lab.assert_no_leak();
    }

    fn a_packet_too_short_for_a_chunk_is_dropped(eal) {
        let mut lab = lab(eal);
        let whole = sctp(A, DIAMETER, INIT);
        for length in 20..36_u8 {
            let mut short = whole[..14 + usize::from(length)].to_vec();
            short[17] = length;
            lab.expect(&common::frame::mended(short), &["bad_length"]);
        }
        let mut least = whole[..14 + 36].to_vec();
        least[17] = 36;
        lab.expect(&common::frame::mended(least), &["forwarded"]);
        lab.expect(&whole[..40], &["bad_length"]);
    }

    fn other_protocols_on_the_same_port_are_other_services(eal) {
        let mut lab = lab(eal);
        lab.expect(&common::frame::tcp(A, DIAMETER).syn(), &["exception"]);
        lab.service(1, Tcp, VIP, 3868, RoundRobin, &[server(23)]);
        assert_eq!(lab.forwarded_to(&common::frame::tcp(A, DIAMETER).syn()), 23);
        assert_eq!(lab.forwarded_to(&sctp(A, DIAMETER, INIT)), 22);
        let mut protocols: Vec<_> = lab.connections().iter().map(|row| row.protocol).collect();
        protocols.sort();
        assert_eq!(protocols, [Tcp, Sctp]);
        lab.kernel();
    }

    fn persistence_keeps_associations_together_and_is_assured_by_an_established_one(eal) {
        let mut lab = Lab::new(eal);
        lab.persistence = Some(Persistence { timeout: 300, mask: u128::MAX });
        lab.service(0, Sctp, VIP, 3868, RoundRobin, &[server(21), server(22)]);
        let first = lab.forwarded_to(&sctp(A, DIAMETER, INIT));
        assert_eq!(lab.forwarded_to(&sctp("198.51.100.1:1001", DIAMETER, INIT)), first);
        let template = |lab: &mut Lab| lab.connections().iter().find(|row| row.client.port() == 0).map(|row| (row.protocol, row.state));
        assert_eq!(template(&mut lab), Some((Sctp, "NONE")));
        assert_eq!(lab.control.report().half_open.get(), 3);
        lab.forwarded_to(&sctp(A, DIAMETER, COOKIE_ECHO));
        assert_eq!(template(&mut lab), Some((Sctp, "ASSURED")));
        assert_eq!(lab.control.report().half_open.get(), 1);
        assert_eq!((lab.persistent(0, first), lab.active(0, first), lab.inactive(0, first)), (1, 1, 1));
    }

    fn ipv6_associations_are_forwarded(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Sctp, VIP6, 3868, RoundRobin, &[server(21)]);
        let sent = sctp("[2001:db8::1]:1000", "[fd00:10::88]:3868", INIT);
        assert_eq!(lab.expect(&sent, &["forwarded"])[0][12..], sent[12..]);
        assert_eq!(lab.connections()[0].state, "INIT1");
    }

    fn icmp_errors_about_an_association_reach_its_real_server(eal) {
        let mut lab = lab(eal);
        lab.forwarded_to(&sctp(A, DIAMETER, INIT));
        let about = sctp(DIAMETER, A, DATA);
        let error = fragmentation_needed([203, 0, 113, 9], [10, 10, 24, 88], &about[14..], 1400);
        assert_eq!(lab.forwarded_to(&error), 22);
    }

    fn init_flood_goes_round_in_the_half_open_share(eal) {
        let mut lab = Lab::with_room(eal, 256, 64);
        lab.service(0, Sctp, VIP, 3868, RoundRobin, &[server(21), server(22)]);
        lab.forwarded_to(&sctp(A, DIAMETER, INIT));
        let went = lab.forwarded_to(&sctp(A, DIAMETER, COOKIE_ECHO));
        for n in 0..640 {
            lab.expect(&sctp(&format!("100.64.{}.{}:9", n / 200, n % 200 + 1), DIAMETER, INIT), &["forwarded"]);
        }
        assert_eq!(lab.connections().len(), 65);
        assert_eq!(lab.forwarded_to(&sctp(A, DIAMETER, DATA)), went);
    }

    fn no_real_server_is_told_as_port_unreachable(eal) {
        let mut lab = Lab::new(eal);
        lab.service(0, Sctp, VIP, 3868, RoundRobin, &[]);
        let out = lab.expect(&sctp(A, DIAMETER, INIT), &["no_real_server", "ICMP"]).remove(0);
        assert_eq!((out[23], out[34], out[35]), (1, 3, 3));
    }

    fn a_masqueraded_packet_in_fragments_keeps_its_checksum_or_is_dropped(eal) {
        let mut lab = Lab::new(eal);
        for (id, vport, port) in [(0, 3868, 3868), (1, 3878, 5868)] {
            lab.service(id, Sctp, VIP, vport, RoundRobin, &[server(21).masquerading(port)]);
            let (vip, rs) = (format!("10.10.24.88:{vport}"), format!("10.10.24.21:{port}"));
            lab.send(&sctp(A, &vip, INIT));
            let verdicts = if id == 0 { ["forwarded"; 3] } else { ["fragment_checksum", "fragment", "fragment"] };
            for (from, to) in [(A, vip.as_str()), (rs.as_str(), A)] {
                let mut packet = sctp(from, to, DATA);
                packet.extend([5; 900]);
                let length = u16::try_from(packet.len() - 14).expect("short");
                packet[16..18].copy_from_slice(&length.to_be_bytes());
                for (piece, verdict) in cut(&mended(packet), 7 + u32::from(from == A), &[400, 400]).iter().zip(verdicts) {
                    let out = lab.expect(piece, &[verdict]);
                    assert_eq!(out.is_empty(), id == 1, "{from} to {to}");
                    assert!(out.iter().all(|frame| frame[34..] == piece[34..]), "not a byte behind the IP header");
                }
            }
        }
        lab.assert_no_leak();
    }
    fn a_fragment_whose_checksum_cannot_be_mended_is_dropped_in_the_burst_that_ends_its_connection(eal) {
        let mut lab = Lab::new(eal);
        let masquerading = server(21).masquerading(5868);
        lab.service(0, Sctp, VIP, 3868, RoundRobin, &[masquerading]);
        lab.send(&sctp(A, DIAMETER, INIT));
        lab.service(0, Sctp, VIP, 3868, RoundRobin, &[masquerading.drained(Drain::Reschedule)]);
        let mut answer = sctp("10.10.24.21:5868", A, DATA);
        answer.extend([5; 900]);
        let length = u16::try_from(answer.len() - 14).expect("short");
        answer[16..18].copy_from_slice(&length.to_be_bytes());
        let first = cut(&mended(answer), 7, &[400, 400]).remove(0);
        let out = lab.burst(&[sctp(A, DIAMETER, DATA), first]);
        assert!(lab.connections().is_empty(), "no other real server takes it");
        let told: Vec<_> = out.iter().map(|frame| (frame[23], frame[34], frame[35])).collect();
        assert_eq!(told, [(1, 3, 3)], "the client is told, and gets nothing with a wrong checksum");
        lab.assert_no_leak();
    }
}
