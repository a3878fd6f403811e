//! The door of the API: who comes in, how often, what they may, and what is written down of it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Access, needed};
use super::audit::{Audit, Entry};
use super::limit::Limits;
use super::problem::Rejection;
use super::who::{Peer, Role, Who};
use crate::codes::Code;
use crate::director::Actor;

/// What stands between the sockets and the routes.
#[derive(Debug)]
pub(super) struct Door {
    access: Access,
    limits: Mutex<Limits>,
    pub(super) audit: Audit,
}

impl Door {
    /// A door for those whom `access` names; the audit log is opened.
    pub(super) fn new(access: Access, audit: Option<&Path>) -> io::Result<Self> {
        Ok(Self { access, limits: Mutex::default(), audit: Audit::open(audit)? })
    }

    /// The routes behind the door. Every request must carry its [`Peer`]: who does not is refused.
    pub(super) fn guard(self: &Arc<Self>, routes: Router) -> Router {
        routes.layer(axum::middleware::from_fn_with_state(Arc::clone(self), pass))
    }

    fn admit(&self, peer: &Peer, request: &Request) -> Result<(Who, Role), (Who, Rejection)> {
        let now = Instant::now();
        let address = match peer {
            Peer::Unix { .. } => None,
            Peer::Tcp { address, .. } => Some(address.ip()),
        };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = address
            && !limits.take(address, now)
        {
            let detail = "too many requests, or too many wrong tokens, from your address: wait some seconds";
            return Err((Who::Nobody, Rejection::new(Code::TooManyRequests, detail)));
        }
        let (who, role) = self.access.identify(peer, request.headers()).inspect_err(|(who, _)| {
            if let Some(address) = address.filter(|_| *who == Who::Nobody) {
                limits.wrong(address, now);
            }
        })?;
        drop(limits);
        let needed = needed(request.method(), request.uri().path());
        if role < needed {
            let detail = format!("{who} has the role {role}, and this needs {needed}");
            return Err((who, Rejection::new(Code::Forbidden, detail)));
        }
        Ok((who, role))
    }
}

async fn pass(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Rejection::new(Code::Unauthorized, "nobody said who asks").into_response();
    };
    let admitted = door.admit(&peer, &request);
    let method = request.method().clone();
    let writes = !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
    let path = writes.then(|| request.uri().to_string());
    let (who, mut response) = match admitted {
        Ok((who, _)) => {
            request.extensions_mut().insert(Actor::named(who.to_string()));
            (who, next.run(request).await)
        }
        Err((who, rejection)) => (who, rejection.into_response()),
    };
    match response.status() {
        StatusCode::UNAUTHORIZED => {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"baton\""));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("6"));
        }
        _ => {}
    }
    if let Some(path) = path {
        let revision = response.headers().get("baton-revision").and_then(|revision| revision.to_str().ok()?.parse().ok());
        door.audit.note(&Entry::now(&who, &peer.place(), method.as_str(), &path, response.status().as_u16(), revision));
    }
    response
}
