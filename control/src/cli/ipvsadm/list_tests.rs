//! The expected texts are what ipvsadm 1.31 printed for the same state on Linux 6.1.

use std::collections::BTreeSet;

use super::*;
use crate::model::{RealServerState, Scheduler, SchedulerFlag, TunnelChecksum, VipState};

fn server(address: &str, port: u16, connections: (u32, u32)) -> RealServer {
    let address: IpAddr = address.parse().unwrap();
    RealServer {
        id: SocketAddr::new(address, port).to_string(),
        address,
        port,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        method: Method::DirectRouting,
        tunnel: None,
        mac: None,
        link: None,
        state: RealServerState::Ready,
        reason: None,
        health: None,
        drain: None,
        active_connections: connections.0,
        inactive_connections: connections.1,
        persistent_connections: 0,
        stats: Stats { connections: 4, in_packets: 8, in_bytes: 320, ..Stats::default() },
        rates: Rates { in_packets: 1, in_bytes: 30, ..Rates::default() },
    }
}

fn service(id: &str, scheduler: Scheduler, real_servers: Vec<RealServer>) -> Service {
    let key: ServiceKey = id.parse().unwrap();
    Service {
        id: id.to_owned(),
        protocol: key.protocol,
        address: key.address,
        port: key.port,
        mark: key.mark(),
        scheduler,
        flags: BTreeSet::new(),
        persistence: None,
        one_packet: false,
        health: None,
        quorum: None,
        no_real_server: crate::model::NoRealServer::Icmp,
        timeouts: None,
        vip: VipState::Held,
        conflicts: Vec::new(),
        stats: Stats { connections: 12, in_packets: 24, in_bytes: 960, ..Stats::default() },
        rates: Rates { connections: 1, in_packets: 2, in_bytes: 90, ..Rates::default() },
        real_servers,
    }
}

fn rr() -> Service {
    let servers = ["10.10.24.23", "10.10.24.21", "10.10.24.22"].map(|address| server(address, 80, (4, 0)));
    service("tcp:10.10.24.88:80", Scheduler::Rr, servers.into())
}

const NUMERIC: Style<'_> = Style { names: None, columns: Columns::Plain, exact: false, sorted: true };

fn listed(style: &Style<'_>, services: &[Service]) -> String {
    style.title() + &style.order(services).into_iter().map(|service| style.service(service)).collect::<String>()
}

#[test]
fn scheduler_flags_are_listed_and_saved_in_ipvsadms_order() {
    let flags = BTreeSet::from([SchedulerFlag::ShPort, SchedulerFlag::ShFallback]);
    let service = Service { scheduler: Scheduler::Sh, flags, real_servers: Vec::new(), ..rr() };
    assert_eq!(NUMERIC.service(&service), "TCP  10.10.24.88:80 sh (sh-fallback,sh-port)\n");
    assert_eq!(NUMERIC.rules(&service), "-A -t 10.10.24.88:80 -s sh -b sh-fallback,sh-port\n");
    let flags = BTreeSet::from([SchedulerFlag::MhPort, SchedulerFlag::MhFallback]);
    let service = Service { scheduler: Scheduler::Mh, flags, ..service };
    assert_eq!(NUMERIC.service(&service), "TCP  10.10.24.88:80 mh (mh-fallback,mh-port)\n");
    assert_eq!(NUMERIC.rules(&service), "-A -t 10.10.24.88:80 -s mh -b mh-fallback,mh-port\n");
}

#[test]
fn persistence_is_listed_and_saved_as_ipvsadm_does() {
    let persistence = |timeout, prefix| Some(Persistence { timeout, prefix, netmask: None });
    let four = Service { persistence: persistence(300, Some(24)), real_servers: Vec::new(), ..rr() };
    assert_eq!(NUMERIC.service(&four), "TCP  10.10.24.88:80 rr persistent 300 mask 255.255.255.0\n");
    assert_eq!(NUMERIC.rules(&four), "-A -t 10.10.24.88:80 -s rr -p 300 -M 255.255.255.0\n");
    let six =
        Service { persistence: persistence(60, Some(64)), one_packet: true, ..service("udp:[fd00:10::88]:53", Scheduler::Rr, Vec::new()) };
    assert_eq!(NUMERIC.service(&six), "UDP  [fd00:10::88]:53 rr persistent 60 mask 64 ops\n");
    assert_eq!(NUMERIC.rules(&six), "-A -u [fd00:10::88]:53 -s rr -p 60 -M 64 -o\n");
    let gaps = Some(Persistence { timeout: 60, prefix: None, netmask: Some("255.0.255.0".parse().unwrap()) });
    let gaps = Service { persistence: gaps, ..four.clone() };
    assert_eq!(NUMERIC.service(&gaps), "TCP  10.10.24.88:80 rr persistent 60 mask 255.0.255.0\n");
    let whole = Service { persistence: persistence(60, None), ..four };
    assert_eq!(NUMERIC.service(&whole), "TCP  10.10.24.88:80 rr persistent 60\n");
}

#[test]
fn thresholds_are_listed_and_unlike_with_ipvsadm_saved() {
    let limited = RealServer { upper_threshold: 3, lower_threshold: 1, ..server("10.10.24.21", 80, (3, 0)) };
    let service = Service { real_servers: vec![limited, server("10.10.24.22", 80, (9, 0))], ..rr() };
    let style = Style { columns: Columns::Thresholds, ..NUMERIC };
    assert_eq!(
        style.service(&service),
        "\
TCP  10.10.24.88:80 rr
  -> 10.10.24.21:80               3          1          3          0         
  -> 10.10.24.22:80               0          0          9          0         
"
    );
    let lines: Vec<String> = NUMERIC.rules(&service).lines().skip(1).map(str::to_owned).collect();
    assert_eq!(lines, ["-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g -w 1 -x 3 -y 1", "-a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -w 1"]);
}

#[test]
fn plain_listing_is_ipvsadms() {
    assert_eq!(
        HEADER.to_owned() + &listed(&NUMERIC, &[rr()]),
        "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.10.24.88:80 rr
  -> 10.10.24.21:80               Route   1      4          0         
  -> 10.10.24.22:80               Route   1      4          0         
  -> 10.10.24.23:80               Route   1      4          0         
"
    );
}

#[test]
fn stats_listing_is_ipvsadms() {
    assert_eq!(
        listed(&Style { columns: Columns::Stats, ..NUMERIC }, &[rr()]),
        "\
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.10.24.88:80                     12       24        0      960        0
  -> 10.10.24.21:80                      4        8        0      320        0
  -> 10.10.24.22:80                      4        8        0      320        0
  -> 10.10.24.23:80                      4        8        0      320        0
"
    );
}

#[test]
fn rate_listing_is_ipvsadms() {
    assert_eq!(
        listed(&Style { columns: Columns::Rate, ..NUMERIC }, &[rr()]),
        "\
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  10.10.24.88:80                      1        2        0       90        0
  -> 10.10.24.21:80                      0        1        0       30        0
  -> 10.10.24.22:80                      0        1        0       30        0
  -> 10.10.24.23:80                      0        1        0       30        0
"
    );
}

#[test]
fn the_other_columns_are_ipvsadms() {
    let one = service("tcp:10.10.24.88:80", Scheduler::Wlc, vec![server("10.10.24.21", 80, (3, 0))]);
    assert_eq!(
        listed(&Style { columns: Columns::Thresholds, ..NUMERIC }, std::slice::from_ref(&one)),
        "\
Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn 
  -> RemoteAddress:Port
TCP  10.10.24.88:80 wlc
  -> 10.10.24.21:80               0          0          3          0         
"
    );
    assert_eq!(
        listed(&Style { columns: Columns::PersistentConn, ..NUMERIC }, std::slice::from_ref(&one)),
        "\
Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn 
  -> RemoteAddress:Port
TCP  10.10.24.88:80 wlc
  -> 10.10.24.21:80               1         0           3          0         
"
    );
    assert_eq!(
        listed(&Style { columns: Columns::TunInfo, ..NUMERIC }, &[one]),
        "\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  10.10.24.88:80 wlc
  -> 10.10.24.21:80               Route   n/a           1      3          0         
"
    );
}

#[test]
fn ipv4_comes_before_ipv6_and_tcp_before_udp() {
    let empty = |id| service(id, Scheduler::Rr, Vec::new());
    let services = [
        "udp:[fd00:10::88]:53",
        "tcp:[fd00:10::88]:8080",
        "udp:10.10.24.88:53",
        "tcp:10.10.24.88:443",
        "tcp:10.10.24.88:80",
        "tcp:10.10.24.7:9",
    ]
    .map(empty);
    let text = listed(&NUMERIC, &services);
    let shown: Vec<&str> = text.lines().skip(2).collect();
    assert_eq!(
        shown,
        [
            "TCP  10.10.24.7:9 rr",
            "TCP  10.10.24.88:80 rr",
            "TCP  10.10.24.88:443 rr",
            "UDP  10.10.24.88:53 rr",
            "TCP  [fd00:10::88]:8080 rr",
            "UDP  [fd00:10::88]:53 rr"
        ]
    );
    let unsorted = listed(&Style { sorted: false, ..NUMERIC }, &services);
    assert_eq!(unsorted.lines().nth(2), Some("UDP  [fd00:10::88]:53 rr"));
}

#[test]
fn unsorted_real_servers_stay_in_the_order_of_adding() {
    let text = listed(&Style { sorted: false, ..NUMERIC }, &[rr()]);
    assert!(text.lines().nth(3).unwrap().starts_with("  -> 10.10.24.23:80 "), "{text}");
}

#[test]
fn names_stand_for_numbers_and_long_ones_are_cut() {
    let hosts = "10.10.24.88 a-very-long-name-of-a-virtual-service.example.org\n10.10.24.21 web1\n";
    let names = Names::from_texts("http 80/tcp\ndomain 53/udp\n", hosts);
    let style = Style { names: Some(&names), ..NUMERIC };
    assert_eq!(
        listed(&style, &[rr(), Service { one_packet: true, ..service("udp:10.10.24.89:53", Scheduler::Rr, Vec::new()) }]),
        "\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  a-very-long-name-of-a-virtua rr
  -> web1:http                    Route   1      4          0         
  -> 10.10.24.22:http             Route   1      4          0         
  -> 10.10.24.23:http             Route   1      4          0         
UDP  10.10.24.89:domain rr ops
"
    );
}

#[test]
fn rules_are_what_restore_reads() {
    let six = service("udp:[fd00:10::88]:53", Scheduler::Lc, vec![server("fd00:10::21", 53, (0, 0))]);
    let text: String = [rr(), Service { one_packet: true, ..six }].iter().map(|service| NUMERIC.rules(service)).collect();
    assert_eq!(
        text,
        "\
-A -t 10.10.24.88:80 -s rr
-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g -w 1
-a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -w 1
-a -t 10.10.24.88:80 -r 10.10.24.23:80 -g -w 1
-A -u [fd00:10::88]:53 -s lc -o
-a -u [fd00:10::88]:53 -r [fd00:10::21]:53 -g -w 1
"
    );
}

#[test]
fn connection_entries_are_ipvsadms() {
    let entry = |protocol, client: &str, virtual_address: &str, server: &str, state: &str, expires_in| Connection {
        protocol,
        client: client.parse().unwrap(),
        virtual_address: virtual_address.parse().unwrap(),
        server: server.parse().unwrap(),
        state: state.to_owned(),
        expires_in,
        in_packets: 1,
        worker: 0,
    };
    let entries = [
        entry(Protocol::Tcp, "198.51.100.8:10007", "10.10.24.88:80", "10.10.24.22:80", "ESTABLISHED", 899.9),
        entry(Protocol::Tcp, "[2001:db8:1::5]:10004", "[fd00:10::88]:80", "[fd00:10::22]:80", "SYN_RECV", 59.2),
        entry(Protocol::Udp, "198.51.100.12:10011", "10.10.24.88:53", "10.10.24.21:53", "UDP", -0.5),
    ];
    let text: String = entries.iter().map(|entry| NUMERIC.connection(entry)).collect();
    assert_eq!(
        connections_title(Columns::Plain) + &text,
        "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 198.51.100.8:10007 10.10.24.88:80     10.10.24.22:80
TCP 00:59  SYN_RECV    [2001:db8:1::5]:10004 [fd00:10::88]:80   [fd00:10::22]:80
UDP 00:00  UDP         198.51.100.12:10011 10.10.24.88:53     10.10.24.21:53
"
    );
}

#[test]
fn large_numbers_are_scaled_unless_exact() {
    for (number, shown, whole) in [
        (0, "        0", "        0"),
        (99_999_999, " 99999999", " 99999999"),
        (100_000_000, "  100000K", " 100000000"),
        (999_999_999, "  999999K", " 999999999"),
        (1_000_000_000, "    1000M", " 1000000000"),
        (99_999_999_999, "   99999M", " 99999999999"),
        (100_000_000_000, "     100G", " 100000000000"),
        (99_999_999_999_999, "   99999G", " 99999999999999"),
        (100_000_000_000_000, "     100T", " 100000000000000"),
        (u64::MAX, "18446744T", " 18446744073709551615"),
    ] {
        assert_eq!((scaled(number).as_str(), exact(number).as_str()), (shown, whole));
    }
}

#[test]
fn timeouts_are_ipvsadms() {
    assert_eq!(timeouts(&Settings::default()), "Timeout (tcp tcpfin udp): 900 120 300\n");
}

#[test]
fn tunnels_are_listed_with_type_port_and_checksum_and_saved_as_options() {
    let tunnel = |address, kind, port, checksum| RealServer {
        method: Method::Tunnel,
        tunnel: Some(Tunnel { kind, port, checksum }),
        ..server(address, 80, (2, 0))
    };
    let servers = vec![
        tunnel("10.10.24.21", TunnelType::Gue, Some(6080), TunnelChecksum::None),
        tunnel("10.10.24.22", TunnelType::Gre, None, TunnelChecksum::Whole),
        tunnel("10.10.24.23", TunnelType::Ipip, None, TunnelChecksum::None),
        tunnel("10.10.24.24", TunnelType::Gue, Some(65_535), TunnelChecksum::Remote),
        server("10.10.24.25", 80, (2, 0)),
    ];
    let web = service("tcp:10.10.24.88:80", Scheduler::Rr, servers);
    let style = Style { names: None, columns: Columns::TunInfo, exact: false, sorted: true };
    assert_eq!(
        style.service(&web),
        "TCP  10.10.24.88:80 rr\n\
         \x20 -> 10.10.24.21:80               Tunnel  gue:6080:-c   1      2          0         \n\
         \x20 -> 10.10.24.22:80               Tunnel  gre:+c        1      2          0         \n\
         \x20 -> 10.10.24.23:80               Tunnel  ipip          1      2          0         \n\
         \x20 -> 10.10.24.24:80               Tunnel  gue:65535:r+c 1      2          0         \n\
         \x20 -> 10.10.24.25:80               Route   n/a           1      2          0         \n"
    );
    let rules = style.rules(&web);
    let saved: Vec<&str> = rules.lines().skip(1).map(|line| line.trim_start_matches("-a -t 10.10.24.88:80 -r ")).collect();
    assert_eq!(
        saved,
        [
            "10.10.24.21:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
            "10.10.24.22:80 -i -w 1 --tun-type gre --tun-csum",
            "10.10.24.23:80 -i -w 1 --tun-type ipip",
            "10.10.24.24:80 -i -w 1 --tun-type gue --tun-port 65535 --tun-remcsum",
            "10.10.24.25:80 -g -w 1",
        ]
    );
}

#[test]
fn sctp_is_listed_and_saved_under_its_own_option() {
    let names = Names::from_texts("diameter 3868/sctp\ndiameter-over-tcp 3868/tcp\n", "");
    let sctp = service("sctp:10.10.24.88:3868", Scheduler::Rr, vec![server("10.10.24.21", 3868, (1, 2))]);
    let before = service("udp:10.10.24.88:3868", Scheduler::Rr, Vec::new());
    assert_eq!(
        listed(&NUMERIC, &[sctp.clone(), before]).lines().skip(2).collect::<Vec<_>>(),
        ["UDP  10.10.24.88:3868 rr", "SCTP 10.10.24.88:3868 rr", "  -> 10.10.24.21:3868             Route   1      1          2         "]
    );
    assert_eq!(
        NUMERIC.rules(&sctp),
        "-A --sctp-service 10.10.24.88:3868 -s rr\n-a --sctp-service 10.10.24.88:3868 -r 10.10.24.21:3868 -g -w 1\n"
    );
    let named = Style { names: Some(&names), ..NUMERIC };
    assert!(named.rules(&sctp).starts_with("-A --sctp-service 10.10.24.88:diameter -s rr\n"), "{}", named.rules(&sctp));
    let entry = Connection {
        protocol: crate::model::Protocol::Sctp,
        client: "198.51.100.1:1000".parse().unwrap(),
        virtual_address: "10.10.24.88:3868".parse().unwrap(),
        server: "10.10.24.21:3868".parse().unwrap(),
        state: "S-RECEIVED".to_owned(),
        expires_in: 60.5,
        in_packets: 3,
        worker: 0,
    };
    assert_eq!(NUMERIC.connection(&entry), "SCTP 01:00  S-RECEIVED  198.51.100.1:1000  10.10.24.88:3868   10.10.24.21:3868\n");
}

#[test]
fn services_by_mark_stand_behind_all_others_by_their_mark() {
    let mut marked = service("mark:7", Scheduler::Rr, vec![server("10.10.24.22", 0, (2, 0)), server("10.10.24.21", 0, (2, 0))]);
    marked.persistence = Some(Persistence { timeout: 300, prefix: None, netmask: None });
    let services = [service("mark6:9", Scheduler::Wlc, vec![]), marked, rr(), service("mark:9", Scheduler::Wlc, vec![])];
    let text = listed(&NUMERIC, &services);
    let by_mark = text.split_once("FWM").unwrap().1;
    assert_eq!(
        format!("FWM{by_mark}"),
        "\
FWM  7 rr persistent 300
  -> 10.10.24.21:0                Route   1      2          0         
  -> 10.10.24.22:0                Route   1      2          0         
FWM  9 wlc
FWM  9 IPv6 wlc
"
    );
    let saved: String = NUMERIC.order(&services).into_iter().skip(1).map(|service| NUMERIC.rules(service)).collect();
    assert_eq!(
        saved,
        "\
-A -f 7 -s rr -p 300
-a -f 7 -r 10.10.24.21:0 -g -w 1
-a -f 7 -r 10.10.24.22:0 -g -w 1
-A -f 9 -s wlc
-A -f 9 -6 -s wlc
"
    );
    let stats = Style { columns: Columns::Stats, ..NUMERIC };
    assert_eq!(stats.service(&services[0]), "FWM  9 IPv6                             12       24        0      960        0\n");
}

#[test]
fn template_of_a_mark_is_listed_as_the_kernel_does() {
    let entry = |client: &str, mark: &str, server: &str| Connection {
        protocol: Protocol::Mark,
        client: client.parse().unwrap(),
        virtual_address: mark.parse().unwrap(),
        server: server.parse().unwrap(),
        state: "NONE".to_owned(),
        expires_in: 299.5,
        in_packets: 0,
        worker: 0,
    };
    assert_eq!(
        NUMERIC.connection(&entry("198.51.100.2:0", "0.0.0.7:0", "10.10.24.21:0")),
        "IP  04:59  NONE        198.51.100.2:0     0.0.0.7:0          10.10.24.21:0\n"
    );
    assert!(NUMERIC.connection(&entry("[2001:db8::1]:0", "[0:7::]:0", "[fd00:10::21]:0")).contains(" [0:7::]:0 "));
}

#[test]
fn great_mark_is_listed_as_ipvsadm_does_and_saved_so_that_it_can_be_restored() {
    let great = service("mark:4294967295", Scheduler::Wlc, vec![]);
    assert_eq!(NUMERIC.service(&great), "FWM  -1 wlc\n");
    assert_eq!(NUMERIC.rules(&great), "-A -f 4294967295 -s wlc\n");
}

#[test]
fn listing_of_connections_has_columns_for_persistence_engines_when_asked() {
    let title = connections_title(Columns::PersistentConn);
    let last = title.lines().nth(1).unwrap();
    assert_eq!(last, "pro expire state       source             virtual            destination        pe name          pe_data");
    assert_eq!(connections_title(Columns::Plain).lines().nth(1).unwrap(), last.strip_suffix("        pe name          pe_data").unwrap());
}
