//! `/api/v1/services/{id}/real-servers/{server}/drain`: a drain with its progress.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::App;
use super::extract::{Asked, Body, RealServerId};
use super::problem::{BadId, ChangeProblems, NoDrain, Rejection, WriteProblems};
use super::write::NoQuery;
use crate::model::{Drain, DrainSpec};

/// Begins to drain a real server, or gives the drain that is under way another deadline or end.
///
/// New connections go elsewhere, also those that persistence would bring; old ones have until the deadline.
#[utoipa::path(put, path = "/services/{id}/real-servers/{server}/drain", tag = "real servers", request_body = DrainSpec,
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80")),
    responses((status = 200, body = Drain), NoDrain, WriteProblems))]
pub(super) async fn put(
    State(app): State<App>,
    RealServerId(service, server): RealServerId,
    _: Asked<NoQuery>,
    Body(spec): Body<DrainSpec>,
) -> Result<Json<Drain>, Rejection> {
    Ok(Json(app.director.drain(service, server, spec).await?))
}

/// How far a drain is.
#[utoipa::path(get, path = "/services/{id}/real-servers/{server}/drain", tag = "real servers",
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80")),
    responses((status = 200, body = Drain), BadId, NoDrain))]
pub(super) async fn read(State(app): State<App>, RealServerId(service, server): RealServerId) -> Result<Json<Drain>, Rejection> {
    Ok(Json(app.director.drain_of(service, server)?))
}

/// Cancels a drain: the real server gets new connections again, as its weight says.
#[utoipa::path(delete, path = "/services/{id}/real-servers/{server}/drain", tag = "real servers",
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80")),
    responses((status = 204), NoDrain, ChangeProblems))]
pub(super) async fn cancel(
    State(app): State<App>,
    RealServerId(service, server): RealServerId,
    _: Asked<NoQuery>,
) -> Result<StatusCode, Rejection> {
    app.director.cancel_drain(service, server).await?;
    Ok(StatusCode::NO_CONTENT)
}
