use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use dataplane::command::ConnectionRow;
use dataplane::service::Protocol;
use dataplane::verdict::Verdict;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::director::scripted::{LIMITS, Rig, links};

const WEB: &str = "/api/v1/services/tcp:10.10.24.88:80";

struct Api {
    rig: Rig,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.bytes))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    /// The pointers of a problem's errors.
    fn pointers(&self) -> Vec<String> {
        self.json()["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

impl Api {
    fn new() -> Self {
        Self::with(Rig::new(1))
    }

    fn with(rig: Rig) -> Self {
        let ports = links().into_iter().map(|link| Port {
            name: link.name,
            device: "net_null0".to_owned(),
            driver: "net_null".to_owned(),
            mac: "02:00:00:00:d0:00".to_owned(),
            link_up: true,
            speed_mbps: 10_000,
            mtu: link.mtu,
            queues: 1,
            rss: false,
            addresses: link.networks.iter().map(ToString::to_string).collect(),
            rx_packets: 9,
            tx_packets: 8,
            rx_missed: 7,
            verdicts: std::collections::BTreeMap::new(),
        });
        let ports: Vec<Port> = ports.collect();
        let neighbour =
            Neighbour { address: "10.10.24.21".parse().unwrap(), mac: None, port: "lan".to_owned(), state: "incomplete".to_owned() };
        let facts = Facts {
            version: "9.9.9",
            cores: vec![1, 3],
            ports: Arc::new(move || ports.clone()),
            neighbours: Arc::new(move || vec![neighbour.clone()]),
            missing: Arc::new(Vec::new),
        };
        Self { router: router(rig.director.clone(), facts), rig }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, bytes: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, body.to_string()).await
    }

    async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, Body::empty()).await
    }

    /// `WEB` with real server 10.10.24.21.
    async fn add_web(&self) {
        let added = self.post("/api/v1/services", web()).await;
        assert_eq!(added.status, StatusCode::CREATED, "{}", added.text());
    }
}

fn near(last: u8) -> Value {
    json!({"address": format!("10.10.24.{last}"), "mac": "02:00:00:00:00:15"})
}

fn web() -> Value {
    json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "scheduler": "rr", "real_servers": [near(21)]})
}

fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem: crate::model::Problem = serde_json::from_slice(&answer.bytes).unwrap();
    assert_eq!((problem.kind.as_str(), problem.status), (format!("/problems/{code}").as_str(), status));
    assert!(!problem.title.is_empty() && !problem.detail.is_empty());
}

#[tokio::test]
async fn services_are_added_read_changed_and_removed() {
    let api = Api::new();
    let added = api.post("/api/v1/services", web()).await;
    assert_eq!((added.status, added.header("location")), (StatusCode::CREATED, WEB));
    assert_eq!((added.header("baton-revision"), added.json()["id"].as_str()), ("1", Some("tcp:10.10.24.88:80")));
    assert_eq!(api.get("/api/v1/services").await.json()["services"][0]["real_servers"][0]["state"], "ready");
    assert_eq!(api.get("/api/v1/services/tcp%3A10.10.24.88%3A80").await.json()["scheduler"], "rr");

    assert_eq!(api.patch(WEB, json!({"scheduler": "wlc"})).await.json()["scheduler"], "wlc");
    let replaced = api.put(WEB, web()).await;
    assert_eq!((replaced.status, replaced.json()["scheduler"].as_str()), (StatusCode::OK, Some("rr")));
    assert_eq!(api.delete(WEB).await.status, StatusCode::NO_CONTENT);
    assert_problem(&api.get(WEB).await, 404, "no-such-service");

    assert_eq!(api.put(WEB, web()).await.status, StatusCode::CREATED);
    assert_eq!(api.delete("/api/v1/services").await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get("/api/v1/services").await.json()["services"], json!([]));
}

#[tokio::test]
async fn real_servers_are_added_read_changed_and_removed() {
    let api = Api::new();
    api.add_web().await;
    let (all, one) = (format!("{WEB}/real-servers"), format!("{WEB}/real-servers/10.10.24.22:80"));
    let added = api.post(&all, near(22)).await;
    assert_eq!((added.status, added.header("location")), (StatusCode::CREATED, one.as_str()));
    assert_eq!(api.get(&all).await.json().as_array().unwrap().len(), 2);
    assert_eq!(api.patch(&one, json!({"weight": 0})).await.json()["state"], "quiescent");
    assert_eq!(api.get(&one).await.json()["weight"], 0);
    let replaced = api.put(&one, near(22)).await;
    assert_eq!((replaced.status, &replaced.json()["weight"]), (StatusCode::OK, &json!(1)));
    assert_eq!(api.delete(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.put(&one, near(22)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn ipv6_ids_stand_in_brackets() {
    let api = Api::new();
    let dns = json!({"protocol": "udp", "address": "fd00:10::88", "port": 53, "real_servers": [{"address": "fd00:10::21", "mac": "02:00:00:00:00:15"}]});
    assert_eq!(api.put("/api/v1/services/udp:[fd00:10::88]:53", dns).await.status, StatusCode::CREATED);
    let server = api.get("/api/v1/services/udp%3A%5Bfd00%3A10%3A%3A88%5D%3A53/real-servers/%5Bfd00:10::21%5D:53").await;
    assert_eq!(server.json()["id"], "[fd00:10::21]:53");
}

#[tokio::test]
async fn what_is_there_or_missing_has_a_code_of_its_own() {
    let api = Api::new();
    api.add_web().await;
    let revision = api.get(WEB).await.header("baton-revision").to_owned();
    let (servers, absent) = (format!("{WEB}/real-servers"), "/api/v1/services/tcp:10.10.24.99:80");
    assert_problem(&api.post("/api/v1/services", web()).await, 409, "service-exists");
    assert_problem(&api.post(&servers, near(21)).await, 409, "real-server-exists");
    for answer in [
        api.get(absent).await,
        api.patch(absent, json!({})).await,
        api.delete(absent).await,
        api.post(&format!("{absent}/zero"), json!({})).await,
        api.get(&format!("{absent}/real-servers")).await,
        api.post(&format!("{absent}/real-servers"), near(21)).await,
        api.put(&format!("{absent}/real-servers/10.10.24.21:80"), near(21)).await,
        api.patch(&format!("{absent}/real-servers/10.10.24.21:80"), json!({})).await,
        api.delete(&format!("{absent}/real-servers/10.10.24.21:80")).await,
    ] {
        assert_problem(&answer, 404, "no-such-service");
    }
    let absent = format!("{servers}/10.10.24.99:80");
    for answer in [api.get(&absent).await, api.patch(&absent, json!({})).await, api.delete(&absent).await] {
        assert_problem(&answer, 404, "no-such-real-server");
    }
    assert_eq!(api.get(WEB).await.header("baton-revision"), revision, "nothing changed");
}

#[tokio::test]
async fn every_faulty_field_is_pointed_at() {
    let api = Api::new();
    let mut wrong = web();
    wrong["port"] = json!(0);
    wrong["one_packet"] = json!(true);
    wrong["real_servers"] =
        json!([{"address": "192.0.2.1", "weight": 4_000_000_000_u32}, {"address": "10.10.24.21", "port": 81, "mac": "x"}]);
    let expected =
        ["/port", "/one_packet", "/real_servers/0/weight", "/real_servers/0/address", "/real_servers/1/mac", "/real_servers/1/port"];
    let answer = api.post("/api/v1/services", wrong.clone()).await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers(), expected);

    wrong["port"] = json!(80);
    let answer = api.put("/api/v1/config", json!({"settings": {"sloppy_tcp": 9}, "services": [web(), wrong]})).await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers()[..3], ["/settings/sloppy_tcp", "/services/1", "/services/1/one_packet"]);

    let answer = api.put("/api/v1/services/udp:10.10.24.89:81", web()).await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers(), ["/protocol", "/address", "/port"]);

    api.add_web().await;
    let answer = api.put(&format!("{WEB}/real-servers/10.10.24.22:81"), near(21)).await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers(), ["/address", "/port"]);
    let answer = api.patch(WEB, json!({"one_packet": true})).await;
    assert_eq!((answer.status.as_u16(), answer.pointers()), (422, vec!["/one_packet".to_owned()]));
    let answer = api.patch("/api/v1/settings", json!({"timeout_tcp": 0, "conn_reuse_mode": 8})).await;
    assert_eq!((answer.status.as_u16(), answer.pointers()), (422, vec!["/conn_reuse_mode".to_owned(), "/timeout_tcp".to_owned()]));
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_pointed_at() {
    let api = Api::new();
    let table = [
        (json!({"services": [{"protocol": "sctp", "address": "10.0.0.1", "port": 1}]}), "/services/0/protocol"),
        (json!({"services": [{"protocol": "tcp", "address": "10.0.0.256", "port": 1}]}), "/services/0/address"),
        (json!({"services": [{"protocol": "tcp", "address": "10.0.0.1", "port": 65_536}]}), "/services/0/port"),
        (json!({"services": [{"protocol": "tcp", "address": "10.0.0.1", "port": -1}]}), "/services/0/port"),
        (json!({"services": [{"protocol": "tcp", "address": "10.0.0.1", "port": 1, "scheduler": "best"}]}), "/services/0/scheduler"),
        (
            json!({"services": [{"protocol": "tcp", "address": "10.0.0.1", "port": 1, "real_servers": [{"address": "10.0.0.2", "weight": 1.5}]}]}),
            "/services/0/real_servers/0/weight",
        ),
        (json!({"settings": {"a/b~c": 1}}), "/settings/a~1b~0c"),
        (json!({"services": {}}), "/services"),
    ];
    for (body, pointer) in table {
        let answer = api.put("/api/v1/config", body.clone()).await;
        assert_problem(&answer, 422, "invalid");
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_at_all_is_malformed() {
    let api = Api::new();
    for body in ["", "[]", "7", "{", "{\"services\": [}", "{} {}", "\u{1}", "[[[["] {
        assert_problem(&api.send(Method::PUT, "/api/v1/config", body).await, 400, "malformed");
    }
    let deep = "[".repeat(100_000);
    assert_problem(&api.send(Method::POST, "/api/v1/services", deep).await, 400, "malformed");
    let not_text = Bytes::from_static(b"{\"services\": \"\xff\xfe\"}");
    assert_problem(&api.send(Method::PUT, "/api/v1/config", not_text).await, 400, "malformed");
    for path in ["/api/v1/services/web", "/api/v1/services/sctp:10.0.0.1:1", "/api/v1/services/tcp:10.0.0.1:99999", "/api/v1/services/%ff"]
    {
        assert_problem(&api.get(path).await, 400, "malformed");
    }
    assert_problem(&api.get(&format!("{WEB}/real-servers/10.10.24.21")).await, 400, "malformed");
    assert_problem(&api.get("/api/v1/connections?colour=red").await, 400, "malformed");
    assert_problem(&api.get("/api/v1/workers?all=maybe").await, 400, "malformed");
}

#[tokio::test]
async fn what_is_not_built_is_named() {
    let api = Api::new();
    api.add_web().await;
    let answer = api.post(&format!("{WEB}/real-servers"), json!({"address": "10.10.24.22", "method": "tunnel"})).await;
    assert_problem(&answer, 501, "not-built");
    assert_eq!(answer.pointers(), ["/method"]);
    assert!(answer.json()["detail"].as_str().unwrap().contains("tunnel"));
    let answer = api.patch(&format!("{WEB}/real-servers/10.10.24.21:80"), json!({"method": "masquerading"})).await;
    assert_problem(&answer, 501, "not-built");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_as_well() {
    let api = Api::new();
    for path in ["/", "/api", "/api/v1", "/api/v1/nothing", "/api/v1/services/a/b/c", "/api/v2/services"] {
        assert_problem(&api.get(path).await, 404, "not-found");
    }
    for (method, path) in [
        (Method::PUT, "/api/v1/services"),
        (Method::POST, "/api/v1/settings"),
        (Method::DELETE, "/api/v1/workers"),
        (Method::POST, "/metrics"),
        (Method::OPTIONS, "/api/v1/config"),
        (Method::GET, "/api/v1/services/tcp:10.0.0.1:1/zero"),
    ] {
        let answer = api.send(method, path, Body::empty()).await;
        assert_problem(&answer, 405, "method-not-allowed");
        assert!(!answer.header("allow").is_empty());
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let api = Api::new();
    let answer = api.send(Method::PUT, "/api/v1/config", vec![b' '; MAX_BODY + 1]).await;
    assert_problem(&answer, 413, "body-too-large");
    let mut just = vec![b' '; MAX_BODY - 2];
    just.extend(b"{}");
    assert_eq!(api.send(Method::PUT, "/api/v1/config", just).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_whole_configuration_is_read_and_replaced() {
    let api = Api::new();
    api.add_web().await;
    let mut config = api.get("/api/v1/config").await.json();
    assert_eq!((&config["revision"], &config["services"][0]["real_servers"][0]["port"]), (&json!(1), &json!(80)));
    config["services"][0]["real_servers"].as_array_mut().unwrap().push(near(22));
    config["settings"]["sloppy_tcp"] = json!(1);
    let put = api.put("/api/v1/config", config).await;
    assert_eq!((put.status, put.header("baton-revision")), (StatusCode::OK, "2"));
    assert_eq!(put.json(), api.get("/api/v1/config").await.json());
    assert_eq!(api.get("/api/v1/settings").await.json()["sloppy_tcp"], 1);
}

#[tokio::test]
async fn settings_change_in_part_and_go_back_to_their_defaults() {
    let api = Api::new();
    let changed = api.patch("/api/v1/settings", json!({"expire_nodest_conn": 1, "timeout_udp": 30})).await.json();
    assert_eq!((&changed["expire_nodest_conn"], &changed["timeout_udp"], &changed["timeout_tcp"]), (&json!(1), &json!(30), &json!(900)));
    assert_eq!(api.patch("/api/v1/settings", json!({"timeout": 1})).await.pointers(), ["/timeout"]);
    let reset = api.delete("/api/v1/settings").await.json();
    assert_eq!(reset, serde_json::to_value(crate::model::Settings::default()).unwrap());
}

#[tokio::test]
async fn zeroing_answers_without_content() {
    let api = Api::new();
    api.add_web().await;
    api.rig.workers[0].only_service().stats.share(0).connections.add(5);
    assert_eq!(api.get(WEB).await.json()["stats"]["connections"], 5);
    assert_eq!(api.post(&format!("{WEB}/zero"), json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get(WEB).await.json()["stats"]["connections"], 0);
    assert_eq!(api.post("/api/v1/services/zero", json!({})).await.status, StatusCode::NO_CONTENT);
}

/// 1200 entries of clients 10.0.0.0 upwards at two real servers.
fn rows() -> Vec<ConnectionRow> {
    let row = |i: u16| ConnectionRow {
        protocol: if i.is_multiple_of(3) { Protocol::Udp } else { Protocol::Tcp },
        client: SocketAddr::from(([10, 0, i.to_be_bytes()[0], i.to_be_bytes()[1]], 40_000)),
        virtual_address: SocketAddr::from(([10, 10, 24, 88], 80)),
        server: SocketAddr::from(([10, 10, 24, if i.is_multiple_of(2) { 21 } else { 22 }], 80)),
        state: "ESTABLISHED",
        expires_in: 89_950,
        in_packets: 3,
    };
    (0..1_200).map(row).collect()
}

fn with_connections() -> Api {
    let api = Api::with(Rig::new(2));
    for worker in &api.rig.workers {
        let mut tables = worker.tables();
        tables.rows = rows();
        worker.control().report().connections.set(tables.rows.len() as u64);
    }
    api
}

#[tokio::test]
async fn connections_come_in_pages_over_all_workers() {
    let api = with_connections();
    let first = api.get("/api/v1/connections?limit=1").await.json();
    let expected = json!({"protocol": "udp", "client": "10.0.0.0:40000", "virtual": "10.10.24.88:80", "server": "10.10.24.21:80",
        "state": "ESTABLISHED", "expires_in": 899.5, "in_packets": 3, "worker": 0});
    assert_eq!((&first["total"], &first["connections"][0]), (&json!(2_400), &expected));

    let (mut path, mut seen, mut pages) = ("/api/v1/connections?limit=700".to_owned(), Vec::new(), 0);
    loop {
        let page = api.get(&path).await.json();
        pages += 1;
        seen.extend(
            page["connections"].as_array().unwrap().iter().map(|c| (c["worker"].as_u64(), c["client"].as_str().map(str::to_owned))),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/connections?limit=700&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (4, 2_400));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2_400, "none twice");
}

#[tokio::test]
async fn connections_are_found_by_service_client_and_server() {
    let api = with_connections();
    let count = async |query: &str| {
        api.get(&format!("/api/v1/connections?limit=10000&{query}")).await.json()["connections"].as_array().unwrap().len()
    };
    assert_eq!(count("service=udp:10.10.24.88:80").await, 800);
    assert_eq!(count("service=tcp:10.10.24.88:443").await, 0);
    assert_eq!(count("server=10.10.24.21").await, 1_200);
    assert_eq!(count("client=10.0.0.7").await, 2);
    assert_eq!(count("client=10.0.0.6&server=10.10.24.22").await, 0);
}

#[tokio::test]
async fn wrong_queries_are_all_pointed_at() {
    let api = Api::new();
    let answer = api.get("/api/v1/connections?service=web&client=me&server=10.10.24.21:80&limit=many&cursor=7").await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers(), ["?service", "?client", "?server", "?limit", "?cursor"]);
    for limit in ["0", "10001", "99999999999999999999999"] {
        assert_eq!(api.get(&format!("/api/v1/connections?limit={limit}")).await.pointers(), ["?limit"]);
    }
    assert_eq!(api.get("/api/v1/connections?cursor=77.4294967295").await.json()["connections"], json!([]));
    assert_eq!(api.delete("/api/v1/connections?client=me").await.pointers(), ["?client"]);
}

#[tokio::test]
async fn connections_end_on_every_worker() {
    let api = with_connections();
    assert_eq!(api.delete("/api/v1/connections?service=udp:10.10.24.88:80").await.json(), json!({"removed": 800}));
    assert_eq!(api.delete("/api/v1/connections?server=10.10.24.22").await.json(), json!({"removed": 800}));
    assert_eq!(api.delete("/api/v1/connections").await.json(), json!({"removed": 800}));
    assert_eq!(api.get("/api/v1/connections").await.json(), json!({"total": 0, "connections": [], "next": null}));
}

#[tokio::test]
async fn a_worker_that_stands_still_makes_questions_end_in_time() {
    let api = with_connections();
    api.rig.workers[0].sleep(true);
    let asked: Vec<_> = (0..5)
        .map(|_| {
            let router = api.router.clone();
            let request = Request::get("/api/v1/connections").body(Body::empty()).unwrap();
            tokio::spawn(async move { router.oneshot(request).await.unwrap().status().as_u16() })
        })
        .collect();
    let mut seen = Vec::new();
    for one in asked {
        seen.push(one.await.unwrap());
    }
    assert!(seen.iter().all(|status| [503, 504].contains(status)) && seen.contains(&504), "{seen:?}");
    api.rig.workers[0].sleep(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(api.get("/api/v1/connections").await.status, StatusCode::OK);
}

#[tokio::test]
async fn workers_ports_and_neighbours_are_listed() {
    let api = Api::with(Rig::new(2));
    api.add_web().await;
    let report = api.rig.workers[1].control().report();
    report.verdicts[1].add(Verdict::Forwarded, 5);
    report.verdicts[0].add(Verdict::Short, 2);
    report.received[0].add(7);
    let workers = api.get("/api/v1/workers").await.json();
    assert_eq!((&workers[1]["core"], &workers[1]["version"], &workers[1]["capacity"]), (&json!(3), &json!(1), &json!(LIMITS.connections)));
    assert_eq!((&workers[1]["verdicts"], &workers[1]["received"]), (&json!({"forwarded": 5, "short": 2}), &json!(7)));
    assert_eq!(api.get("/api/v1/workers?all=true").await.json()[0]["verdicts"].as_object().unwrap().len(), Verdict::COUNT);
    let ports = api.get("/api/v1/ports").await.json();
    assert_eq!((&ports[1]["name"], &ports[1]["verdicts"]), (&json!("far"), &json!({"forwarded": 5})));
    assert_eq!(api.get("/api/v1/neighbours").await.json()[0]["state"], "incomplete");
}

#[tokio::test]
async fn metrics_name_services_as_node_exporter_does() {
    let api = Api::new();
    api.add_web().await;
    api.rig.workers[0].control().report().verdicts[0].add(Verdict::Forwarded, 11);
    let server = api.rig.workers[0].real_server("10.10.24.21").unwrap();
    server.stats.share(0).active.increment();
    server.stats.share(0).traffic.in_bytes.add(1_234);
    let answer = api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let labels = r#"local_address="10.10.24.88",local_port="80",remote_address="10.10.24.21",remote_port="80",proto="TCP""#;
    for line in [
        "baton_build_info{version=\"9.9.9\"} 1".to_owned(),
        "baton_revision 1".to_owned(),
        "baton_worker_version{worker=\"0\"} 1".to_owned(),
        "baton_frames_total{worker=\"0\",port=\"lan\",verdict=\"forwarded\"} 11".to_owned(),
        "baton_frames_total{worker=\"0\",port=\"far\",verdict=\"short\"} 0".to_owned(),
        "baton_port_missed_frames_total{port=\"lan\"} 7".to_owned(),
        "baton_service_connections_total{local_address=\"10.10.24.88\",local_port=\"80\",proto=\"TCP\"} 0".to_owned(),
        format!("baton_real_server_connections_active{{{labels}}} 1"),
        format!("baton_real_server_incoming_bytes_total{{{labels}}} 1234"),
        format!("baton_real_server_state{{{labels},state=\"ready\"}} 1"),
        format!("baton_real_server_state{{{labels},state=\"no-mac\"}} 0"),
        "# EOF".to_owned(),
    ] {
        assert!(answer.text().lines().any(|l| l == line), "{line} is not in\n{}", answer.text());
    }
    let names: Vec<&str> = answer.text().lines().filter(|l| l.starts_with("# TYPE ")).collect();
    assert!(names.iter().all(|l| l.starts_with("# TYPE baton_")), "{names:?}");
}

#[tokio::test]
async fn health_follows_the_workers() {
    let api = Api::new();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if api.get("/readyz").await.status == StatusCode::OK {
            break;
        }
    }
    assert_eq!((api.get("/livez").await.text(), api.get("/readyz").await.text()), ("ok\n", "ok\n"));
    api.rig.workers[0].sleep(true);
    assert_problem(&api.post("/api/v1/services", web()).await, 504, "timeout");
    assert_problem(&api.get("/readyz").await, 503, "not-ready");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_problem(&api.get("/livez").await, 503, "not-live");
}

#[tokio::test]
async fn the_description_covers_every_route_and_resolves() {
    let api = Api::new();
    let described = api.get("/api/v1/openapi.json").await;
    assert_eq!(described.header("content-type"), "application/json");
    let described = described.json();
    let paths = described["paths"].as_object().unwrap();
    let routes: Vec<String> = paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().filter(|k| *k != "parameters").map(move |method| format!("{method} {path}"))
        })
        .collect();
    let mut expected: Vec<String> = [
        ("/api/v1/services", "get post delete"),
        ("/api/v1/services/{id}", "get put patch delete"),
        ("/api/v1/services/{id}/real-servers", "get post"),
        ("/api/v1/services/{id}/real-servers/{server}", "get put patch delete"),
        ("/api/v1/services/zero", "post"),
        ("/api/v1/services/{id}/zero", "post"),
        ("/api/v1/connections", "get delete"),
        ("/api/v1/workers", "get"),
        ("/api/v1/ports", "get"),
        ("/api/v1/neighbours", "get"),
        ("/api/v1/settings", "get patch delete"),
        ("/api/v1/config", "get put"),
        ("/api/v1/openapi.json", "get"),
        ("/metrics", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
    ]
    .iter()
    .flat_map(|(path, methods)| methods.split(' ').map(move |m| format!("{m} {path}")))
    .collect();
    let mut routes = routes;
    routes.sort();
    expected.sort();
    assert_eq!(routes, expected);

    let text = described.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(described["components"]["schemas"].get(reference).is_some(), "{reference} is not described");
    }
    let service = &described["components"]["schemas"]["ServiceSpec"]["properties"];
    assert!(service["address"]["type"] == "string" && service["real_servers"]["type"] == "array", "{service}");
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(k, _)| *k != "parameters") {
            let responses = operation["responses"].as_object().unwrap();
            if path.contains("/v1/") && ["post", "put", "patch"].contains(&method.as_str()) && !path.ends_with("/zero") {
                assert!(responses["422"]["content"].get("application/problem+json").is_some(), "{method} {path}");
            }
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
        }
    }
}

#[tokio::test]
async fn ten_thousand_services_with_ten_real_servers_each_fit_one_request() {
    let limits = crate::director::Limits { services: 16_384, real_servers: 131_072, ..LIMITS };
    let api = Api::with(Rig::with(1, 8, limits, None));
    let servers: Vec<Value> = (21..=30).map(near).collect();
    let services: Vec<Value> = (0..10_000_u32)
        .map(|i| json!({"protocol": "tcp", "address": format!("10.10.{}.88", 100 + i / 1_000), "port": 1 + i % 1_000, "real_servers": servers}))
        .collect();
    let start = std::time::Instant::now();
    let answer = api.put("/api/v1/config", json!({"services": services})).await;
    println!("{:?}", start.elapsed());
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(api.rig.workers[0].tables().servers.len(), 100_000);
    let text = api.get("/metrics").await;
    assert!(text.text().lines().any(|l| l == "baton_series_left_out 90000"), "per real server for 10 000 of them only");
}
