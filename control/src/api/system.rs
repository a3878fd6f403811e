//! `/api/v1/workers`, `/api/v1/ports` and `/api/v1/neighbours`: what the director runs on.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::Asked;
use super::problem::{BadId, Rejection};
use crate::model::{Neighbour, Port, Worker};

/// How much of the verdicts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WorkersQuery {
    /// Also verdicts that never happened.
    all: bool,
}

/// The workers: the version that each one runs, its connections and its verdicts.
#[utoipa::path(get, path = "/workers", tag = "system", params(WorkersQuery), responses((status = 200, body = [Worker]), BadId))]
pub(super) async fn workers(State(app): State<App>, Asked(query): Asked<WorkersQuery>) -> Result<Json<Vec<Worker>>, Rejection> {
    Ok(Json(app.director.workers(&app.facts.cores, query.all)))
}

/// The ports: link, device and verdicts.
#[utoipa::path(get, path = "/ports", tag = "system", responses((status = 200, body = [Port])))]
pub(super) async fn ports(State(app): State<App>) -> Json<Vec<Port>> {
    Json(all_ports(&app))
}

pub(super) fn all_ports(app: &App) -> Vec<Port> {
    let mut ports = (app.facts.ports)();
    for (index, port) in ports.iter_mut().enumerate() {
        port.verdicts = app.director.port_verdicts(index);
    }
    ports
}

/// The neighbours that real servers and gateways are reached by.
#[utoipa::path(get, path = "/neighbours", tag = "system", responses((status = 200, body = [Neighbour])))]
pub(super) async fn neighbours(State(app): State<App>) -> Json<Vec<Neighbour>> {
    Json((app.facts.neighbours)())
}
