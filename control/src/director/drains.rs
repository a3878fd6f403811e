//! Draining a real server: no new connections, time for the old ones, and what becomes of those that are left.
//!
//! How many are left is what workers count in any case, so looking at a drain costs no listing. How old the oldest is no entry says; but
//! since none began after the drain, it is as old as that at least.
//!
//! A drain is no part of the configuration: it outlives every change and reload that keeps the real server, ends with the real server, and is
//! kept in a file beside the state file, so that a real server that is out for repair stays out when the director is started anew.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::command::ConnectionFilter;
use dataplane::service::{self as worker, ServerId};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::records::{ServerKey, ServerRecord};
use super::validate::Findings;
use super::{Director, Error, Inner};
use crate::model::moment::utc;
use crate::model::{Drain, DrainOutcome, DrainSpec, DrainState, ServiceKey, Span, Then, What};

/// The longest deadline.
const LONGEST: Duration = Duration::from_hours(7 * 24);
/// How long clients have to send the packet that is answered, before what is left is ended without.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Connections left, once a second, from which the end is estimated.
const SAMPLES: usize = 30;

/// A drain of one real server.
#[derive(Clone, Debug)]
pub(super) struct Draining {
    spec: DrainSpec,
    since: SystemTime,
    began: Instant,
    at_first: u32,
    phase: Phase,
    samples: VecDeque<(Instant, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Waiting,
    /// Since when, and whether what is left is being ended.
    Ending(Instant, bool),
    Over(DrainOutcome),
}

impl Draining {
    fn new(spec: DrainSpec, at_first: u32, since: SystemTime) -> Self {
        Self { spec, since, began: Instant::now(), at_first, phase: Phase::Waiting, samples: VecDeque::new() }
    }

    /// Whether its connections are being ended.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(..))
    }

    /// What workers are told.
    pub(super) fn for_workers(&self) -> worker::Drain {
        match (self.is_ending(), self.spec.then) {
            (true, Then::Reset) => worker::Drain::Reset,
            (true, Then::Reschedule) => worker::Drain::Reschedule,
            _ => worker::Drain::Wait,
        }
    }

    pub(super) fn reason(&self, left: u32) -> String {
        match self.phase {
            Phase::Over(outcome) => format!(
                "drained ({}), {left} connections left: it gets no new ones until `baton drain --cancel`",
                match outcome {
                    DrainOutcome::Ended => "all connections ended",
                    DrainOutcome::Kept => "the rest was kept at the deadline",
                    DrainOutcome::Reset => "the rest was reset at the deadline",
                    DrainOutcome::Rescheduled => "the rest was scheduled anew at the deadline",
                    DrainOutcome::Restarted => "the director was started anew",
                }
            ),
            _ => format!("draining since {}, {left} connections left: it gets no new ones", utc(self.since)),
        }
    }

    fn deadline_in(&self, now: Instant) -> Duration {
        self.spec.deadline.0.saturating_sub(now.duration_since(self.began))
    }

    fn sample(&mut self, left: u32, now: Instant) {
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= Duration::from_secs(1)) {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back((now, left));
        }
    }

    /// When none would be left, if connections went on to end as they did in the last half minute; the deadline at the latest.
    fn estimate(&self, left: u32, now: Instant) -> Option<Duration> {
        if matches!(self.phase, Phase::Over(_)) {
            return None;
        }
        let deadline = self.deadline_in(now);
        let pace = self.samples.front().and_then(|(at, before)| {
            let (ended, time) = (before.checked_sub(left).filter(|ended| *ended > 0)?, now.duration_since(*at));
            Some(time.mul_f64(f64::from(left) / f64::from(ended)))
        });
        Some(pace.map_or(deadline, |pace| pace.min(deadline)))
    }
}

/// A drain as the file has it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    service: String,
    real_server: SocketAddr,
    deadline: Span,
    then: Then,
    /// Seconds since 1970.
    since: u64,
}

/// The file of drains, if they are kept.
#[derive(Debug, Default)]
pub(super) struct DrainFile(Option<Arc<Mutex<PathBuf>>>);

impl DrainFile {
    /// Beside the state file.
    pub(super) fn beside(state: Option<&Path>) -> Self {
        Self(state.map(|state| {
            let mut name = state.as_os_str().to_owned();
            name.push(".drains");
            Arc::new(Mutex::new(name.into()))
        }))
    }
}

fn write(path: &Path, kept: &[Kept]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, kept)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

impl Director {
    /// Begins a drain, or gives the one that is under way another deadline or end.
    pub async fn drain(&self, service: ServiceKey, server: SocketAddr, spec: DrainSpec) -> Result<Drain, Error> {
        let committed = self.act(|inner| {
            let id = inner.member(service, server)?;
            let mut found = Findings::default();
            if spec.deadline.0 > LONGEST {
                found.add("/deadline", format!("{} is too long: at most {} (7 days)", spec.deadline, Span(LONGEST)));
            }
            found.into_result()?;
            inner.begin_drain(id, spec);
            Ok(())
        })?;
        self.settle(committed).await?;
        self.keep_drains().await?;
        self.drain_of(service, server)
    }

    /// A drain as it is.
    pub fn drain_of(&self, service: ServiceKey, server: SocketAddr) -> Result<Drain, Error> {
        let inner = self.lock();
        let id = inner.member(service, server)?;
        inner.drain_view(id).ok_or(Error::NoDrain(service, server))
    }

    /// Ends a drain: the real server gets new connections again, as its weight says.
    pub async fn cancel_drain(&self, service: ServiceKey, server: SocketAddr) -> Result<(), Error> {
        let committed = self.act(|inner| {
            let id = inner.member(service, server)?;
            let record = inner.desired.servers.get_mut(id).filter(|record| record.drain.is_some());
            record.ok_or(Error::NoDrain(service, server))?.drain = None;
            inner.drain_ended(id, "cancelled");
            Ok(())
        })?;
        self.settle(committed).await?;
        self.keep_drains().await
    }

    /// Reads the drains that were under way when the director ended. Its connections are gone, so they are over.
    ///
    /// A file that cannot be read is told in the log and left alone: the real servers in it get connections.
    pub fn restore_drains(&self) {
        let Some(path) = self.0.drains.0.as_ref().and_then(|path| path.try_lock().ok().map(|path| path.clone())) else { return };
        let kept: Vec<Kept> = match std::fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(kept)) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(Err(error)) => return tracing::error!("drains are forgotten: {} cannot be read: {error}", path.display()),
            Err(error) => return tracing::error!("drains are forgotten: {} cannot be read: {error}", path.display()),
        };
        let mut inner = self.lock();
        for kept in kept {
            let Some(id) = kept.service.parse().ok().and_then(|service| inner.member(service, kept.real_server).ok()) else { continue };
            let since = UNIX_EPOCH + Duration::from_secs(kept.since);
            let mut drain = Draining::new(DrainSpec { deadline: kept.deadline, then: kept.then }, 0, since);
            drain.phase = Phase::Over(DrainOutcome::Restarted);
            inner.set_drain(id, drain);
            tracing::info!(service = kept.service, real_server = %kept.real_server, "still drained");
        }
        self.commit(&mut inner);
    }

    /// Writes down which drains there are.
    async fn keep_drains(&self) -> Result<(), Error> {
        let Some(path) = &self.0.drains.0 else { return Ok(()) };
        let guard = Arc::clone(path).lock_owned().await;
        let director = self.clone();
        let written = tokio::task::spawn_blocking(move || write(&guard, &director.drains_to_keep())).await;
        let failed = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Error::DrainNotStored(format!("the drain is in force but would be forgotten by a restart: {failed}")))
    }

    fn drains_to_keep(&self) -> Vec<Kept> {
        let inner = self.lock();
        let kept = |id: &u32| {
            let place = inner.desired.servers.place(*id)?;
            let drain = place.record.drain.as_ref()?;
            Some(Kept {
                service: place.key.service.to_string(),
                real_server: place.key.socket(),
                deadline: drain.spec.deadline,
                then: drain.spec.then,
                since: drain.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            })
        };
        inner.desired.drains.iter().filter_map(kept).collect()
    }

    /// Moves every drain along. Cost: linear in the drains.
    pub(super) fn move_drains(&self) {
        let mut inner = self.lock();
        if inner.desired.drains.is_empty() {
            return;
        }
        let now = Instant::now();
        let (mut to_end, mut lost) = (Vec::new(), false);
        for id in inner.desired.drains.iter().copied().collect::<Vec<_>>() {
            match inner.move_drain(id, now) {
                Move::None => {}
                Move::End => to_end.push(id),
                Move::Lost => lost = true,
            }
        }
        self.commit(&mut inner);
        drop(inner);
        for id in to_end {
            tokio::spawn(self.clone().end_connections(id));
        }
        if lost {
            let director = self.clone();
            tokio::spawn(async move {
                if let Err(error) = director.keep_drains().await {
                    tracing::error!("{error}");
                }
            });
        }
    }

    /// Ends what is left of a real server's connections, and its templates.
    async fn end_connections(self, id: u32) {
        let filter = ConnectionFilter { server_id: Some(ServerId(id)), ..ConnectionFilter::default() };
        if let Err(error) = self.flush_matching(filter).await {
            tracing::warn!("connections of a drained real server could not be ended yet: {error}");
        }
        if let Some(Draining { phase: Phase::Ending(_, busy), .. }) =
            self.lock().desired.servers.get_mut(id).and_then(|r| r.drain.as_deref_mut())
        {
            *busy = false;
        }
    }
}

/// What is to be done about a drain.
enum Move {
    None,
    /// Its connections are to be ended.
    End,
    /// The real server is gone.
    Lost,
}

impl ServerRecord {
    fn left(&self) -> u32 {
        self.stats.active().saturating_add(self.stats.inactive())
    }

    /// Why it gets no new connections, while it is drained.
    pub(super) fn drain_reason(&self) -> Option<String> {
        self.drain.as_ref().map(|drain| drain.reason(self.left()))
    }
}

impl Inner {
    fn member(&self, service: ServiceKey, server: SocketAddr) -> Result<u32, Error> {
        let key = ServerKey { service, address: server.ip(), port: server.port() };
        let id = self.find_service(service)?;
        let member = self.find_member(id, &key).filter(|server| self.desired.servers.is_present(*server));
        member.ok_or(Error::NoSuchRealServer(service, server))
    }

    fn begin_drain(&mut self, id: u32, spec: DrainSpec) {
        let Some(place) = self.desired.servers.place(id) else { return };
        let (key, left) = (place.key, place.record.left());
        if let Some(drain) = self.desired.servers.get_mut(id).and_then(|record| record.drain.as_deref_mut())
            && drain.phase == Phase::Waiting
        {
            drain.spec = spec;
            return;
        }
        self.set_drain(id, Draining::new(spec, left, SystemTime::now()));
        let reason = format!("{left} connections have {} to end, then: {}", spec.deadline, spec.then.as_str());
        let what = What::DrainBegan { service: key.service.to_string(), real_server: key.socket() };
        self.desired.happened.push((what, reason));
    }

    fn set_drain(&mut self, id: u32, drain: Draining) {
        let Some(record) = self.desired.servers.get_mut(id) else { return };
        record.drain = Some(Box::new(drain));
        let service = record.service;
        self.desired.drains.insert(id);
        self.drain_moved(id, service);
    }

    fn drain_moved(&mut self, id: u32, service: u32) {
        self.desired.touched.services.insert(service);
        self.desired.touched.servers.insert(id);
    }

    fn drain_ended(&mut self, id: u32, reason: &str) {
        let Some(place) = self.desired.servers.place(id) else { return };
        let (key, service) = (place.key, place.record.service);
        let what = What::DrainEnded { service: key.service.to_string(), real_server: key.socket() };
        self.desired.happened.push((what, reason.to_owned()));
        if place.record.drain.is_none() {
            self.desired.drains.remove(&id);
        }
        self.drain_moved(id, service);
    }

    fn move_drain(&mut self, id: u32, now: Instant) -> Move {
        let present = self.desired.servers.is_present(id);
        let Some(record) = self.desired.servers.get_mut(id) else { return Move::None };
        let left = record.left();
        let Some(drain) = record.drain.as_deref_mut().filter(|_| present) else {
            record.drain = None;
            self.drain_ended(id, "the real server was removed");
            return Move::Lost;
        };
        let service = record.service;
        match drain.phase {
            Phase::Waiting | Phase::Ending(..) if left == 0 => {
                let (outcome, reason) = match (drain.is_ending(), drain.spec.then) {
                    (true, Then::Reset) => (DrainOutcome::Reset, "what was left at the deadline was reset"),
                    (true, Then::Reschedule) => (DrainOutcome::Rescheduled, "what was left at the deadline is scheduled anew"),
                    _ => (DrainOutcome::Ended, "all connections have ended"),
                };
                drain.phase = Phase::Over(outcome);
                self.drain_ended(id, reason);
                Move::None
            }
            Phase::Waiting if drain.deadline_in(now) > Duration::ZERO => {
                drain.sample(left, now);
                Move::None
            }
            Phase::Waiting if drain.spec.then == Then::Keep => {
                drain.phase = Phase::Over(DrainOutcome::Kept);
                self.drain_ended(id, &format!("{left} connections were left at the deadline, and stay"));
                Move::None
            }
            Phase::Waiting => {
                drain.phase = Phase::Ending(now, false);
                self.drain_moved(id, service);
                Move::None
            }
            Phase::Ending(since, false) if now.duration_since(since) >= LAST_WORD => {
                drain.phase = Phase::Ending(since, true);
                Move::End
            }
            Phase::Ending(..) | Phase::Over(_) => Move::None,
        }
    }

    pub(super) fn drain_view(&self, id: u32) -> Option<Drain> {
        let place = self.desired.servers.place(id)?;
        let (drain, left, now) = (place.record.drain.as_ref()?, place.record.left(), Instant::now());
        let age = drain.since.elapsed().unwrap_or_default().as_secs();
        Some(Drain {
            service: place.key.service.to_string(),
            real_server: place.key.socket(),
            state: match drain.phase {
                Phase::Waiting => DrainState::Waiting,
                Phase::Ending(..) => DrainState::Ending,
                Phase::Over(_) => DrainState::Over,
            },
            outcome: match drain.phase {
                Phase::Over(outcome) => Some(outcome),
                _ => None,
            },
            then: drain.spec.then,
            since: utc(drain.since),
            deadline_in: if matches!(drain.phase, Phase::Waiting) { drain.deadline_in(now).as_secs() } else { 0 },
            connections: left,
            connections_at_first: drain.at_first,
            oldest_at_least: (left > 0).then_some(age),
            estimated_end_in: drain.estimate(left, now).map(|left| left.as_secs()),
        })
    }
}

/// The real servers that are being drained.
pub(super) type Drains = BTreeSet<u32>;

#[cfg(test)]
mod tests;
