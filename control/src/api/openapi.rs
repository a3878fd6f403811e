//! The API's own description.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::App;
use crate::model::Problem;

/// How every operation may be refused.
const EVERYWHERE: &[(&str, &str)] = &[
    ("401", "No token, or not one of the director's"),
    ("403", "The role does not allow it, or a web page asks"),
    ("429", "Too many requests of one peer"),
];

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

/// Adds what holds for every operation: who may come, and how others are refused; and how large numbers can be.
pub(super) fn complete(described: &str) -> String {
    let mut document: Value = serde_json::from_str(described).unwrap_or_default();
    // Who comes by the socket, or with a certificate, needs no token.
    document["security"] = json!([{}, {"token": []}]);
    document["components"]["securitySchemes"]["token"] =
        json!({"type": "http", "scheme": "bearer", "description": "Over TCP: a token of [[control.token]]"});
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, item) in paths {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
            for (status, means) in EVERYWHERE {
                let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
                let response = json!({"description": means, "content": {"application/problem+json": problem}});
                responses.entry(*status).or_insert(response);
            }
        }
    }
    bound(&mut document);
    document.to_string()
}

/// Says of each integer how large it can be where its field says nothing else: formats of unsigned ones are names only.
fn bound(part: &mut Value) {
    match part {
        Value::Object(members) => {
            let most = match members.get("format").and_then(Value::as_str) {
                Some("uint8") => Some(u32::from(u8::MAX)),
                Some("uint16") => Some(u32::from(u16::MAX)),
                Some("uint32") => Some(u32::MAX),
                _ => None,
            };
            if let Some(most) = most {
                members.entry("maximum").or_insert_with(|| most.into());
            }
            members.values_mut().for_each(bound);
        }
        Value::Array(parts) => parts.iter_mut().for_each(bound),
        _ => {}
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "configuration", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn document(State(app): State<App>) -> ([(HeaderName, HeaderValue); 1], String) {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], app.openapi.to_string())
}
