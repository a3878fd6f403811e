//! `/api/v1/services`: virtual services.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde_json::Value;

use super::App;
use super::extract::{Asked, Body, ServiceId};
use super::problem::{BadId, ChangeProblems, Exists, Missing, Rejection, WriteProblems};
use super::write::{Conditions, NoQuery, Tagged, Write, WriteQuery};
use crate::director::{Director, Resource};
use crate::model::{Difference, Fault, Outcome, Protocol, Service, ServiceKey, ServicePatch, ServiceSpec, Services};

/// All virtual services with their real servers, counters and rates.
#[utoipa::path(get, path = "/services", tag = "services", responses((status = 200, body = Services)))]
pub(super) async fn list(State(app): State<App>) -> Result<Tagged<Json<Services>>, Rejection> {
    Tagged::new(&app.director, Resource::Document, || Ok(Json(app.director.services())))
}

fn tagged(director: &Director, key: ServiceKey) -> Result<Tagged<Json<Service>>, Rejection> {
    Tagged::new(director, Resource::Service(key), || Ok(Json(director.service(key)?)))
}

/// Adds a virtual service (`ipvsadm -A`).
#[utoipa::path(post, path = "/services", tag = "services", request_body = ServiceSpec, params(WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 201, body = Service), Exists, WriteProblems))]
pub(super) async fn create(
    Write(director): Write,
    Body(spec): Body<ServiceSpec>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Tagged<Json<Service>>), Rejection> {
    let id = director.create_service(&spec).await?.id;
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/api/v1/services/{id}"))], tagged(&director, spec.key())?))
}

/// Removes every virtual service (`ipvsadm -C`).
#[utoipa::path(delete, path = "/services", tag = "services", params(WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 204), ChangeProblems))]
pub(super) async fn delete_all(Write(director): Write) -> Result<StatusCode, Rejection> {
    director.delete_all_services().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One virtual service.
#[utoipa::path(get, path = "/services/{id}", tag = "services",
    params(("id" = String, Path, description = "Its natural key", example = "tcp:10.10.24.88:80")),
    responses((status = 200, body = Service), BadId, Missing))]
pub(super) async fn read(State(app): State<App>, ServiceId(key): ServiceId) -> Result<Tagged<Json<Service>>, Rejection> {
    tagged(&app.director, key)
}

/// Adds a virtual service, or makes an existing one what the body says.
#[utoipa::path(put, path = "/services/{id}", tag = "services", request_body = ServiceSpec,
    params(("id" = String, Path, description = "Its natural key, as in the body", example = "tcp:10.10.24.88:80"), WriteQuery, Conditions),
    responses((status = 200, description = "Replaced", body = Outcome<Service>), (status = 201, description = "Added", body = Service), WriteProblems))]
pub(super) async fn put(
    Write(director): Write,
    ServiceId(key): ServiceId,
    Body(spec): Body<ServiceSpec>,
) -> Result<(StatusCode, Tagged<Json<Service>>), Rejection> {
    check_key(key, &spec)?;
    let (created, _) = director.put_service(&spec).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, tagged(&director, key)?))
}

/// Changes parts of a virtual service (`ipvsadm -E`): a JSON merge patch (RFC 7396).
#[utoipa::path(patch, path = "/services/{id}", tag = "services", request_body(content((ServicePatch = "application/merge-patch+json"), (ServicePatch = "application/json"))),
    params(("id" = String, Path, description = "Its natural key", example = "tcp:10.10.24.88:80"), WriteQuery, Conditions),
    responses((status = 200, body = Outcome<Service>), Missing, WriteProblems))]
pub(super) async fn patch(
    Write(director): Write,
    ServiceId(key): ServiceId,
    Body(patch): Body<Value>,
) -> Result<Tagged<Json<Service>>, Rejection> {
    director.patch_service(key, &patch).await?;
    tagged(&director, key)
}

/// Removes a virtual service with its real servers (`ipvsadm -D`).
#[utoipa::path(delete, path = "/services/{id}", tag = "services",
    params(("id" = String, Path, description = "Its natural key", example = "tcp:10.10.24.88:80"), WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 204), Missing, ChangeProblems))]
pub(super) async fn delete(Write(director): Write, ServiceId(key): ServiceId) -> Result<StatusCode, Rejection> {
    director.delete_service(key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes all counters as zero from now on (`ipvsadm -Z`).
#[utoipa::path(post, path = "/services/zero", tag = "services", responses((status = 204), BadId))]
pub(super) async fn zero_all(State(app): State<App>, _: Asked<NoQuery>) -> Result<StatusCode, Rejection> {
    app.director.zero(None)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the counters of a virtual service and of its real servers as zero from now on (`ipvsadm -Z`).
#[utoipa::path(post, path = "/services/{id}/zero", tag = "services",
    params(("id" = String, Path, description = "Its natural key", example = "tcp:10.10.24.88:80")),
    responses((status = 204), BadId, Missing))]
pub(super) async fn zero(State(app): State<App>, ServiceId(key): ServiceId, _: Asked<NoQuery>) -> Result<StatusCode, Rejection> {
    app.director.zero(Some(key))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The id in the path and the body must name one service.
fn check_key(key: ServiceKey, spec: &ServiceSpec) -> Result<(), Rejection> {
    let mut faults = Vec::new();
    let mut differ = |field: &str, path: String, body: String| {
        if path != body {
            faults.push(Fault {
                pointer: format!("/{field}"),
                detail: format!("{field} is {body}, the id in the path says {path}: both must be the same"),
            });
        }
    };
    if key.mark().is_some() || spec.key().mark().is_some() {
        differ("mark", key.to_string(), spec.key().to_string());
        return if faults.is_empty() { Ok(()) } else { Err(Rejection::invalid(faults)) };
    }
    differ("protocol", Protocol::as_str(key.protocol).to_owned(), Protocol::as_str(spec.protocol).to_owned());
    differ("address", key.address.to_string(), spec.address.to_string());
    differ("port", key.port.to_string(), spec.port.to_string());
    if faults.is_empty() { Ok(()) } else { Err(Rejection::invalid(faults)) }
}
