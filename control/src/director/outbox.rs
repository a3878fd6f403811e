//! What one worker is to be told: changes merge while it is behind, and none is lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use dataplane::command::{Batch, Command, ConnectionPage, ControlEnd, Flush, LocalAddresses, Reply};
use dataplane::marks::Marks;
use dataplane::service::{RealServer, ServerId, ServiceId, VirtualService};
use dataplane::settings::Settings;
use tokio::sync::oneshot;

use super::snapshot::Change;

/// How many listings, and how many flushes, a worker may have unanswered: with one change, far fewer than its ring is deep.
const QUESTIONS: usize = 2;

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
}

impl Waiting {
    fn into_batch(self) -> Batch {
        Batch {
            version: self.version,
            services: self.services.into_iter().collect(),
            servers: self.servers.into_iter().collect(),
            locals: self.locals,
            marks: self.marks,
            settings: self.settings,
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
    pub(super) fn new(end: ControlEnd) -> Self {
        Self {
            end,
            waiting: None,
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
            let next = self.refused.take().or_else(|| self.waiting.take().map(|w| (w.number, Box::new(w.into_batch()))));
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
