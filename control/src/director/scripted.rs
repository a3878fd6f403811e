//! A worker without a packet path, for tests of the control plane: it keeps the worker's side of the rings honestly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::address::Address;
use dataplane::command::{
    Batch, Command, ConnectionFilter, ConnectionPage, ConnectionRow, ControlEnd, LocalAddresses, Reply, WorkerEnd, channel,
};
use dataplane::routes::Routes;
use dataplane::service::{RealServer, VirtualService};
use dataplane::settings::Settings;

use super::{Director, Limits, Link, Store};
use crate::model::{Document, RealServerSpec, ServiceSpec};

/// What a worker holds.
#[derive(Default)]
pub(crate) struct Tables {
    /// The worker's number.
    pub(crate) worker: usize,
    pub(crate) services: HashMap<u32, Arc<VirtualService>>,
    pub(crate) servers: HashMap<u32, Arc<RealServer>>,
    pub(crate) locals: Option<Arc<LocalAddresses>>,
    pub(crate) settings: Option<Settings>,
    pub(crate) routes: Option<Arc<Routes>>,
    /// Indexes of replies that came.
    pub(crate) replies: u32,
    /// Connection entries, by their place.
    pub(crate) rows: Vec<ConnectionRow>,
    /// Versions of the batches that it applied.
    pub(crate) versions: Vec<u64>,
}

impl Tables {
    fn apply(&mut self, batch: &mut Batch) {
        for (id, service) in &mut batch.services {
            *service = match service.take() {
                Some(new) => self.services.insert(id.0, new),
                None => self.services.remove(&id.0),
            };
        }
        for (id, server) in &mut batch.servers {
            *server = match server.take() {
                Some(new) => self.servers.insert(id.0, new),
                None => self.servers.remove(&id.0),
            };
            if let Some(old) = server
                // Only its own entries bind a worker: another's may be of a later configuration than this batch.
                && old.stats.share(self.worker).active.get() > 0
            {
                let now = self.servers.get(&id.0).expect("a place that entries refer to is kept");
                assert!(Arc::ptr_eq(&old.stats, &now.stats), "a place that entries refer to goes to no other");
            }
        }
        if batch.locals.is_some() {
            std::mem::swap(&mut self.locals, &mut batch.locals);
        }
        if batch.routes.is_some() {
            std::mem::swap(&mut self.routes, &mut batch.routes);
        }
        self.replies += u32::from(batch.replies.is_some());
        if batch.settings.is_some() {
            std::mem::swap(&mut self.settings, &mut batch.settings);
        }
        self.versions.push(batch.version);
    }

    fn fill(&self, page: &mut ConnectionPage) {
        let from = page.cursor as usize;
        for (place, row) in self.rows.iter().enumerate().skip(from) {
            if page.rows.len() == page.rows.capacity() {
                page.next = u32::try_from(place).ok();
                return;
            }
            if matches(&page.filter, row) {
                page.rows.push(*row);
            }
        }
        page.next = None;
    }
}

fn matches(filter: &ConnectionFilter, row: &ConnectionRow) -> bool {
    filter.protocol.is_none_or(|p| p == row.protocol)
        && filter.virtual_address.is_none_or(|a| a == Address::from(row.virtual_address.ip()))
        && filter.virtual_port.is_none_or(|p| p == row.virtual_address.port())
        && filter.client.is_none_or(|a| a == Address::from(row.client.ip()))
        && filter.server.is_none_or(|a| a == Address::from(row.server.ip()))
}

#[derive(Default)]
struct Shared {
    tables: Mutex<Tables>,
    asleep: AtomicBool,
}

/// The worker's thread and a window into its tables.
pub(crate) struct ScriptedWorker {
    control: ControlEnd,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedWorker {
    fn start(worker: usize, depth: usize, ports: usize) -> Self {
        let (control, end) = channel(depth, ports);
        let shared = Arc::new(Shared::default());
        shared.tables.lock().unwrap().worker = worker;
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || turn_until_stopped(end, &shared)
        });
        Self { control, shared, thread: Some(thread) }
    }

    pub(crate) fn control(&self) -> &ControlEnd {
        &self.control
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.shared.tables.lock().unwrap()
    }

    /// Makes the worker stand still, or turn again.
    pub(crate) fn sleep(&self, asleep: bool) {
        self.shared.asleep.store(asleep, Ordering::SeqCst);
        // It looks at this once a turn: after two, it has seen it.
        std::thread::sleep(Duration::from_millis(5));
    }

    pub(crate) fn real_server(&self, address: &str) -> Option<Arc<RealServer>> {
        let address = Address::from(address.parse::<IpAddr>().unwrap());
        self.tables().servers.values().find(|s| s.address == address).cloned()
    }

    pub(crate) fn only_service(&self) -> Arc<VirtualService> {
        let tables = self.tables();
        assert_eq!(tables.services.len(), 1);
        Arc::clone(tables.services.values().next().unwrap())
    }
}

impl Drop for ScriptedWorker {
    fn drop(&mut self) {
        self.shared.asleep.store(false, Ordering::SeqCst);
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn turn_until_stopped(mut end: WorkerEnd, shared: &Shared) {
    while !end.is_stopped() {
        if !shared.asleep.load(Ordering::SeqCst) {
            end.report().turns.add(1);
            turn(&mut end, &mut shared.tables.lock().unwrap());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Does all that the control plane asked for.
pub(crate) fn turn(end: &mut WorkerEnd, tables: &mut Tables) {
    while let Some(command) = end.take() {
        let reply = match command {
            Command::Apply(mut batch) => {
                tables.apply(&mut batch);
                end.report().version.set(batch.version);
                Reply::Applied(batch)
            }
            Command::Connections(mut page) => {
                tables.fill(&mut page);
                Reply::Connections(page)
            }
            Command::Flush(mut flush) => {
                let before = tables.rows.len();
                tables.rows.retain(|row| !matches(&flush.filter, row));
                flush.removed = (before - tables.rows.len()) as u64;
                Reply::Flushed(flush)
            }
        };
        end.report().connections.set(tables.rows.len() as u64);
        end.reply(reply).expect("no more is asked than may be answered");
    }
}

/// A director that runs, with scripted workers.
pub(crate) struct Rig {
    pub(crate) director: Director,
    pub(crate) workers: Vec<ScriptedWorker>,
}

pub(crate) const LIMITS: Limits = Limits { connections: 1_000, services: 64, real_servers: 256 };

impl Rig {
    pub(crate) fn new(workers: usize) -> Self {
        Self::with(workers, 8, LIMITS, None)
    }

    /// Must be called inside a tokio runtime.
    pub(crate) fn with(workers: usize, depth: usize, limits: Limits, store: Option<Store>) -> Self {
        let workers: Vec<ScriptedWorker> = (0..workers).map(|worker| ScriptedWorker::start(worker, depth, 2)).collect();
        let ends = workers.iter().map(|w| w.control().clone()).collect();
        let director = Director::new(links(), ends, limits, Settings::default(), store);
        tokio::spawn(director.clone().run());
        Self { director, workers }
    }
}

/// Two ports: `lan` on 10.10.24.0/24 and `fd00:10::/64`, `far` on 10.20.0.0/16.
pub(crate) fn links() -> Vec<Link> {
    let link = |name: &str, networks: &[&str], gateways: &[&str], last| Link {
        name: name.to_owned(),
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        gateways: gateways.iter().map(|g| g.parse().unwrap()).collect(),
        mac: [2, 0, 0, 0, 0xd0, last],
        mtu: 1_500,
    };
    vec![link("lan", &["10.10.24.10/24", "fd00:10::10/64"], &["10.10.24.1"], 0), link("far", &["10.20.0.10/16"], &[], 1)]
}

/// A service from JSON as a client sends it.
pub(crate) fn service(json: serde_json::Value) -> ServiceSpec {
    serde_json::from_value(json).unwrap()
}

/// A real server from JSON as a client sends it.
pub(crate) fn server(json: serde_json::Value) -> RealServerSpec {
    serde_json::from_value(json).unwrap()
}

/// A document from JSON as a client sends it.
pub(crate) fn document(json: serde_json::Value) -> Document {
    serde_json::from_value(json).unwrap()
}
