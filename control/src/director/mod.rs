//! The desired state and what the workers make of it.
//!
//! [`Director`] is the only way in. A change is validated, becomes part of the desired state (`desired.rs`), is made into
//! snapshots for the workers (`snapshot.rs`), which reach each of them through an outbox of its own (`outbox.rs`), and is
//! written to the state file (`store.rs`). A write answers when all of that has happened.

mod connections;
mod desired;
mod difference;
mod disk;
mod drains;
mod error;
mod health;
mod health_rules;
mod hints;
mod history;
mod listing;
pub mod mac;
mod marks;
mod meter;
mod neighbours;
mod outbox;
mod persist;
mod places;
mod records;
mod room;
mod routes;
#[cfg(test)]
pub(crate) mod scripted;
mod settle;
mod slow_start;
mod snapshot;
mod store;
mod terms;
mod validate;
mod vips;
mod workers;
mod writes;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataplane::command::ControlEnd;
use dataplane::settings::Settings;
use ipnet::IpNet;
use tokio::sync::{Notify, watch};

pub use connections::{ConnectionQuery, Cursor, MAX_CONNECTIONS};
pub use error::Error;
pub use health::{Subject, WantedCheck};
pub use listing::{Observation, ServerSample, ServiceSample};
pub use marks::{MAX_MARKS, MAX_RANGES};
pub use store::{Store, StoreError, VERSIONS, Version};
pub use terms::{Actor, Condition, Resource, Tag, Terms};
pub use validate::{MAX_TIMEOUT, MAX_WEIGHT, validate};
pub use vips::WatchRules;

use crate::events::Events;
use crate::health::Pace;
use crate::model::{Change, Document};
use desired::Desired;
use drains::DrainFile;
use outbox::Outbox;
use persist::Persistence;
use workers::Pulse;

/// A port as the director needs to know it; in the configuration's order.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Our address on each network that it is connected to, with the prefix length.
    pub networks: Vec<IpNet>,
    /// Routers on those networks, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Its MAC.
    pub mac: [u8; 6],
    /// The longest IP packet that it sends, in bytes.
    pub mtu: u16,
}

/// How much the workers' tables hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connection entries of each worker.
    pub connections: u32,
    /// Virtual services.
    pub services: u32,
    /// Real servers, counted once for every service that they are in; removed ones count until their connections end.
    pub real_servers: u32,
}

/// What the director wants of the kernel beside us.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The VIPs, for every port.
    pub vips: BTreeSet<IpAddr>,
    /// Those among them that are ours: they are announced; the others are probed for.
    pub taken: BTreeSet<IpAddr>,
    /// Neighbours whose MACs are needed: index of the port, address.
    pub neighbours: BTreeSet<(u16, IpAddr)>,
    /// Grows whenever those that are ours are to be announced again, and neighbours that have not answered to be asked again.
    pub announcements: u64,
}

/// How often workers are looked at.
const BEAT: Duration = Duration::from_millis(500);

/// The longest pause between two looks at the replies of workers that have something to answer.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The desired state, the workers that run it, and the file that keeps it; cheap to clone, all clones are one, but for the terms
/// that the writes of each keep.
#[derive(Clone)]
pub struct Director(Arc<Shared>, Terms);

struct Shared {
    /// Held for moments only, never across an await.
    inner: Mutex<Inner>,
    links: Arc<[Link]>,
    limits: Limits,
    base: Settings,
    /// Differs from run to run.
    run: u32,
    wanted: watch::Sender<Wanted>,
    /// Changes whenever a worker has applied something or a MAC became known.
    progress: watch::Sender<()>,
    /// Changes whenever other checks may be wanted.
    checks: watch::Sender<()>,
    /// There is something to send or to hear.
    wake: Notify,
    persistence: Persistence,
    drains: DrainFile,
    events: Events,
    pace: Arc<Pace>,
}

struct Inner {
    desired: Desired,
    outboxes: Vec<Outbox>,
    pulses: Vec<Pulse>,
    revision: u64,
    /// Real servers that are to be checked at once.
    hinted: Vec<Subject>,
    /// The last changes, oldest first: at most [`VERSIONS`].
    history: VecDeque<Change>,
    /// What of baton.toml can change while the director runs, as it was applied last.
    file: Option<Arc<Document>>,
}

/// What a request changed.
#[derive(Debug)]
struct Committed {
    /// The number of the change that all workers are to run.
    number: u64,
    revision: u64,
    /// Real servers whose MACs are waited for.
    awaited: Vec<u32>,
    /// VIPs that are probed for.
    probed: Vec<IpAddr>,
}

impl Director {
    /// A director without services; the workers' first batch, with our own addresses and the settings, is on its way when this returns.
    ///
    /// `base` gives what REST cannot change (TTL, rates); `store` is where changes are kept, if anywhere.
    pub fn new(links: Vec<Link>, workers: Vec<ControlEnd>, limits: Limits, base: Settings, store: Option<Store>) -> Self {
        let links: Arc<[Link]> = links.into();
        let inner = Inner {
            desired: Desired::new(Arc::clone(&links), workers.len(), limits),
            pulses: workers.iter().map(|_| Pulse::new()).collect(),
            outboxes: workers.into_iter().map(|end| Outbox::new(end, limits.connections)).collect(),
            revision: 0,
            hinted: Vec::new(),
            history: VecDeque::new(),
            file: None,
        };
        let director = Self(
            Arc::new(Shared {
                inner: Mutex::new(inner),
                links,
                limits,
                base,
                run: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos()),
                wanted: watch::Sender::default(),
                progress: watch::Sender::default(),
                checks: watch::Sender::default(),
                wake: Notify::new(),
                drains: DrainFile::beside(store.as_ref().map(Store::path)),
                persistence: Persistence::new(store),
                events: Events::default(),
                pace: Arc::default(),
            }),
            Terms::default(),
        );
        director.commit(&mut director.lock());
        director
    }

    /// Takes over a version at start, from the state file or from baton.toml, with its revision; does not wait for the workers.
    pub fn restore(&self, version: &Version) -> Result<(), Error> {
        let document = &version.document;
        validate::check_document(document, &self.0.links).into_result()?;
        let mut inner = self.lock();
        inner.check_document_room(document)?;
        inner.replace_all(document);
        inner.revision = document.revision;
        inner.history = version.history.iter().cloned().collect();
        inner.file = version.file.clone().map(Arc::new);
        inner.desired.touched.document = false;
        self.commit(&mut inner);
        drop(inner);
        self.0.persistence.set_stored(document.revision);
        Ok(())
    }

    /// What the kernel beside us is to carry and to resolve, now and after every change.
    pub fn wanted(&self) -> watch::Receiver<Wanted> {
        self.0.wanted.subscribe()
    }

    /// Notes a neighbour's MAC, or that it is not known any more.
    pub fn set_neighbour(&self, port: u16, address: IpAddr, mac: Option<[u8; 6]>) {
        let mut inner = self.lock();
        inner.desired.set_neighbour((port, address), mac, SystemTime::now());
        self.commit(&mut inner);
    }

    /// Notes whether a port, or a VLAN by its number among them, has a link: real servers and gateways behind one without are not used.
    pub fn set_link(&self, port: u16, up: bool) {
        let mut inner = self.lock();
        inner.desired.set_link(port, up, SystemTime::now());
        self.commit(&mut inner);
    }

    /// Has every VIP that is ours announced again, and everybody asked anew whose MAC is not known: frames may have to take another way to us, and
    /// to them.
    pub fn announce_vips(&self) {
        self.0.wanted.send_modify(|wanted| wanted.announcements += 1);
    }

    /// Whether health checks begin when they should.
    pub fn pace(&self) -> &Arc<Pace> {
        &self.0.pace
    }

    /// The log of what happens.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// The revision of the document: grows by one with every change of it.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Moves commands and replies, frees what was replaced, estimates rates and lets go of what was removed, until it is dropped.
    pub async fn run(self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = 0_u64;
        let mut pause = Duration::ZERO;
        loop {
            let (moved, busy) = self.pump();
            pause = if moved { Duration::from_millis(1) } else { (pause * 2).clamp(Duration::from_millis(1), LONGEST_PAUSE) };
            tokio::select! {
                _ = beat.tick() => {
                    self.look_at_workers();
                    self.forget_quiet_claims();
                    self.grow_weights();
                    self.lose_patience();
                    self.look_for_hints();
                    self.move_drains();
                    beats += 1;
                    if beats.is_multiple_of(meter::ESTIMATE_EVERY * 2) {
                        self.estimate().await;
                        self.retire();
                        self.store_again();
                    }
                }
                () = self.0.wake.notified() => pause = Duration::ZERO,
                () = tokio::time::sleep(pause), if busy => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what was touched to the workers and to the kernel beside us.
    fn commit(&self, inner: &mut Inner) -> Committed {
        let change = inner.desired.take_change(&self.0.base);
        for (what, reason) in inner.desired.happened.drain(..) {
            self.0.events.raise(what, reason);
        }
        let Some(change) = change else {
            return Committed { number: inner.desired.next_change - 1, revision: inner.revision, awaited: Vec::new(), probed: Vec::new() };
        };
        inner.revision += u64::from(change.document);
        inner.desired.stamp(&change, inner.revision);
        for outbox in &mut inner.outboxes {
            outbox.add(&change, inner.revision);
            outbox.pump();
        }
        if !change.vips.is_empty() || !change.hops.is_empty() {
            self.0.wanted.send_if_modified(|wanted| {
                let put = |set: &mut BTreeSet<IpAddr>, vip: IpAddr, come| if come { set.insert(vip) } else { set.remove(&vip) };
                let vips = change
                    .vips
                    .iter()
                    .filter(|change| put(&mut wanted.vips, change.vip, change.wanted) | put(&mut wanted.taken, change.vip, change.taken))
                    .count();
                let hops = change
                    .hops
                    .iter()
                    .filter(|(h, come)| if *come { wanted.neighbours.insert(*h) } else { wanted.neighbours.remove(h) })
                    .count();
                vips + hops > 0
            });
        }
        if change.document || !change.servers.is_empty() {
            self.0.checks.send_replace(());
        }
        self.0.progress.send_replace(());
        self.0.wake.notify_one();
        let probed = change.vips.iter().map(|change| change.vip).filter(|vip| inner.desired.guard.is_probing(*vip)).collect();
        Committed { number: change.number, revision: inner.revision, awaited: change.awaited, probed }
    }

    /// Whether anything moved, and whether anything is still to come.
    fn pump(&self) -> (bool, bool) {
        let mut inner = self.lock();
        let moved = inner.outboxes.iter_mut().map(Outbox::pump).filter(|moved| *moved).count() > 0;
        let busy = inner.outboxes.iter().any(Outbox::is_busy);
        drop(inner);
        if moved {
            self.0.progress.send_replace(());
        }
        (moved, busy)
    }

    /// One step of the rate estimators, in slices, so that requests and replies get their turn.
    async fn estimate(&self) {
        const SLICE: u32 = 4_096;
        let mut from = 0;
        loop {
            let more = {
                let mut inner = self.lock();
                let Desired { services, servers, .. } = &mut inner.desired;
                for id in from..from + SLICE {
                    if let Some(record) = services.get_mut(id) {
                        record.meter.estimate(record.stats.sum());
                    }
                    if let Some(record) = servers.get_mut(id) {
                        record.meter.estimate(record.stats.sum());
                    }
                }
                from += SLICE;
                from < services.len().max(servers.len())
            };
            if !more {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Lets services refuse clients again whose real servers have had their time to answer for their MACs.
    fn lose_patience(&self) {
        let mut inner = self.lock();
        if !inner.desired.patient.is_empty() {
            inner.desired.lose_patience(SystemTime::now());
            self.commit(&mut inner);
        }
    }

    fn retire(&self) {
        let mut inner = self.lock();
        let applied = inner.applied_by_all();
        inner.desired.retire(applied);
        self.commit(&mut inner);
    }
}

impl Inner {
    /// The number of the last change that every worker runs.
    fn applied_by_all(&self) -> u64 {
        self.outboxes.iter().map(Outbox::applied).min().unwrap_or(self.desired.next_change - 1)
    }
}

#[cfg(test)]
mod convergence_tests;
#[cfg(test)]
mod options_tests;
#[cfg(test)]
mod tests;
