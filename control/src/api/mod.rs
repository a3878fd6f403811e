//! The REST API: one router over the director, described by its own `OpenAPI` document.
//!
//! `/api/v1` speaks JSON; every error is `application/problem+json` (RFC 9457) and every answer carries `Baton-Revision`.

pub mod access;
mod audit;
mod configuration;
mod connections;
mod dashboard;
mod door;
mod drain;
mod events;
mod extract;
mod health;
mod html;
mod limit;
mod marks;
mod metrics;
mod openapi;
mod page;
mod problem;
mod real_servers;
mod revisions;
mod serve;
mod services;
mod system;
pub mod tls;
mod vips;
pub mod who;
mod write;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use configuration::SettingsPatch;
pub use serve::{Entrance, Listening, ServeError};

use crate::codes::Code;
use crate::director::Director;
use crate::model::{Document, Neighbour, Port};
use problem::Rejection;

/// The largest request body, in bytes: 16 MiB, which holds a document with 16 384 services and 131 072 real servers.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// How many bodies are read at once, so that no number of requests takes more memory than these.
const BODIES: usize = 4;

/// What the API tells that the director does not know.
#[derive(Clone)]
pub struct Facts {
    /// The version of this program.
    pub version: &'static str,
    /// The CPU core of each worker.
    pub cores: Vec<u32>,
    /// The ports in the configuration's order; their verdicts are filled in from the workers.
    pub ports: Arc<dyn Fn() -> Vec<Port> + Send + Sync>,
    /// How full rings and mempools are.
    pub plumbing: Arc<dyn Fn() -> Plumbing + Send + Sync>,
    /// The neighbours that real servers and gateways are reached by.
    pub neighbours: Arc<dyn Fn() -> Vec<Neighbour> + Send + Sync>,
    /// What is missing, in words, beside the workers, before the director is ready; empty when nothing is.
    pub missing: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// What a reload reads.
    pub reread: Reread,
}

/// How full rings and mempools are, for metrics.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plumbing {
    /// The rings between workers and kernel, and between workers.
    pub rings: Vec<RingFill>,
    /// The mempools.
    pub mempools: Vec<MempoolFill>,
}

/// How full a ring is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingFill {
    /// `to_kernel`, `from_kernel` or `hand_over`.
    pub kind: &'static str,
    /// The port; or the workers, as `0-1`.
    pub name: String,
    /// Frames that wait in it.
    pub frames: u64,
    /// Frames that it can hold.
    pub capacity: u64,
}

/// How full a mempool is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MempoolFill {
    /// Its name; with the NUMA node where that is known: `frames-0`.
    pub name: String,
    /// Packet buffers that are in queues, rings and caches.
    pub in_use: u64,
    /// Packet buffers in all.
    pub size: u64,
}

/// What a reload reads: baton.toml, and the files that it names. Both block.
#[derive(Clone)]
pub struct Reread {
    /// Reads baton.toml again, and checks it whole: what of it can change while the director runs, if nothing else is different.
    pub file: Arc<dyn Fn() -> Result<Document, RereadError> + Send + Sync>,
    /// Reads the certificates again, and opens the audit log anew.
    pub renew: Arc<dyn Fn() + Send + Sync>,
}

/// Why a baton.toml that was read again is not applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RereadError {
    /// It has faults: all of them, with line and column.
    #[error("{0}")]
    Faulty(String),
    /// Keys differ that are read at start only.
    #[error("these need a restart, and nothing was changed: {}", .0.join(", "))]
    NeedsRestart(Vec<String>),
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cores: Vec::new(),
            ports: Arc::new(Vec::new),
            plumbing: Arc::new(Plumbing::default),
            neighbours: Arc::new(Vec::new),
            missing: Arc::new(Vec::new),
            reread: Reread { file: Arc::new(|| Err(RereadError::Faulty("there is no baton.toml".to_owned()))), renew: Arc::new(|| ()) },
        }
    }
}

#[derive(Clone)]
struct App {
    director: Director,
    facts: Facts,
    openapi: Arc<str>,
    page: Arc<str>,
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    totals: Arc<Mutex<metrics::Totals>>,
}

/// All routes, as one function that a test can call without a socket.
pub fn router(director: Director, facts: Facts) -> Router {
    let v1 = OpenApiRouter::new()
        .routes(routes!(services::list, services::create, services::delete_all))
        .routes(routes!(services::read, services::put, services::patch, services::delete))
        .routes(routes!(services::zero_all))
        .routes(routes!(services::zero))
        .routes(routes!(real_servers::list, real_servers::create))
        .routes(routes!(real_servers::read, real_servers::put, real_servers::patch, real_servers::delete))
        .routes(routes!(drain::put, drain::read, drain::cancel))
        .routes(routes!(vips::list))
        .routes(routes!(vips::take))
        .routes(routes!(vips::release))
        .routes(routes!(connections::list, connections::flush))
        .routes(routes!(events::list))
        .routes(routes!(system::workers))
        .routes(routes!(system::ports))
        .routes(routes!(system::neighbours))
        .routes(routes!(marks::read, marks::put, marks::add, marks::delete_all))
        .routes(routes!(configuration::read_settings, configuration::patch_settings, configuration::reset_settings))
        .routes(routes!(configuration::read, configuration::put))
        .routes(routes!(revisions::history))
        .routes(routes!(revisions::past))
        .routes(routes!(revisions::apply))
        .routes(routes!(revisions::rollback))
        .routes(routes!(revisions::reload))
        .routes(routes!(openapi::document))
        .routes(routes!(page::reference));
    let (routes, described) = OpenApiRouter::with_openapi(openapi::Api::openapi())
        .nest("/api/v1", v1)
        .routes(routes!(metrics::metrics))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(problem::meaning))
        .routes(routes!(dashboard::ui))
        .routes(routes!(dashboard::root))
        .split_for_parts();
    let openapi = openapi::complete(&described.to_json().unwrap_or_default());
    let (bodies, streams) = (Arc::new(Semaphore::new(BODIES)), Arc::new(Semaphore::new(events::STREAMS)));
    let page = page::render(&openapi);
    let app = App { director, facts, openapi: openapi.into(), page, bodies, streams, totals: Arc::default() };
    routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn(refuse_web_pages))
        .layer(axum::middleware::map_response_with_state(app.clone(), add_revision))
        .with_state(app)
}

/// What everybody may see where `control.metrics_listen` opens it: metrics and health, and nothing else.
pub fn open_router(routes: &Router) -> Router {
    const OPEN: [&str; 3] = ["/metrics", "/livez", "/readyz"];
    let routes = routes.clone();
    Router::new().fallback(async move |request: Request| {
        if OPEN.contains(&request.uri().path()) && matches!(*request.method(), Method::GET | Method::HEAD) {
            return routes.oneshot(request).await.into_response();
        }
        let detail = format!("only {} are open here", OPEN.join(", "));
        Rejection::new(Code::NotFound, detail).into_response()
    })
}

async fn unknown_route(uri: Uri) -> Rejection {
    Rejection::new(Code::NotFound, format!("there is nothing at {}; /api/v1/openapi.json lists what there is", uri.path()))
}

async fn unknown_method(method: Method, uri: Uri) -> Rejection {
    let detail = format!("{} cannot be {method}; the Allow header lists what it can", uri.path());
    Rejection::new(Code::MethodNotAllowed, detail)
}

/// A web page that someone looks at on this machine must not change anything over the loopback address. Browsers name the
/// page in `Origin`; no other client does.
async fn refuse_web_pages(request: Request, next: Next) -> Response {
    match request.headers().get(header::ORIGIN) {
        None => next.run(request).await,
        Some(_) => Rejection::new(Code::WebPage, "requests by web pages (with an Origin header) are refused").into_response(),
    }
}

async fn add_revision(State(app): State<App>, mut response: Response) -> Response {
    response.headers_mut().insert("baton-revision", HeaderValue::from(app.director.revision()));
    response
}

#[cfg(test)]
mod tests;
