//! The one place where errors become HTTP (RFC 9457).

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::IntoResponses;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};

use crate::director::Error;
use crate::model::{Fault, Problem};

/// The media type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A request that was not done, as the client gets it.
#[derive(Debug)]
pub(super) struct Rejection(Box<Problem>);

impl Rejection {
    /// `code` is the stable name of this kind of error; its words become the title.
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let mut title = code.replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self(Box::new(Problem {
            kind: format!("/problems/{code}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }))
    }

    /// A request whose parts cannot be read at all.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// A request whose parts can be read and break rules.
    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        Error::Invalid(faults).into()
    }

    fn with(mut self, faults: Vec<Fault>) -> Self {
        self.0.errors = faults;
        self
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let (status, code) = match &error {
            Error::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Error::ServiceExists(_) => (StatusCode::CONFLICT, "service-exists"),
            Error::NoSuchService(_) => (StatusCode::NOT_FOUND, "no-such-service"),
            Error::RealServerExists(..) => (StatusCode::CONFLICT, "real-server-exists"),
            Error::NoSuchRealServer(..) => (StatusCode::NOT_FOUND, "no-such-real-server"),
            Error::NoDrain(..) => (StatusCode::NOT_FOUND, "no-drain"),
            Error::NoSuchVip(_) => (StatusCode::NOT_FOUND, "no-such-vip"),
            Error::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Error::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Error::NotStored { .. } | Error::NotKept(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not-stored"),
        };
        let rejection = Self::new(status, code, detail);
        match error {
            Error::Invalid(faults) => rejection.with(faults),
            _ => rejection,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is plain data: it can always be written.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))], body).into_response()
    }
}

fn describe(problems: &[(&str, &str)]) -> BTreeMap<String, RefOr<Described>> {
    let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let one = |text: &str| RefOr::T(ResponseBuilder::new().description(text).content(PROBLEM_JSON, content()).build());
    problems.iter().map(|(status, text)| ((*status).to_owned(), one(text))).collect()
}

/// What a write can be answered with beside success, for the `OpenAPI` document.
pub(super) struct WriteProblems;

impl IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[
            ("400", "`malformed`: the body is not JSON, or the id cannot be read"),
            ("408", "`slow-request`: the body did not arrive in time"),
            ("413", "`body-too-large`: the body is larger than 16 MiB"),
            ("422", "`invalid`: a rule is broken; `errors` points at every faulty field"),
            ("500", "`not-stored`: the change is in force but not in the state file"),
            ("503", "`busy`: nothing was changed; try again"),
            ("504", "`timeout`: the change is kept, but a worker does not run it yet"),
        ])
    }
}

/// What a change without a body can be answered with beside success.
pub(super) struct ChangeProblems;

impl IntoResponses for ChangeProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[
            ("400", "`malformed`: the id or the query cannot be read"),
            ("500", "`not-stored`: the change is in force but not in the state file"),
            ("503", "`busy`: nothing was changed; try again"),
            ("504", "`timeout`: a worker did not answer in time; what was changed is kept"),
        ])
    }
}

/// What a listing that can go on as a stream can be answered with beside success.
pub(super) struct StreamProblems;

impl IntoResponses for StreamProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[
            ("400", "`malformed`: the query cannot be read"),
            ("422", "`invalid`: a rule is broken; `errors` points at every faulty field"),
            ("503", "`too-many-streams`: there are as many as are allowed"),
        ])
    }
}

/// When an id cannot be read.
pub(super) struct BadId;

impl IntoResponses for BadId {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[("400", "`malformed`: the id cannot be read")])
    }
}

/// When there is no such service or real server.
pub(super) struct Missing;

impl IntoResponses for Missing {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[("404", "`no-such-service` or `no-such-real-server`")])
    }
}

/// When there is no such service, real server or drain.
pub(super) struct NoDrain;

impl IntoResponses for NoDrain {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[("404", "`no-such-service`, `no-such-real-server` or `no-drain`")])
    }
}

/// When there is one already.
pub(super) struct Exists;

impl IntoResponses for Exists {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        describe(&[("409", "`service-exists` or `real-server-exists`")])
    }
}
