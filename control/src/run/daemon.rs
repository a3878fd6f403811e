//! Wires the parts together, and takes them apart again.

use std::path::Path;
use std::time::Duration;

use dpdk::eal::Eal;
use tokio::sync::{mpsc, watch};

use super::devices::{self, OpenPort};
use super::error::StartError;
use super::facts;
use super::locks::{self, Locks};
use super::signals::{Signals, tell_systemd};
use super::workers::Workers;
use super::{cpus, plan, preflight};
use crate::api;
use crate::config::Config;
use crate::director::{self, Director, Limits, Link, Store};
use crate::kernel::{Kernel, LinkPlan, NeighbourEvent};
use crate::model::Document;

/// The longest that requests in flight, and then the kernel's side, may take to end.
const LONGEST_FAREWELL: Duration = Duration::from_millis(400);
/// The longest that the whole end may take: whatever hangs then, the process goes.
const LONGEST_END: Duration = Duration::from_millis(1900);

/// Runs the director until a signal ends it (`Ok`), or until it cannot start or go on.
///
/// # Errors
/// What is wrong and what mends it.
pub(super) fn run(file: &Path, config: &Config, cpus: &[u32]) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| StartError::new(format!("cannot start the control plane: {why}"), "raise the limit of open files (ulimit -n)"))?;
    let _entered = runtime.enter();
    let signals = Signals::catch()?;
    preflight::check(config, cpus)?;
    let _locks = Locks::take(config, Path::new(locks::FOLDER))?;
    let (store, document) = initial_document(file, config)?;
    // From here on, whatever fails undoes what was done: everything below closes itself when it is dropped, in reverse.
    let eal = Eal::init(&plan::eal(config)).map_err(|error| StartError::dpdk("cannot start DPDK", &error))?;
    cpus::pin(config.control.core)
        .map_err(|why| StartError::new(format!("cannot run on control.core {}: {why}", config.control.core), "choose another"))?;
    let mut ports = devices::open(&eal, config)?;
    let workers = Workers::start(&eal, config, &mut ports)?;
    let director = direct(config, &ports, &workers, store, &document)?;
    let (kernel, events) = Kernel::start(link_plans(config, &ports), director.wanted())
        .map_err(|why| StartError::new(why.to_string(), "see `ip -details link` and `ip address`"))?;
    announce(config, &ports);
    let outcome = runtime.block_on(serve(config, signals, workers, ports, director, &kernel, events));
    tell_systemd("STOPPING=1");
    give_up_after(LONGEST_END);
    if runtime.block_on(tokio::time::timeout(LONGEST_FAREWELL, kernel.stop())).is_err() {
        tracing::warn!("the kernel's side of the ports did not end in time");
    }
    outcome
}

/// What to begin with: the state file if there is one, otherwise what the configuration says.
fn initial_document(file: &Path, config: &Config) -> Result<(Store, Document), StartError> {
    let path = config.control.state.display();
    let mend = "make its folder writable, or give another control.state";
    let store = Store::open(&config.control.state).map_err(|why| StartError::new(format!("state file {path}: {why}"), mend))?;
    let stored = store.load().map_err(|why| {
        StartError::new(
            format!("state file: {why}"),
            format!("put an earlier version back ({path}.1 is the last), or move it away to begin anew"),
        )
    })?;
    let Some(document) = stored else {
        tracing::info!("{} services from {}; {path} will keep changes", config.services.len(), file.display());
        return Ok((store, config.document()));
    };
    let faults = director::validate(&document, &config.links(|_| [0; 6], |_| u16::MAX));
    if !faults.is_empty() {
        let list: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        return Err(StartError::new(
            format!("state file {path} does not fit the ports of {}: {}", file.display(), list.join("; ")),
            "change the ports' addresses back, correct the state file, or move it away to begin with the configuration's services",
        ));
    }
    let unused = if config.services.is_empty() { "" } else { "; it wins over the [[service]] of the configuration" };
    tracing::info!("{} services from {path}{unused}", document.services.len());
    Ok((store, document))
}

/// The director with its first document on the way to the workers.
fn direct(config: &Config, ports: &[OpenPort], workers: &Workers, store: Store, document: &Document) -> Result<Director, StartError> {
    let links: Vec<Link> = config.links(|at| ports[at].mac, |at| ports[at].mtu);
    let limits =
        Limits { connections: config.limits.connections, services: config.limits.services, real_servers: config.limits.real_servers };
    let base = dataplane::settings::Settings {
        ttl: config.forwarding.ttl,
        exception_rate: config.limits.exception_rate,
        icmp_error_rate: config.limits.icmp_error_rate,
        ..Default::default()
    };
    let director = Director::new(links, workers.ends(), limits, base, Some(store));
    director.restore(document).map_err(|why| {
        StartError::new(
            format!("the services to begin with were refused: {why}"),
            format!("correct them in {} or in the configuration", config.control.state.display()),
        )
    })?;
    Ok(director)
}

fn link_plans(config: &Config, ports: &[OpenPort]) -> Vec<LinkPlan> {
    let plan = |(index, (port, open)): (u16, (&crate::config::Port, &OpenPort))| LinkPlan {
        index,
        name: port.name.clone(),
        mac: open.mac,
        mtu: open.mtu,
        addresses: port.addresses.clone(),
        gateways: port.gateways.clone(),
        device_interface: port.device.kernel_interface().map(str::to_owned),
        static_neighbours: port.neighbours.iter().map(|neighbour| (neighbour.address, neighbour.mac)).collect(),
        to_kernel: open.to_kernel.clone(),
        from_kernel: open.from_kernel.clone(),
        pool: open.pool.clone(),
    };
    (0_u16..).zip(config.ports.iter().zip(ports)).map(plan).collect()
}

/// Says what runs, a line a thing.
fn announce(config: &Config, ports: &[OpenPort]) {
    let workers = config.workers.cores.len();
    for (port, open) in config.ports.iter().zip(ports) {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let mac = director::mac::format(open.mac);
        let spread = if workers == 1 {
            "1 queue".to_owned()
        } else if open.port.rss_active() {
            format!("{workers} queues by RSS")
        } else {
            format!("{workers} queues")
        };
        tracing::info!("port {}: {}, MAC {mac}, MTU {}, {spread}, {}", port.name, port.device, open.mtu, addresses.join(" "));
    }
    let cores: Vec<String> = config.workers.cores.iter().map(ToString::to_string).collect();
    tracing::info!("workers on cores {}, control on core {}", cores.join(", "), config.control.core);
    let listen = config.control.listen.map_or_else(String::new, |address| format!(" and http://{address}"));
    tracing::info!("API on unix:{}{listen}", config.control.socket.display());
}

/// Answers requests and moves the director along until a signal comes or a part of it ends.
async fn serve(
    config: &Config,
    mut signals: Signals,
    mut workers: Workers,
    ports: Vec<OpenPort>,
    director: Director,
    kernel: &Kernel,
    mut events: mpsc::Receiver<NeighbourEvent>,
) -> Result<(), StartError> {
    let (farewell, mut said) = watch::channel(());
    let facts = facts::of(config, ports, kernel.clone());
    let shutdown = async move {
        let _ = said.changed().await;
    };
    let router = api::router(director.clone(), facts);
    let mut server = tokio::spawn(api::serve(router, config.control.socket.clone(), config.control.listen, shutdown));
    let mut director_runs = tokio::spawn(director.clone().run());
    let mut neighbours = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            director.set_neighbour(event.port, event.address, event.mac);
        }
    });
    tell_systemd("READY=1");
    tracing::info!("the director runs");
    let broken = |what: String| Err(StartError::new(what, "start it again, and report this with the lines above"));
    let outcome = tokio::select! {
        signal = signals.end() => {
            tracing::info!("{signal}: the director ends");
            Ok(())
        }
        ended = workers.ended() => broken(ended),
        ended = &mut server => match ended {
            Ok(Err(why)) => Err(StartError::new(format!("the API cannot be served: {why}"), "give another control.socket or control.listen")),
            other => broken(format!("the API has ended: {other:?}")),
        },
        ended = &mut director_runs => broken(format!("the control plane has ended: {ended:?}")),
        ended = &mut neighbours => broken(format!("the kernel's side has ended: {ended:?}")),
    };
    farewell.send_replace(());
    if !server.is_finished() && tokio::time::timeout(LONGEST_FAREWELL, &mut server).await.is_err() {
        tracing::warn!("requests in flight were cut off");
        server.abort();
    }
    director_runs.abort();
    neighbours.abort();
    if !workers.stop_and_wait(LONGEST_FAREWELL) {
        tracing::warn!("a worker did not end in time");
    }
    outcome
}

/// Ends the process when it has not ended by itself: a device or a disk that hangs must not keep a restart waiting.
fn give_up_after(longest: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(longest);
        tracing::error!("the end took longer than {} ms: giving up", longest.as_millis());
        std::process::exit(1);
    });
}
