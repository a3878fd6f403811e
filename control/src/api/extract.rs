//! What handlers take from a request: bodies, ids and queries, with errors that say where.

use std::net::SocketAddr;
use std::time::Duration;

use axum::RequestPartsExt;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Rejection;
use super::{App, MAX_BODY};
use crate::codes::Code;
use crate::model::{Fault, ServiceKey, pointer};

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long a request waits until others' bodies are read.
const TURN_TIME: Duration = Duration::from_secs(5);

/// A JSON body; the content type does not matter.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest<App> for Body<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &App) -> Result<Self, Rejection> {
        let busy = |_| Rejection::new(Code::Busy, "other requests' bodies are still being read: try again");
        let turn = timeout(TURN_TIME, app.bodies.acquire()).await.map_err(busy)?;
        let slow = |_| {
            let detail = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
            Rejection::new(Code::SlowRequest, detail)
        };
        let bytes = timeout(BODY_TIME, Bytes::from_request(request, app)).await.map_err(slow)?.map_err(|e| unread(&e))?;
        let body = parse(&bytes);
        drop(turn);
        body.map(Self)
    }
}

fn unread(rejection: &BytesRejection) -> Rejection {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Rejection::new(Code::BodyTooLarge, format!("the body is larger than {MAX_BODY} bytes"))
    } else {
        Rejection::malformed(format!("the body could not be read: {}", rejection.body_text()))
    }
}

/// Every body is an object. A list would be taken for an object's fields in their order, an empty one for an empty object.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Rejection::malformed("the body is not a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let cause = error.into_inner();
        if cause.is_data() {
            Rejection::invalid(vec![Fault { pointer, detail: cause.to_string() }])
        } else {
            Rejection::malformed(format!("the body is not JSON: {cause}"))
        }
    })?;
    reader.end().map_err(|error| Rejection::malformed(format!("the body goes on after its JSON value: {error}")))?;
    Ok(value)
}

/// The virtual service that a path names: `tcp:10.10.24.88:80`, percent-encoded or not.
pub(super) struct ServiceId(pub(super) ServiceKey);

impl FromRequestParts<App> for ServiceId {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Rejection> {
        let Path(id) = parts.extract::<Path<String>>().await.map_err(|e| Rejection::malformed(e.body_text()))?;
        service_key(&id).map(Self)
    }
}

/// The real server that a path names: `10.10.24.21:80` in a virtual service.
pub(super) struct RealServerId(pub(super) ServiceKey, pub(super) SocketAddr);

impl FromRequestParts<App> for RealServerId {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Rejection> {
        let Path((service, server)) = parts.extract::<Path<(String, String)>>().await.map_err(|e| Rejection::malformed(e.body_text()))?;
        let address = server.parse().map_err(|_| {
            Rejection::malformed(format!("'{server}' is not a real server's id: expected ADDRESS:PORT, an IPv6 address in brackets"))
        })?;
        Ok(Self(service_key(&service)?, address))
    }
}

fn service_key(id: &str) -> Result<ServiceKey, Rejection> {
    id.parse().map_err(|e: crate::model::BadKey| Rejection::malformed(e.to_string()))
}

/// A query string.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequestParts<App> for Asked<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Rejection> {
        let Query(query) = parts.extract::<Query<T>>().await.map_err(|e| Rejection::malformed(e.body_text()))?;
        Ok(Self(query))
    }
}
