use serde_json::{Value, json};

use super::super::scripted::{document, links};
use super::*;

fn faults(service: &Value) -> Vec<(String, String)> {
    validate(&document(json!({"services": [service]})), &links()).into_iter().map(|f| (f.pointer, f.detail)).collect()
}

fn good() -> Value {
    json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "real_servers": [{"address": "10.10.24.21"}]})
}

/// `good()` with one field set to another value.
fn with(pointer: &str, value: Value) -> Value {
    let mut service = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    service.pointer_mut(parent).unwrap()[key] = value;
    service
}

#[test]
fn a_sound_document_has_no_fault() {
    let document = document(json!({"services": [
        good(),
        {"protocol": "udp", "address": "10.10.24.88", "port": 80, "one_packet": true, "real_servers": [
            {"address": "10.10.24.21", "port": 80, "weight": MAX_WEIGHT, "mac": "02:00:00:00:00:15"}, {"address": "10.20.1.2", "weight": 0}]},
        {"protocol": "tcp", "address": "10.10.24.89", "port": 0, "persistence": {"prefix": 0}, "real_servers": [{"address": "10.10.24.21"}]},
        {"protocol": "tcp", "address": "203.0.113.9", "port": 443, "real_servers": [{"address": "10.10.24.21"}]},
        {"protocol": "tcp", "address": "fd00:10::88", "port": 80, "scheduler": "sh", "flags": ["sh-port", "sh-fallback"],
         "real_servers": [{"address": "fd00:10::21"}]},
    ]}));
    assert_eq!(validate(&document, &links()), []);
}

#[test]
fn a_tunnel_reaches_across_routers_and_families_and_keeps_the_port() {
    let tunnel = |address: &str| with("/real_servers", json!([{"address": address, "method": "tunnel"}]));
    for address in ["10.10.24.21", "192.0.2.1", "fd00:10::21"] {
        assert_eq!(faults(&tunnel(address)), [], "{address}");
    }
    for (server, pointer, says) in [
        (json!({"address": "2001:db8::1", "method": "tunnel"}), "/services/0/real_servers/0/address", "no port has an IPv6 gateway"),
        (json!({"address": "10.10.24.255", "method": "tunnel"}), "/services/0/real_servers/0/address", "network's broadcast"),
        (
            json!({"address": "192.0.2.1", "method": "tunnel", "port": 81}),
            "/services/0/real_servers/0/port",
            "a tunnel leaves the port as it is",
        ),
        (
            json!({"address": "192.0.2.1", "method": "tunnel", "tunnel": {"type": "gue"}}),
            "/services/0/real_servers/0/tunnel/port",
            "needs its UDP port, 1 to 65535",
        ),
        (
            json!({"address": "192.0.2.1", "method": "tunnel", "tunnel": {"type": "gue", "port": 0}}),
            "/services/0/real_servers/0/tunnel/port",
            "port is 0: allowed are 1 to 65535",
        ),
        (
            json!({"address": "192.0.2.1", "method": "tunnel", "tunnel": {"type": "gre", "port": 6080}}),
            "/services/0/real_servers/0/tunnel/port",
            "of type gre has none",
        ),
        (
            json!({"address": "192.0.2.1", "method": "tunnel", "tunnel": {"type": "ipip", "checksum": "whole"}}),
            "/services/0/real_servers/0/tunnel/checksum",
            "allowed is none",
        ),
        (
            json!({"address": "192.0.2.1", "method": "tunnel", "tunnel": {"type": "gre", "checksum": "remote"}}),
            "/services/0/real_servers/0/tunnel/checksum",
            "allowed with gre are none and whole",
        ),
        (json!({"address": "10.10.24.21", "tunnel": {"type": "ipip"}}), "/services/0/real_servers/0/tunnel", "with the method tunnel only"),
    ] {
        let found = faults(&with("/real_servers", json!([server])));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, pointer);
        assert!(found[0].1.contains(says), "{found:?}");
    }
}

#[test]
fn every_rule_names_the_field_and_what_is_allowed() {
    let table: &[(&str, Value, &str, &str)] = &[
        ("/port", json!(0), "/port", "1 to 65535, and 0 (every port) with persistence"),
        ("/address", json!("0.0.0.0"), "/address", "unspecified"),
        ("/address", json!("::1"), "/address", "loopback"),
        ("/address", json!("224.0.0.1"), "/address", "multicast"),
        ("/address", json!("ff02::1"), "/address", "multicast"),
        ("/address", json!("255.255.255.255"), "/address", "broadcast"),
        ("/address", json!("::ffff:10.10.24.88"), "/address", "IPv4-mapped"),
        ("/address", json!("fe80::1"), "/address", "link-local"),
        ("/address", json!("10.10.24.10"), "/address", "the director's own address on port lan"),
        ("/address", json!("10.10.24.255"), "/address", "broadcast"),
        ("/flags", json!(["sh-port"]), "/flags", "sh-port is no flag of the scheduler wlc: allowed are flag-1, flag-2 and flag-3"),
        ("/flags", json!(["mh-fallback"]), "/flags", "mh-fallback is no flag of the scheduler wlc: allowed are"),
        ("/persistence", json!({"timeout": 0}), "/persistence/timeout", "1 to 2678400"),
        ("/persistence", json!({"prefix": 33}), "/persistence/prefix", "0 to 32"),
        ("/persistence", json!({"prefix": 24, "netmask": "255.0.255.0"}), "/persistence/netmask", "one of the two"),
        ("/one_packet", json!(true), "/one_packet", "UDP"),
        ("/real_servers/0/weight", json!(2_147_483_648_u32), "/real_servers/0/weight", "2147483647"),
        ("/real_servers/0/upper_threshold", json!(2_147_483_648_u32), "/real_servers/0/upper_threshold", "0 (no limit) to 2147483647"),
        ("/real_servers/0/lower_threshold", json!(5), "/real_servers/0/lower_threshold", "0 to the upper one, which is 0"),
        ("/real_servers/0/port", json!(0), "/real_servers/0/port", "1 to 65535"),
        ("/real_servers/0/port", json!(8080), "/real_servers/0/port", "masquerading"),
        ("/real_servers/0/address", json!("192.0.2.1"), "/real_servers/0/address", "tunnel or masquerading"),
        ("/real_servers/0/address", json!("fd00:10::21"), "/real_servers/0/address", "tunnel"),
        ("/real_servers/0/address", json!("10.10.24.10"), "/real_servers/0/address", "own address on port lan"),
        ("/real_servers/0/address", json!("10.10.24.88"), "/real_servers/0/address", "VIP"),
        ("/real_servers/0/address", json!("10.10.24.0"), "/real_servers/0/address", "network's address"),
        ("/real_servers/0/address", json!("10.10.24.255"), "/real_servers/0/address", "network's broadcast"),
        ("/real_servers/0/address", json!("127.0.0.1"), "/real_servers/0/address", "loopback"),
        ("/real_servers/0/mac", json!("0200"), "/real_servers/0/mac", "02:00:00:00:00:15"),
        ("/real_servers/0/mac", json!("01:00:5e:00:00:01"), "/real_servers/0/mac", "multicast"),
        ("/real_servers/0/mac", json!("00:00:00:00:00:00"), "/real_servers/0/mac", "zero"),
        ("/real_servers/0/mac", json!("ff:ff:ff:ff:ff:ff"), "/real_servers/0/mac", "broadcast"),
        ("/real_servers/0/mac", json!("02:00:00:00:d0:01"), "/real_servers/0/mac", "director's own"),
    ];
    for (set, value, pointer, says) in table {
        let found = faults(&with(set, value.clone()));
        let expected = format!("/services/0{pointer}");
        assert!(found.iter().any(|(at, detail)| *at == expected && detail.contains(says)), "{set} = {value}: {found:?}");
    }
}

#[test]
fn a_real_server_across_routers_is_told_which_networks_are_near() {
    let found = faults(&with("/real_servers/0/address", json!("192.0.2.1")));
    assert!(found[0].1.contains("10.10.24.0/24 on lan") && found[0].1.contains("10.20.0.0/16 on far"), "{found:?}");
}

#[test]
fn a_port_that_differs_is_told_the_services_port() {
    let found = faults(&with("/real_servers/0/port", json!(8080)));
    assert!(found[0].1.contains("8080") && found[0].1.contains("80:"), "{found:?}");
}

#[test]
fn duplicates_are_refused() {
    let twice = json!([{"address": "10.10.24.21"}, {"address": "10.10.24.21", "port": 80}]);
    let found = faults(&with("/real_servers", twice));
    assert_eq!(found.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["/services/0/real_servers/1"]);

    let found = validate(&document(json!({"services": [good(), good()]})), &links());
    assert_eq!((found.len(), found[0].pointer.as_str()), (1, "/services/1"));
    assert!(found[0].detail.contains("tcp:10.10.24.88:80 is already at /services/0"), "{found:?}");
}

#[test]
fn a_vip_of_another_service_is_no_real_server() {
    let other = json!({"protocol": "udp", "address": "10.10.24.21", "port": 53});
    let found = validate(&document(json!({"services": [good(), other]})), &links());
    assert_eq!(found.iter().map(|f| f.pointer.as_str()).collect::<Vec<_>>(), ["/services/0/real_servers/0/address"]);
}

#[test]
fn one_fault_does_not_hide_another() {
    let found = validate(
        &document(json!({
            "settings": {"sloppy_tcp": 2, "timeout_udp": 0, "timeout_tcp": 2_678_401},
            "services": [with("/port", json!(0)), with("/real_servers/0/weight", json!(4_000_000_000_u32))],
        })),
        &links(),
    );
    let pointers: Vec<_> = found.iter().map(|f| f.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["/settings/sloppy_tcp", "/settings/timeout_tcp", "/settings/timeout_udp", "/services/0/port", "/services/1/real_servers/0/weight"]
    );
}

#[test]
fn masquerading_takes_any_port_and_any_way_but_one_family() {
    let masquerading = |set: &str, value: serde_json::Value| {
        let mut service = with("/real_servers/0/method", json!("masquerading"));
        service["real_servers"][0][set] = value;
        faults(&service)
    };
    assert_eq!(masquerading("port", json!(8080)), []);
    assert_eq!(masquerading("address", json!("192.0.2.1")), [], "behind the gateway");
    for (set, value, says) in [
        ("address", json!("fd00:10::21"), "with masquerading both must be of one family"),
        ("address", json!("10.10.24.255"), "network's broadcast"),
        ("port", json!(0), "1 to 65535"),
    ] {
        let found = masquerading(set, value);
        assert!(found.len() == 1 && found[0].0.ends_with(set) && found[0].1.contains(says), "{found:?}");
    }
}

#[test]
fn the_longest_prefix_decides_the_port() {
    let mut links = links();
    links[1].networks = vec!["10.10.0.10/16".parse().unwrap()];
    let port = |address: &str| link_for(&links, address.parse().unwrap()).map(|(index, _)| index);
    assert_eq!((port("10.10.24.21"), port("10.10.25.21"), port("10.11.0.1")), (Some(0), Some(1), None));
}
