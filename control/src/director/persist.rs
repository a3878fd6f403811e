//! When the state file is written: once for all changes that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinError;
use tokio::time::timeout;

use super::{Director, Error, Store};

/// How long a write waits for the disk.
const DISK: Duration = Duration::from_secs(5);

/// The state file and the last revision that is in it.
#[derive(Debug)]
pub(super) struct Persistence {
    pub(super) store: Option<Arc<Store>>,
    /// Held by whoever writes the file, until the disk has answered, even if the request that began it is gone.
    turn: Arc<Mutex<()>>,
    stored: Arc<AtomicU64>,
}

impl Persistence {
    pub(super) fn new(store: Option<Store>) -> Self {
        Self { store: store.map(Arc::new), turn: Arc::default(), stored: Arc::default() }
    }

    pub(super) fn set_stored(&self, revision: u64) {
        self.stored.fetch_max(revision, Ordering::Relaxed);
    }

    fn has(&self, revision: u64) -> bool {
        self.store.is_none() || self.stored.load(Ordering::Relaxed) >= revision
    }
}

impl Director {
    /// Whether everything that is in force is also in the state file, if there is one.
    pub fn is_stored(&self) -> bool {
        self.0.persistence.has(self.revision())
    }

    /// Returns when `revision` or a later one is on the disk. Whoever comes first writes the newest for all who wait.
    pub(super) async fn persist(&self, revision: u64) -> Result<(), Error> {
        let Some(store) = &self.0.persistence.store else { return Ok(()) };
        if self.0.persistence.has(revision) {
            return Ok(());
        }
        let write = async {
            let guard = Arc::clone(&self.0.persistence.turn).lock_owned().await;
            if self.0.persistence.has(revision) { Ok(()) } else { self.write_newest(Arc::clone(store), guard).await }
        };
        let outcome = timeout(DISK, write).await.unwrap_or_else(|_| Err(format!("the disk has not answered for {} s", DISK.as_secs())));
        outcome.map_err(|cause| Error::NotStored { revision, cause })
    }

    /// Tries again what failed, unless a write is under way.
    pub(super) fn store_again(&self) {
        let Some(store) = &self.0.persistence.store else { return };
        if self.is_stored() {
            return;
        }
        if let Ok(guard) = Arc::clone(&self.0.persistence.turn).try_lock_owned() {
            let (director, store) = (self.clone(), Arc::clone(store));
            tokio::spawn(async move { director.write_newest(store, guard).await });
        }
    }

    async fn write_newest(&self, store: Arc<Store>, turn: OwnedMutexGuard<()>) -> Result<(), String> {
        let director = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let version = director.version();
            let document = &version.document;
            let outcome = store.write(&version).map_err(|e| e.to_string());
            match &outcome {
                Ok(()) => director.0.persistence.set_stored(document.revision),
                Err(cause) => tracing::error!(revision = document.revision, %cause, "the state file could not be written"),
            }
            drop(turn);
            outcome
        });
        written.await.unwrap_or_else(|e: JoinError| Err(e.to_string()))
    }
}
