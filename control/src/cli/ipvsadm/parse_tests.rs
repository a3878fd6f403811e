use std::collections::BTreeSet;

use super::*;
use crate::model::{RealServerPatch, ServicePatch, ServiceSpec};

fn request(line: &str) -> Result<Request, Failure> {
    let names = Names::from_texts("http 80/tcp\ndomain 53/udp\n", "");
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    parse(&words, &names)
}

fn key(id: &str) -> ServiceKey {
    id.parse().unwrap()
}

/// Lines that ipvsadm 1.31 refuses, with its exit code and message.
const REFUSED: &[(&str, u8, &str)] = &[
    ("-nL", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-ZC", 2, "invalid option `-ZC'"),
    ("-C -D", 2, "invalid option `-D'"),
    ("-L -L", 2, "invalid option `-L'"),
    ("-R -n", 2, "Illegal 'numeric' option with the 'restore' command"),
    ("-A", 2, "You need to supply the 'service-address' option for the 'add-service' command"),
    ("-A -t", 255, "-t: missing argument"),
    ("-A --tcp-serv 10.10.24.88:80", 255, "--tcp-serv: unknown option"),
    ("--add -t 10.10.24.88:80", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-add-service -t 10.10.24.88:80", 2, "invalid option `-add-service'"),
    ("-A -t 10.10.24.88:80 -t 10.10.24.88:81", 2, "multiple 'service-address' options specified"),
    ("-A -t 10.10.24.88:80 -u 10.10.24.88:81", 2, "multiple 'service-address' options specified"),
    ("-A -t 10.10.24.88:80 foo", 2, "unexpected argument foo"),
    ("-A foo -t 10.10.24.88:80", 2, "unexpected argument foo"),
    ("-A -t 10.10.24.88:80 -- foo", 2, "unexpected argument foo"),
    ("-A -t 10.10.24.88:80 -s", 255, "-s: missing argument"),
    ("-A -t 10.10.24.88:80 -p 0", 2, "invalid timeout value `0' specified"),
    ("-A -t 10.10.24.88:80 -p abc", 2, "invalid timeout value `abc' specified"),
    ("-A -t 10.10.24.88:80 -p 99999999", 2, "invalid timeout value `99999999' specified"),
    ("-A -t 10.10.24.88:80 -M foo", 2, "illegal virtual server persistent mask specified"),
    ("-A -t [fd00::1]:80 -M 129", 2, "illegal ipv6 netmask specified"),
    ("-A -t [fd00::1]", 2, "illegal virtual server address[:port] specified"),
    ("-A -t fd00::1", 2, "Zero port specified for non-persistent service"),
    ("-A -t fd00::1:80", 2, "Zero port specified for non-persistent service"),
    ("-A -t [fd00::1:80", 2, "illegal virtual server address[:port] specified"),
    ("-A -t [fd00::1]80", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.10.24.88:", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.10.24.88:0", 2, "Zero port specified for non-persistent service"),
    ("-A -t 10.10.24.88:HTTP", 2, "illegal virtual server address[:port] specified"),
    ("-A -u 10.10.24.88:nosuchsvc", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.10.24.88:0x50", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.10.24.88:65536", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.10.24.88:-1", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 80", 2, "illegal virtual server address[:port] specified"),
    ("-A -t ", 2, "illegal virtual server address[:port] specified"),
    ("-A -t :80", 2, "illegal virtual server address[:port] specified"),
    ("-A -f 0", 2, "invalid fwmark value `0' specified"),
    ("-A -f -1", 2, "invalid fwmark value `-1' specified"),
    ("-A -f 0x7", 2, "invalid fwmark value `0x7' specified"),
    ("-A -f abc", 2, "invalid fwmark value `abc' specified"),
    ("-A -6 -f 7", 2, "-6 used before -f"),
    ("-A -t 10.10.24.88:80 -o", 2, "One-Packet Scheduling is only for UDP virtual services"),
    ("-A -t 10.10.24.88:80 -b sh-port", 2, "incompatible scheduler flag `sh-port'"),
    ("-A -t 10.10.24.88:80 -s sh -b mh-port", 2, "incompatible scheduler flag `mh-port'"),
    ("-A -t 10.10.24.88:80 -s mh -b sh-fallback", 2, "incompatible scheduler flag `sh-fallback'"),
    ("-A -t 10.10.24.88:80 -s mh -b mh-port,flag-4", 2, "invalid scheduler flag `flag-4'"),
    ("-A -t 10.10.24.88:80 -s sh -b junk", 2, "invalid scheduler flag `junk'"),
    ("-A -t 10.10.24.88:80 -g", 2, "Illegal 'forwarding-method' option with the 'add-service' command"),
    ("-A -t 10.10.24.88:80 -w 1", 2, "Illegal 'weight' option with the 'add-service' command"),
    ("-A -t 10.10.24.88:80 -n", 2, "Illegal 'numeric' option with the 'add-service' command"),
    ("-A -t 10.10.24.88:80 -c", 2, "Illegal 'connection' option with the 'add-service' command"),
    ("-A -t 10.10.24.88:80 -r 10.10.24.21:80", 2, "Illegal 'real-server' option with the 'add-service' command"),
    ("-E", 2, "You need to supply the 'service-address' option for the 'edit-service' command"),
    ("-D", 2, "You need to supply the 'service-address' option for the 'delete-service' command"),
    ("-D -t 10.10.24.88:80 -s rr", 2, "Illegal 'scheduler' option with the 'delete-service' command"),
    ("-C -n", 2, "Illegal 'numeric' option with the 'flush' command"),
    ("-C -t 1.1.1.1:1", 2, "Illegal 'service-address' option with the 'flush' command"),
    ("-a -t 10.10.24.88:80", 2, "You need to supply the 'real-server' option for the 'add-server' command"),
    ("-a -r 10.10.24.21", 2, "You need to supply the 'service-address' option for the 'add-server' command"),
    ("-a", 2, "You need to supply the 'service-address' option for the 'add-server' command"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -g -m", 2, "multiple 'forwarding-method' options specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -w 2147483648", 2, "illegal weight specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -w abc", 2, "illegal weight specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -w -1", 2, "illegal weight specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -w", 255, "-w: missing argument"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -x abc", 2, "illegal u_threshold specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -y -3", 2, "illegal l_threshold specified"),
    ("-a -t 10.10.24.88:80 -r 300.1.1.1", 2, "illegal real server address[:port] specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21:99999", 2, "illegal real server address[:port] specified"),
    ("-a -t 10.10.24.88:80 -r [fd00:10::21]:80 -g", 2, "Different address family is allowed only for tunneling servers"),
    ("-a -t [fd00:10::88]:80 -r [fd00:10::21] -g", 2, "illegal real server address[:port] specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -i --tun-type gue", 2, "You need to supply the 'tun-port' option for the 'gue' tunnel type"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -i --tun-type junk", 2, "illegal tunnel type specified"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -g --tun-type gue --tun-port 6080", 2, "Tunnel options conflict with forward method"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -i --tun-type ipip --tun-port 6080", 2, "Illegal 'tun-port' option with the 'ipip' tunnel type"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -i --tun-port 0", 2, "illegal tunnel port specified"),
    (
        "-a -t 10.10.24.88:80 -r 10.10.24.21 -i --tun-type gre --tun-csum --tun-nocsum",
        2,
        "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gre' tunnel type",
    ),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -s rr", 2, "Illegal 'scheduler' option with the 'add-server' command"),
    ("-a -t 10.10.24.88:80 -r 10.10.24.21 -p 3", 2, "Illegal 'persistent' option with the 'add-server' command"),
    ("-d -t 10.10.24.88:80", 2, "You need to supply the 'real-server' option for the 'delete-server' command"),
    ("-d -t 10.10.24.88:80 -r 10.10.24.21:80 -g", 2, "Illegal 'forwarding-method' option with the 'delete-server' command"),
    ("--set 100 20", 2, "--set option requires 3 timeout values"),
    ("--set", 2, "--set option requires 3 timeout values"),
    ("--set a b c", 2, "invalid timeout value `a' specified"),
    ("--set 100 20 30 40", 2, "unexpected argument 40"),
    ("--set 2678401 1 1", 2, "invalid timeout value `2678401' specified"),
    ("--set -1 1 1", 255, "-1: unknown option"),
    ("-L -c --stats", 2, "options conflicts in the list command"),
    ("-L --timeout --daemon", 2, "The option 'daemon' conflicts with the 'timeout' option in the 'list' command"),
    ("-L --timeout --stats", 2, "options conflicts in the list command"),
    ("-L -c --timeout", 2, "The option 'timeout' conflicts with the 'connection' option in the 'list' command"),
    ("-L -c -t 10.10.24.88:80", 2, "The option 'service-address' conflicts with the 'connection' option in the 'list' command"),
    ("-L --stats -c", 2, "options conflicts in the list command"),
    ("-L -s rr", 2, "Illegal 'scheduler' option with the 'list' command"),
    ("-L -g", 2, "Illegal 'forwarding-method' option with the 'list' command"),
    ("-L -n -n", 2, "multiple 'numeric' options specified"),
    ("-Lnn", 2, "multiple 'numeric' options specified"),
    ("-L --numeric -n", 2, "multiple 'numeric' options specified"),
    ("-L -q", 255, "-q: unknown option"),
    ("-L --bogus", 255, "--bogus: unknown option"),
    ("-Lq", 255, "-Lq: unknown option"),
    ("--bogus", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-q", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-x", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-x 3", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("foo", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("foo -L", 2, "unexpected argument foo"),
    ("-L foo", 2, "unexpected argument foo"),
    ("-L --stats=1", 255, "--stats=1: option does not take an argument"),
    ("--list=1", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--start-daemon junk", 2, "illegal start-daemon parameter specified"),
    ("--start-daemon", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--start-daemon master --syncid 300", 2, "illegal syncid specified"),
    ("--stop-daemon", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--stop-daemon junk", 2, "illegal start_daemon specified"),
    ("-Z -n", 2, "Illegal 'numeric' option with the 'zero' command"),
    ("-L --pe sip", 2, "Illegal 'pe' option with the 'list' command"),
    ("-S -c", 2, "Illegal 'connection' option with the 'save' command"),
    ("-", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-- -L", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-A -t 10.10.24.88:80 -w 2 -r 10.10.24.21", 2, "Illegal 'real-server' option with the 'add-service' command"),
    ("-E -t 10.10.24.88:80 -r 10.10.24.21 -w 2", 2, "Illegal 'real-server' option with the 'edit-service' command"),
];

#[test]
fn faulty_lines_end_as_they_do_with_ipvsadm() {
    for &(line, code, text) in REFUSED {
        let failure = request(line).expect_err(line);
        assert_eq!((failure.code, failure.text.trim_end()), (code, text), "{line}");
    }
}

#[test]
fn a_service_can_be_spelled_in_many_ways() {
    let wanted = request("-A -t 10.10.24.88:80 -s rr").unwrap();
    let Request::AddService(ServiceSpec { scheduler: Scheduler::Rr, one_packet: false, .. }) = &wanted else { panic!("{wanted:?}") };
    for line in [
        "-A -t10.10.24.88:80 -srr",
        "-At 10.10.24.88:80 -s rr",
        "-At10.10.24.88:80 -s=rr",
        "-A -t=10.10.24.88:http -s rr",
        "--add-service --tcp-service=10.10.24.88:80 --scheduler rr",
        "-A -s rr -t 10.10.24.88:080",
        "-A -t 0x0a0a1858:+80 -s rr",
        "-A -t 10.10.6232:80 -s rr",
    ] {
        assert_eq!(request(line).as_ref(), Ok(&wanted), "{line}");
    }
}

#[test]
fn sctp_services_have_real_servers_and_no_one_packet_scheduling() {
    let Ok(Request::AddService(service)) = request("-A --sctp-service 10.10.24.88:3868 -s rr") else { panic!() };
    assert_eq!(service.key(), key("sctp:10.10.24.88:3868"));
    let Ok(Request::AddServer(of, server)) = request("-a --sctp-service [fd00:10::88]:3868 -r [fd00:10::21]:3868") else { panic!() };
    assert_eq!((of, server.port), (key("sctp:[fd00:10::88]:3868"), Some(3868)));
    assert_eq!(request("-D --sctp-service 10.10.24.88:3868"), Ok(Request::DeleteService(key("sctp:10.10.24.88:3868"))));
    let refused = request("-A --sctp-service 10.10.24.88:3868 -o").unwrap_err();
    assert_eq!((refused.code, refused.text.as_str()), (2, "One-Packet Scheduling is only for UDP virtual services"));
}

#[test]
fn the_default_scheduler_is_wlc_and_the_default_weight_1() {
    let Ok(Request::AddService(service)) = request("-A -u 10.10.24.88:domain -o") else { panic!() };
    assert_eq!((service.scheduler, service.one_packet, service.key()), (Scheduler::Wlc, true, key("udp:10.10.24.88:53")));
    let Ok(Request::AddServer(of, server)) = request("-a -t 10.10.24.88:80 -r 10.10.24.21") else { panic!() };
    assert_eq!((of, server.weight, server.method), (key("tcp:10.10.24.88:80"), 1, Method::DirectRouting));
}

#[test]
fn persistence_has_a_time_and_a_mask() {
    for (line, timeout, prefix) in [
        ("-A -t 10.10.24.88:80 -p", 360, None),
        ("-A -t 10.10.24.88:0 -p 120", 120, None),
        ("-A -t 10.10.24.88:80 -p=100 -M 255.255.255.0", 100, Some(24)),
        ("-A -t 10.10.24.88:80 -M 255.255.255.255 -p", 360, None),
        ("-A -t 10.10.24.88:80 -p -M 0.0.0.0", 360, Some(0)),
        ("-A -t [fd00:10::88]:80 -p 60 -M 64", 60, Some(64)),
        ("-A -t [fd00:10::88]:80 -p 60 -M 128", 60, None),
    ] {
        let Ok(Request::AddService(service)) = request(line) else { panic!("{line}") };
        assert_eq!(service.persistence, Some(Persistence { timeout, prefix, netmask: None }), "{line}");
    }
    let Ok(Request::AddService(service)) = request("-A -t 10.10.24.88:80 -p 60 -M 255.0.255.0") else { panic!() };
    let netmask = Some("255.0.255.0".parse().unwrap());
    assert_eq!(service.persistence, Some(Persistence { timeout: 60, prefix: None, netmask }), "a mask with gaps");
    let Ok(Request::EditService(_, patch)) = request("-E -t 10.10.24.88:80 -s wlc") else { panic!() };
    assert_eq!(patch.persistence, Some(None), "editing without -p ends persistence");
    assert_eq!(serde_json::to_value(patch).unwrap()["persistence"], serde_json::Value::Null);
}

#[test]
fn a_tunnel_takes_the_port_of_the_service_and_may_change_the_family() {
    for line in ["-a -t 10.10.24.88:80 -r [fd00:10::21]:8080 -i", "-a -t 10.10.24.88:80 -r [fd00:10::21]:0 -i --tun-type ipip"] {
        let Ok(Request::AddServer(_, server)) = request(line) else { panic!("{line}") };
        assert_eq!((server.address.to_string().as_str(), server.port, server.method), ("fd00:10::21", Some(80), Method::Tunnel), "{line}");
    }
}

#[test]
fn a_tunnel_has_a_type_a_port_and_a_checksum() {
    for (options, shown) in [
        ("", "ipip"),
        (" --tun-type gue --tun-port 6080", "gue:6080:-c"),
        (" --tun-type gue --tun-port 65535 --tun-nocsum", "gue:65535:-c"),
        (" --tun-csum --tun-port 1 --tun-type gue", "gue:1:+c"),
        (" --tun-type gue --tun-port 6080 --tun-remcsum", "gue:6080:r+c"),
        (" --tun-type gre", "gre:-c"),
        (" --tun-type gre --tun-csum", "gre:+c"),
    ] {
        let Ok(Request::AddServer(_, server)) = request(&format!("-a -t 10.10.24.88:80 -r 10.10.24.21 -i{options}")) else {
            panic!("{options}")
        };
        let tunnel = server.tunnel.unwrap();
        assert_eq!((tunnel.to_string().as_str(), tunnel.faults()), (shown, vec![]));
        let Ok(Request::EditServer(_, _, patch)) = request(&format!("-e -t 10.10.24.88:80 -r 10.10.24.21 -i{options}")) else {
            panic!("{options}")
        };
        assert_eq!(patch.tunnel, Some(tunnel));
    }
}

#[test]
fn thresholds_are_those_of_one_real_server() {
    let Ok(Request::AddServer(_, server)) = request("-a -t 10.10.24.88:80 -r 10.10.24.21 -x 5 -y 2") else { panic!() };
    assert_eq!((server.upper_threshold, server.lower_threshold), (5, 2));
    let Ok(Request::EditServer(_, _, patch)) = request("-e -t 10.10.24.88:80 -r 10.10.24.21 -x 9") else { panic!() };
    assert_eq!((patch.upper_threshold, patch.lower_threshold), (Some(9), Some(0)));
}

#[test]
fn scheduler_flags_have_names_of_their_own_and_numbers() {
    for (line, wanted) in [
        ("-A -t 10.10.24.88:80 -s sh", &[][..]),
        ("-A -t 10.10.24.88:80 -s sh -b sh-port", &[SchedulerFlag::ShPort]),
        ("-A -t 10.10.24.88:80 -s sh -b sh-port,sh-fallback", &[SchedulerFlag::ShFallback, SchedulerFlag::ShPort]),
        ("-A -t 10.10.24.88:80 -s sh -b flag-1,flag-2", &[SchedulerFlag::ShFallback, SchedulerFlag::ShPort]),
        ("-A -t 10.10.24.88:80 -s mh -b mh-port", &[SchedulerFlag::MhPort]),
        ("-A -t 10.10.24.88:80 -s mh -b mh-port,mh-fallback", &[SchedulerFlag::MhFallback, SchedulerFlag::MhPort]),
        ("-A -t 10.10.24.88:80 -s mh -b flag-1,flag-2", &[SchedulerFlag::MhFallback, SchedulerFlag::MhPort]),
        ("-A -t 10.10.24.88:80 -s mh -b flag-3,mh-port", &[SchedulerFlag::MhPort]),
        ("-A -t 10.10.24.88:80 -s sh -b sh-port,,flag-3", &[SchedulerFlag::ShPort]),
        ("-A -t 10.10.24.88:80 -s rr -b flag-2,flag-1", &[SchedulerFlag::Flag1, SchedulerFlag::Flag2]),
        ("-A -t 10.10.24.88:80 -b flag-3", &[SchedulerFlag::Flag3]),
    ] {
        let Ok(Request::AddService(service)) = request(line) else { panic!("{line}") };
        assert_eq!(service.flags.into_iter().collect::<Vec<_>>(), wanted, "{line}");
    }
}

#[test]
fn direct_routing_takes_the_port_of_the_service() {
    for line in [
        "-a -t 10.10.24.88:80 -r 10.10.24.21 -g",
        "-a -t 10.10.24.88:80 -r 10.10.24.21:8080 -g",
        "-a -t 10.10.24.88:80 -r 10.10.24.21:8080",
        "-a -r 10.10.24.21:80 -g -t 10.10.24.88:80",
        "-a -gw1 -r 10.10.24.21 -t 10.10.24.88:80",
    ] {
        let Ok(Request::AddServer(_, server)) = request(line) else { panic!("{line}") };
        assert_eq!((server.address.to_string().as_str(), server.port), ("10.10.24.21", Some(80)), "{line}");
    }
    let Ok(Request::DeleteServer(_, at)) = request("-d -t 10.10.24.88:80 -r 10.10.24.21:8080") else { panic!() };
    assert_eq!(at.1, 8080);
    let Ok(Request::DeleteServer(_, at)) = request("-d -t 10.10.24.88:80 -r 10.10.24.21") else { panic!() };
    assert_eq!(at.1, 80);
}

#[test]
fn editing_sets_everything_anew() {
    let Ok(Request::EditServer(of, at, patch)) = request("-e -t [fd00:10::88]:80 -r fd00:10::21 -w 0") else { panic!() };
    assert_eq!((of, at), (key("tcp:[fd00:10::88]:80"), ("fd00:10::21".parse().unwrap(), 80)));
    assert_eq!(
        patch,
        RealServerPatch {
            weight: Some(0),
            upper_threshold: Some(0),
            lower_threshold: Some(0),
            method: Some(Method::DirectRouting),
            tunnel: None,
            ..RealServerPatch::default()
        }
    );
    let edited = request("-E -t 10.10.24.88:80");
    let patch = ServicePatch {
        scheduler: Some(Scheduler::Wlc),
        flags: Some(BTreeSet::new()),
        persistence: Some(None),
        one_packet: Some(false),
        ..ServicePatch::default()
    };
    assert_eq!(edited, Ok(Request::EditService(key("tcp:10.10.24.88:80"), patch)));
}

#[test]
fn the_other_commands_are_understood() {
    for (line, wanted) in [
        ("-D -t 10.10.24.88", Request::DeleteService(key("tcp:10.10.24.88:0"))),
        ("-C", Request::Clear),
        ("-Z", Request::Zero(None)),
        ("-Z -t 10.10.24.88:80", Request::Zero(Some(key("tcp:10.10.24.88:80")))),
        ("-S", Request::Save(false)),
        ("-Sn", Request::Save(true)),
        ("-R", Request::Restore),
        ("--set 100 0 2678400", Request::Set([100, 0, 2_678_400])),
        ("-h", Request::Help),
        ("--help -q", Request::Help),
        ("-v", Request::Version),
    ] {
        assert_eq!(request(line), Ok(wanted), "{line}");
    }
}

#[test]
fn listings_are_understood() {
    let plain = Listing { subject: Subject::Services, columns: Columns::Plain, numeric: false, exact: false, sorted: true };
    for (line, wanted) in [
        ("-L", plain),
        ("-l", plain),
        ("--list --sort", plain),
        ("-Ln", Listing { numeric: true, ..plain }),
        ("-l -n --nosort", Listing { numeric: true, sorted: false, ..plain }),
        ("-Lnc", Listing { numeric: true, subject: Subject::Connections, ..plain }),
        ("-lcn", Listing { numeric: true, subject: Subject::Connections, ..plain }),
        ("-L --stats --rate", Listing { columns: Columns::Stats, ..plain }),
        ("-L --rate -X", Listing { columns: Columns::Rate, exact: true, ..plain }),
        ("-L --thresholds --persistent-conn", Listing { columns: Columns::Thresholds, ..plain }),
        ("-L --persistent-conn", Listing { columns: Columns::PersistentConn, ..plain }),
        ("-L --tun-info", Listing { columns: Columns::TunInfo, ..plain }),
        ("-L --timeout", Listing { subject: Subject::Timeouts, ..plain }),
        ("-L --daemon", Listing { subject: Subject::Daemon, ..plain }),
        ("-L -u 10.10.24.88:53", Listing { subject: Subject::Service(key("udp:10.10.24.88:53")), ..plain }),
    ] {
        assert_eq!(request(line), Ok(Request::List(wanted)), "{line}");
    }
}

#[test]
fn mark_stands_for_a_service_in_every_command() {
    let Ok(Request::AddService(spec)) = request("-A -f 7 -s rr -p 300 -o") else { panic!() };
    assert_eq!((spec.key(), spec.one_packet), (key("mark:7"), true));
    let Ok(Request::AddService(spec)) = request("-A -f 4294967295 -6 -p 60 -M 64") else { panic!() };
    assert_eq!(
        (spec.key(), spec.persistence),
        (key("mark6:4294967295"), Some(Persistence { timeout: 60, prefix: Some(64), netmask: None }))
    );
    assert_eq!(request("-D -f 7"), Ok(Request::DeleteService(key("mark:7"))));
    assert_eq!(request("-D -f 7 -6"), Ok(Request::DeleteService(key("mark6:7"))));
    assert_eq!(request("-Z -f 7"), Ok(Request::Zero(Some(key("mark:7")))));
    let Ok(Request::List(listing)) = request("-L -f 7") else { panic!() };
    assert_eq!(listing.subject, Subject::Service(key("mark:7")));
    let Ok(Request::AddServer(of, server)) = request("-a -f 7 -r 10.10.24.21:80 -g") else { panic!() };
    assert_eq!((of, server.port), (key("mark:7"), Some(0)), "direct routing leaves each packet its port");
    let refused = request("-a -f 7 -6 -r 10.10.24.21 -g").unwrap_err();
    assert_eq!((refused.code, refused.text.as_str()), (2, "Different address family is allowed only for tunneling servers"));
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    for (line, what) in [
        ("-A -t 10.10.24.88:80 -p --pe sip", "Scheduler or persistence engine not found"),
        ("-E -t 10.10.24.88:80 -p --pe sip", "Scheduler or persistence engine not found"),
        ("-A -t 10.10.24.88:80 -s wlb", "Scheduler or persistence engine not found"),
        ("--stop-daemon master", "No daemon is running"),
        ("--stop-daemon backup --syncid 3", "No daemon is running"),
    ] {
        assert_eq!(request(line), Err(Failure { code: 255, text: what.to_owned() }), "{line}");
    }
    let start = request("--start-daemon master --mcast-interface eth0").unwrap_err();
    assert_eq!((start.code, start.text.starts_with("--start-daemon is not built yet: ")), (255, true), "{}", start.text);
    let line = ["-A", "-t", "10.10.24.88:80", "--pe", ""].map(str::to_owned);
    assert!(matches!(parse(&line, &Names::from_texts("", "")), Ok(Request::AddService(_))), "no name is no engine");
}

#[test]
fn what_the_kernel_refuses_without_looking_is_refused_alike() {
    for (line, text) in [
        ("-A -t 10.10.24.88:82 -s nosuch", "Scheduler or persistence engine not found"),
        ("-a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -x 2 -y 5", "Numerical result out of range"),
        ("-a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -y 5", "Numerical result out of range"),
    ] {
        assert_eq!(request(line), Err(Failure { code: 255, text: text.to_owned() }), "{line}");
    }
}

/// About 1500 lines, most of them wrong, with what ipvsadm said to each: `recorded_lines.txt` says how to read it.
#[test]
fn lines_end_as_they_do_in_ipvsadm() {
    let mut expected = (0, "");
    let mut differences = Vec::new();
    let mut lines = 0;
    for line in include_str!("recorded_lines.txt").lines().filter(|line| !line.starts_with('#')) {
        let Some(line) = line.strip_prefix('\t') else {
            let (code, text) = line.split_once(' ').unwrap_or((line, ""));
            expected = (code.parse::<u8>().unwrap(), text);
            continue;
        };
        lines += 1;
        let same = match request(line) {
            Ok(_) => expected.0 == 0,
            // The recorder's kernel had everything.
            Err(Failure { text, .. }) if expected.0 == 0 => {
                text.contains("not built yet")
                    || text == "No daemon is running"
                    || line.contains("--pe") && text.ends_with("engine not found")
            }
            Err(failure) => (failure.code, failure.text.trim_end()) == expected,
        };
        if !same {
            differences.push(format!("{line}: {expected:?}, here {:?}", request(line)));
        }
    }
    assert_eq!(lines, 1472);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
