//! What a write waits for before it answers.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Committed, Director, Error, Inner};

/// How long a write waits for the workers.
const WORKERS: Duration = Duration::from_secs(2);

/// How long a write waits for the MACs of real servers that it added, and for VIPs to be found free.
const MAC: Duration = Duration::from_millis(300);

impl Director {
    /// Waits until the change is in the state file and every worker runs it, and for the MACs of new real servers.
    ///
    /// The change stays whatever this returns.
    pub(super) async fn settle(&self, committed: Committed) -> Result<(), Error> {
        let (stored, running) = tokio::join!(self.persist(committed.revision), self.reach_workers(&committed));
        stored.and(running)
    }

    async fn reach_workers(&self, committed: &Committed) -> Result<(), Error> {
        let start = Instant::now();
        self.workers_run(committed.number, committed.revision, start + WORKERS).await?;
        let missing = |inner: &Inner| {
            committed
                .awaited
                .iter()
                .any(|id| inner.desired.servers.is_present(*id) && inner.desired.servers.get(*id).is_some_and(|r| r.next_hop.is_none()))
                || committed.probed.iter().any(|vip| inner.desired.guard.is_probing(*vip))
        };
        if committed.awaited.is_empty() && committed.probed.is_empty() {
            return Ok(());
        }
        // A MAC that does not come is no fault of the request: the listing shows what the real server lacks.
        self.wait(start + MAC, |inner| !missing(inner)).await;
        let (number, revision) = {
            let inner = self.lock();
            (inner.desired.next_change - 1, inner.revision)
        };
        self.workers_run(number, revision, start + WORKERS).await
    }

    async fn workers_run(&self, number: u64, revision: u64, deadline: Instant) -> Result<(), Error> {
        if self.wait(deadline, |inner| inner.applied_by_all() >= number).await {
            return Ok(());
        }
        let late: Vec<String> = {
            let inner = self.lock();
            (0..inner.outboxes.len()).filter(|i| inner.outboxes[*i].applied() < number).map(|i| i.to_string()).collect()
        };
        Err(Error::Timeout(format!(
            "revision {revision} is kept and in force once the workers take it, but after {} s worker {} does not run it yet",
            WORKERS.as_secs(),
            late.join(", ")
        )))
    }

    /// Waits until `done` or until `deadline`; whether it was done.
    async fn wait(&self, deadline: Instant, done: impl Fn(&Inner) -> bool) -> bool {
        let mut progress = self.0.progress.subscribe();
        loop {
            if done(&self.lock()) {
                return true;
            }
            if timeout_at(deadline, progress.changed()).await.is_err() {
                return done(&self.lock());
            }
        }
    }
}
