//! The event log: what happened, kept for a while, told to whoever listens.
//!
//! ```text
//!  director, ports, workers --raise--> ring of the last 4096 --> GET /api/v1/events, as a list or a stream
//!                                  \-> the log
//! ```
//! A listener holds a place in the ring, not a queue: one that is slow costs nothing, falls behind, and is told what it missed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::model::moment::utc_milliseconds;
use crate::model::{Event, Gap, What};

/// How many events are kept.
pub const KEPT: usize = 4096;

/// The longest reason, in bytes; real servers have a say in some.
const LONGEST_REASON: usize = 1024;

/// Where listeners stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct News {
    latest: u64,
    closed: bool,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The id of the newest event, or the one before the first.
    latest: u64,
}

impl Ring {
    /// The id of the last event that is not kept.
    fn forgotten(&self) -> u64 {
        self.events.front().map_or(self.latest, |event| event.id - 1)
    }
}

#[derive(Debug)]
struct Shared {
    /// Held for moments only.
    ring: Mutex<Ring>,
    news: watch::Sender<News>,
}

/// The event log; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

/// A part of the log.
#[derive(Debug, Default)]
pub struct Page {
    /// Events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// What is missing before them.
    pub gap: Option<Gap>,
    /// The id of the newest event that there is.
    pub latest: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self::from(SystemTime::now())
    }
}

impl Events {
    /// An empty log of a run that begins at `start`.
    ///
    /// Ids count from the microseconds since 1970 at that time: so they go on growing after a restart, without a file, unless the
    /// clock is set back or there were a million events a second.
    pub fn from(start: SystemTime) -> Self {
        let latest = u64::try_from(start.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros()).unwrap_or_default();
        let ring = Ring { events: VecDeque::new(), latest };
        Self(Arc::new(Shared { ring: Mutex::new(ring), news: watch::Sender::new(News { latest, closed: false }) }))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something happened, and why; says so in the log as well. Never waits for listeners.
    pub fn raise(&self, what: What, reason: impl Into<String>) {
        let mut reason: String = reason.into();
        if reason.len() > LONGEST_REASON {
            reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        }
        if what.is_bad() {
            tracing::warn!(kind = what.kind(), "{what}: {reason}");
        } else {
            tracing::info!(kind = what.kind(), "{what}: {reason}");
        }
        let mut ring = self.lock();
        let id = ring.latest + 1;
        ring.latest = id;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(Event { id, time: utc_milliseconds(SystemTime::now()), what, reason }));
        drop(ring);
        self.0.news.send_modify(|news| news.latest = news.latest.max(id));
    }

    /// The id of the newest event.
    pub fn latest(&self) -> u64 {
        self.lock().latest
    }

    /// At most `limit` events after the one with id `since`; 0 means from the oldest that is kept.
    ///
    /// An id that this run never gave is taken for one of an earlier run: all that is kept comes, behind a gap.
    pub fn after(&self, since: u64, limit: usize) -> Page {
        let ring = self.lock();
        let forgotten = ring.forgotten();
        let strange = since != 0 && (since < forgotten || since > ring.latest);
        let gap = strange.then_some(Gap { after: since, until: if since < forgotten { forgotten } else { 0 } });
        let kept = if strange || since == 0 { 0 } else { usize::try_from(since - forgotten).unwrap_or(usize::MAX) };
        let events = ring.events.iter().skip(kept).take(limit).cloned().collect();
        Page { events, gap, latest: ring.latest }
    }

    /// Somebody who is told of news.
    pub fn listen(&self) -> Listener {
        Listener(self.0.news.subscribe())
    }

    /// Ends all streams: nothing more will happen.
    pub fn close(&self) {
        self.0.news.send_modify(|news| news.closed = true);
    }
}

/// Waits for events.
#[derive(Debug)]
pub struct Listener(watch::Receiver<News>);

impl Listener {
    /// Waits until there is an event after the one with id `seen`; `false` when there will be none any more.
    pub async fn wait(&mut self, seen: u64) -> bool {
        let news = self.0.wait_for(|news| news.closed || news.latest > seen).await;
        news.is_ok_and(|news| !news.closed || news.latest > seen)
    }
}

#[cfg(test)]
mod tests;
