mod connections;
mod events;
mod marks;
mod revisions;
mod seen;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
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
            vlan: None,
            members: Vec::new(),
            driver: "net_null".to_owned(),
            numa_node: Some(0),
            mac: "02:00:00:00:d0:00".to_owned(),
            link_up: true,
            speed_mbps: 10_000,
            mtu: link.mtu,
            queues: 1,
            rss: false,
            spread: crate::model::Spread::OneWorker,
            promiscuous: false,
            multicast: crate::model::Multicast::All,
            lacks: Vec::new(),
            addresses: link.networks.iter().map(ToString::to_string).collect(),
            rx_packets: 9,
            tx_packets: 8,
            rx_missed: 7,
            rx_no_mbuf: 6,
            rx_errors: 5,
            tx_errors: 4,
            verdicts: std::collections::BTreeMap::new(),
        });
        let ports: Vec<Port> = ports.collect();
        let neighbour =
            Neighbour { address: "10.10.24.21".parse().unwrap(), mac: None, port: "lan".to_owned(), state: "incomplete".to_owned() };
        let facts = Facts {
            version: "9.9.9",
            cores: vec![1, 3],
            ports: Arc::new(move || ports.clone()),
            plumbing: Arc::new(|| Plumbing {
                rings: vec![RingFill { kind: "to_kernel", name: "lan".to_owned(), frames: 3, capacity: 512 }],
                mempools: vec![MempoolFill { name: "frames-0".to_owned(), in_use: 100, size: 16_383 }],
            }),
            neighbours: Arc::new(move || vec![neighbour.clone()]),
            missing: Arc::new(Vec::new),
            ..Facts::default()
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
        (json!({"services": [{"protocol": "icmp", "address": "10.0.0.1", "port": 1}]}), "/services/0/protocol"),
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
    for path in ["/api/v1/services/web", "/api/v1/services/dccp:10.0.0.1:1", "/api/v1/services/tcp:10.0.0.1:99999", "/api/v1/services/%ff"]
    {
        assert_problem(&api.get(path).await, 400, "malformed");
    }
    assert_problem(&api.get(&format!("{WEB}/real-servers/10.10.24.21")).await, 400, "malformed");
    assert_problem(&api.get("/api/v1/connections?colour=red").await, 400, "malformed");
    assert_problem(&api.get("/api/v1/workers?all=maybe").await, 400, "malformed");
}

#[tokio::test]
async fn masquerading_real_server_has_a_port_of_its_own() {
    let api = Api::new();
    api.add_web().await;
    let spec = json!({"address": "10.10.24.22", "port": 8080, "method": "masquerading"});
    assert_eq!(api.post(&format!("{WEB}/real-servers"), spec).await.status, 201);
    let server = format!("{WEB}/real-servers/10.10.24.22:8080");
    let found = api.get(&server).await.json();
    assert_eq!((&found["method"], &found["port"]), (&json!("masquerading"), &json!(8080)));
    let answer = api.patch(&server, json!({"method": "direct-routing"})).await;
    assert_problem(&answer, 422, "invalid");
    assert_eq!(answer.pointers(), ["/port"]);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_as_well() {
    let api = Api::new();
    for path in ["/nothing", "/api", "/api/v1", "/api/v1/nothing", "/api/v1/services/a/b/c", "/api/v2/services"] {
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

#[tokio::test]
async fn a_web_page_is_refused() {
    let api = Api::new();
    let request = Request::delete("/api/v1/services").header("origin", "http://example.net").body(Body::empty()).unwrap();
    let answer = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}
