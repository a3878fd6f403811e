use serde_json::{Value, json};

use super::super::scripted::{document, links};
use super::super::validate;

fn service(health: &Value, server: &Value) -> Value {
    let real = json!({"address": "10.10.24.21"});
    let mut second = json!({"address": "10.10.24.22"});
    second["health"] = server.clone();
    json!({"services": [{"protocol": "tcp", "address": "10.10.24.88", "port": 80, "health": health, "real_servers": [real, second]}]})
}

fn faults(text: Value) -> Vec<(String, String)> {
    validate(&document(text), &links()).into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
}

#[test]
fn sound_checks_have_no_fault() {
    for (health, server) in [
        (json!({"type": "tcp"}), json!(null)),
        (json!({"type": "arp"}), json!(null)),
        (json!({"type": "http", "profile": "fast", "path": "/up?a=b", "host": "shop.example:8080", "status": "200-299,304"}), json!(null)),
        (json!({"type": "https", "sni": "shop.example", "verify": false, "body": "^ok"}), json!({"type": "tcp", "port": 8443})),
        (json!({"type": "http", "sorry_server": {"address": "10.10.24.99"}, "quorum": 2, "quorum_hysteresis": 1}), json!({"type": "none"})),
        (json!(null), json!({"type": "tcp", "interval": "100ms", "fall": 3})),
        (json!({"type": "ping", "hints": true}), json!({"via": "direct"})),
        (json!({"type": "udp", "port": 27015, "send_hex": "ffffffff54", "body": "(?-u)^\\xff"}), json!({"type": "udp", "answer": false})),
        (json!({"type": "dns", "name": "www.example.org", "record": "aaaa", "rcode": "nxdomain"}), json!({"expect": "::1"})),
        (json!({"type": "grpc", "grpc_service": "shop", "tls": true, "verify": false}), json!({"tls": false, "port": 50051})),
        (json!({"type": "tcp", "slow_start": "30s", "slow_start_connections": 100}), json!(null)),
    ] {
        assert_eq!(faults(service(&health, &server)), [], "{health} {server}");
    }
}

#[test]
fn every_rule_names_the_field_and_what_is_allowed() {
    for (health, field, says) in [
        (json!({}), "type", "type is missing: allowed are tcp, http, https, ping, arp"),
        (json!({"type": "none"}), "type", "leave health out"),
        (json!({"type": "tcp", "port": 0}), "port", "allowed are 1 to 65535"),
        (json!({"type": "tcp", "interval": "10ms"}), "interval", "interval is 10ms: allowed are 20ms to 60m"),
        (json!({"type": "tcp", "timeout": "2m"}), "timeout", "timeout is 2m: allowed are 10ms to 1m"),
        (json!({"type": "tcp", "interval_down": "2m", "jitter": 51}), "jitter", "allowed are 0 to 50"),
        (json!({"type": "tcp", "fall": 0}), "fall", "allowed are 1 to 100"),
        (json!({"type": "tcp", "path": "/"}), "path", "for checks of type http and https, and this one is tcp"),
        (json!({"type": "http", "verify": true}), "verify", "for checks of type https and grpc, and this one is http"),
        (json!({"type": "arp", "via": "direct"}), "via", "only look at the MAC"),
        (json!({"type": "http", "path": "up"}), "path", "with its slash"),
        (json!({"type": "http", "host": "a b"}), "host", "expected a host name"),
        (json!({"type": "http", "method": "get"}), "method", "in capitals"),
        (json!({"type": "http", "method": "CONNECT"}), "method", "in capitals"),
        (json!({"type": "http", "headers": {"a b": "c"}}), "headers/a b", "no name of a header"),
        (json!({"type": "http", "headers": {"a": "b\r\nc: d"}}), "headers/a", "cannot stand in a header"),
        (json!({"type": "http", "headers": {"Host": "x"}}), "headers/Host", "the host goes into host"),
        (json!({"type": "http", "body": "("}), "body", "unclosed group"),
        (json!({"type": "https", "sni": "no name"}), "sni", "no name that a certificate can have"),
        (json!({"type": "https", "ca": "ca.pem"}), "ca", "the full path"),
        (json!({"type": "https", "ca": "/nonexistent.pem"}), "ca", "cannot be read"),
        (json!({"type": "tcp", "quorum": 0}), "quorum", "quorum is 0"),
        (json!({"type": "ping", "port": 7}), "port", "port is not for checks of type ping"),
        (json!({"type": "udp", "send_hex": "0"}), "send_hex", "two hexadecimal digits a byte"),
        (json!({"type": "udp", "send_hex": "00", "send": ""}), "send_hex", "give one of them"),
        (json!({"type": "udp", "answer": false, "body": "x"}), "answer", "nobody would look at it"),
        (json!({"type": "udp", "name": "x"}), "name", "for checks of type dns, and this one is udp"),
        (json!({"type": "dns"}), "name", "name is missing"),
        (json!({"type": "dns", "name": "a..b"}), "name", "no name of the DNS"),
        (json!({"type": "dns", "name": "a", "record": "NOSUCH"}), "record", "expected a type of record"),
        (json!({"type": "dns", "name": "a", "rcode": "OK"}), "rcode", "allowed are NOERROR"),
        (json!({"type": "dns", "name": "a", "expect": ""}), "expect", "allowed are 1 to 2048"),
        (json!({"type": "grpc", "grpc_service": "x".repeat(128)}), "grpc_service", "allowed are 127"),
        (json!({"type": "grpc", "tls": false, "sni": "shop.example"}), "sni", "tls is false"),
        (json!({"type": "grpc", "tls": true, "sni": "no name"}), "sni", "no name that a certificate can have"),
        (json!({"type": "exec"}), "command", "command is missing"),
        (json!({"type": "exec", "command": ["sh", "-c", "true"]}), "command", "expected the full path of a program"),
        (json!({"type": "tcp", "slow_start": "500ms"}), "slow_start", "allowed are 1s to 60m"),
        (json!({"type": "tcp", "slow_start_connections": 9}), "slow_start_connections", "allowed are 10"),
        (json!({"type": "tcp", "slow_start": "5s", "on_failure": "keep"}), "slow_start", "on_failure is keep"),
        (json!({"type": "tcp", "quorum": 2, "quorum_hysteresis": 2}), "quorum_hysteresis", "allowed are 0 to 1"),
        (json!({"type": "tcp", "panic": "keep", "sorry_server": {"address": "10.10.24.99"}}), "panic", "only one of the two"),
        (json!({"type": "tcp", "sorry_server": {"address": "10.10.24.21"}}), "sorry_server/address", "must be another"),
        (json!({"type": "tcp", "sorry_server": {"address": "192.0.2.1"}}), "sorry_server/address", "on no network"),
        (json!({"type": "tcp", "sorry_server": {"address": "10.10.24.99", "port": 81}}), "sorry_server/port", "leaves the port as it is"),
    ] {
        let found = faults(service(&health, &json!(null)));
        assert_eq!(found.len(), 1, "{health}: {found:?}");
        assert_eq!(found[0].0, format!("/services/0/health/{field}"), "{health}");
        assert!(found[0].1.contains(says), "{health}: {found:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let health = json!({"type": "tcp", "interval": "1ms", "rise": 101, "sni": "x", "quorum": 0});
    let found = faults(service(&health, &json!({"port": 0, "quorum": 3})));
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn real_servers_own_section_is_judged_with_its_services() {
    for (health, server, field, says) in [
        (json!(null), json!({"port": 80}), "type", "the service has no health of its own"),
        (json!({"type": "tcp"}), json!({"status": "200"}), "status", "this one is tcp"),
        (json!({"type": "http"}), json!({"on_failure": "keep"}), "on_failure", "is the service's to say"),
    ] {
        let found = faults(service(&health, &server));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, format!("/services/0/real_servers/1/health/{field}"));
        assert!(found[0].1.contains(says), "{found:?}");
    }
}

#[test]
fn ways_that_are_not_there_are_refused() {
    let marked =
        |health: Value| json!({"services": [{"mark": 7, "health": health, "real_servers": [{"address": "10.10.24.21", "port": 0}]}]});
    assert_eq!(faults(marked(json!({"type": "tcp", "port": 80}))), []);
    assert_eq!(faults(marked(json!({"type": "arp"}))), []);
    assert_eq!(faults(marked(json!({"type": "tcp"})))[0].0, "/services/0/health/port");
    assert_eq!(faults(marked(json!({"type": "tcp", "port": 80, "via": "path"})))[0].0, "/services/0/health/via");
    let mixed = json!({"services": [{"protocol": "tcp", "address": "fd00:99::88", "port": 80, "health": {"type": "tcp"},
        "real_servers": [{"address": "10.20.1.2", "method": "tunnel"}]}]});
    let found = faults(mixed);
    assert_eq!(found[0].0, "/services/0/real_servers/0/health/via");
    assert!(found[0].1.contains("no IPv6 address that the VIP could answer to"), "{found:?}");
}

#[test]
fn what_would_do_nothing_for_this_service_is_refused() {
    let mut round_robin = service(&json!({"type": "tcp", "slow_start": "5s"}), &json!(null));
    round_robin["services"][0]["scheduler"] = json!("rr");
    let found = faults(round_robin);
    assert_eq!(found[0].0, "/services/0/health/slow_start");
    assert!(found[0].1.contains("scheduler rr does not go by them") && found[0].1.contains("allowed are wrr, wlc"), "{found:?}");
    let mut datagrams = service(&json!({"type": "ping", "hints": true}), &json!(null));
    datagrams["services"][0]["protocol"] = json!("udp");
    assert!(faults(datagrams)[0].1.contains("a service of udp has no SYNs"));
}
