//! `/api/v1/connections`: connection entries of all workers.

use std::net::IpAddr;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::Asked;
use super::problem::{ChangeProblems, Rejection, WriteProblems};
use crate::director::{ConnectionQuery, Cursor, MAX_CONNECTIONS};
use crate::model::{Connections, Fault, Flushed, Problem, ServiceKey};

/// How many entries a listing has when nothing else is asked for.
const DEFAULT_LIMIT: usize = 1_000;

/// Which entries, and how many.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those of this virtual service.
    #[param(example = "tcp:10.10.24.88:80")]
    service: Option<String>,
    /// Only those of this client address.
    #[param(value_type = Option<String>, example = "198.51.100.1")]
    client: Option<String>,
    /// Only those at this RIP.
    #[param(example = "10.10.24.21")]
    server: Option<String>,
    /// At most so many, 1 to 10000; 1000 when left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 10_000)]
    limit: Option<String>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct FlushQuery {
    /// Only those of this virtual service.
    #[param(example = "tcp:10.10.24.88:80")]
    service: Option<String>,
    /// Only those of this client address.
    #[param(example = "198.51.100.1")]
    client: Option<String>,
    /// Only those at this RIP.
    #[param(example = "10.10.24.21")]
    server: Option<String>,
}

/// Reads parameters and collects what is wrong with them.
#[derive(Default)]
struct Reader(Vec<Fault>);

impl Reader {
    fn read<T: FromStr>(&mut self, name: &str, text: Option<&str>, allowed: &str) -> Option<T> {
        let text = text?;
        let value = text.parse().ok();
        if value.is_none() {
            self.0.push(Fault { pointer: format!("?{name}"), detail: format!("{name} is '{text}': expected {allowed}") });
        }
        value
    }

    fn query(&mut self, service: Option<&str>, client: Option<&str>, server: Option<&str>) -> ConnectionQuery {
        let address = "an IPv4 or IPv6 address";
        ConnectionQuery {
            service: self.read::<ServiceKey>(
                "service",
                service,
                "tcp:ADDRESS:PORT, udp:ADDRESS:PORT or sctp:ADDRESS:PORT, an IPv6 address in brackets; mark:N or mark6:N",
            ),
            client: self.read::<IpAddr>("client", client, address),
            server: self.read::<IpAddr>("server", server, address),
        }
    }

    fn finish(self) -> Result<(), Rejection> {
        if self.0.is_empty() { Ok(()) } else { Err(Rejection::invalid(self.0)) }
    }
}

/// A page of connection entries.
#[utoipa::path(get, path = "/connections", tag = "connections", params(ListQuery), responses((status = 200, body = Connections), WriteProblems))]
pub(super) async fn list(State(app): State<App>, Asked(asked): Asked<ListQuery>) -> Result<Json<Connections>, Rejection> {
    let mut reader = Reader::default();
    let query = reader.query(asked.service.as_deref(), asked.client.as_deref(), asked.server.as_deref());
    let limit = reader.read::<usize>("limit", asked.limit.as_deref(), "1 to 10000").unwrap_or(DEFAULT_LIMIT);
    let cursor = reader.read::<Cursor>("cursor", asked.cursor.as_deref(), "the 'next' of an earlier page").unwrap_or_default();
    if limit == 0 || limit > MAX_CONNECTIONS {
        reader.0.push(Fault {
            pointer: "?limit".to_owned(),
            detail: format!("limit is {limit}: allowed are 1 to {MAX_CONNECTIONS}; use cursor for the rest"),
        });
    }
    reader.finish()?;
    Ok(Json(app.director.connections(query, limit, cursor).await?))
}

/// Ends connection entries: their clients' next packets are scheduled anew or refused.
#[utoipa::path(delete, path = "/connections", tag = "connections", params(FlushQuery), responses((status = 200, body = Flushed), ChangeProblems,
    (status = 422, description = "`invalid`: a rule is broken; `errors` points at every faulty field", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn flush(State(app): State<App>, Asked(asked): Asked<FlushQuery>) -> Result<Json<Flushed>, Rejection> {
    let mut reader = Reader::default();
    let query = reader.query(asked.service.as_deref(), asked.client.as_deref(), asked.server.as_deref());
    reader.finish()?;
    Ok(Json(app.director.flush(query).await?))
}
