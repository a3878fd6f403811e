//! The kernel side against a real kernel, each test in network namespaces and a process of its own. They need root.

mod lab;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dpdk::burst::Burst;
use dpdk::mempool::Mempool;
use dpdk::ring::Ring;
use dpdk::test_support::only_in_child;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::neighbour::NeighbourState;
use tokio::sync::{mpsc, watch};

use super::message::Ask;
use super::netlink::Netlink;
use super::probes::{Networks, Probes};
use super::pump::{Lane, LaneCounters};
use super::{Kernel, KernelError, LinkPlan, NeighbourEvent, WatchPlan};
use crate::director::Wanted;
use crate::model::ProbeMode;
use lab::{PATIENCE, PEER, Peer, Wire, eventually, ip, run, sysctl};

macro_rules! path {
    ($name:literal) => {
        concat!(module_path!(), "::", $name)
    };
}

/// A kernel side with its ends, and a runtime to wait on them.
struct Running {
    kernel: Kernel,
    events: mpsc::Receiver<NeighbourEvent>,
    wanted: watch::Sender<Wanted>,
    runtime: tokio::runtime::Runtime,
}

fn start(plans: Vec<LinkPlan>, wanted: Wanted) -> Result<Running, KernelError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (wanted, receiver) = watch::channel(wanted);
    let watched = WatchPlan { interval: Duration::from_secs(10), probe: ProbeMode::Off, news: mpsc::channel(1).0 };
    let (kernel, events) = Kernel::start(plans, receiver, Probes::new(Networks::default()), watched)?;
    Ok(Running { kernel, events, wanted, runtime })
}

impl Running {
    fn next(&mut self) -> NeighbourEvent {
        let event = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.events.recv()).await });
        event
            .unwrap_or_else(|_| panic!("no event came; the kernel knows:\n{}", run("ip -s neigh show dev lan")))
            .expect("the channel is closed")
    }

    /// The next `count` events, by address.
    fn next_sorted(&mut self, count: usize) -> Vec<NeighbourEvent> {
        let mut events: Vec<_> = (0..count).map(|_| self.next()).collect();
        events.sort_by_key(|event| event.address);
        events
    }

    fn stop(&self) {
        self.runtime.block_on(self.kernel.stop());
    }

    fn state(&self, address: &str) -> String {
        let list = self.kernel.neighbours();
        list.into_iter().find(|row| row.address == ip(address)).map(|row| row.state).unwrap_or_default()
    }
}

fn wanted(vips: &[&str], neighbours: &[&str]) -> Wanted {
    let vips: BTreeSet<IpAddr> = vips.iter().map(|text| ip(text)).collect();
    Wanted { taken: vips.clone(), vips, neighbours: neighbours.iter().map(|text| (0, ip(text))).collect(), announcements: 0 }
}

fn event(address: &str, mac: Option<[u8; 6]>) -> NeighbourEvent {
    NeighbourEvent { port: 0, address: ip(address), mac }
}

/// Makes neighbours age in moments.
fn age_quickly() {
    for family in ["ipv4", "ipv6"] {
        for (name, value) in [("base_reachable_time_ms", "600"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "200")] {
            std::fs::write(format!("/proc/sys/net/{family}/neigh/lan/{name}"), value).unwrap();
        }
    }
}

#[test]
fn a_real_server_is_found_changes_its_mac_is_lost_and_found_again() {
    only_in_child(path!("a_real_server_is_found_changes_its_mac_is_lost_and_found_again"), || {
        let peer = Peer::new();
        let wire = Wire::new();
        let mut running = start(vec![wire.plan()], wanted(&[], &["10.10.24.21", "fd00:10::21", "10.10.24.99"])).unwrap();
        assert_eq!(running.next_sorted(2), [event("10.10.24.21", Some(PEER)), event("fd00:10::21", Some(PEER))]);
        assert!(run("ip neigh show dev lan 10.10.24.21").contains("managed"));

        peer.run("ip link set d1 down; ip link set d1 address 02:00:00:00:00:22; ip link set d1 up; ip -6 address add fd00:10::21/64 dev d1 nodad");
        peer.run("ping -c 1 -W 5 10.10.24.10");
        assert_eq!(running.next(), event("10.10.24.21", Some([2, 0, 0, 0, 0, 0x22])));
        peer.run("ping -6 -c 1 -W 5 fd00:10::10");
        assert_eq!(running.next(), event("fd00:10::21", Some([2, 0, 0, 0, 0, 0x22])));

        age_quickly();
        peer.run("ip link set d1 down");
        assert_eq!(running.next_sorted(2), [event("10.10.24.21", None), event("fd00:10::21", None)]);
        assert!(["failed", "incomplete"].contains(&running.state("10.10.24.99").as_str()));
        peer.run("ip link set d1 up; ip -6 address add fd00:10::21/64 dev d1 nodad");
        let mac = Some([2, 0, 0, 0, 0, 0x22]);
        assert_eq!(running.next_sorted(2), [event("10.10.24.21", mac), event("fd00:10::21", mac)]);

        // Removed and added again, as a script does that begins by clearing: it is never said to be lost.
        running.wanted.send_replace(wanted(&[], &[]));
        std::thread::sleep(std::time::Duration::from_millis(200));
        running.wanted.send_replace(wanted(&[], &["10.10.24.21"]));
        // Who stays away is left after a while, and that is the first thing to be told.
        assert_eq!(running.next(), event("fd00:10::21", None));
        eventually("the entry is gone", || !run("ip neigh show dev lan").contains("fd00:10::21"));

        // What somebody told the kernel by hand counts, and stays.
        run("ip neigh add 10.10.24.98 dev lan lladdr 02:00:00:00:00:98 nud permanent");
        running.wanted.send_replace(wanted(&[], &["10.10.24.21", "10.10.24.98"]));
        assert_eq!(running.next(), event("10.10.24.98", Some([2, 0, 0, 0, 0, 0x98])));
        assert_eq!(running.state("10.10.24.98"), "static");
        assert!(run("ip neigh show dev lan 10.10.24.98").contains("PERMANENT"));
        running.stop();
    });
}

#[test]
fn who_has_not_answered_is_asked_at_once_when_a_link_has_come() {
    only_in_child(path!("who_has_not_answered_is_asked_at_once_when_a_link_has_come"), || {
        let peer = Peer::new();
        let wire = Wire::new();
        let mut running = start(vec![wire.plan()], wanted(&[], &["10.10.24.21"])).unwrap();
        assert_eq!(running.next(), event("10.10.24.21", Some(PEER)));
        // Longer than the test waits: the kernel's own second question does not come.
        std::fs::write("/proc/sys/net/ipv4/neigh/lan/retrans_time_ms", "60000").unwrap();
        running.wanted.send_replace(wanted(&[], &["10.10.24.21", "10.10.24.99"]));
        eventually("it is asked for", || running.state("10.10.24.99") == "incomplete");
        peer.run("ip address add 10.10.24.99/24 dev d1");
        running.wanted.send_modify(|wanted| wanted.announcements += 1);
        assert_eq!(running.next(), event("10.10.24.99", Some(PEER)));
        running.stop();
    });
}

#[test]
fn a_tap_that_somebody_gave_another_mac_gets_the_ports_again_with_all_neighbours() {
    only_in_child(path!("a_tap_that_somebody_gave_another_mac_gets_the_ports_again_with_all_neighbours"), || {
        let _peer = Peer::new();
        let wire = Wire::new();
        let plan = wire.plan();
        let (mac, given) = (super::neighbours::show(plan.mac), [2, 0, 0, 0, 0, 0x97]);
        let plan = LinkPlan { static_neighbours: vec![(ip("10.10.24.97"), given)], ..plan };
        let mut running = start(vec![plan], wanted(&["10.10.24.88"], &["10.10.24.21"])).unwrap();
        assert_eq!(running.next_sorted(2), [event("10.10.24.21", Some(PEER)), event("10.10.24.97", Some(given))]);
        // As udev does it to an interface that it finds with a MAC of chance.
        run("ip link set lan address 02:00:00:00:99:99");
        eventually("it has the port's MAC again", || run("ip link show lan").contains(&mac));
        eventually("both neighbours are back", || {
            let said = run("ip neigh show dev lan");
            said.contains("10.10.24.97 lladdr 02:00:00:00:00:97 PERMANENT") && said.contains("10.10.24.21 lladdr 02:00:00:00:00:21")
        });
        eventually("the real server is known", || running.state("10.10.24.21") == "reachable");
        running.stop();
    });
}

#[test]
fn the_kernel_behind_the_port_answers_nothing() {
    only_in_child(path!("the_kernel_behind_the_port_answers_nothing"), || {
        let peer = Peer::new();
        run("ip link set d0 up");
        eventually("d0 has a link-local address", || run("ip -6 address show dev d0").contains("fe80"));
        let before: Vec<String> = DEVICE_SETTINGS.iter().map(|name| sysctl(name)).collect();
        let wire = Wire::new();
        let running = start(vec![wire.plan()], wanted(&["10.10.24.88", "fd00:10::88"], &[])).unwrap();
        eventually("the VIPs are there", || run("ip address show dev lan").matches("88/").count() == 2);
        // The kernel answers by the TAP here, for want of a worker that does: once, where d0's own stack would make it two.
        peer.run("ip route add 10.10.25.0/24 dev d1");
        let capture = peer.capture("arp or icmp or icmp6 or tcp");
        for address in ["10.10.24.10", "10.10.24.88", "fd00:10::10", "fd00:10::88"] {
            let said = peer.run(&format!("ping -c 4 -i 0.1 -W 5 {address}"));
            assert!(said.contains("4 packets transmitted, 4 received") && !said.contains("duplicates"), "{said}");
            peer.run(&format!("curl -s -m 2 -g -o /dev/null 'http://{}/' && exit 1; exit 0", host(&ip(address))));
        }
        let lines = capture.end();
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        let all = lines.join("\n");
        for (what, times) in [
            ("10.10.24.10 is-at", 1),
            ("10.10.24.88 is-at", 1),
            ("10.10.24.10 > 10.10.24.21: ICMP echo reply", 4),
            ("10.10.24.88 > 10.10.24.21: ICMP echo reply", 4),
            ("fd00:10::10 > fd00:10::21: ICMP6, echo reply", 4),
            ("fd00:10::88 > fd00:10::21: ICMP6, echo reply", 4),
            ("10.10.24.88.80 > ", 1),
            ("fd00:10::88.80 > ", 1),
        ] {
            assert_eq!(count(what), times, "{what}\n{all}");
        }
        running.stop();
        let after: Vec<String> = DEVICE_SETTINGS.iter().map(|name| sysctl(name)).collect();
        assert_eq!(after, before);
        assert!(!run("ip -br link").contains("lan"));
    });
}

const DEVICE_SETTINGS: [&str; 3] = ["ipv4/conf/d0/rp_filter", "ipv4/conf/d0/arp_ignore", "ipv6/conf/d0/disable_ipv6"];

fn host(address: &IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

#[test]
fn vips_are_carried_announced_three_times_when_asked_again_and_never_ask_for_neighbours() {
    only_in_child(path!("vips_are_carried_announced_three_times_when_asked_again_and_never_ask_for_neighbours"), || {
        let peer = Peer::new();
        let wire = Wire::new();
        let capture = peer.capture("arp or icmp6[icmp6type] == 136 or icmp6[icmp6type] == 135");
        let mut running = start(vec![wire.plan()], wanted(&["10.10.24.88", "fd00:10::20"], &["10.10.24.21", "fd00:10::21"])).unwrap();
        running.next_sorted(2);
        let advertised = "> 33:33:00:00:00:01, ethertype IPv6 (0x86dd), length 86: fd00:10::20 > ff02::1: ICMP6, neighbor advertisement, tgt is fd00:10::20";
        let asked = "> ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 60: Request who-has 10.10.24.88 tell 10.10.24.88";
        let count = |text: &str| capture.lines().iter().filter(|line| line.contains(text)).count();
        eventually("three announcements", || count(asked) == 3 && count(advertised) == 3);
        // The kernel's own packets to real servers leave from the DIP, though fd00:10::20 matches fd00:10::21 better.
        assert!(run("ip route get fd00:10::21").contains("src fd00:10::10"));
        assert!(run("ip route get 10.10.24.21").contains("src 10.10.24.10"));
        std::thread::sleep(Duration::from_millis(1300));
        assert_eq!((count(asked), count(advertised)), (3, 3));
        running.wanted.send_modify(|wanted| wanted.announcements += 1);
        eventually("three more", || count(asked) == 6 && count(advertised) == 6);
        running.wanted.send_replace(wanted(&[], &["10.10.24.21", "fd00:10::21"]));
        eventually("the VIPs are gone", || {
            let said = run("ip address show dev lan");
            !said.contains("10.10.24.88") && !said.contains("fd00:10::20") && said.contains("10.10.24.10")
        });
        running.stop();
        let lines = capture.end();
        let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((count(asked), count(advertised)), (6, 6), "{}", lines.join("\n"));
        assert_eq!(count("tell 10.10.24.88"), 6, "{}", lines.join("\n"));
        assert!(count("who-has 10.10.24.21 tell 10.10.24.10") > 0);
    });
}

#[test]
fn a_taken_name_is_refused_and_what_was_done_is_undone() {
    only_in_child(path!("a_taken_name_is_refused_and_what_was_done_is_undone"), || {
        let _peer = Peer::new();
        let wire = Wire::new();
        run("ip link add lan type veth peer name other");
        let before: Vec<String> = DEVICE_SETTINGS.iter().map(|name| sysctl(name)).collect();
        let error = start(vec![wire.plan()], Wanted::default()).err().unwrap();
        assert!(matches!(&error, KernelError::NameTaken { name } if name == "lan"), "{error}");
        let after: Vec<String> = DEVICE_SETTINGS.iter().map(|name| sysctl(name)).collect();
        assert_eq!(after, before);
    });
}

#[test]
fn an_interface_behind_a_port_with_addresses_of_its_own_is_refused() {
    only_in_child(path!("an_interface_behind_a_port_with_addresses_of_its_own_is_refused"), || {
        let _peer = Peer::new();
        let wire = Wire::new();
        run("ip address add 169.254.7.7/16 dev d0; ip address add 10.10.24.9/24 dev d0");
        let error = start(vec![wire.plan()], Wanted::default()).err().unwrap();
        assert!(matches!(&error, KernelError::DeviceHasAddresses { addresses, .. } if *addresses == [ip("10.10.24.9")]), "{error}");
        let mut elsewhere = wire.plan();
        elsewhere.device_interfaces = vec!["d7".into()];
        let error = start(vec![elsewhere], Wanted::default()).err().unwrap();
        assert!(matches!(&error, KernelError::NoSuchDevice { device, .. } if device == "d7"), "{error}");
        run("ip address del 10.10.24.9/24 dev d0; sysctl -qw net.ipv4.conf.all.rp_filter=2");
        let error = start(vec![wire.plan()], Wanted::default()).err().unwrap();
        assert!(matches!(&error, KernelError::LooseReversePath { .. }), "{error}");
    });
}

#[test]
fn a_port_whose_mac_differs_makes_its_interface_promiscuous_while_it_runs() {
    only_in_child(path!("a_port_whose_mac_differs_makes_its_interface_promiscuous_while_it_runs"), || {
        let peer = Peer::new();
        let wire = Wire::new();
        run("ip link set d0 down");
        let mut plan = wire.plan();
        plan.mac = [2, 0, 0, 0, 0, 0x77];
        let mut running = start(vec![plan], wanted(&[], &["10.10.24.21"])).unwrap();
        assert_eq!(running.next(), event("10.10.24.21", Some(PEER)));
        assert!(run("ip link show d0").contains("PROMISC"));
        assert!(peer.run("ip neigh show dev d1").contains("02:00:00:00:00:77"));
        running.stop();
        let said = run("ip link show d0");
        assert!(!said.contains("PROMISC") && said.contains("state DOWN"), "{said}");
    });
}

#[test]
fn a_deleted_tap_is_made_again_with_all_that_it_had() {
    only_in_child(path!("a_deleted_tap_is_made_again_with_all_that_it_had"), || {
        let peer = Peer::new();
        let wire = Wire::new();
        let mut plan = wire.plan();
        plan.gateways = vec![ip("10.10.24.1"), ip("fd00:10::1")];
        plan.static_neighbours = vec![(ip("10.10.24.1"), [2, 0, 0, 0, 0, 1])];
        let mut running = start(vec![plan], wanted(&["10.10.24.88"], &["10.10.24.21"])).unwrap();
        assert_eq!(running.next_sorted(2), [event("10.10.24.1", Some([2, 0, 0, 0, 0, 1])), event("10.10.24.21", Some(PEER))]);
        let complete = || {
            let said = run("ip address show dev lan; ip route; ip -6 route; ip neigh show dev lan");
            ["10.10.24.10/24", "10.10.24.88/32", "fd00:10::10/64", "via 10.10.24.1", "via fd00:10::1", "02:00:00:00:00:01 PERMANENT"]
                .iter()
                .all(|part| said.contains(part))
        };
        eventually("all is there", complete);
        run("ip link del lan");
        assert_eq!(running.next(), event("10.10.24.21", None));
        assert_eq!(running.next(), event("10.10.24.21", Some(PEER)));
        eventually("all is there again", || run("ip -br link").contains("lan") && complete());
        peer.run("ping -c 1 -W 5 10.10.24.10");

        run("ip link set lan down");
        assert_eq!(running.next(), event("10.10.24.21", None));
        run("ip link set lan up");
        assert_eq!(running.next(), event("10.10.24.21", Some(PEER)));
        eventually("all is there once more", complete);
        peer.run("ping -6 -c 1 -W 5 fd00:10::10");
        running.stop();
    });
}

#[test]
fn neighbours_are_resolved_on_request_where_the_kernel_does_not_keep_them() {
    only_in_child(path!("neighbours_are_resolved_on_request_where_the_kernel_does_not_keep_them"), || {
        let _peer = Peer::new();
        run("ip address add 10.10.24.10/24 dev d0; ip address add fd00:10::10/64 dev d0 nodad; ip link set d0 up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            let link = netlink.link("d0").await.unwrap().unwrap().index;
            for (address, ask) in [("10.10.24.21", Ask::Use), ("fd00:10::21", Ask::Managed)] {
                // An IPv6 link-local address may be tentative for a while yet.
                let found = async {
                    loop {
                        netlink.put_neighbour("d0", link, ip(address), ask).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        let all = netlink.neighbours().await.unwrap();
                        let entry = all.into_iter().find(|entry| entry.link == link && entry.address == ip(address));
                        if let Some(entry) = entry.filter(|entry| entry.state == NeighbourState::Reachable) {
                            break entry;
                        }
                    }
                };
                let entry = tokio::time::timeout(PATIENCE, found).await.unwrap();
                assert_eq!((entry.mac, entry.managed), (Some(PEER), ask == Ask::Managed));
            }
            assert_eq!(netlink.link("nothing").await.unwrap(), None);
            netlink.remove_neighbour("d0", link, ip("10.10.24.50")).await.unwrap();
        });
    });
}

#[test]
fn no_event_is_lost_while_nobody_reads() {
    only_in_child(path!("no_event_is_lost_while_nobody_reads"), || {
        let peer = Peer::new();
        let mut addresses = String::new();
        let all: BTreeSet<IpAddr> =
            (0..3u8).flat_map(|high| (0..100u8).map(move |low| IpAddr::from([10, 10, 32 + high, low + 1]))).collect();
        for address in &all {
            writeln!(addresses, "address add {address}/16 dev d1").unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), addresses).unwrap();
        peer.run(&format!("ip -batch {}", file.path().display()));
        let wire = Wire::new();
        let mut plan = wire.plan();
        plan.addresses = vec!["10.10.24.10/16".parse().unwrap()];
        let wants = Wanted { neighbours: all.iter().map(|address| (0, *address)).collect(), ..Wanted::default() };
        let mut running = start(vec![plan], wants).unwrap();
        let known = |running: &Running| running.kernel.neighbours().iter().filter(|row| row.mac.is_some()).count();
        eventually("all are found", || known(&running) == all.len());
        let told: BTreeSet<IpAddr> =
            (0..all.len()).map(|_| running.next()).filter(|event| event.mac == Some(PEER)).map(|event| event.address).collect();
        assert_eq!(told, all);
        running.stop();
    });
}

dpdk::eal_test! {
    fn a_vip_is_announced_by_the_ports_whose_network_it_is_in_or_by_all(eal) {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let ring = |name: &str| Arc::new(Ring::new(name, 64, None).unwrap());
        let pool = Mempool::new("frames", 255, 0, dpdk::mempool::DEFAULT_DATA_ROOM, None).unwrap();
        let plan = |index: u16, name: &str, network: &str| LinkPlan {
            index,
            name: name.into(),
            mac: [2, 0, 0, 0, 1, u8::try_from(index).unwrap()],
            addresses: vec![network.parse().unwrap()],
            device_interfaces: Vec::new(),
            ..lab::plan(&ring(&format!("{name}-to")), &ring(&format!("{name}-from")), &pool)
        };
        let plans = vec![plan(0, "lan", "10.10.24.10/24"), plan(1, "wan", "10.10.25.10/24")];
        let rings: Vec<Arc<Ring>> = plans.iter().map(|plan| Arc::clone(&plan.from_kernel)).collect();
        let running = start(plans, wanted(&["10.10.25.88", "203.0.113.88"], &[])).unwrap();
        let mut announced = [BTreeSet::new(), BTreeSet::new()];
        eventually("both are announced", || {
            for (ring, announced) in rings.iter().zip(&mut announced) {
                let mut burst = Burst::new();
                ring.dequeue_burst(&mut burst);
                let arps = burst.iter().map(dpdk::mbuf::Mbuf::data).filter(|frame| frame[12..14] == [8, 6] && frame[28..32] == frame[38..42]);
                announced.extend(arps.map(|frame| (frame[6..12].to_vec(), frame[28..32].to_vec())));
            }
            announced[1].len() == 2 && !announced[0].is_empty()
        });
        let arp = |port: u8, vip: [u8; 4]| (vec![2, 0, 0, 0, 1, port], vip.to_vec());
        assert_eq!(announced[0], BTreeSet::from([arp(0, [203, 0, 113, 88])]));
        assert_eq!(announced[1], BTreeSet::from([arp(1, [10, 10, 25, 88]), arp(1, [203, 0, 113, 88])]));
        for name in ["lan", "wan"] {
            let said = run(&format!("ip address show dev {name}"));
            assert!(said.contains("10.10.25.88/32") && said.contains("203.0.113.88/32"), "{said}");
        }
        running.stop();
        assert_eq!(running.kernel.exceptions().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["lan", "wan"]);
        drop(eal);
    }

    fn a_process_without_the_right_is_told_which_it_needs(eal) {
        let ring = |name| Arc::new(Ring::new(name, 4, None).unwrap());
        let pool = Mempool::new("frames", 63, 0, dpdk::mempool::DEFAULT_DATA_ROOM, None).unwrap();
        let mut plan = lab::plan(&ring("to"), &ring("from"), &pool);
        plan.device_interfaces = Vec::new();
        nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap();
        let error = start(vec![plan], Wanted::default()).err().unwrap().to_string();
        assert!(error.contains("port lan") && error.contains("CAP_NET_ADMIN"), "{error}");
        drop(eal);
    }

    fn frames_for_the_worker_are_padded_and_a_full_ring_drops_and_counts(eal) {
        let ring = |name| Arc::new(Ring::new(name, 4, None).unwrap());
        let pool = Mempool::new("frames", 63, 0, dpdk::mempool::DEFAULT_DATA_ROOM, None).unwrap();
        let counters: Arc<LaneCounters> = Arc::default();
        let lane = Lane { port: 0, to_kernel: ring("to"), from_kernel: ring("from"), mempool: pool.clone(), counters: Arc::clone(&counters) };
        assert!(lane.inject(&[7; 42]));
        assert!(lane.inject(&[8; 1514]));
        assert!(!lane.inject(&[9; 4000]), "longer than a frame buffer");
        assert!(lane.inject(&[1; 60]) && lane.inject(&[2; 61]));
        assert!(!lane.inject(&[3; 60]), "the ring is full");
        let mut burst = Burst::new();
        assert_eq!(lane.from_kernel.dequeue_burst(&mut burst), 4);
        let lengths: Vec<usize> = burst.iter().map(dpdk::mbuf::Mbuf::len).collect();
        assert_eq!(lengths, [60, 1514, 60, 61]);
        assert_eq!((burst[0].data()[..42].to_vec(), burst[0].data()[42..].to_vec()), (vec![7; 42], vec![0; 18]));
        burst.clear();
        assert_eq!(pool.in_use(), 0);
        let stats = counters.read();
        assert_eq!((stats.from_kernel, stats.from_kernel_dropped), (4, 2));
        drop(eal);
    }
}
