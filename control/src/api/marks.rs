//! `/api/v1/marks`: the rules that give packets their marks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::App;
use super::extract::Body;
use super::problem::{ChangeProblems, Rejection, WriteProblems};
use super::write::{Conditions, Tagged, Write, WriteQuery};
use crate::director::{Director, Resource};
use crate::model::{Difference, MarkRule, MarkRules, Outcome};

/// All mark rules, in the order in which packets meet them.
#[utoipa::path(get, path = "/marks", tag = "marks", responses((status = 200, body = MarkRules)))]
pub(super) async fn read(State(app): State<App>) -> Result<Tagged<Json<MarkRules>>, Rejection> {
    tagged(&app.director)
}

fn tagged(director: &Director) -> Result<Tagged<Json<MarkRules>>, Rejection> {
    Tagged::new(director, Resource::Marks, || Ok(Json(director.marks())))
}

/// Makes the body's mark rules all that there are. Connections stay where they are: only first packets get a mark.
#[utoipa::path(put, path = "/marks", tag = "marks", request_body = MarkRules, params(WriteQuery, Conditions),
    responses((status = 200, body = Outcome<MarkRules>), WriteProblems))]
pub(super) async fn put(Write(director): Write, Body(rules): Body<MarkRules>) -> Result<Tagged<Json<MarkRules>>, Rejection> {
    director.put_marks(&rules).await?;
    tagged(&director)
}

/// Adds a mark rule behind all others; answers with all of them.
#[utoipa::path(post, path = "/marks", tag = "marks", request_body = MarkRule, params(WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 201, body = MarkRules), WriteProblems))]
pub(super) async fn add(Write(director): Write, Body(rule): Body<MarkRule>) -> Result<(StatusCode, Tagged<Json<MarkRules>>), Rejection> {
    director.add_mark(&rule).await?;
    Ok((StatusCode::CREATED, tagged(&director)?))
}

/// Removes every mark rule.
#[utoipa::path(delete, path = "/marks", tag = "marks", params(WriteQuery, Conditions),
    responses((status = 200, description = "With `dry_run`", body = Difference), (status = 204), ChangeProblems))]
pub(super) async fn delete_all(Write(director): Write) -> Result<StatusCode, Rejection> {
    director.put_marks(&MarkRules::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}
