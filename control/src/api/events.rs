//! `/api/v1/events`: what happened, as a list or as a stream (server-sent events, WHATWG HTML section 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use super::App;
use super::extract::Asked;
use super::problem::{Rejection, StreamProblems};
use crate::codes::Code;
use crate::events::{Events, KEPT, Listener};
use crate::model::{self, Event, Fault, Gap, ServiceKey, What};

/// How many streams there may be at once.
pub(super) const STREAMS: usize = 32;

/// How many events a stream holds at once.
const PIECE: usize = 64;

/// How often a stream without events says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    /// Only those after the one with this id; a stream's header `Last-Event-ID` comes before it. 0 for all that are kept,
    /// which is what a list begins with when it is left out; a stream then begins with what happens next.
    #[param(value_type = Option<u64>, example = 1_790_000_000_000_000_u64)]
    since: Option<String>,
    /// Only those of these kinds, with commas between.
    #[param(example = "health-changed,quorum-lost")]
    kind: Option<String>,
    /// Only those about this virtual service.
    #[param(example = "tcp:10.10.24.88:80")]
    service: Option<String>,
    /// At most so many of a list, 1 to 4096; 4096 when left out.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 4_096)]
    limit: Option<String>,
}

/// Which events are wanted.
#[derive(Debug, Default)]
struct Filter {
    kinds: Vec<String>,
    service: Option<String>,
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.what.kind());
        kind && self.service.as_deref().is_none_or(|service| event.what.service() == Some(service))
    }
}

/// What a request comes to.
struct Wanted {
    since: Option<u64>,
    filter: Filter,
    limit: usize,
}

fn read(asked: Query, resume: Option<&str>) -> Result<Wanted, Rejection> {
    let mut faults = Vec::new();
    let mut fault = |name: &str, detail: String| faults.push(Fault { pointer: name.to_owned(), detail });
    let mut number = |name: &str, text: Option<&str>| {
        let value = text?.trim().parse::<u64>().ok();
        if value.is_none() {
            fault(name, format!("{} is '{}': expected an event's id", name.trim_start_matches('?'), text.unwrap_or_default()));
        }
        value
    };
    let since = match resume {
        Some(_) => number("Last-Event-ID", resume),
        None => number("?since", asked.since.as_deref()),
    };
    let kinds: Vec<String> = asked.kind.iter().flat_map(|kinds| kinds.split(',')).map(|kind| kind.trim().to_owned()).collect();
    for strange in kinds.iter().filter(|kind| !What::KINDS.contains(&kind.as_str())) {
        fault("?kind", format!("kind is '{strange}': allowed are {}", What::KINDS.join(", ")));
    }
    if let Some(service) = &asked.service
        && let Err(why) = service.parse::<ServiceKey>()
    {
        fault("?service", why.to_string());
    }
    let limit = asked.limit.as_deref().map_or(Some(KEPT), |text| text.parse().ok().filter(|limit| (1..=KEPT).contains(limit)));
    if limit.is_none() {
        fault("?limit", format!("limit is '{}': allowed are 1 to {KEPT}", asked.limit.as_deref().unwrap_or_default()));
    }
    if !faults.is_empty() {
        return Err(Rejection::invalid(faults));
    }
    Ok(Wanted { since, filter: Filter { kinds, service: asked.service }, limit: limit.unwrap_or(KEPT) })
}

/// What happened: the last 4096 events are kept until the director ends.
///
/// With `Accept: text/event-stream` it is a stream that goes on: each event with its id, its kind as its name and its document as
/// data; `missed` with a gap when events were forgotten before they could be sent; a comment every 15 s when nothing happens.
/// There can be 32 streams at once.
#[utoipa::path(get, path = "/events", tag = "events", params(Query),
    responses((status = 200, description = "a list, or with `Accept: text/event-stream` a stream", content(
        (model::Events = "application/json"), (String = "text/event-stream"))), StreamProblems))]
pub(super) async fn list(State(app): State<App>, headers: HeaderMap, Asked(asked): Asked<Query>) -> Result<Response, Rejection> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let streams = text(header::ACCEPT.as_str()).is_some_and(|accept| accept.to_ascii_lowercase().contains("text/event-stream"));
    let events = app.director.events();
    if !streams {
        let wanted = read(asked, None)?;
        let page = events.after(wanted.since.unwrap_or(0), usize::MAX);
        let chosen = page.events.iter().filter(|event| wanted.filter.takes(event)).take(wanted.limit).map(|event| Event::clone(event));
        return Ok(Json(model::Events { events: chosen.collect(), latest: page.latest, gap: page.gap }).into_response());
    }
    let wanted = read(asked, text("last-event-id"))?;
    let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let detail =
            format!("there are {STREAMS} streams of events already, and no more are allowed: end one, or ask for lists with since");
        Rejection::new(Code::TooManyStreams, detail)
    })?;
    let (seen, listener) = (wanted.since.unwrap_or_else(|| events.latest()), events.listen());
    let follower = Follower { events: events.clone(), listener, seen, filter: wanted.filter, ready: VecDeque::new(), _place: place };
    Ok(Sse::new(follower.stream()).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// What a stream sends.
enum Item {
    Event(Arc<Event>),
    Missed(Gap),
}

/// A stream's place in the log. It holds [`PIECE`] events at most: whoever reads slowly falls behind.
struct Follower {
    events: Events,
    listener: Listener,
    seen: u64,
    filter: Filter,
    ready: VecDeque<Item>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    fn stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let item = follower.next().await?;
            Some((Ok(written(&item)), follower))
        })
    }

    /// The next item; `None` when the log has ended.
    async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let page = self.events.after(self.seen, PIECE);
            if let Some(gap) = page.gap {
                self.ready.push_back(Item::Missed(gap));
            }
            self.seen = page.events.last().map_or(page.latest, |last| last.id);
            let wanted = page.events.into_iter().filter(|event| self.filter.takes(event));
            self.ready.extend(wanted.map(Item::Event));
            if self.ready.is_empty() && self.seen >= page.latest && !self.listener.wait(self.seen).await {
                return None;
            }
        }
    }
}

fn written(item: &Item) -> sse::Event {
    // Both are plain data without line breaks of their own: they can always be written.
    match item {
        Item::Event(event) => sse::Event::default()
            .id(event.id.to_string())
            .event(event.what.kind())
            .data(serde_json::to_string(event.as_ref()).unwrap_or_default()),
        Item::Missed(gap) => sse::Event::default().event("missed").data(serde_json::to_string(gap).unwrap_or_default()),
    }
}
