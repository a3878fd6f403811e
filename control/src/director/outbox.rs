//! What one worker is to be told: changes merge while it is behind, and none is lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use dataplane::command::{Batch, Command, ConnectionPage, ControlEnd, Flush, LocalAddresses, Reply};
use dataplane::connection::Replies;
use dataplane::marks::Marks;
use dataplane::routes::Routes;
use dataplane::service::{Method, RealServer, ServerId, ServiceId, VirtualService};
use dataplane::settings::Settings;
use tokio::sync::oneshot;

use super::snapshot::Change;

/// How many listings, and how many flushes, a worker may have unanswered: with one change, far fewer than its ring is deep.
const QUESTIONS: usize = 2;

/// Whether a worker has what masquerading needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    None,
    Wanted,
    Met,
}

/// Changes that are not yet in a batch: for every place only what is to be there last.
#[derive(Debug, Default)]
struct Waiting {
    number: u64,
    version: u64,
    services: BTreeMap<ServiceId, Option<Arc<VirtualService>>>,
    servers: BTreeMap<ServerId, Option<Arc<RealServer>>>,
    locals: Option<Arc<LocalAddresses>>,
    marks: Option<Arc<Marks>>,
    settings: Option<Settings>,
    routes: Option<Arc<Routes>>,
}

impl Waiting {
    fn into_batch(self, replies: Option<Replies>) -> Batch {
        Batch {
            version: self.version,
            services: self.services.into_iter().collect(),
            servers: self.servers.into_iter().collect(),
            locals: self.locals,
            marks: self.marks,
            settings: self.settings,
            routes: self.routes,
            replies,
        }
    }
}

/// The control plane's side of one worker.
///
/// At most one change is under way. Those that follow wait, merged into one, so what waits is bounded by the
/// configuration's size and not by the number of changes.
#[derive(Debug)]
pub(super) struct Outbox {
    end: ControlEnd,
    waiting: Option<Waiting>,
    /// Connection entries of the worker.
    connections: u32,
    /// Whether the worker is to get an index of replies, has one, or needs none yet.
    replies: Need,
    /// A batch that did not fit into the ring.
    refused: Option<(u64, Box<Batch>)>,
    under_way: Option<u64>,
    applied: u64,
    /// Since when the worker has been behind.
    behind_since: Option<Instant>,
    pages: VecDeque<oneshot::Sender<Box<ConnectionPage>>>,
    flushes: VecDeque<oneshot::Sender<Box<Flush>>>,
}

impl Outbox {
    /// For a worker with a table of `connections` entries.
    pub(super) fn new(end: ControlEnd, connections: u32) -> Self {
        Self {
            end,
            waiting: None,
            connections,
            replies: Need::None,
            refused: None,
            under_way: None,
            applied: 0,
            behind_since: None,
            pages: VecDeque::new(),
            flushes: VecDeque::new(),
        }
    }

    pub(super) fn end(&self) -> &ControlEnd {
        &self.end
    }

    /// The number of the last change that the worker runs.
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// Since when the worker has not run everything that it is to run.
    pub(super) fn behind_since(&self) -> Option<Instant> {
        self.behind_since
    }

    /// Whether there is anything to send or to hear.
    pub(super) fn is_busy(&self) -> bool {
        self.behind_since.is_some() || !self.pages.is_empty() || !self.flushes.is_empty()
    }

    /// Adds a change that leads to the configuration's revision `version`.
    pub(super) fn add(&mut self, change: &Change, version: u64) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.number = change.number;
        waiting.version = version;
        waiting.services.extend(change.services.iter().cloned());
        waiting.servers.extend(change.servers.iter().cloned());
        let is_masquerading = |server: &RealServer| server.method == Method::Masquerading;
        if self.replies == Need::None && change.servers.iter().filter_map(|(_, server)| server.as_deref()).any(is_masquerading) {
            self.replies = Need::Wanted;
        }
        waiting.routes = change.routes.clone().or(waiting.routes.take());
        if let Some(locals) = &change.locals {
            waiting.locals = Some(Arc::clone(locals));
        }
        if let Some(marks) = &change.marks {
            waiting.marks = Some(Arc::clone(marks));
        }
        waiting.settings = change.settings.or(waiting.settings);
        self.behind_since.get_or_insert_with(Instant::now);
    }

    /// Takes every reply and sends what can be sent; whether anything moved. What replaced snapshots held is freed here.
    pub(super) fn pump(&mut self) -> bool {
        let mut moved = false;
        while let Some(reply) = self.end.receive() {
            moved = true;
            match reply {
                Reply::Applied(replaced) => {
                    drop(replaced);
                    if let Some(number) = self.under_way.take() {
                        self.applied = number;
                        self.behind_since = None;
                    }
                }
                // Whoever asked may have left: then the answer is freed.
                Reply::Connections(page) => drop(self.pages.pop_front().map(|asker| asker.send(page))),
                Reply::Flushed(flush) => drop(self.flushes.pop_front().map(|asker| asker.send(flush))),
            }
        }
        if self.under_way.is_none() {
            let next = match self.refused.take() {
                Some(refused) => Some(refused),
                None => self.waiting.take().map(|waiting| (waiting.number, Box::new(waiting.into_batch(self.take_replies())))),
            };
            if next.is_some() {
                self.behind_since.get_or_insert_with(Instant::now);
            }
            match next.map(|(number, batch)| (number, self.end.send(Command::Apply(batch)))) {
                Some((number, Ok(()))) => {
                    self.under_way = Some(number);
                    moved = true;
                }
                Some((number, Err(Command::Apply(batch)))) => self.refused = Some((number, batch)),
                // A ring gives back no other command than it was given.
                Some((_, Err(_))) | None => {}
            }
        }
        moved
    }

    /// The index of replies, with the first batch that brings a masquerading real server.
    ///
    /// Without memory for it, the worker drops connections to masquerading real servers (`table_full`) until a later change.
    fn take_replies(&mut self) -> Option<Replies> {
        if self.replies != Need::Wanted {
            return None;
        }
        match Replies::new(self.connections) {
            Ok(replies) => {
                self.replies = Need::Met;
                Some(replies)
            }
            Err(cause) => {
                tracing::error!(%cause, connections = self.connections, "no memory for masquerading; lower limits.connections");
                self.replies = Need::None;
                None
            }
        }
    }

    /// Asks for a page of connections; gives the page back when the worker has enough to answer already.
    pub(super) fn ask_page(&mut self, page: Box<ConnectionPage>) -> Result<oneshot::Receiver<Box<ConnectionPage>>, Box<ConnectionPage>> {
        if self.pages.len() >= QUESTIONS {
            return Err(page);
        }
        match self.end.send(Command::Connections(page)) {
            Ok(()) => {
                let (asker, answer) = oneshot::channel();
                self.pages.push_back(asker);
                Ok(answer)
            }
            Err(Command::Connections(page)) => Err(page),
            Err(_) => Err(Box::default()),
        }
    }

    /// Orders entries to be ended; gives the order back when the worker has enough to answer already.
    pub(super) fn ask_flush(&mut self, flush: Box<Flush>) -> Result<oneshot::Receiver<Box<Flush>>, Box<Flush>> {
        if self.flushes.len() >= QUESTIONS {
            return Err(flush);
        }
        match self.end.send(Command::Flush(flush)) {
            Ok(()) => {
                let (asker, answer) = oneshot::channel();
                self.flushes.push_back(asker);
                Ok(answer)
            }
            Err(Command::Flush(flush)) => Err(flush),
            Err(_) => Err(Box::default()),
        }
    }
}
