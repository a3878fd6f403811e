//! `/api/v1/marks`: the rules that give packets their marks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::App;
use super::extract::Body;
use super::problem::{ChangeProblems, Rejection, WriteProblems};
use crate::model::{MarkRule, MarkRules};

/// All mark rules, in the order in which packets meet them.
#[utoipa::path(get, path = "/marks", tag = "marks", responses((status = 200, body = MarkRules)))]
pub(super) async fn read(State(app): State<App>) -> Json<MarkRules> {
    Json(app.director.marks())
}

/// Makes the body's mark rules all that there are. Connections stay where they are: only first packets get a mark.
#[utoipa::path(put, path = "/marks", tag = "marks", request_body = MarkRules, responses((status = 200, body = MarkRules), WriteProblems))]
pub(super) async fn put(State(app): State<App>, Body(rules): Body<MarkRules>) -> Result<Json<MarkRules>, Rejection> {
    Ok(Json(app.director.put_marks(&rules).await?))
}

/// Adds a mark rule behind all others; answers with all of them.
#[utoipa::path(post, path = "/marks", tag = "marks", request_body = MarkRule, responses((status = 201, body = MarkRules), WriteProblems))]
pub(super) async fn add(State(app): State<App>, Body(rule): Body<MarkRule>) -> Result<(StatusCode, Json<MarkRules>), Rejection> {
    Ok((StatusCode::CREATED, Json(app.director.add_mark(&rule).await?)))
}

/// Removes every mark rule.
#[utoipa::path(delete, path = "/marks", tag = "marks", responses((status = 204), ChangeProblems))]
pub(super) async fn delete_all(State(app): State<App>) -> Result<StatusCode, Rejection> {
    app.director.put_marks(&MarkRules::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}
