//! What follows from what the watch hears, over scripted workers.

use serde_json::json;

use super::super::scripted::{Rig, service};
use super::super::tests::{ip, socket, web};
use super::*;
use crate::model::{RealServerState, ServiceSpec};
use dataplane::address::Address;

const MAC_21: [u8; 6] = [6, 0, 0, 0, 0, 0x21];
const MAC_22: [u8; 6] = [6, 0, 0, 0, 0, 0x22];
const STRANGE: [u8; 6] = [6, 0, 0, 0, 0, 0x99];

fn spec(servers: &[(&str, [u8; 6])]) -> ServiceSpec {
    let servers: Vec<_> = servers.iter().map(|(rip, mac)| json!({"address": rip, "mac": mac::format(*mac)})).collect();
    service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "scheduler": "rr", "real_servers": servers}))
}

fn two() -> ServiceSpec {
    spec(&[("10.10.24.21", MAC_21), ("10.10.24.22", MAC_22)])
}

async fn rig(rules: WatchRules, spec: &ServiceSpec) -> Rig {
    let rig = Rig::new(1);
    rig.director.watch_vips(rules);
    // Nobody says that a VIP is free: the write answers when it has waited long enough.
    rig.director.create_service(spec).await.unwrap();
    rig
}

fn quarantining() -> WatchRules {
    WatchRules { arp_leak: ArpLeak::Quarantine, ..WatchRules::default() }
}

fn claim(rig: &Rig, mac: [u8; 6]) {
    rig.director.vip_news(VipNews::Claimed(Claim { vip: ip("10.10.24.88"), port: 0, mac }));
}

fn pass(rig: &Rig, time: Duration) {
    let mut inner = rig.director.lock();
    inner.desired.forget_quiet_claims(Instant::now() + time);
    rig.director.commit(&mut inner);
}

fn shown(rig: &Rig, last: u8) -> RealServer {
    rig.director.real_server(web(), socket(&format!("10.10.24.{last}:80"))).unwrap()
}

async fn answered(rig: &Rig) -> bool {
    let number = rig.director.lock().desired.next_change - 1;
    while rig.director.lock().applied_by_all() < number {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let locals = rig.workers[0].tables().locals.clone().unwrap();
    let vip = Address::from(ip("10.10.24.88"));
    assert!(locals.vips.contains(&vip), "its packets are forwarded in any case");
    locals.addresses.contains_key(&vip)
}

#[tokio::test]
async fn real_server_that_answers_for_the_vip_is_named_and_shown() {
    let rig = rig(WatchRules::default(), &two()).await;
    claim(&rig, MAC_21);
    claim(&rig, MAC_21);
    let service = rig.director.service(web()).unwrap();
    let [conflict] = &service.conflicts[..] else { panic!("{:?}", service.conflicts) };
    assert_eq!((conflict.port.as_str(), conflict.mac.as_str()), ("lan", "06:00:00:00:00:21"));
    assert_eq!((conflict.real_server, conflict.claims), (Some(ip("10.10.24.21")), 2));
    assert_eq!(shown(&rig, 21).state, RealServerState::Ready, "report is only that");
    let (_, totals) = rig.director.vip_conflicts();
    assert_eq!(totals, [(ip("10.10.24.88"), 0, 2)]);
    pass(&rig, Duration::from_secs(31));
    assert_eq!(rig.director.service(web()).unwrap().conflicts, []);
    assert_eq!(rig.director.vip_conflicts().1, totals, "what was counted stays");
}

#[tokio::test]
async fn quarantined_real_server_gets_no_new_connections_until_it_is_quiet() {
    let rig = rig(quarantining(), &two()).await;
    claim(&rig, MAC_21);
    let server = shown(&rig, 21);
    assert_eq!((server.state, server.weight), (RealServerState::Quarantined, 1), "what the operator wrote stays");
    assert!(server.reason.unwrap().contains("06:00:00:00:00:21 answers for the VIP 10.10.24.88"));
    assert!(answered(&rig).await);
    assert_eq!(rig.workers[0].real_server("10.10.24.21").map(|server| (server.available, server.weight)), Some((true, 0)));
    pass(&rig, Duration::from_secs(29));
    assert_eq!(shown(&rig, 21).state, RealServerState::Quarantined);
    pass(&rig, Duration::from_secs(31));
    assert_eq!(shown(&rig, 21).state, RealServerState::Ready);
}

#[tokio::test]
async fn last_real_server_is_not_put_into_quarantine() {
    let rig = rig(quarantining(), &two()).await;
    claim(&rig, MAC_21);
    claim(&rig, MAC_22);
    assert_eq!((shown(&rig, 21).state, shown(&rig, 22).state), (RealServerState::Quarantined, RealServerState::Ready));
    assert_eq!(rig.director.service(web()).unwrap().conflicts.len(), 2);
}

#[tokio::test]
async fn released_real_server_stays_out_of_quarantine_until_it_was_quiet() {
    let rig = rig(quarantining(), &two()).await;
    claim(&rig, MAC_21);
    rig.director.release(web(), socket("10.10.24.21:80")).await.unwrap();
    claim(&rig, MAC_21);
    assert_eq!(shown(&rig, 21).state, RealServerState::Ready);
    pass(&rig, Duration::from_secs(31));
    claim(&rig, MAC_21);
    assert_eq!(shown(&rig, 21).state, RealServerState::Quarantined);
    let refused = rig.director.release(web(), socket("10.10.24.29:80")).await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchRealServer(..)), "{refused}");
}

#[tokio::test]
async fn vip_is_taken_when_it_was_found_free() {
    let rig = rig(WatchRules { probe: true, ..WatchRules::default() }, &two()).await;
    assert!(!answered(&rig).await);
    assert_eq!(rig.director.service(web()).unwrap().vip, VipState::Probing);
    assert!(rig.director.wanted().borrow().taken.is_empty());
    rig.director.vip_news(VipNews::Free(ip("10.10.24.88")));
    assert!(answered(&rig).await);
    assert_eq!(rig.director.service(web()).unwrap().vip, VipState::Held);
    assert!(rig.director.wanted().borrow().taken.contains(&ip("10.10.24.88")));
}

#[tokio::test]
async fn vip_of_a_stranger_is_not_taken_until_it_is_free_or_by_command() {
    let rig = rig(WatchRules { probe: true, ..WatchRules::default() }, &two()).await;
    claim(&rig, STRANGE);
    assert_eq!(rig.director.vips()[0].state, VipState::Contested);
    assert!(!answered(&rig).await);
    rig.director.take_vip(ip("10.10.24.88")).await.unwrap();
    assert!(answered(&rig).await);
    let refused = rig.director.take_vip(ip("10.10.24.89")).await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchVip(_)), "{refused}");
}

#[tokio::test]
async fn vip_that_a_real_server_of_ours_answers_for_is_taken_at_once() {
    let rig = rig(WatchRules { probe: true, ..WatchRules::default() }, &two()).await;
    claim(&rig, MAC_21);
    assert!(answered(&rig).await);
    assert_eq!(rig.director.vips()[0].conflicts.len(), 1);
}

#[tokio::test]
async fn vip_that_is_gone_is_forgotten() {
    let rig = rig(WatchRules::default(), &two()).await;
    claim(&rig, STRANGE);
    rig.director.delete_all_services().await.unwrap();
    assert_eq!(rig.director.vip_conflicts(), (vec![], vec![]));
    claim(&rig, STRANGE);
    assert_eq!(rig.director.vip_conflicts(), (vec![], vec![]), "no VIP of ours");
}

#[tokio::test]
async fn flood_of_claims_is_bounded() {
    let rig = rig(WatchRules::default(), &two()).await;
    for n in 0..2_000_u16 {
        let [a, b] = n.to_be_bytes();
        claim(&rig, [2, 0, 0, 0, a, b]);
    }
    let (conflicts, totals) = rig.director.vip_conflicts();
    assert_eq!((conflicts.len(), totals), (MOST_CLAIMS, vec![(ip("10.10.24.88"), 0, 2_000)]));
}
