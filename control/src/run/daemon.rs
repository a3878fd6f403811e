//! Wires the parts together, and takes them apart again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dpdk::eal::Eal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};

use super::devices::{self, OpenPort, OpenVlan};
use super::error::StartError;
use super::facts;
use super::locks::{self, Locks};
use super::plumbing::Gauges;
use super::ports::{Ports, links};
use super::signals::{Signals, tell_systemd};
use super::workers::Workers;
use super::{cpus, initial, plan, preflight, reload, watchdog};
use crate::api::{self, Listening, Reread};
use crate::config::Config;
use crate::director::{self, Director, Limits, Link, Store, Version};
use crate::health;
use crate::kernel::probes::Probes;
use crate::kernel::{Kernel, LinkPlan, NeighbourEvent, VipNews, WatchPlan};
use crate::model::{ProbeMode, RealServerState, VipState, What};

/// The longest that requests in flight, and then the kernel's side, may take to end.
const LONGEST_FAREWELL: Duration = Duration::from_millis(400);
/// The longest that the whole end may take: whatever hangs then, the process goes.
const LONGEST_END: Duration = Duration::from_millis(1900);
/// A NIC that was just opened trains its link with the switch within a few seconds.
const LONGEST_TRAINING: Duration = Duration::from_secs(5);
/// A real server that is there answers for its MAC within milliseconds.
const LONGEST_SETTLING: Duration = Duration::from_secs(1);
/// How often it is looked whether all have.
const LOOK_EVERY: Duration = Duration::from_millis(10);

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
    raise_open_files();
    let _locks = Locks::take(config, Path::new(locks::FOLDER))?;
    let (store, version) = initial::version(file, config)?;
    let api = Listening::bind(&config.control.entrance)
        .map_err(|why| StartError::new(why.to_string(), "start as root, or change what is named of [control]"))?;
    // From here on, whatever fails undoes what was done: everything below closes itself when it is dropped, in reverse.
    let eal = Eal::init(&plan::eal(config)).map_err(|error| StartError::dpdk("cannot start DPDK", &error))?;
    cpus::pin(config.control.core)
        .map_err(|why| StartError::new(format!("cannot run on control.core {}: {why}", config.control.core), "choose another"))?;
    let mut ports = devices::open(&eal, config)?;
    let vlans = devices::open_vlans(config, &ports)?;
    let mut workers = Workers::start(&eal, config, &mut ports, &vlans)?;
    let gauges = Gauges::new(config, &ports, &vlans, std::mem::take(&mut workers.between));
    let director = direct(config, &ports, &workers, store, &version)?;
    let probes = Probes::new(config.checks.networks);
    let (news, vip_news) = mpsc::channel(64);
    let watched = WatchPlan { interval: config.watch.interval, probe: config.watch.probe, news };
    let (kernel, events) = Kernel::start(link_plans(config, &ports, &vlans), director.wanted(), probes.clone(), watched)
        .map_err(|why| StartError::new(why.to_string(), "see `ip -details link` and `ip address`"))?;
    announce(config, &ports);
    let reread = reload::reread(file, config, cpus, api.renewal());
    let parts = Parts { workers, ports: Ports::new(ports), gauges, director, kernel, probes, reread };
    runtime.block_on(parts.serve(config, signals, api, events, vip_news))
}

/// Every health check under way holds a connection open: as many as the machine allows, not what shells give.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(why) = raised {
        tracing::debug!(%why, "the limit of open files stays as it is");
    }
}

/// The director with its first document on the way to the workers.
fn direct(config: &Config, ports: &[OpenPort], workers: &Workers, store: Store, version: &Version) -> Result<Director, StartError> {
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
    director.watch_vips(director::WatchRules {
        probe: config.watch.probe != ProbeMode::Off,
        arp_leak: config.watch.arp_leak,
        quiet: config.watch.interval * config.watch.quiet,
    });
    director.restore(version).map_err(|why| {
        StartError::new(
            format!("the services to begin with were refused: {why}"),
            format!("correct them in {} or in the configuration", config.control.state.display()),
        )
    })?;
    director.restore_drains();
    Ok(director)
}

fn link_plans(config: &Config, ports: &[OpenPort], vlans: &[OpenVlan]) -> Vec<LinkPlan> {
    let plan = |(index, (port, open)): (u16, (&crate::config::Port, &OpenPort))| LinkPlan {
        index,
        name: port.name.clone(),
        mac: open.mac,
        mtu: open.mtu,
        addresses: port.addresses.clone(),
        gateways: port.gateways.clone(),
        device_interfaces: port.devices().iter().filter_map(|device| device.kernel_interface()).map(str::to_owned).collect(),
        static_neighbours: port.neighbours.iter().map(|neighbour| (neighbour.address, neighbour.mac)).collect(),
        to_kernel: open.to_kernel.clone(),
        from_kernel: open.from_kernel.clone(),
        pool: open.pool.clone(),
    };
    let mut plans: Vec<LinkPlan> = (0_u16..).zip(config.ports.iter().zip(ports)).map(plan).collect();
    for (vlan, open) in config.vlans.iter().zip(vlans) {
        let Some(port) = ports.get(vlan.port) else { continue };
        let index = u16::try_from(plans.len()).unwrap_or(u16::MAX);
        plans.push(LinkPlan {
            index,
            name: vlan.name.clone(),
            mac: port.mac,
            mtu: vlan.mtu.unwrap_or(port.mtu),
            addresses: vlan.addresses.clone(),
            gateways: vlan.gateways.clone(),
            device_interfaces: Vec::new(),
            static_neighbours: vlan.neighbours.iter().map(|neighbour| (neighbour.address, neighbour.mac)).collect(),
            to_kernel: open.to_kernel.clone(),
            from_kernel: open.from_kernel.clone(),
            pool: port.pool.clone(),
        });
    }
    plans
}

/// Says what runs, a line a thing.
fn announce(config: &Config, ports: &[OpenPort]) {
    for (port, open) in config.ports.iter().zip(ports) {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let mac = director::mac::format(open.mac);
        let spread = open.spread.text(open.rx_queues);
        tracing::info!("port {}: {}, MAC {mac}, MTU {}, {spread}, {}", port.name, port.device, open.mtu, addresses.join(" "));
        for lack in &open.lacks {
            tracing::info!("port {}: {lack}", port.name);
        }
    }
    for vlan in &config.vlans {
        let addresses: Vec<String> = vlan.addresses.iter().map(ToString::to_string).collect();
        let port = config.ports.get(vlan.port).map_or("?", |port| &port.name);
        tracing::info!("VLAN {}: {} on port {port}, {}", vlan.name, vlan.tags, addresses.join(" "));
    }
    let cores: Vec<String> = config.workers.cores.iter().map(ToString::to_string).collect();
    tracing::info!("workers on cores {}, control on core {}", cores.join(", "), config.control.core);
    tracing::info!("API on {}", config.control);
}

/// Everything that runs.
struct Parts {
    workers: Workers,
    ports: Ports,
    gauges: Gauges,
    director: Director,
    kernel: Kernel,
    probes: Probes,
    reread: Reread,
}

impl Parts {
    /// Answers requests and moves the director along until a signal comes or a part of it ends; then takes it apart.
    async fn serve(
        mut self,
        config: &Config,
        signals: Signals,
        api: Listening,
        mut events: mpsc::Receiver<NeighbourEvent>,
        mut vip_news: mpsc::Receiver<VipNews>,
    ) -> Result<(), StartError> {
        let Signals { mut ends, hang_up } = signals;
        let (farewell, mut said) = watch::channel(());
        let settled = Arc::new(AtomicBool::new(false));
        let facts = facts::of(config, (&self.ports, &self.gauges), &self.kernel, &settled, &self.reread);
        let router = api::router(self.director.clone(), facts);
        let open = api::open_router(&router);
        let mut server = tokio::spawn(api.serve(router, open, async move {
            let _ = said.changed().await;
        }));
        let mut control = tokio::spawn(self.director.clone().run());
        let director = self.director.clone();
        let mut neighbours = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                director.set_neighbour(event.port, event.address, event.mac);
            }
        });
        let director = self.director.clone();
        let vips = tokio::spawn(async move {
            while let Some(news) = vip_news.recv().await {
                director.vip_news(news);
            }
        });
        let links = tokio::spawn(links::watch(self.ports.clone(), config.clone(), self.director.clone()));
        settle(&self.director, &self.ports, config).await;
        let user = config.checks.exec_user.clone();
        let mut checks = tokio::spawn(health::run(self.director.clone(), self.probes.clone(), user));
        settled.store(true, Ordering::Relaxed);
        tell_systemd("READY=1");
        let reloads = tokio::spawn(reload::upon(hang_up, self.director.clone(), self.reread.clone()));
        let heart = tokio::spawn(watchdog::beat(self.director.clone()));
        self.director.events().raise(What::Started, format!("version {}", env!("CARGO_PKG_VERSION")));
        tracing::info!("the director runs");
        let outcome = tokio::select! {
            signal = ends.wait() => {
                tracing::info!("{signal}: the director ends");
                Ok(())
            }
            ended = self.workers.ended() => Err(ended),
            ended = &mut server => Err(match ended {
                Ok(Err(why)) => why.to_string(),
                other => format!("the API has ended: {other:?}"),
            }),
            ended = &mut control => Err(format!("the control plane has ended: {ended:?}")),
            ended = &mut checks => Err(format!("the health checks have ended: {ended:?}")),
            ended = &mut neighbours => Err(format!("the kernel's side of the ports has ended: {ended:?}")),
        };
        heart.abort();
        reloads.abort();
        links.abort();
        tell_systemd("STOPPING=1");
        give_up_after(LONGEST_END);
        self.director.events().close();
        farewell.send_replace(());
        if !server.is_finished() && tokio::time::timeout(LONGEST_FAREWELL, &mut server).await.is_err() {
            tracing::warn!("requests under way were cut off");
            server.abort();
        }
        control.abort();
        neighbours.abort();
        vips.abort();
        checks.abort();
        self.take_apart().await;
        outcome.map_err(|what| StartError::new(what, "start it again, and report this with the lines above"))
    }

    /// Workers first, so that no frame is in anybody's hands when its port and its TAP go.
    async fn take_apart(self) {
        if !self.workers.stop_and_wait(LONGEST_FAREWELL) {
            tracing::warn!("a worker did not end in time");
        }
        if tokio::time::timeout(LONGEST_FAREWELL, self.kernel.stop()).await.is_err() {
            tracing::warn!("the kernel's side of the ports did not end in time");
        }
        self.gauges.close();
        self.ports.close();
    }
}

/// Waits until every port has a link, every real server's MAC is known and every VIP was probed for, so that who waits for "ready" finds them all.
/// A port whose cable is out is not waited for longer than [`LONGEST_TRAINING`], a real server that is not there no longer than
/// [`LONGEST_SETTLING`].
async fn settle(director: &Director, ports: &Ports, config: &Config) {
    wait_until(LONGEST_TRAINING, || ports.missing(config).is_empty()).await;
    let all_known = || {
        let services = director.services().services;
        let probing = services.iter().any(|service| service.vip == VipState::Probing);
        !probing && !services.iter().flat_map(|service| &service.real_servers).any(|server| server.state == RealServerState::NoMac)
    };
    wait_until(LONGEST_SETTLING, all_known).await;
}

async fn wait_until(longest: Duration, done: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + longest;
    while !done() && tokio::time::Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Ends the process when it has not ended by itself: a device or a disk that hangs must not keep a restart waiting.
fn give_up_after(longest: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(longest);
        tracing::error!("the end took longer than {} ms: giving up", longest.as_millis());
        std::process::exit(1);
    });
}
