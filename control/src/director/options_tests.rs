//! What of services and real servers reaches the workers beyond addresses and weights.

use dataplane::address::Address;
use dataplane::service::{Encapsulation, Tunnel};
use serde_json::json;

use super::scripted::{Rig, service};
use super::tests::{MAC_21, ip, near, socket, web, web_spec};
use super::*;
use crate::model::RealServerState;

#[tokio::test]
async fn a_schedulers_flags_reach_the_workers_and_end_with_the_scheduler() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    rig.director.patch_service(web(), &json!({"scheduler": "sh", "flags": ["sh-port"]})).await.unwrap();
    let with_port = dataplane::service::SchedulerKind::SourceHash { port: true, fallback: false };
    assert_eq!(rig.workers[0].only_service().scheduler, with_port);
    let refused = rig.director.patch_service(web(), &json!({"scheduler": "rr", "flags": ["sh-port"]})).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let service = rig.director.patch_service(web(), &json!({"scheduler": "rr"})).await.unwrap();
    assert!(service.flags.is_empty());
}

#[tokio::test]
async fn every_scheduler_and_its_settings_reach_the_workers() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let names = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"];
    let mut kinds = std::collections::HashSet::new();
    for name in names {
        let patch = json!({"scheduler": name});
        assert_eq!(rig.director.patch_service(web(), &patch).await.unwrap().scheduler.as_str(), name);
        kinds.insert(rig.workers[0].only_service().scheduler);
    }
    assert_eq!(kinds.len(), names.len());
    let edited = rig.director.edit_settings(|settings| (settings.lblc_expiration, settings.lblcr_expiration) = (7, 0)).await.unwrap();
    assert_eq!((edited.lblc_expiration, edited.lblcr_expiration), (7, 0));
    let settings = rig.workers[0].tables().settings.unwrap();
    assert_eq!((settings.lblc_expiration, settings.lblcr_expiration), (7, 0));
    let refused = rig.director.edit_settings(|settings| settings.lblc_expiration = 2_678_401).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn maglev_buckets_move_with_the_list_and_the_last_weights_and_with_nothing_else() {
    let rig = Rig::new(1);
    let near = |last: u8, weight: u32| json!({"address": format!("10.10.24.{last}"), "weight": weight});
    rig.director.create_service(&web_spec(&json!([near(21, 1), near(22, 2), near(23, 1)]))).await.unwrap();
    rig.director.patch_service(web(), &json!({"scheduler": "mh", "flags": ["mh-port"]})).await.unwrap();
    assert_eq!(rig.workers[0].only_service().scheduler, dataplane::service::SchedulerKind::Maglev { port: true, fallback: false });
    let buckets = || rig.workers[0].only_service().buckets.clone();
    let weigh = async |last: &str, weight: u32| {
        let patch = json!({"weight": weight});
        rig.director.patch_real_server(web(), socket(last), &patch).await.unwrap();
    };
    let first = buckets();
    weigh("10.10.24.22:80", 0).await;
    assert_eq!(buckets(), first, "quiescent");
    rig.director.set_neighbour(0, ip("10.10.24.21"), Some(MAC_21));
    rig.director.patch_service(web(), &json!({"flags": ["mh-fallback"]})).await.unwrap();
    assert_eq!(buckets(), first, "neither a MAC nor a flag");
    weigh("10.10.24.22:80", 1).await;
    let even = buckets();
    assert_ne!(even, first, "another weight");
    weigh("10.10.24.22:80", 2).await;
    assert_eq!(buckets(), first);
    rig.director.delete_real_server(web(), socket("10.10.24.22:80")).await.unwrap();
    let of_two = buckets();
    let again = serde_json::from_value(near(22, 0)).unwrap();
    rig.director.create_real_server(web(), &again).await.unwrap();
    assert_ne!(buckets(), first);
    rig.director.delete_real_server(web(), socket("10.10.24.22:80")).await.unwrap();
    assert_eq!(buckets(), of_two, "what it weighed before it was removed does not count");
}

#[tokio::test]
async fn persistence_reaches_the_workers_and_null_ends_it() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    rig.director.patch_service(web(), &json!({"persistence": {"prefix": 24}})).await.unwrap();
    let of_24 = dataplane::service::Persistence { timeout: 300, mask: u128::MAX << 8 };
    assert_eq!(rig.workers[0].only_service().persistence, Some(of_24));
    rig.director.patch_service(web(), &json!({"one_packet": false})).await.unwrap();
    assert_eq!(rig.workers[0].only_service().persistence, Some(of_24), "what is left out stays");
    rig.director.patch_service(web(), &json!({"persistence": {"prefix": 0, "timeout": 60}})).await.unwrap();
    let of_all = dataplane::service::Persistence { timeout: 60, mask: u128::MAX << 32 };
    assert_eq!(rig.workers[0].only_service().persistence, Some(of_all));
    rig.director.patch_service(web(), &json!({"persistence": {"netmask": "255.0.255.0", "prefix": null}})).await.unwrap();
    let of_some = dataplane::service::Persistence { timeout: 60, mask: u128::MAX << 32 | 0xff00_ff00 };
    assert_eq!(rig.workers[0].only_service().persistence, Some(of_some), "a mask with gaps");
    rig.director.patch_service(web(), &json!({"persistence": null})).await.unwrap();
    assert_eq!(rig.workers[0].only_service().persistence, None);
}

#[tokio::test]
async fn a_tunnel_across_routers_waits_for_the_gateways_mac() {
    let rig = Rig::new(1);
    rig.director.set_neighbour(0, ip("10.10.24.1"), Some(MAC_21));
    rig.director.create_service(&web_spec(&json!([{"address": "192.0.2.7", "method": "tunnel"}, near(22)]))).await.unwrap();
    assert!(rig.director.wanted().borrow().neighbours.contains(&(0, ip("10.10.24.1"))));
    let far = rig.workers[0].real_server("192.0.2.7").unwrap();
    let ipip = Encapsulation::IpIp;
    let tunnel = Tunnel { source: Address::from(ip("10.10.24.10")), encapsulation: ipip };
    assert_eq!((far.next_hop.unwrap().mac, far.tunnel), (MAC_21, Some(tunnel)));
    let gue = json!({"tunnel": {"type": "gue", "port": 6080, "checksum": "remote"}});
    let listed = rig.director.patch_real_server(web(), socket("192.0.2.7:80"), &gue).await.unwrap();
    assert_eq!(listed.tunnel.unwrap().to_string(), "gue:6080:r+c");
    let server = rig.workers[0].real_server("192.0.2.7").unwrap();
    assert_eq!(server.tunnel, Some(Tunnel { encapsulation: Encapsulation::Gue { port: 6080, checksum: true }, ..tunnel }));
    let kept = rig.director.patch_real_server(web(), socket("192.0.2.7:80"), &json!({"weight": 2})).await.unwrap();
    assert_eq!(kept.tunnel, listed.tunnel, "what is left out stays");
    assert_eq!(rig.director.document().services[0].real_servers[0].tunnel, listed.tunnel);
    let refused = rig.director.patch_real_server(web(), socket("192.0.2.7:80"), &json!({"tunnel": {"type": "gre", "port": 1}})).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(rig.workers[0].real_server("10.10.24.22").unwrap().tunnel, Some(tunnel), "for connections from before");
    rig.director.delete_service(web()).await.unwrap();
    assert!(rig.director.wanted().borrow().neighbours.is_empty());
    // The address of a real server that is gone may be a VIP.
    let vip = service(json!({"protocol": "tcp", "address": "192.0.2.7", "port": 80}));
    rig.director.create_service(&vip).await.unwrap();
}

#[tokio::test]
async fn thresholds_reach_the_workers_and_a_higher_one_relieves() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let one = socket("10.10.24.21:80");
    let limited = rig.director.patch_real_server(web(), one, &json!({"upper_threshold": 5, "lower_threshold": 2})).await.unwrap();
    assert_eq!((limited.upper_threshold, limited.lower_threshold, limited.state), (5, 2, RealServerState::Ready));
    let server = rig.workers[0].real_server("10.10.24.21").unwrap();
    assert_eq!(server.thresholds, dataplane::service::Thresholds { upper: 5, lower: 2 });
    assert!(rig.workers[0].only_service().members[0].limited);
    server.stats.set_overloaded(true);
    let listed = rig.director.real_server(web(), one).unwrap();
    assert_eq!((listed.state, listed.reason.unwrap().contains("new ones again below 2")), (RealServerState::Overloaded, true));
    rig.director.patch_real_server(web(), one, &json!({"upper_threshold": 4})).await.unwrap();
    assert!(server.stats.is_overloaded());
    rig.director.patch_real_server(web(), one, &json!({"upper_threshold": 6})).await.unwrap();
    assert!(!server.stats.is_overloaded());
    let refused = rig.director.patch_real_server(web(), one, &json!({"lower_threshold": 7})).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn what_clients_are_told_reaches_the_workers_and_only_tcp_resets() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    assert_eq!(rig.workers[0].only_service().no_real_server, dataplane::service::NoRealServer::Icmp);
    let changed = rig.director.patch_service(web(), &json!({"no_real_server": "reset"})).await.unwrap();
    assert_eq!(changed.no_real_server, crate::model::NoRealServer::Reset);
    assert_eq!(rig.workers[0].only_service().no_real_server, dataplane::service::NoRealServer::Reset);
    rig.director.patch_service(web(), &json!({"scheduler": "wlc"})).await.unwrap();
    assert_eq!(rig.workers[0].only_service().no_real_server, dataplane::service::NoRealServer::Reset, "what is left out stays");
    assert!(serde_json::to_string(&rig.director.document()).unwrap().contains(r#""no_real_server":"reset""#));
    let dns = service(json!({"protocol": "udp", "address": "10.10.24.88", "port": 53, "no_real_server": "reset"}));
    assert!(matches!(rig.director.create_service(&dns).await, Err(Error::Invalid(f)) if f[0].pointer == "/no_real_server"));
}

#[tokio::test]
async fn a_services_own_timeouts_reach_the_workers_and_the_rest_follows_the_settings() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    assert_eq!(rig.workers[0].only_service().timeouts, None);
    rig.director.patch_service(web(), &json!({"timeouts": {"tcp": 3600}})).await.unwrap();
    let timeouts = |tcp, tcp_fin, udp| Some(dataplane::settings::Timeouts { tcp, tcp_fin, udp });
    assert_eq!(rig.workers[0].only_service().timeouts, timeouts(3600, 120, 300));
    rig.director.edit_settings(|s| (s.timeout_tcp, s.timeout_tcpfin) = (60, 7)).await.unwrap();
    assert_eq!(rig.workers[0].only_service().timeouts, timeouts(3600, 7, 300));
    let wrong = json!({"timeouts": {"tcp": 0, "tcpfin": 2_678_401, "udp": 5}});
    let Err(Error::Invalid(faults)) = rig.director.patch_service(web(), &wrong).await else { panic!("accepted") };
    assert_eq!(faults.iter().map(|f| f.pointer.as_str()).collect::<Vec<_>>(), ["/timeouts/tcp", "/timeouts/tcpfin", "/timeouts/udp"]);
    assert_eq!(faults[2].detail, "udp is a timeout of udp, and the service's protocol is tcp");
    rig.director.patch_service(web(), &json!({"timeouts": null})).await.unwrap();
    assert_eq!(rig.workers[0].only_service().timeouts, None);
}

#[tokio::test]
async fn defences_reach_the_workers_under_their_modes() {
    use dataplane::settings::Mode;
    let rig = Rig::new(1);
    let in_force = || {
        let settings = rig.workers[0].tables().settings.unwrap();
        (settings.drop_entry, settings.drop_packet, settings.secure_tcp, settings.amemthresh, settings.am_droprate)
    };
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    assert_eq!(in_force(), (Mode::Never, Mode::Never, Mode::Never, 10, 10));
    rig.director.edit_settings(|s| (s.drop_entry, s.drop_packet, s.secure_tcp) = (1, 2, 3)).await.unwrap();
    rig.director.edit_settings(|s| (s.amemthresh, s.am_droprate) = (25, 2)).await.unwrap();
    assert_eq!(in_force(), (Mode::Automatic, Mode::Automatic, Mode::Always, 25, 2));
    let wrong = rig.director.edit_settings(|s| (s.drop_entry, s.drop_packet, s.secure_tcp, s.amemthresh) = (4, 5, 6, 101)).await;
    let Err(Error::Invalid(faults)) = wrong else { panic!("{wrong:?}") };
    let pointers: Vec<_> = faults.iter().map(|f| f.pointer.as_str()).collect();
    assert_eq!(pointers, ["/drop_entry", "/drop_packet", "/secure_tcp", "/amemthresh"]);
}

#[tokio::test]
async fn the_first_masquerading_real_server_brings_what_replies_need() {
    let rig = Rig::new(2);
    let far = |last: u8| json!({"address": format!("10.20.0.{last}"), "port": 8080, "method": "masquerading"});
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let gateway = (0, ip("10.10.24.1"));
    assert!(!rig.director.wanted().borrow().neighbours.contains(&gateway), "nobody needs it");
    for last in [2, 3] {
        let spec = serde_json::from_value(far(last)).unwrap();
        rig.director.create_real_server(web(), &spec).await.unwrap();
    }
    assert!(rig.director.wanted().borrow().neighbours.contains(&gateway));
    assert_eq!(rig.workers[0].real_server("10.20.0.2").unwrap().port, 8080);
    let mac = [2, 0, 0, 0, 0, 1];
    rig.director.set_neighbour(gateway.0, gateway.1, Some(mac));
    rig.director.delete_real_server(web(), socket("10.20.0.3:8080")).await.unwrap();
    for worker in &rig.workers {
        let tables = worker.tables();
        assert_eq!(tables.replies, 1, "one index for each worker");
        let ports = tables.routes.as_ref().unwrap().ports();
        let hop = dataplane::service::NextHop { port: 0, mac, mtu: 1_500 };
        assert_eq!((ports[0].gateways, ports[1].gateways), ([Some(hop), None], [None, None]));
        let holds = |address: &str| {
            let address = Address::from(ip(address)).0;
            ports.iter().map(|port| port.networks.iter().any(|n| address & n.mask == n.prefix.0)).collect::<Vec<_>>()
        };
        assert_eq!(holds("10.10.24.200"), [true, false]);
        assert_eq!(holds("10.20.255.1"), [false, true]);
        assert_eq!((holds("10.10.25.1"), holds("fd00:10::7")), (vec![false, false], vec![true, false]));
    }
}

#[tokio::test]
async fn packets_of_a_service_of_every_port_keep_theirs_under_masquerading() {
    let rig = Rig::new(1);
    let every = json!({"protocol": "tcp", "address": "10.10.24.88", "port": 0, "persistence": {},
        "real_servers": [{"address": "10.10.24.21", "port": 8080, "method": "masquerading"}]});
    rig.director.create_service(&service(every)).await.unwrap();
    assert_eq!(rig.workers[0].real_server("10.10.24.21").unwrap().port, 0);
    let listed = &rig.director.services().services[0].real_servers[0];
    assert_eq!(listed.port, 8080);
}
