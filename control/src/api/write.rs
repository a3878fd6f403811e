//! On which terms a request writes: who asks, what must be so before it, and whether it is only tried.

use axum::RequestPartsExt;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::Asked;
use super::problem::Rejection;
use crate::director::{Condition, Director, Resource, Tag, Terms};

/// What every write takes beside its body.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WriteQuery {
    /// Nothing is changed, and the answer is what would be: a `Difference`, with status 200.
    dry_run: bool,
}

/// What must be so before a write; for the `OpenAPI` document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "headers are read as headers; this describes them")]
pub(super) struct Conditions {
    /// Entity tags from `ETag`, or `*`: the write is done only while the resource is in one of these states, or is there at all.
    #[param(rename = "If-Match", value_type = Option<String>)]
    if_match: Option<String>,
    /// `*`: the write is done only if the resource is not there.
    #[param(rename = "If-None-Match", value_type = Option<String>)]
    if_none_match: Option<String>,
}

/// A write: the director, under the terms of the request.
pub(super) struct Write(pub(super) Director);

impl FromRequestParts<App> for Write {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Rejection> {
        let Asked(query) = parts.extract_with_state::<Asked<WriteQuery>, App>(app).await?;
        let terms = Terms {
            actor: parts.extensions.get().cloned().unwrap_or_default(),
            condition: condition(&parts.headers)?,
            makes: parts.method == Method::PUT,
            dry_run: query.dry_run,
        };
        Ok(Self(app.director.under(terms)))
    }
}

/// A request that is no write of the configuration, and so knows no terms.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

fn condition(headers: &HeaderMap) -> Result<Option<Condition>, Rejection> {
    let values = |name: HeaderName| -> Result<Vec<&str>, Rejection> {
        let mut all = Vec::new();
        for value in headers.get_all(&name) {
            let text = value.to_str().map_err(|_| Rejection::malformed(format!("{name} is no text")))?;
            all.extend(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()));
        }
        Ok(all)
    };
    let (matching, unlike) = (values(header::IF_MATCH)?, values(header::IF_NONE_MATCH)?);
    match (matching.as_slice(), unlike.as_slice()) {
        ([], []) => Ok(None),
        ([], ["*"]) => Ok(Some(Condition::Absent)),
        ([], _) => Err(Rejection::malformed("If-None-Match before a write can only be *: the resource is to be new")),
        (["*"], []) => Ok(Some(Condition::Present)),
        (tags, []) => {
            let quoted = |tag: &&str| tag.trim_start_matches("W/").strip_prefix('"').is_some_and(|rest| rest.ends_with('"'));
            match tags.iter().find(|tag| !quoted(tag)) {
                Some(tag) => Err(Rejection::malformed(format!("If-Match is {tag}: expected what ETag said, with its quotes, or *"))),
                None => Ok(Some(Condition::Unchanged(tags.iter().map(|tag| Tag::parse(tag)).collect()))),
            }
        }
        _ => Err(Rejection::malformed("If-Match and If-None-Match are both given: the resource cannot be there and not be there")),
    }
}

/// An answer with the entity tag of what it shows.
pub(super) struct Tagged<T>(Option<Tag>, T);

impl<T> Tagged<T> {
    /// `answer` shows `resource`, and is made after the tag was taken: a change in between makes the tag too old, never too new.
    pub(super) fn new(director: &Director, resource: Resource, answer: impl FnOnce() -> Result<T, Rejection>) -> Result<Self, Rejection> {
        let tag = director.tag(resource);
        answer().map(|answer| Self(tag, answer))
    }
}

impl<T: IntoResponse> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        if let Some(tag) = self.0.and_then(|tag| tag.to_string().parse().ok()) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
