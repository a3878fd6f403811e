//! `/api/v1/history`, `/api/v1/rollback` and `/api/v1/reload`: earlier configurations, and baton.toml read again.

use axum::Json;
use axum::extract::{Path, State};

use super::extract::{Asked, Body};
use super::problem::{BadId, Rejection, WriteProblems};
use super::write::{Conditions, NoQuery, Write, WriteQuery};
use super::{App, Reread, RereadError};
use crate::codes::Code;
use crate::director::Error;
use crate::model::{Difference, Document, History, PastDocument, Problem, Rollback};

impl From<RereadError> for Rejection {
    fn from(error: RereadError) -> Self {
        let code = match error {
            RereadError::Faulty(_) => Code::FaultyFile,
            RereadError::NeedsRestart(_) => Code::NeedsRestart,
        };
        Self::new(code, error.to_string())
    }
}

/// The last 50 changes, newest first: who, when, what.
#[utoipa::path(get, path = "/history", tag = "configuration", responses((status = 200, body = History), BadId,
    (status = 500, description = "`history-unreadable`", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn history(State(app): State<App>, _: Asked<NoQuery>) -> Result<Json<History>, Rejection> {
    Ok(Json(app.director.history().await?))
}

/// The configuration as it was in a revision.
#[utoipa::path(get, path = "/history/{revision}", tag = "configuration",
    params(("revision" = u64, Path, description = "One that the history says is kept")),
    responses((status = 200, body = PastDocument), BadId,
        (status = 404, description = "`revision-not-kept`", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "`history-unreadable`", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn past(State(app): State<App>, Path(revision): Path<String>) -> Result<Json<PastDocument>, Rejection> {
    let number = revision.parse().map_err(|_| Rejection::malformed(format!("'{revision}' is not a revision: expected a whole number")))?;
    Ok(Json(app.director.past(number).await?))
}

/// Makes the whole configuration what the body says, as `PUT /config` does, and answers with what that changed.
#[utoipa::path(post, path = "/apply", tag = "configuration", request_body = Document, params(WriteQuery, Conditions),
    responses((status = 200, description = "What that changed, or would with `dry_run`", body = Difference), WriteProblems))]
pub(super) async fn apply(Write(director): Write, Body(document): Body<Document>) -> Result<Json<Difference>, Rejection> {
    Ok(Json(director.apply(&document).await?))
}

/// Makes the configuration what it was in an earlier revision. That is a new revision; what is the same in both stays untouched.
#[utoipa::path(post, path = "/rollback", tag = "configuration", request_body = Rollback, params(WriteQuery, Conditions),
    responses((status = 200, description = "What that changed, or would with `dry_run`", body = Difference), WriteProblems,
        (status = 404, description = "`revision-not-kept`", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn rollback(Write(director): Write, Body(to): Body<Rollback>) -> Result<Json<Difference>, Rejection> {
    Ok(Json(director.rollback(to.revision).await?))
}

/// Reads baton.toml again and applies what is different from what it said when it was last applied; what others changed since, and
/// the file does not, stays. Then certificates are read again and the audit log is opened anew, unless the reload was refused or a dry run.
#[utoipa::path(post, path = "/reload", tag = "configuration", params(WriteQuery, Conditions),
    responses((status = 200, description = "What that changed, or would with `dry_run`", body = Difference), WriteProblems,
        (status = 409, description = "`needs-restart`: keys differ that are read at start only; they are named", body = Problem,
            content_type = "application/problem+json")))]
pub(super) async fn reload(Write(director): Write, State(app): State<App>) -> Result<Json<Difference>, Rejection> {
    let Reread { file, renew } = app.facts.reread;
    let file = tokio::task::spawn_blocking(move || file()).await.map_err(|why| Error::Busy(format!("baton.toml was not read: {why}")))?;
    let difference = director.reload(&file?).await?;
    let renewed = tokio::task::spawn_blocking(move || renew()).await;
    renewed.map_err(|why| Error::Busy(format!("certificates and audit log were not taken anew: {why}")))?;
    Ok(Json(difference))
}
