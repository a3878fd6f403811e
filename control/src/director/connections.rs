//! Listing and ending connection entries: questions to the workers, page by page.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use dataplane::address::Address;
use dataplane::command::{ConnectionFilter, ConnectionPage, ConnectionRow, Flush};
use dataplane::service as worker;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::outbox::Outbox;
use super::snapshot::protocol_for_workers;
use super::{Director, Error};
use crate::model::{Connection, Connections, Flushed, Protocol, ServiceKey};

/// The most entries that one listing returns.
pub const MAX_CONNECTIONS: usize = 10_000;

/// The most entries that a worker writes down in one go, between two bursts.
const PAGE: usize = 512;

/// How long a listing may take in all; what it has by then is what it returns, with a cursor for the rest.
const LISTING: Duration = Duration::from_secs(2);

/// How long ending entries may take.
const FLUSH: Duration = Duration::from_secs(10);

/// Where the next page of a listing begins: a worker and its own cursor. Written as `1.4096`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    worker: usize,
    entry: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.worker, self.entry)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (worker, entry) = text.split_once('.').ok_or(())?;
        Ok(Self { worker: worker.parse().map_err(|_| ())?, entry: entry.parse().map_err(|_| ())? })
    }
}

/// Which connection entries are meant; what is `None` matches all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionQuery {
    /// Those of one virtual service.
    pub service: Option<ServiceKey>,
    /// Those of one client.
    pub client: Option<IpAddr>,
    /// Those at one real server's address.
    pub server: Option<IpAddr>,
}

impl ConnectionQuery {
    fn filter(self) -> ConnectionFilter {
        ConnectionFilter {
            protocol: self.service.map(|s| protocol_for_workers(s.protocol)),
            virtual_address: self.service.map(|s| Address::from(s.address)),
            virtual_port: self.service.map(|s| s.port),
            client: self.client.map(Address::from),
            server: self.server.map(Address::from),
            server_id: None,
        }
    }
}

impl Director {
    /// At most `limit` connection entries (no more than [`MAX_CONNECTIONS`]), beginning at `cursor`.
    pub async fn connections(&self, query: ConnectionQuery, limit: usize, cursor: Cursor) -> Result<Connections, Error> {
        let deadline = Instant::now() + LISTING;
        let limit = limit.min(MAX_CONNECTIONS);
        let mut rows = Vec::new();
        let mut at = cursor;
        while at.worker < self.worker_count() && rows.len() < limit {
            let room = PAGE.min(limit - rows.len());
            let page = match self.page(at, query.filter(), room, deadline).await {
                Ok(page) => page,
                // What there is stays useful; the cursor says where it went no further.
                Err(Error::Timeout(_)) if !rows.is_empty() => break,
                Err(error) => return Err(error),
            };
            let number = u32::try_from(at.worker).unwrap_or(u32::MAX);
            rows.extend(page.rows.iter().map(|row| connection(row, number)));
            at = match page.next {
                Some(entry) => Cursor { entry, ..at },
                None => Cursor { worker: at.worker + 1, entry: 0 },
            };
            if Instant::now() >= deadline {
                break;
            }
        }
        let mut total = 0;
        self.for_each_worker(|_, report| total += report.connections.get());
        let next = (at.worker < self.worker_count()).then(|| at.to_string());
        Ok(Connections { total, connections: rows, next })
    }

    /// Ends every connection entry that matches, on all workers at once.
    pub async fn flush(&self, query: ConnectionQuery) -> Result<Flushed, Error> {
        self.flush_matching(query.filter()).await
    }

    pub(super) async fn flush_matching(&self, filter: ConnectionFilter) -> Result<Flushed, Error> {
        let deadline = Instant::now() + FLUSH;
        let mut answers = Vec::new();
        for worker in 0..self.worker_count() {
            let order = Box::new(Flush { filter, removed: 0 });
            let asked = self.ask(worker, order, Outbox::ask_flush, deadline).await;
            // Once another worker has its order, this is no longer a request that changed nothing.
            let asked = asked.map_err(|e| if answers.is_empty() { e } else { Error::Timeout(format!("{e}; other workers end theirs")) });
            answers.push((worker, asked?));
        }
        let mut removed = 0;
        for (worker, answer) in answers {
            removed += hear(worker, answer, deadline).await?.removed;
        }
        Ok(Flushed { removed })
    }

    async fn page(&self, at: Cursor, filter: ConnectionFilter, room: usize, deadline: Instant) -> Result<Box<ConnectionPage>, Error> {
        let page = Box::new(ConnectionPage { filter, cursor: at.entry, rows: Vec::with_capacity(room), next: None });
        let answer = self.ask(at.worker, page, Outbox::ask_page, deadline).await?;
        hear(at.worker, answer, deadline).await
    }

    /// Sends a question, as soon as the worker has room for one.
    async fn ask<Q>(
        &self,
        worker: usize,
        mut question: Q,
        send: impl Fn(&mut Outbox, Q) -> Result<oneshot::Receiver<Q>, Q>,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Q>, Error> {
        loop {
            let outcome = match self.lock().outboxes.get_mut(worker) {
                Some(outbox) => send(outbox, question),
                None => Err(question),
            };
            match outcome {
                Ok(answer) => {
                    self.0.wake.notify_one();
                    return Ok(answer);
                }
                Err(back) if Instant::now() < deadline => question = back,
                Err(_) => return Err(Error::Busy(format!("worker {worker} has not answered earlier questions about connections yet"))),
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn hear<Q>(worker: usize, answer: oneshot::Receiver<Q>, deadline: Instant) -> Result<Q, Error> {
    match timeout_at(deadline, answer).await {
        Ok(Ok(answered)) => Ok(answered),
        _ => Err(Error::Timeout(format!("worker {worker} did not answer a question about connections in time"))),
    }
}

fn connection(row: &ConnectionRow, worker: u32) -> Connection {
    Connection {
        protocol: match row.protocol {
            worker::Protocol::Tcp => Protocol::Tcp,
            worker::Protocol::Udp => Protocol::Udp,
            worker::Protocol::Sctp => Protocol::Sctp,
            worker::Protocol::Ip => Protocol::Mark,
        },
        client: row.client,
        virtual_address: row.virtual_address,
        server: row.server,
        state: row.state.to_owned(),
        expires_in: f64::from(row.expires_in) / 100.0,
        in_packets: row.in_packets,
        worker,
    }
}
