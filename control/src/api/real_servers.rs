//! `/api/v1/services/{id}/real-servers`: the real servers of a virtual service.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::Value;

use super::App;
use super::extract::{Body, RealServerId, ServiceId};
use super::problem::{BadId, ChangeProblems, Exists, Missing, Rejection, WriteProblems};
use super::write::{Conditions, Tagged, Write, WriteQuery};
use crate::director::{Director, Resource};
use crate::model::{Difference, Fault, Outcome, RealServer, RealServerPatch, RealServerSpec, ServiceKey};

/// The real servers of a virtual service, in the order in which they were added.
#[utoipa::path(get, path = "/services/{id}/real-servers", tag = "real servers",
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80")),
    responses((status = 200, body = [RealServer]), BadId, Missing))]
pub(super) async fn list(State(app): State<App>, ServiceId(service): ServiceId) -> Result<Tagged<Json<Vec<RealServer>>>, Rejection> {
    Tagged::new(&app.director, Resource::Service(service), || Ok(Json(app.director.service(service)?.real_servers)))
}

fn tagged(director: &Director, service: ServiceKey, server: SocketAddr) -> Result<Tagged<Json<RealServer>>, Rejection> {
    Tagged::new(director, Resource::RealServer(service, server), || Ok(Json(director.real_server(service, server)?)))
}

/// Adds a real server (`ipvsadm -a`).
#[utoipa::path(post, path = "/services/{id}/real-servers", tag = "real servers", request_body = RealServerSpec,
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"), WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 201, body = RealServer), Missing, Exists, WriteProblems))]
pub(super) async fn create(
    Write(director): Write,
    ServiceId(service): ServiceId,
    Body(spec): Body<RealServerSpec>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Tagged<Json<RealServer>>), Rejection> {
    let server = director.create_real_server(service, &spec).await?;
    let location = format!("/api/v1/services/{service}/real-servers/{}", server.id);
    let shown = tagged(&director, service, SocketAddr::new(server.address, server.port))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], shown))
}

/// One real server.
#[utoipa::path(get, path = "/services/{id}/real-servers/{server}", tag = "real servers",
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80")),
    responses((status = 200, body = RealServer), BadId, Missing))]
pub(super) async fn read(
    State(app): State<App>,
    RealServerId(service, server): RealServerId,
) -> Result<Tagged<Json<RealServer>>, Rejection> {
    tagged(&app.director, service, server)
}

/// Adds a real server, or makes an existing one what the body says.
#[utoipa::path(put, path = "/services/{id}/real-servers/{server}", tag = "real servers", request_body = RealServerSpec,
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport, as in the body", example = "10.10.24.21:80"), WriteQuery, Conditions),
    responses((status = 200, description = "Replaced", body = Outcome<RealServer>), (status = 201, description = "Added", body = RealServer), Missing, WriteProblems))]
pub(super) async fn put(
    Write(director): Write,
    RealServerId(service, server): RealServerId,
    Body(spec): Body<RealServerSpec>,
) -> Result<(StatusCode, Tagged<Json<RealServer>>), Rejection> {
    check_id(service, server, &spec)?;
    let (created, _) = director.put_real_server(service, &spec).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, tagged(&director, service, server)?))
}

/// Changes parts of a real server (`ipvsadm -e`): a JSON merge patch (RFC 7396).
#[utoipa::path(patch, path = "/services/{id}/real-servers/{server}", tag = "real servers", request_body(content((RealServerPatch = "application/merge-patch+json"), (RealServerPatch = "application/json"))),
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80"), WriteQuery, Conditions),
    responses((status = 200, body = Outcome<RealServer>), Missing, WriteProblems))]
pub(super) async fn patch(
    Write(director): Write,
    RealServerId(service, server): RealServerId,
    Body(patch): Body<Value>,
) -> Result<Tagged<Json<RealServer>>, Rejection> {
    director.patch_real_server(service, server, &patch).await?;
    tagged(&director, service, server)
}

/// Removes a real server (`ipvsadm -d`).
#[utoipa::path(delete, path = "/services/{id}/real-servers/{server}", tag = "real servers",
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80"), WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 204), Missing, ChangeProblems))]
pub(super) async fn delete(Write(director): Write, RealServerId(service, server): RealServerId) -> Result<StatusCode, Rejection> {
    director.delete_real_server(service, server).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The id in the path and the body must name one real server.
fn check_id(service: ServiceKey, server: SocketAddr, spec: &RealServerSpec) -> Result<(), Rejection> {
    let mut faults = Vec::new();
    let mut add = |pointer: &str, body: String, path: String| {
        faults.push(Fault {
            pointer: pointer.to_owned(),
            detail: format!("the body says {body}, the id in the path says {path}: both must be the same"),
        });
    };
    if spec.address != server.ip() {
        add("/address", spec.address.to_string(), server.ip().to_string());
    }
    let port = spec.port.unwrap_or(service.port);
    if port != server.port() {
        add("/port", port.to_string(), server.port().to_string());
    }
    if faults.is_empty() { Ok(()) } else { Err(Rejection::invalid(faults)) }
}
