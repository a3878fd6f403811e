use proptest::prelude::*;

use super::*;
use crate::model::Document;
use report::Outcome;

/// Imports a text on its own; the file is named `x`.
fn import_text(text: &str, kind: Option<Kind>) -> Result<(String, Report), Unreadable> {
    import(&Order { file: Path::new("x"), text: Some(text.as_bytes()), kind, id: "high", base: None })
}

fn carried(text: &str, kind: Kind) -> (Document, Report) {
    let (written, report) = import_text(text, Some(kind)).unwrap();
    (config::parse(&written, Path::new("written"), &[]).unwrap().document(), report)
}

/// Line, outcome and the beginning of the reason of every remark.
fn said(report: &Report) -> Vec<(usize, Outcome, &str)> {
    report.remarks.iter().map(|remark| (remark.line, remark.outcome, remark.reason.as_str())).collect()
}

#[test]
fn rules_of_ipvsadm_come_over_as_they_are() {
    let rules = "\
-A -t 10.10.24.88:80 -s wlc -p 600 -M 255.255.255.0
-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g -w 3 -x 100 -y 50
-a -t 10.10.24.88:80 -r 10.10.24.22:8080 -m -w 1
# a remark
ipvsadm -A -u [fd00::88]:53 -s sh -b sh-port
/sbin/ipvsadm -a -u [fd00::88]:53 -r [fd00::21]:53 -i -w 0
";
    let (document, report) = carried(rules, Kind::Ipvsadm);
    assert_eq!(said(&report), []);
    assert_eq!((report.services, report.real_servers), (2, 3));
    let names = crate::cli::ipvsadm::names::Names::default();
    let plain: Vec<&str> = rules.lines().map(ipvsadm::bare).collect();
    let wanted = crate::cli::ipvsadm::restore::collect(plain, &names, |_, why| panic!("{why:?}")).document;
    let mut found = document;
    for service in &mut found.services {
        for server in &mut service.real_servers {
            server.port = server.port.or(Some(service.port));
        }
    }
    assert_eq!(found.services, wanted.services);
}

#[test]
fn line_that_cannot_be_carried_over_is_named_and_the_others_are() {
    let rules = "-A -t 10.10.24.88:80 -s rr\n-A -t 10.10.24.88:81 -s nosuch\n-a -t 10.10.24.88:80 -r 127.0.0.1:80 -g\n-A -f 7\n--set 900 30 300\n-Z\n";
    let (document, report) = carried(rules, Kind::Ipvsadm);
    assert_eq!(document.services.len(), 2);
    assert_eq!(document.settings.timeout_tcpfin, 30);
    assert_eq!(
        said(&report),
        [
            (2, Outcome::LeftOut, "Scheduler or persistence engine not found"),
            (3, Outcome::LeftOut, "127.0.0.1 cannot be a real server: it is a loopback address"),
            (4, Outcome::Changed, "netfilter's rules say which packets have the mark: say it here with [[mark]]"),
            (6, Outcome::LeftOut, "only -A -E -D -C -a -e -d and --set can be restored"),
        ]
    );
}

const KEEPALIVED: &str = r#"
global_defs {
    lvs_timeouts tcp 600 udp 30
}
$NET=10.0.0
$RS= \
real_server ${NET}.${N} 8080 { \
    weight ${N} \
    HTTP_GET { \
        url { path /healthz \
              status_code 200 204-206 \
              regex "o k" \
              regex_options caseless } \
        connect_timeout 1.5 \
    } \
}
virtual_server_group web {
    192.0.2.1-2 80
    fwmark 7
}
virtual_server group web {
    delay_loop 6
    lvs_sched wrr
    lvs_method NAT
    @high persistence_timeout 50
    @low persistence_timeout 60
    quorum 2
    hysteresis 1
    inhibit_on_failure
    sorry_server ${NET}.99 80
    ~SEQ(N, 1, 2) $RS
}
virtual_server 192.0.2.9 53 {
    protocol UDP
    ops
    lb_algo sh
    sh-port
    lb_kind DR
    real_server 10.0.0.1 53 { weight 0 }
}
"#;

#[test]
fn virtual_servers_of_keepalived_come_over_with_groups_definitions_and_checks() {
    let (document, report) = carried(KEEPALIVED, Kind::Keepalived);
    let keys: Vec<String> = document.services.iter().map(|service| service.key().to_string()).collect();
    assert_eq!(keys, ["tcp:192.0.2.1:80", "tcp:192.0.2.2:80", "mark:7", "udp:192.0.2.9:53"]);
    assert_eq!((document.settings.timeout_tcp, document.settings.timeout_tcpfin, document.settings.timeout_udp), (600, 120, 30));
    let web = serde_json::to_value(&document.services[0]).unwrap();
    assert_eq!(
        web,
        serde_json::json!({
            "protocol": "tcp", "address": "192.0.2.1", "port": 80, "scheduler": "wrr", "persistence": {"timeout": 50},
            "health": {
                "type": "http", "via": "direct", "interval": "6s", "interval_down": "3s", "timeout": "1500ms", "rise": 1, "fall": 2,
                "path": "/healthz", "status": "200,204-206", "body": "(?i)o k", "on_failure": "inhibit", "quorum": 2,
                "quorum_hysteresis": 1, "sorry_server": {"address": "10.0.0.99", "method": "masquerading"},
            },
            "real_servers": [
                {"address": "10.0.0.1", "port": 8080, "weight": 1, "method": "masquerading"},
                {"address": "10.0.0.2", "port": 8080, "weight": 2, "method": "masquerading"},
            ],
        })
    );
    let dns = &document.services[3];
    assert!(dns.one_packet && dns.health.is_none() && dns.real_servers[0].weight == 0);
    assert_eq!(dns.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>(), ["sh-port"]);
    let low = KEEPALIVED.lines().position(|line| line.contains("@low")).unwrap() + 1;
    let mark = KEEPALIVED.lines().position(|line| line.contains("fwmark")).unwrap() + 1;
    assert_eq!(
        said(&report),
        [
            (mark, Outcome::Changed, "netfilter's rules say which packets have the mark: say it here with [[mark]]"),
            (low, Outcome::LeftOut, "is not for the config-id 'high' (--config-id says which)"),
        ]
    );
}

#[test]
fn every_checker_that_there_is_a_check_for_becomes_one() {
    let server = |checker: &str| {
        format!("virtual_server 192.0.2.1 53 {{\n protocol UDP\n delay_loop 7\n real_server 10.0.0.1 53 {{\n  {checker}\n }}\n}}\n")
    };
    for (checker, wanted, changed) in [
        ("PING_CHECK { retry 4 }", serde_json::json!({"type": "ping", "interval_down": "1s", "timeout": "5s", "fall": 5}), 0),
        (
            "UDP_CHECK { payload 01 2 \n require_reply a0x1 \n connect_timeout 3 }",
            serde_json::json!({
                "type": "udp", "interval_down": "1s", "timeout": "3s", "fall": 2, "send_hex": "0102", "answer": true,
                "body": r"(?s-u)^\xA0[\x01\x11\x21\x31\x41\x51\x61\x71\x81\x91\xA1\xB1\xC1\xD1\xE1\xF1]",
            }),
            0,
        ),
        ("UDP_CHECK { }", serde_json::json!({"type": "udp", "interval_down": "1s", "timeout": "5s", "fall": 2, "answer": false}), 1),
        (
            "DNS_CHECK { type A \n name www.example.org }",
            serde_json::json!({"type": "dns", "interval_down": "7s", "timeout": "5s", "fall": 4, "record": "A", "name": "www.example.org"}),
            0,
        ),
        (
            "DNS_CHECK { }",
            serde_json::json!({"type": "dns", "interval_down": "7s", "timeout": "5s", "fall": 4, "record": "SOA", "name": "."}),
            0,
        ),
        (
            "MISC_CHECK { misc_path \"/bin/true a 'b c'\" \n misc_timeout 2 }",
            serde_json::json!({"type": "exec", "interval_down": "1s", "timeout": "2s", "fall": 1, "command": ["/bin/true", "a", "b c"]}),
            1,
        ),
    ] {
        let (document, report) = carried(&server(checker), Kind::Keepalived);
        let mut found = serde_json::to_value(&document.services[0].health).unwrap();
        let fields = found.as_object_mut().unwrap_or_else(|| panic!("{checker}: {report}"));
        let same = [("via", "direct"), ("interval", "7s")].map(|(name, value)| (fields.remove(name), Some(value.into())));
        assert!(same.iter().all(|(found, wanted)| found == wanted), "{checker}: {same:?}");
        assert_eq!(fields.remove("rise"), Some(1.into()));
        assert_eq!((&found, report.remarks.len()), (&wanted, changed), "{checker}: {report}");
    }
}

#[test]
fn every_check_of_ldirectord_that_there_is_one_for_becomes_one() {
    let of = |more: &str| format!("virtual=10.0.0.9:53\n\treal=10.0.0.1:53 gate\n\tprotocol=udp\n{more}");
    for (more, kind, field, value) in [
        ("\tchecktype=ping\n", "ping", "fall", serde_json::json!(1)),
        ("\tchecktype=connect\n", "ping", "timeout", serde_json::json!("5s")),
        ("\trequest=\"www.example.org\"\n\treceive=\"10.1.1.1\"\n", "dns", "expect", serde_json::json!("10.1.1.1")),
        (
            "\tchecktype=external\n\tcheckcommand=/bin/true -v\n",
            "exec",
            "command",
            serde_json::json!(["/bin/true", "-v", "10.0.0.9", "53", "10.0.0.1", "53"]),
        ),
    ] {
        let (document, report) = carried(&of(more), Kind::Ldirectord);
        let health = serde_json::to_value(&document.services[0].health).unwrap();
        assert_eq!((&health["type"], &health[field]), (&kind.into(), &value), "{more}: {report}");
    }
}

#[test]
fn every_line_of_keepaliveds_that_does_not_count_here_is_named() {
    let text = "\
vrrp_instance VI_1 {
    interface eth0
    virtual_ipaddress {
        192.0.2.1
    }
}
virtual_server 192.0.2.1 80 {
    alpha
    quorum_up \"/bin/up now\"
    colour blue
    lb_kind FNAT
    real_server 10.0.0.1 80 {
        TCP_CHECK { connect_ip 10.0.0.2
            bindto 10.0.0.3 }
        FILE_CHECK {
            track_file x
        }
    }
    real_server nobody 80 {
        weight 1
    }
}
}
include /nonexistent/*.conf
virtual_server group nobody {
}
";
    let (document, report) = carried(text, Kind::Keepalived);
    assert_eq!((report.services, report.real_servers, document.services[0].real_servers.len()), (1, 1, 1));
    let lines: Vec<usize> = report.remarks.iter().map(|remark| remark.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 8, 9, 10, 11, 13, 14, 15, 16, 19, 20, 23, 24, 25]);
}

#[test]
fn field_that_breaks_a_rule_is_named_at_its_line_and_the_rest_stays() {
    let text = "virtual_server 192.0.2.1 80 {\n quorum 2\n hysteresis 5\n real_server 10.0.0.1 80 {\n  HTTP_GET {\n   url {\n    path /\n    regex (\n   }\n  }\n }\n}\n";
    let (document, report) = carried(text, Kind::Keepalived);
    assert_eq!(report.remarks.iter().map(|remark| remark.line).collect::<Vec<_>>(), [3, 8], "{report}");
    let health = document.services[0].health.as_ref().unwrap();
    assert_eq!((health.path.as_deref(), health.quorum, &health.body), (Some("/"), Some(2), &None));
    let missing = "virtual_server 192.0.2.1 80 {\n real_server 10.0.0.1 80 {\n  MISC_CHECK {\n   misc_path /nonexistent\n  }\n }\n}\n";
    let (document, report) = carried(missing, Kind::Keepalived);
    assert!(document.services[0].health.is_none() && report.remarks.iter().any(|remark| remark.line == 4), "{report}");
}

#[test]
fn dropped_real_server_is_named_with_all_its_lines() {
    let text = "virtual_server 192.0.2.1 80 {\n real_server 127.0.0.1 80 {\n  weight 1\n  TCP_CHECK {\n   connect_timeout 3\n  }\n }\n}\n";
    let (_, report) = carried(text, Kind::Keepalived);
    assert_eq!(report.remarks.iter().map(|remark| remark.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
}

const LDIRECTORD: &str = "\
checktimeout=3
checkinterval=1
#fallback=127.0.0.1:80
autoreload=yes
quiescent=yes

virtual=192.168.6.240:80
\tservicename=Web Site
\treal=192.168.6.2->192.168.6.3:80 gate 5
\treal=192.168.6.6:80 masq 2 \"other.html\", \"Fine\" <l:5> \"<u:10>\"
\tfallback=192.168.6.9:80 gate
\tservice=http
\tscheduler=rr
\tpersistent=600
\tnetmask=255.255.255.0
\trequest=\"index.html\"   # what is asked
\treceive=\"Test Page\"
\tvirtualhost=www.example.org
virtual6=[2001:db8::5]:119
        real6=[2001:db8:0:1::4]:119 masq
        checktype=connect
        colour=blue
virtual=1
        real=192.168.6.2 gate
        protocol=fwm
";

#[test]
fn virtual_services_of_ldirectord_come_over() {
    let (document, report) = carried(LDIRECTORD, Kind::Ldirectord);
    let web = serde_json::to_value(&document.services[0]).unwrap();
    assert_eq!(
        web,
        serde_json::json!({
            "protocol": "tcp", "address": "192.168.6.240", "port": 80, "scheduler": "rr", "persistence": {"timeout": 600, "prefix": 24},
            "health": {
                "type": "http", "via": "direct", "interval": "1s", "interval_down": "1s", "timeout": "3s", "rise": 1, "fall": 1,
                "host": "www.example.org", "status": "200-299", "on_failure": "quiesce",
                "sorry_server": {"address": "192.168.6.9", "method": "direct-routing"},
            },
            "real_servers": [
                {"address": "192.168.6.2", "weight": 5, "method": "direct-routing", "health": {"path": "/index.html", "body": "Test Page"}},
                {"address": "192.168.6.3", "weight": 5, "method": "direct-routing", "health": {"path": "/index.html", "body": "Test Page"}},
                {
                    "address": "192.168.6.6", "weight": 2, "method": "masquerading", "lower_threshold": 5, "upper_threshold": 10,
                    "health": {"path": "/other.html", "body": "Fine"},
                },
            ],
        })
    );
    let news = document.services[1].health.as_ref().unwrap();
    assert_eq!(news.kind, Some(crate::model::CheckType::Tcp));
    assert_eq!(document.services[2].key().to_string(), "mark:1");
    assert_eq!(
        said(&report),
        [
            (4, Outcome::LeftOut, "the file is read at the start, and again when the director is told to"),
            (8, Outcome::LeftOut, "services have no names here"),
            (22, Outcome::LeftOut, "is no directive of ldirectord 4.12"),
            (23, Outcome::Changed, "netfilter's rules say which packets have the mark: say it here with [[mark]]"),
        ]
    );
}

#[test]
fn kind_is_told_by_the_text() {
    for (text, kind) in [
        ("# rules\n-A -t 10.0.0.1:80\n", Kind::Ipvsadm),
        ("#!/bin/sh\n/sbin/ipvsadm -A -t 10.0.0.1:80\n", Kind::Ipvsadm),
        ("! keepalived\n\nvirtual_server 10.0.0.1 80 {\n}\n", Kind::Keepalived),
        ("@high net_namespace high\n", Kind::Keepalived),
        ("checktimeout = 3\n", Kind::Ldirectord),
        ("virtual=10.0.0.1:80\n\treal=10.0.0.2:80 gate\n", Kind::Ldirectord),
    ] {
        assert_eq!(guess(text), Some(kind), "{text}");
    }
    let refused = import_text("<xml/>\n", None).unwrap_err().to_string();
    assert!(refused.contains("--from ipvsadm, keepalived or ldirectord"), "{refused}");
}

#[test]
fn includes_are_read_relative_to_their_file_and_never_in_a_circle() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    write("k.conf", "include d/*.conf\ninclude missing.conf\n");
    write("d/a.conf", "virtual_server 192.0.2.1 80 {\n include inner\n}\n");
    write("d/b.conf", "include ../k.conf\n");
    write("d/inner", "real_server 10.0.0.1 80 {\n}\n");
    let file = folder.path().join("k.conf");
    let (written, report) = import(&Order { file: &file, text: None, kind: None, id: "", base: None }).unwrap();
    assert!(written.contains("address = \"10.0.0.1\""), "{written}");
    let lines: Vec<String> = report.remarks.iter().map(|r| format!("{}:{}", r.file.rsplit('/').next().unwrap(), r.line)).collect();
    assert_eq!(lines, ["b.conf:1", "k.conf:2"], "{report}");
    assert!(report.remarks[0].reason.contains("includes itself"), "{report}");
}

#[test]
fn what_asks_for_too_much_is_refused_or_named() {
    let nested = format!("{}{}", "a {\n".repeat(100), "}\n".repeat(100));
    assert!(import_text(&nested, Some(Kind::Keepalived)).unwrap().1.to_string().contains("more than 16 deep"));
    let bomb = "$A=${B}${B}\n$B=${A}${A}\n${A}\n";
    assert!(import_text(bomb, Some(Kind::Keepalived)).unwrap().1.to_string().contains("stand for each other"));
    let itself = "$A= \\\n$A \\\n$A\n$A\n";
    assert!(import_text(itself, Some(Kind::Keepalived)).is_err());
    let many = "~SEQ(A, 1, 60000) ~SEQ(B, 1, 60000) x\n";
    assert!(import_text(many, Some(Kind::Keepalived)).is_err());
    let wide = "virtual_server_group g {\n 10.0.0.0/18 80\n}\nvirtual_server group g {\n}\nvirtual_server group g {\n}\n";
    assert!(import_text(wide, Some(Kind::Keepalived)).unwrap().1.to_string().contains("more than 16384 virtual services"));
    let long = format!("virtual_server {}\n", "x".repeat(100_000));
    assert!(import_text(&long, Some(Kind::Keepalived)).is_err());
    assert!(import_text("a\0b", Some(Kind::Ipvsadm)).is_err());
}

#[test]
fn base_comes_first_and_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("baton.toml");
    let ports =
        "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/24\"]\n\n[settings]\ntimeout_tcp = 700 # mine\n";
    std::fs::write(&base, ports).unwrap();
    let rules =
        "-A -t 10.10.24.88:80\n-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g\n-a -t 10.10.24.88:80 -r 192.0.2.21:80 -g\n--set 600 0 0\n";
    let order = Order { file: Path::new("x"), text: Some(rules.as_bytes()), kind: None, id: "", base: Some(&base) };
    let (written, report) = import(&order).unwrap();
    assert!(written.starts_with(ports) && written.contains("10.10.24.21") && !written.contains("192.0.2.21"), "{written}");
    assert_eq!(report.remarks.iter().map(|remark| remark.line).collect::<Vec<_>>(), [3, 4], "{report}");
    std::fs::write(&base, "nonsense").unwrap();
    assert!(import(&order).is_err());
}

/// Pieces of the three languages, so that chance puts together what nearly means something.
const PIECES: &[&str] = &[
    "virtual_server",
    "virtual_server_group",
    "real_server",
    "group g",
    "fwmark 1",
    "10.0.0.1",
    "10.0.0.1-9",
    "fd00::1",
    "80",
    "{",
    "}",
    "\n",
    "\n",
    "\n",
    " ",
    " ",
    "\t",
    "    ",
    "HTTP_GET",
    "url",
    "path /",
    "regex (",
    "regex a",
    "TCP_CHECK",
    "SMTP_CHECK",
    "host",
    "connect_port 0",
    "connect_timeout 0.001",
    "retry 4294967295",
    "delay_loop 99999999",
    "sorry_server 10.0.0.1 80",
    "quorum 0",
    "hysteresis 9",
    "weight -1",
    "persistence_timeout",
    "persistence_granularity 255.0.255.0",
    "lb_kind TUN type gue",
    "lb_kind DR",
    "protocol UDP",
    "ops",
    "$A=$B",
    "$B=${A}",
    "$A= \\\n",
    "${A}",
    "~SEQ(A,1,3)",
    "~LST({A,B},{1,2})",
    "@high",
    "@^low",
    "include x",
    "\"",
    "'",
    "\\",
    "#",
    "!",
    "é",
    "virtual=10.0.0.1:80",
    "virtual=7",
    "virtual6=[fd00::1]:80",
    "real=10.0.0.2->10.0.0.9:80 gate",
    "real=10.0.0.3:81 masq 0 \"a\",\"(\"",
    "fallback=127.0.0.1:80",
    "checktype=3",
    "service=dns",
    "request=\"x y\"",
    "receive=\"[\"",
    "checkport=0",
    "netmask=1",
    "persistent=0",
    "=",
    "-A -t 10.0.0.1:80 -p 5",
    "-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type gue --tun-port 1",
    "--set 0 0 0",
    "-A -f 1 -6",
    "-D -t 10.0.0.1:80",
];

fn language() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.join(" ")),
        prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.concat()),
        ".{0,200}",
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Whatever is read: no panic, and what is written is a configuration without faults.
    #[test]
    fn any_text_ends_as_a_sound_configuration_or_as_an_error(text in language()) {
        for kind in [Kind::Ipvsadm, Kind::Keepalived, Kind::Ldirectord] {
            if let Ok((written, report)) = import_text(&text, Some(kind)) {
                let config = config::parse(&written, Path::new("written"), &[]);
                prop_assert!(config.is_ok(), "{written}\n{config:?}");
                prop_assert_eq!(report.services, config.map_or(0, |config| config.services.len()));
            }
        }
    }
}
