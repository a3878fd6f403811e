//! The API's own description.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use utoipa::OpenApi;

use super::App;
use crate::model::Problem;

/// What the description says beside the routes and their schemas, which come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Baton",
        description = "A Layer-4 director. Every error is application/problem+json; every answer carries Baton-Revision, which grows by one with every change of the configuration.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem))
)]
pub(super) struct Api;

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "configuration", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn document(State(app): State<App>) -> ([(HeaderName, HeaderValue); 1], String) {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], app.openapi.to_string())
}
