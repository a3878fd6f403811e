//! A director without workers for the tests of the command line: it keeps a document and answers from it in the words of
//! the API.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::cli::client::Endpoint;
use crate::model::{
    Connection, Connections, Document, Fault, Flushed, Neighbour, Port, Problem, Protocol, Rates, RealServer, RealServerPatch,
    RealServerSpec, RealServerState, Service, ServiceKey, ServicePatch, ServiceSpec, Services, Settings, Stats, VipState, Worker,
};

/// A running director; it ends with the test's process.
pub(super) struct Stand {
    pub(super) endpoint: Endpoint,
    pub(super) document: Shared,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Document>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Document> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stand {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baton.sock");
        let document = Shared::default();
        let (ready, wait) = mpsc::channel();
        let (socket, routes) = (path.clone(), router(document.clone()));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(socket).unwrap();
                ready.send(()).unwrap();
                axum::serve(listener, routes).await.unwrap();
            });
        });
        wait.recv().unwrap();
        Self { endpoint: Endpoint::Unix(path), document, _folder: folder }
    }
}

fn router(document: Shared) -> Router {
    let v1 = Router::new()
        .route("/services", get(services).post(add_service).delete(clear))
        .route("/services/zero", post(async || StatusCode::NO_CONTENT))
        .route("/services/{id}", get(one_service).patch(edit_service).delete(delete_service))
        .route("/services/{id}/zero", post(zero))
        .route("/services/{id}/real-servers", post(add_server))
        .route("/services/{id}/real-servers/{at}", axum::routing::patch(edit_server).delete(delete_server))
        .route("/connections", get(connections).delete(flush))
        .route("/settings", get(settings).patch(set).delete(reset))
        .route("/config", get(async |State(state): State<Shared>| Json(state.lock().clone())).put(replace))
        .route("/workers", get(async || Json(vec![worker()])))
        .route("/ports", get(async || Json(vec![port()])))
        .route("/neighbours", get(async || Json(vec![neighbour()])));
    Router::new().nest("/api/v1", v1).with_state(document)
}

type Answer = Result<Response, Refused>;

struct Refused {
    status: StatusCode,
    code: &'static str,
    errors: Vec<Fault>,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("/problems/{}", self.code),
            title: self.code.to_owned(),
            status: self.status.as_u16(),
            detail: format!("it is {}", self.code),
            errors: self.errors,
        };
        (self.status, Json(problem)).into_response()
    }
}

fn problem(status: StatusCode, code: &'static str) -> Refused {
    Refused { status, code, errors: Vec::new() }
}

fn invalid(pointer: &str, detail: String) -> Refused {
    let errors = vec![Fault { pointer: pointer.to_owned(), detail }];
    Refused { status: StatusCode::UNPROCESSABLE_ENTITY, code: "invalid", errors }
}

fn find(document: &mut Document, id: &str) -> Result<usize, Refused> {
    let key: ServiceKey = id.parse().map_err(|_| problem(StatusCode::NOT_FOUND, "no-such-service"))?;
    document.services.iter().position(|service| service.key() == key).ok_or_else(|| problem(StatusCode::NOT_FOUND, "no-such-service"))
}

fn find_server(service: &ServiceSpec, at: &str) -> Result<usize, Refused> {
    let at: SocketAddr = at.parse().map_err(|_| problem(StatusCode::NOT_FOUND, "no-such-real-server"))?;
    let of = |server: &RealServerSpec| SocketAddr::new(server.address, server.port.unwrap_or(service.port));
    let found = service.real_servers.iter().position(|server| of(server) == at);
    found.ok_or_else(|| problem(StatusCode::NOT_FOUND, "no-such-real-server"))
}

fn shown(service: &ServiceSpec) -> Service {
    let key = service.key();
    let real_servers = service.real_servers.iter().map(|server| {
        let known = server.address.to_string() != "10.10.24.29";
        let port = server.port.unwrap_or(service.port);
        RealServer {
            id: SocketAddr::new(server.address, port).to_string(),
            address: server.address,
            port,
            weight: server.weight,
            upper_threshold: server.upper_threshold,
            lower_threshold: server.lower_threshold,
            method: server.method,
            tunnel: server.tunnel,
            mac: known.then(|| "02:00:00:00:00:15".to_owned()),
            link: Some("lan".to_owned()),
            state: if known { RealServerState::Ready } else { RealServerState::NoMac },
            reason: (!known).then(|| "no answer to ARP".to_owned()),
            health: None,
            drain: None,
            active_connections: 0,
            inactive_connections: 0,
            persistent_connections: 0,
            stats: Stats::default(),
            rates: Rates::default(),
        }
    });
    Service {
        id: key.to_string(),
        protocol: key.protocol,
        address: key.address,
        port: key.port,
        mark: key.mark(),
        scheduler: service.scheduler,
        flags: service.flags.clone(),
        persistence: service.persistence,
        one_packet: service.one_packet,
        health: service.health.clone(),
        quorum: None,
        no_real_server: service.no_real_server,
        timeouts: service.timeouts,
        vip: VipState::Held,
        conflicts: Vec::new(),
        stats: Stats::default(),
        rates: Rates::default(),
        real_servers: real_servers.collect(),
    }
}

async fn services(State(state): State<Shared>) -> Json<Services> {
    let document = state.lock();
    Json(Services { revision: document.revision, services: document.services.iter().map(shown).collect() })
}

async fn one_service(State(state): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut document = state.lock();
    let index = find(&mut document, &id)?;
    Ok(Json(shown(&document.services[index])).into_response())
}

async fn add_service(State(state): State<Shared>, Json(spec): Json<ServiceSpec>) -> Answer {
    let mut document = state.lock();
    if find(&mut document, &spec.key().to_string()).is_ok() {
        return Err(problem(StatusCode::CONFLICT, "service-exists"));
    }
    document.services.push(spec);
    Ok(StatusCode::CREATED.into_response())
}

async fn edit_service(State(state): State<Shared>, Path(id): Path<String>, Json(patch): Json<ServicePatch>) -> Answer {
    let mut document = state.lock();
    let index = find(&mut document, &id)?;
    let service = &mut document.services[index];
    service.scheduler = patch.scheduler.unwrap_or(service.scheduler);
    service.one_packet = patch.one_packet.unwrap_or(service.one_packet);
    Ok(StatusCode::OK.into_response())
}

async fn delete_service(State(state): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut document = state.lock();
    let index = find(&mut document, &id)?;
    document.services.remove(index);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn zero(State(state): State<Shared>, Path(id): Path<String>) -> Answer {
    find(&mut state.lock(), &id).map(|_| StatusCode::NO_CONTENT.into_response())
}

async fn clear(State(state): State<Shared>) -> StatusCode {
    state.lock().services.clear();
    StatusCode::NO_CONTENT
}

async fn add_server(State(state): State<Shared>, Path(id): Path<String>, Json(spec): Json<RealServerSpec>) -> Answer {
    let mut document = state.lock();
    let index = find(&mut document, &id)?;
    let service = &mut document.services[index];
    if spec.address.to_string().starts_with("192.0.2.") {
        let detail = format!("{} is on no connected network: a tunnel or masquerading would reach it", spec.address);
        return Err(invalid("/address", detail));
    }
    if find_server(service, &SocketAddr::new(spec.address, spec.port.unwrap_or(service.port)).to_string()).is_ok() {
        return Err(problem(StatusCode::CONFLICT, "real-server-exists"));
    }
    service.real_servers.push(spec);
    Ok(StatusCode::CREATED.into_response())
}

async fn edit_server(State(state): State<Shared>, Path((id, at)): Path<(String, String)>, Json(patch): Json<RealServerPatch>) -> Answer {
    let mut document = state.lock();
    let index = find(&mut document, &id)?;
    let service = &mut document.services[index];
    let server = find_server(service, &at)?;
    let server = &mut service.real_servers[server];
    server.weight = patch.weight.unwrap_or(server.weight);
    Ok(StatusCode::OK.into_response())
}

async fn delete_server(State(state): State<Shared>, Path((id, at)): Path<(String, String)>) -> Answer {
    let mut document = state.lock();
    let index = find(&mut document, &id)?;
    let server = find_server(&document.services[index], &at)?;
    document.services[index].real_servers.remove(server);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn replace(State(state): State<Shared>, Json(document): Json<Document>) -> Answer {
    let wrong = document.services.iter().enumerate().find_map(|(service, spec)| {
        let server = spec.real_servers.iter().position(|server| server.address.to_string().starts_with("192.0.2."))?;
        Some(format!("/services/{service}/real_servers/{server}/address"))
    });
    if let Some(pointer) = wrong {
        return Err(invalid(&pointer, "on no connected network".to_owned()));
    }
    *state.lock() = document.clone();
    Ok(Json(document).into_response())
}

/// Two pages, told apart by the cursor; the first has the query in place of a state.
async fn connections(Query(query): Query<Map<String, Value>>) -> Json<Connections> {
    let second = query.get("cursor") == Some(&json!("0.17"));
    let entry = Connection {
        protocol: Protocol::Tcp,
        client: if second { "198.51.100.2:10001" } else { "198.51.100.1:10000" }.parse().unwrap(),
        virtual_address: "10.10.24.88:80".parse().unwrap(),
        server: "10.10.24.21:80".parse().unwrap(),
        state: query.get("client").and_then(Value::as_str).unwrap_or("ESTABLISHED").to_owned(),
        expires_in: 899.5,
        in_packets: 3,
        worker: 0,
    };
    Json(Connections { total: 2, connections: vec![entry], next: (!second).then(|| "0.17".to_owned()) })
}

async fn flush(Query(query): Query<Map<String, Value>>) -> Json<Flushed> {
    Json(Flushed { removed: if query.get("service") == Some(&json!("tcp:[fd00:10::88]:80")) { 1 } else { 7 } })
}

async fn settings(State(state): State<Shared>) -> Json<Settings> {
    Json(state.lock().settings)
}

async fn set(State(state): State<Shared>, Json(change): Json<Map<String, Value>>) -> Answer {
    let mut document = state.lock();
    let mut settings = serde_json::to_value(document.settings).unwrap();
    settings.as_object_mut().unwrap().extend(change);
    document.settings = serde_json::from_value(settings).map_err(|_| problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid"))?;
    Ok(Json(document.settings).into_response())
}

async fn reset(State(state): State<Shared>) -> Json<Settings> {
    state.lock().settings = Settings::default();
    Json(Settings::default())
}

fn worker() -> Worker {
    let counts = json!({"id": 0, "core": 1, "version": 12, "connections": 3, "half_open": 1, "capacity": 1_048_576, "received": 10,
        "sent": 8, "icmp_errors": 0, "injected": 0, "verdicts": {"forwarded": 8, "no-service": 2, "short": 0}, "busy": 0.0312});
    serde_json::from_value(counts).unwrap()
}

fn port() -> Port {
    let facts = json!({"name": "lan", "device": "net_af_packet0,iface=d0", "driver": "net_af_packet", "mac": "02:00:00:00:d0:00",
        "link_up": true, "speed_mbps": 10_000, "mtu": 1500, "queues": 1, "rss": false,
        "spread": "one-worker", "promiscuous": false, "multicast": "all", "addresses": ["10.10.24.10/24", "fd00:10::10/64"],
        "rx_packets": 10, "tx_packets": 8, "rx_missed": 0, "verdicts": {}});
    serde_json::from_value(facts).unwrap()
}

fn neighbour() -> Neighbour {
    let facts = json!({"address": "10.10.24.21", "mac": null, "port": "lan", "state": "probing"});
    serde_json::from_value(facts).unwrap()
}
