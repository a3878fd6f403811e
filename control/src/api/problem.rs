//! The one place where errors become HTTP (RFC 9457).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::IntoResponses;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};

use crate::codes::Code;
use crate::director::Error;
use crate::model::{Difference, Fault, Problem};

/// The media type of every error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A request that was not done, as the client gets it.
#[derive(Debug)]
pub(super) enum Rejection {
    /// It cannot be done.
    Problem(Box<Problem>),
    /// It was not to be done.
    DryRun(Box<Difference>),
}

impl Rejection {
    /// The words of `code` become the title.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut title = code.as_str().replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self::Problem(Box::new(Problem {
            kind: format!("/problems/{code}"),
            title,
            status: code.status(),
            detail: detail.into(),
            errors: Vec::new(),
        }))
    }

    /// A request whose parts cannot be read at all.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }

    /// A request whose parts can be read and break rules.
    pub(super) fn invalid(faults: Vec<Fault>) -> Self {
        Error::Invalid(faults).into()
    }

    /// With every faulty field.
    pub(super) fn with(mut self, faults: Vec<Fault>) -> Self {
        if let Self::Problem(problem) = &mut self {
            problem.errors = faults;
        }
        self
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let code = match error {
            Error::DryRun(difference) => return Self::DryRun(difference),
            Error::Invalid(faults) => return Self::new(Code::Invalid, detail).with(faults),
            Error::ServiceExists(_) => Code::ServiceExists,
            Error::NoSuchService(_) => Code::NoSuchService,
            Error::RealServerExists(..) => Code::RealServerExists,
            Error::NoSuchRealServer(..) => Code::NoSuchRealServer,
            Error::NoDrain(..) => Code::NoDrain,
            Error::NoSuchVip(_) => Code::NoSuchVip,
            Error::NotAsAsked { .. } => Code::NotAsAsked,
            Error::NotKept { .. } => Code::NotKept,
            Error::Unread(_) => Code::HistoryUnread,
            Error::Busy(_) => Code::Busy,
            Error::Timeout(_) => Code::Timeout,
            Error::NotStored { .. } | Error::DrainNotStored(_) => Code::NotStored,
        };
        Self::new(code, detail)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::DryRun(difference) => return Json(difference).into_response(),
            Self::Problem(problem) => problem,
        };
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is plain data: it can always be written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))], body).into_response()
    }
}

/// What kind of error a problem's `type` names.
#[utoipa::path(get, path = "/problems/{code}", tag = "configuration",
    params(("code" = String, Path, description = "The last part of a problem's `type`", example = "no-such-service")),
    responses((status = 200, description = "Its meaning, and what mends it", body = String),
        (status = 404, description = "`not-found`: no error has this name", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn meaning(Path(code): Path<String>) -> Result<String, Rejection> {
    let found = Code::ALL.iter().find(|known| known.as_str() == code);
    found
        .map(|known| format!("{known}: {}\n", known.meaning()))
        .ok_or_else(|| Rejection::new(Code::NotFound, format!("no error is called '{code}': `baton errors` lists those that there are")))
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
            ("400", "`malformed`: the body is not JSON, or the id, the query or a condition cannot be read"),
            ("408", "`slow-request`: the body did not arrive in time"),
            ("412", "`precondition-failed`: it is not in the state that If-Match or If-None-Match asks for"),
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
            ("400", "`malformed`: the id, the query or a condition cannot be read"),
            ("412", "`precondition-failed`: it is not in the state that If-Match or If-None-Match asks for"),
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
