use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::address::Address;
use serde_json::json;

use super::scripted::{LIMITS, Rig, ScriptedWorker, document, server, service};
use super::*;
use crate::model::{RealServerState, ServiceKey, Settings as DocumentSettings};

const WEB: &str = "tcp:10.10.24.88:80";
pub(super) const MAC_21: [u8; 6] = [2, 0, 0, 0, 0, 0x15];

pub(super) fn web() -> ServiceKey {
    WEB.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn web_spec(servers: &serde_json::Value) -> crate::model::ServiceSpec {
    service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "scheduler": "rr", "real_servers": servers}))
}

/// A real server with a static MAC, so that nobody waits for a neighbour.
pub(super) fn near(last: u8) -> serde_json::Value {
    json!({"address": format!("10.10.24.{last}"), "mac": format!("02:00:00:00:00:{last:02x}")})
}

fn member_ids(worker: &ScriptedWorker) -> Vec<u32> {
    worker.only_service().members.iter().map(|m| m.server.0).collect()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test]
async fn the_first_batch_carries_our_own_addresses_and_the_settings() {
    let rig = Rig::new(1);
    until("the first batch", || !rig.workers[0].tables().versions.is_empty()).await;
    let tables = rig.workers[0].tables();
    let locals = tables.locals.as_ref().unwrap();
    assert_eq!(locals.macs, [[2, 0, 0, 0, 0xd0, 0], [2, 0, 0, 0, 0xd0, 1]]);
    assert_eq!(locals.addresses.get(&Address::from(ip("10.10.24.10"))), Some(&0b01));
    assert_eq!(locals.addresses.get(&Address::from(ip("10.20.0.10"))), Some(&0b10));
    assert_eq!(tables.settings, Some(Settings::default()));
}

#[tokio::test]
async fn a_write_answers_when_every_worker_runs_it() {
    let rig = Rig::new(3);
    rig.director.create_service(&web_spec(&json!([near(21), near(22)]))).await.unwrap();
    for worker in &rig.workers {
        let service = worker.only_service();
        assert_eq!((service.key.port, service.members.len()), (80, 2));
        assert_eq!(worker.control().report().version.get(), 1);
        assert_eq!(worker.tables().locals.as_ref().unwrap().addresses.get(&Address::from(ip("10.10.24.88"))), Some(&0b11));
    }
    let first = rig.workers[0].only_service();
    assert!(rig.workers.iter().all(|w| Arc::ptr_eq(&w.only_service(), &first)), "workers share one snapshot");
}

#[tokio::test]
async fn members_stand_newest_first_and_listings_as_added() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    for last in [22, 23] {
        rig.director.create_real_server(web(), &server(near(last))).await.unwrap();
    }
    let (worker, service) = (&rig.workers[0], rig.workers[0].only_service());
    let addresses: Vec<String> = service.members.iter().map(|m| worker.tables().servers[&m.server.0].address.to_string()).collect();
    assert_eq!(addresses, ["10.10.24.23", "10.10.24.22", "10.10.24.21"]);
    let listed: Vec<String> = rig.director.service(web()).unwrap().real_servers.into_iter().map(|s| s.id).collect();
    assert_eq!(listed, ["10.10.24.21:80", "10.10.24.22:80", "10.10.24.23:80"]);
}

#[tokio::test]
async fn a_mac_does_not_disturb_the_list_and_an_edit_does() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([{"address": "10.10.24.21"}, near(22)]))).await.unwrap();
    let before = rig.workers[0].only_service();
    assert_eq!(before.members.iter().map(|m| m.reachable).collect::<Vec<_>>(), [true, false]);

    rig.director.set_neighbour(0, ip("10.10.24.21"), Some(MAC_21));
    until("the MAC", || rig.workers[0].only_service().members.iter().all(|m| m.reachable)).await;
    let with_mac = rig.workers[0].only_service();
    assert_eq!(with_mac.revision, before.revision);
    assert_eq!(rig.workers[0].real_server("10.10.24.21").unwrap().next_hop.unwrap().mac, MAC_21);

    let weight = |weight: u32| json!({ "weight": weight });
    rig.director.patch_real_server(web(), socket("10.10.24.21:80"), &weight(5)).await.unwrap();
    let edited = rig.workers[0].only_service();
    assert_ne!(edited.revision, with_mac.revision);
    assert_eq!((edited.members[1].weight, rig.workers[0].real_server("10.10.24.21").unwrap().weight), (5, 5));

    rig.director.patch_real_server(web(), socket("10.10.24.21:80"), &weight(5)).await.unwrap();
    assert_ne!(rig.workers[0].only_service().revision, edited.revision, "an edit counts even when it changes nothing");
}

#[tokio::test]
async fn the_scheduler_starts_anew_only_when_it_is_another() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let before = rig.workers[0].only_service().revision;
    let to = |scheduler: &str| json!({ "scheduler": scheduler });
    rig.director.patch_service(web(), &to("rr")).await.unwrap();
    assert_eq!(rig.workers[0].only_service().revision, before);
    rig.director.patch_service(web(), &to("wrr")).await.unwrap();
    assert_ne!(rig.workers[0].only_service().revision, before);
}

#[tokio::test]
async fn a_new_real_server_waits_for_its_mac_and_no_longer_than_it_takes() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([]))).await.unwrap();
    let mut wanted = rig.director.wanted();
    let director = rig.director.clone();
    tokio::spawn(async move {
        let asked = wanted.wait_for(|w| w.neighbours.contains(&(0, ip("10.10.24.21")))).await.map(|w| w.neighbours.len());
        assert_eq!(asked.unwrap(), 1);
        director.set_neighbour(0, ip("10.10.24.21"), Some(MAC_21));
    });
    let added = rig.director.create_real_server(web(), &server(json!({"address": "10.10.24.21"}))).await.unwrap();
    assert_eq!((added.state, added.mac.as_deref()), (RealServerState::Ready, Some("02:00:00:00:00:15")));
    assert!(rig.workers[0].only_service().members[0].reachable, "the workers know it as well");
}

#[tokio::test]
async fn a_real_server_without_a_mac_says_why() {
    let rig = Rig::new(1);
    let service = rig.director.create_service(&web_spec(&json!([{"address": "10.10.24.21"}]))).await.unwrap();
    let server = &service.real_servers[0];
    assert_eq!((server.state, server.link.as_deref(), &server.mac), (RealServerState::NoMac, Some("lan"), &None));
    let reason = server.reason.as_deref().unwrap();
    assert!(reason.starts_with("no answer to ARP on port lan for 10.10.24.21 since 20"), "{reason}");
}

#[tokio::test]
async fn what_is_wanted_of_the_kernel_follows_the_services() {
    let rig = Rig::new(1);
    let wanted = rig.director.wanted();
    let two = json!({"services": [
        {"protocol": "tcp", "address": "10.10.24.88", "port": 80, "real_servers": [{"address": "10.10.24.21"}, near(22)]},
        {"protocol": "tcp", "address": "10.10.24.88", "port": 443, "real_servers": [{"address": "10.10.24.21"}]}]});
    rig.director.put_document(&document(two)).await.unwrap();
    assert_eq!(wanted.borrow().vips, [ip("10.10.24.88")].into());
    assert_eq!(wanted.borrow().neighbours, [(0, ip("10.10.24.21"))].into(), "a static MAC asks nobody");
    rig.director.delete_service(web()).await.unwrap();
    assert_eq!((wanted.borrow().vips.len(), wanted.borrow().neighbours.len()), (1, 1), "the other service still needs both");
    rig.director.delete_all_services().await.unwrap();
    assert_eq!(*wanted.borrow(), Wanted::default());
}

#[tokio::test]
async fn a_removed_real_server_keeps_its_place_until_its_connections_end() {
    let rig = Rig::new(2);
    rig.director.create_service(&web_spec(&json!([near(21), near(22)]))).await.unwrap();
    let server = rig.workers[0].real_server("10.10.24.21").unwrap();
    server.stats.share(1).active.increment();
    rig.director.delete_real_server(web(), socket("10.10.24.21:80")).await.unwrap();
    assert_eq!(member_ids(&rig.workers[0]).len(), 1);
    let removed = rig.workers[0].real_server("10.10.24.21").unwrap();
    assert!(!removed.available && removed.id == server.id);

    rig.director.retire();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.workers[0].real_server("10.10.24.21").is_some(), "a connection still refers to it");
    server.stats.share(1).active.decrement();
    rig.director.retire();
    until("the end of the removed one", || rig.workers.iter().all(|w| w.real_server("10.10.24.21").is_none())).await;
}

#[tokio::test]
async fn one_that_is_added_again_gets_its_id_and_counters_back() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21), near(22)]))).await.unwrap();
    let before = rig.workers[0].real_server("10.10.24.21").unwrap();
    before.stats.share(0).traffic.connections.add(7);
    before.stats.share(0).active.increment();

    rig.director.delete_real_server(web(), socket("10.10.24.21:80")).await.unwrap();
    let again = rig.director.create_real_server(web(), &server(near(21))).await.unwrap();
    assert_eq!((again.stats.connections, again.active_connections), (7, 1));
    let after = rig.workers[0].real_server("10.10.24.21").unwrap();
    assert!(after.available && after.id == before.id && Arc::ptr_eq(&after.stats, &before.stats));

    rig.director.delete_service(web()).await.unwrap();
    rig.director.retire();
    rig.director.create_service(&web_spec(&json!([near(23), near(21)]))).await.unwrap();
    let after = rig.workers[0].real_server("10.10.24.21").unwrap();
    assert!(after.id == before.id && Arc::ptr_eq(&after.stats, &before.stats), "also after its service was removed");
    assert_ne!(rig.workers[0].real_server("10.10.24.23").unwrap().id, before.id);
}

#[tokio::test]
async fn a_place_goes_to_another_only_when_no_connection_refers_to_it() {
    let limits = Limits { services: 1, real_servers: 1, ..LIMITS };
    let rig = Rig::with(1, 8, limits, None);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let first = rig.workers[0].real_server("10.10.24.21").unwrap();
    first.stats.share(0).inactive.increment();
    rig.director.delete_service(web()).await.unwrap();

    let dns = service(json!({"protocol": "udp", "address": "10.10.24.89", "port": 53, "real_servers": [near(22)]}));
    rig.director.retire();
    let refused = rig.director.create_service(&dns).await.unwrap_err();
    assert!(matches!(&refused, Error::Busy(text) if text.contains("limits.services")), "{refused}");
    first.stats.share(0).inactive.decrement();
    for _ in 0..3 {
        rig.director.retire();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    rig.director.create_service(&dns).await.unwrap();
    assert_eq!(rig.workers[0].only_service().id.0, 0);
    let second = rig.workers[0].real_server("10.10.24.22").unwrap();
    assert!(second.id == first.id && !Arc::ptr_eq(&second.stats, &first.stats), "a new one begins at zero");
}

#[tokio::test]
async fn a_worker_that_takes_nothing_gets_all_changes_in_one_when_it_wakes() {
    let rig = Rig::new(2);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    rig.workers[1].sleep(true);
    let batches = rig.workers[1].tables().versions.len();
    for last in 22..=32 {
        let (director, spec) = (rig.director.clone(), server(near(last)));
        tokio::spawn(async move { director.create_real_server(web(), &spec).await });
    }
    until("the other worker", || member_ids(&rig.workers[0]).len() == 12).await;
    let director = rig.director.clone();
    tokio::spawn(async move { director.delete_real_server(web(), socket("10.10.24.21:80")).await });
    until("the other worker", || member_ids(&rig.workers[0]).len() == 11).await;
    assert_eq!(member_ids(&rig.workers[1]).len(), 1);

    rig.workers[1].sleep(false);
    until("the sleeper", || member_ids(&rig.workers[1]) == member_ids(&rig.workers[0])).await;
    let applied = rig.workers[1].tables().versions.len() - batches;
    assert!((1..=2).contains(&applied), "{applied} batches for 12 changes");
    assert_eq!(rig.workers[1].control().report().version.get(), rig.director.revision());
    assert!(!rig.workers[1].real_server("10.10.24.21").unwrap().available);
}

#[tokio::test]
async fn a_full_ring_delays_a_change_and_does_not_lose_it() {
    let rig = Rig::with(1, 1, LIMITS, None);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    rig.workers[0].sleep(true);
    // The one place in the ring goes to a question about connections.
    let (director, question) = (rig.director.clone(), ConnectionQuery::default());
    let listing = tokio::spawn(async move { director.connections(question, 10, Cursor::default()).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    for last in [22, 23] {
        let (director, spec) = (rig.director.clone(), server(near(last)));
        tokio::spawn(async move { director.create_real_server(web(), &spec).await });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.director.service(web()).unwrap().real_servers.len(), 3, "the desired state is ahead");
    rig.workers[0].sleep(false);
    until("the changes", || member_ids(&rig.workers[0]).len() == 3).await;
    listing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_change_that_a_worker_does_not_take_is_kept_and_said_so() {
    let rig = Rig::new(2);
    rig.director.create_service(&web_spec(&json!([]))).await.unwrap();
    rig.workers[1].sleep(true);
    let late = rig.director.delete_service(web()).await.unwrap_err();
    assert!(matches!(&late, Error::Timeout(text) if text.contains("worker 1") && text.contains("kept")), "{late}");
    assert!(rig.director.service(web()).is_err());
    assert_eq!(rig.director.late_workers().len(), 1);
    until("the stuck worker to be noticed", || rig.director.stuck_workers().len() == 1).await;
    rig.workers[1].sleep(false);
    until("recovery", || rig.director.late_workers().is_empty() && rig.director.stuck_workers().is_empty()).await;
    assert!(rig.workers[1].tables().services.is_empty());
}

#[tokio::test]
async fn what_is_the_same_in_a_new_document_is_not_touched() {
    let rig = Rig::new(1);
    let services = |weight: u32| {
        document(json!({"services": [
            {"protocol": "tcp", "address": "10.10.24.88", "port": 80, "real_servers": [near(21), near(22)]},
            {"protocol": "tcp", "address": "10.10.24.88", "port": 443, "real_servers": [
                {"address": "10.10.24.21", "mac": "02:00:00:00:00:15", "weight": weight}]}]}))
    };
    assert_eq!(rig.director.put_document(&services(1)).await.unwrap().revision, 1);
    let of_port = |port| rig.workers[0].tables().services.values().find(|s| s.key.port == port).cloned().unwrap();
    let (web, tls) = (of_port(80), of_port(443));
    assert_eq!(rig.director.put_document(&services(1)).await.unwrap().revision, 1, "nothing changed");
    assert_eq!(rig.director.put_document(&services(9)).await.unwrap().revision, 2);
    assert!(Arc::ptr_eq(&of_port(80), &web));
    assert_ne!(of_port(443).revision, tls.revision);
}

#[tokio::test]
async fn a_document_that_is_wrong_anywhere_changes_nothing() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let before = rig.director.document();
    let wrong = document(json!({"services": [
        {"protocol": "udp", "address": "10.10.24.89", "port": 53},
        {"protocol": "tcp", "address": "10.10.24.88", "port": 80, "real_servers": [{"address": "192.0.2.9"}]}]}));
    let Err(Error::Invalid(faults)) = rig.director.put_document(&wrong).await else { panic!("accepted") };
    assert_eq!(faults[0].pointer, "/services/1/real_servers/0/address");
    let many = (1..=100).map(|port| json!({"protocol": "tcp", "address": "10.10.24.88", "port": port})).collect::<Vec<_>>();
    let Err(Error::Invalid(faults)) = rig.director.put_document(&document(json!({"services": many}))).await else { panic!("accepted") };
    assert!(faults[0].detail.contains("100 virtual services: allowed are 64 (limits.services)"), "{faults:?}");
    assert_eq!(rig.director.document(), before);
}

#[tokio::test]
async fn a_new_order_of_services_and_real_servers_is_kept() {
    let rig = Rig::new(1);
    let make = |ports: [u16; 2], servers: [u8; 2]| {
        let services =
            ports.map(|port| json!({"protocol": "tcp", "address": "10.10.24.88", "port": port, "real_servers": servers.map(near)}));
        document(json!({"services": services}))
    };
    rig.director.put_document(&make([80, 443], [21, 22])).await.unwrap();
    let put = rig.director.put_document(&make([443, 80], [22, 21])).await.unwrap();
    assert_eq!(put.revision, 2);
    assert_eq!(put.services.iter().map(|s| s.port).collect::<Vec<_>>(), [443, 80]);
    assert_eq!(put.services[0].real_servers[0].address, ip("10.10.24.22"));
}

#[tokio::test]
async fn zeroing_hides_what_was_counted_and_leaves_the_workers_alone() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let (service, server) = (rig.workers[0].only_service(), rig.workers[0].real_server("10.10.24.21").unwrap());
    service.stats.share(0).in_packets.add(40);
    server.stats.share(0).traffic.in_packets.add(40);
    rig.director.zero(Some(web())).unwrap();
    server.stats.share(0).traffic.in_packets.add(2);
    let listed = rig.director.service(web()).unwrap();
    assert_eq!((listed.stats.in_packets, listed.real_servers[0].stats.in_packets), (0, 2));
    assert_eq!(rig.director.observe(10).services[0].sum.in_packets, 40, "metrics never go back");
    assert!(matches!(rig.director.zero(Some("udp:10.10.24.88:80".parse().unwrap())), Err(Error::NoSuchService(_))));
}

#[tokio::test]
async fn service_that_is_added_again_counts_from_zero_and_a_real_server_alone_goes_on() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let server = rig.workers[0].real_server("10.10.24.21").unwrap();
    rig.workers[0].only_service().stats.share(0).in_packets.add(40);
    server.stats.share(0).traffic.in_packets.add(40);
    let counted = || {
        let listed = rig.director.service(web()).unwrap();
        (listed.stats.in_packets, listed.real_servers[0].stats.in_packets)
    };
    let near: crate::model::RealServerSpec = serde_json::from_value(near(21)).unwrap();
    rig.director.delete_real_server(web(), "10.10.24.21:80".parse().unwrap()).await.unwrap();
    rig.director.create_real_server(web(), &near).await.unwrap();
    assert_eq!(counted(), (40, 40));
    rig.director.delete_service(web()).await.unwrap();
    rig.director.create_service(&web_spec(&json!([near]))).await.unwrap();
    assert_eq!(counted(), (0, 0));
}

#[tokio::test]
async fn settings_reach_the_workers_with_what_rest_cannot_change() {
    let rig = Rig::new(1);
    let set = rig.director.edit_settings(|s| *s = DocumentSettings { sloppy_tcp: 1, timeout_udp: 30, ..*s }).await.unwrap();
    assert_eq!((set.sloppy_tcp, set.timeout_udp), (1, 30));
    let settings = rig.workers[0].tables().settings.unwrap();
    assert!(settings.sloppy_tcp && settings.timeouts.udp == 30 && settings.exception_rate == Settings::default().exception_rate);
    assert!(matches!(rig.director.edit_settings(|s| s.timeout_tcp = 0).await, Err(Error::Invalid(f)) if f[0].pointer == "/timeout_tcp"));
}

#[tokio::test]
async fn a_vip_is_never_a_real_servers_address() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    let on_real_server = service(json!({"protocol": "udp", "address": "10.10.24.21", "port": 53}));
    assert!(matches!(rig.director.create_service(&on_real_server).await, Err(Error::Invalid(f)) if f[0].pointer == "/address"));
    let on_vip = server(json!({"address": "10.10.24.88"}));
    assert!(matches!(rig.director.create_real_server(web(), &on_vip).await, Err(Error::Invalid(f)) if f[0].pointer == "/address"));
}

#[tokio::test]
async fn what_was_answered_is_in_the_state_file_and_restored_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(folder.path().join("state.json")).unwrap();
    let rig = Rig::with(1, 8, LIMITS, Some(open()));
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    assert_eq!(open().load().unwrap().unwrap().document, rig.director.document());
    rig.director.edit_settings(|s| s.sloppy_tcp = 1).await.unwrap();
    let before = rig.director.document();
    drop(rig);

    let rig = Rig::with(1, 8, LIMITS, Some(open()));
    rig.director.restore(&open().load().unwrap().unwrap()).unwrap();
    assert_eq!((rig.director.document(), rig.director.revision()), (before, 2));
    until("the workers", || rig.workers[0].tables().services.len() == 1).await;
    assert!(rig.director.is_stored());
    rig.director.delete_all_services().await.unwrap();
    assert_eq!(open().load().unwrap().unwrap().document.revision, 3);
}

#[tokio::test]
async fn a_change_that_cannot_be_stored_is_in_force_and_stored_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let rig = Rig::with(1, 8, LIMITS, Some(Store::open(&path).unwrap()));
    let obstacle = folder.path().join("state.json.new");
    std::fs::create_dir(&obstacle).unwrap();
    let refused = rig.director.create_service(&web_spec(&json!([]))).await.unwrap_err();
    assert!(matches!(&refused, Error::NotStored { revision: 1, cause } if cause.contains("state.json.new")), "{refused}");
    assert!(!rig.director.is_stored() && rig.director.service(web()).is_ok());
    std::fs::remove_dir(&obstacle).unwrap();
    until("another try", || rig.director.is_stored()).await;
    assert_eq!(Store::open(&path).unwrap().load().unwrap().unwrap().document.services.len(), 1);
}

#[tokio::test]
async fn many_changes_at_once_are_all_stored_with_fewer_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let rig = Rig::with(1, 8, LIMITS, Some(Store::open(&path).unwrap()));
    let writes: Vec<_> = (1..=40_u16)
        .map(|port| {
            let director = rig.director.clone();
            tokio::spawn(async move {
                director.create_service(&service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": port}))).await.map(|_| ())
            })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let stored = Store::open(&path).unwrap().load().unwrap().unwrap().document;
    assert_eq!((stored.revision, stored.services.len()), (40, 40));
}

#[tokio::test]
async fn rates_follow_the_counters_and_end_with_zeroing() {
    let rig = Rig::new(1);
    rig.director.create_service(&web_spec(&json!([near(21)]))).await.unwrap();
    rig.workers[0].only_service().stats.share(0).in_bytes.add(8_000);
    rig.workers[0].real_server("10.10.24.21").unwrap().stats.share(0).traffic.connections.add(80);
    rig.director.estimate().await;
    let service = rig.director.service(web()).unwrap();
    assert_eq!((service.rates.in_bytes, service.real_servers[0].rates.connections), (1_000, 10));
    rig.director.zero(None).unwrap();
    assert_eq!(rig.director.service(web()).unwrap().rates.in_bytes, 0);
}

#[tokio::test]
async fn a_large_document_is_one_batch() {
    let limits = Limits { services: 1_000, real_servers: 10_000, ..LIMITS };
    let rig = Rig::with(2, 8, limits, None);
    let make = |weight: u32| {
        let servers: Vec<_> =
            (21..=30).map(|last| json!({"address": format!("10.10.24.{last}"), "mac": "02:00:00:00:00:15", "weight": weight})).collect();
        let services: Vec<_> =
            (1..=1_000).map(|port| json!({"protocol": "tcp", "address": "10.10.24.88", "port": port, "real_servers": servers})).collect();
        document(json!({"services": services}))
    };
    rig.director.put_document(&make(1)).await.unwrap();
    rig.director.put_document(&make(2)).await.unwrap();
    for worker in &rig.workers {
        let tables = worker.tables();
        assert_eq!((tables.services.len(), tables.servers.len()), (1_000, 10_000));
        assert!(tables.servers.values().all(|s| s.weight == 2));
        assert_eq!(tables.versions.iter().filter(|v| **v > 0).count(), 2);
    }
}
