//! `/livez` and `/readyz`.

use axum::extract::State;

use super::App;
use super::problem::Rejection;
use crate::codes::Code;
use crate::model::Problem;

/// Whether the control plane answers and every worker turns.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, body = String), (status = 503, description = "`not-live`", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn live(State(app): State<App>) -> Result<&'static str, Rejection> {
    answer(Code::NotLive, &app.director.stuck_workers())
}

/// Whether every worker runs the present configuration and nothing else is missing.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = String), (status = 503, description = "`not-ready`", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn ready(State(app): State<App>) -> Result<&'static str, Rejection> {
    answer(Code::NotReady, &missing(&app))
}

/// What is missing, in words, before the director does all that it should; nothing when it does.
pub(super) fn missing(app: &App) -> Vec<String> {
    let mut missing = app.director.stuck_workers();
    missing.extend(app.director.late_workers());
    missing.extend((app.facts.missing)());
    missing
}

fn answer(code: Code, missing: &[String]) -> Result<&'static str, Rejection> {
    if missing.is_empty() { Ok("ok\n") } else { Err(Rejection::new(code, missing.join("; "))) }
}
