//! Keeps the kernel as the director wants it: addresses, neighbours and announcements, for as long as it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

use super::announce::{self, Announcements};
use super::device::QuietDevice;
use super::error::KernelError;
use super::limit::LogLimit;
use super::message::{Ask, Event, LinkInfo, Mac, Purpose};
use super::neighbours::{Key, Neighbours, show};
use super::netlink::{self, Netlink};
use super::probes::Probes;
use super::pump::{Lane, Pump};
use super::watch::{Due, Watch};
use super::{LinkPlan, NeighbourEvent, claim, tap};
use crate::director::Wanted;

/// How often what failed is tried again, and neighbours that do not answer are asked again.
const TICK: Duration = Duration::from_secs(1);

/// Ticks between two looks at all TAPs and the kernel's whole neighbour table, should an event have been missed.
const RESYNC_TICKS: u32 = 30;

/// How long a neighbour is kept that is wanted no more: a real server that is removed and added again has its MAC at once.
const LINGER: Duration = Duration::from_secs(5);

/// Neighbours that may be kept so at a time.
const MOST_LINGERING: usize = 1024;

/// The neighbours, shared with listings; held for moments only.
pub(super) type SharedNeighbours = Arc<Mutex<Neighbours>>;

/// One port.
struct Side {
    plan: LinkPlan,
    lane: Lane,
    /// The TAP's number, while there is one.
    link: Option<u32>,
    up: bool,
    /// VIPs that the TAP carries.
    vips: BTreeSet<IpAddr>,
    gateways_before: u32,
}

impl Side {
    fn send(&self, frame: &[u8]) {
        if !self.lane.inject(frame) {
            tracing::debug!(port = self.plan.name, "a frame about a VIP was dropped: no room in the ring or the mempool");
        }
    }

    fn ask(&self, due: Due) {
        match due {
            Due::Ask(vip) => self.send(&claim::question(self.plan.mac, self.own(vip), vip)),
            Due::Probe(vip) => self.send(&claim::question(self.plan.mac, None, vip)),
            Due::Announce(_) => {}
        }
    }

    /// The port's own address of `vip`'s family, best of `vip`'s network.
    fn own(&self, vip: IpAddr) -> Option<IpAddr> {
        let own = || self.plan.addresses.iter().filter(|network| network.addr().is_ipv4() == vip.is_ipv4());
        own().find(|network| network.contains(&vip)).or_else(|| own().next()).map(IpNet::addr)
    }
}

/// The kernel's side of all ports.
pub(super) struct Keeper {
    netlink: Netlink,
    events: mpsc::UnboundedReceiver<Event>,
    quiet: Vec<QuietDevice>,
    sides: Vec<Side>,
    pump: Pump,
    probes: Probes,
    neighbours: SharedNeighbours,
    announcements: Announcements,
    watch: Watch,
    vips: BTreeSet<IpAddr>,
    /// Those among them that are ours already.
    taken: BTreeSet<IpAddr>,
    /// How often they were to be announced again.
    announced: u64,
    wanted: BTreeSet<Key>,
    /// Neighbours that are wanted no more, and until when they are kept.
    lingering: BTreeMap<Key, Instant>,
    ask: Ask,
    troubles: LogLimit,
    changed_macs: LogLimit,
    ticks: u32,
}

/// The neighbours, whatever became of a thread that held them.
pub(super) fn lock(neighbours: &SharedNeighbours) -> MutexGuard<'_, Neighbours> {
    neighbours.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Makes TAPs, quiets interfaces and starts the pump; call it inside a runtime. What was done is undone on an error.
    pub(super) async fn start(
        ports: Vec<(LinkPlan, Lane)>,
        neighbours: SharedNeighbours,
        probes: Probes,
        watch: Watch,
    ) -> Result<Self, KernelError> {
        let netlink = Netlink::open()?;
        let events = netlink::subscribe()?;
        let lanes = ports.iter().map(|(_, lane)| lane.clone()).collect();
        let mut gateways = 0;
        let mut side = |(plan, lane): (LinkPlan, Lane)| {
            let gateways_before = gateways;
            gateways += u32::try_from(plan.gateways.len()).unwrap_or_default();
            Side { plan, lane, link: None, up: false, vips: BTreeSet::new(), gateways_before }
        };
        let mut keeper = Self {
            netlink,
            events,
            quiet: Vec::new(),
            sides: ports.into_iter().map(&mut side).collect(),
            pump: Pump::start(lanes, probes.clone(), watch.sight())?,
            probes,
            neighbours,
            announcements: Announcements::default(),
            watch,
            vips: BTreeSet::new(),
            taken: BTreeSet::new(),
            announced: 0,
            wanted: BTreeSet::new(),
            lingering: BTreeMap::new(),
            ask: if keeps_neighbours(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()) {
                Ask::Managed
            } else {
                Ask::Use
            },
            troubles: LogLimit::new(),
            changed_macs: LogLimit::new(),
            ticks: 0,
        };
        match keeper.make_all().await {
            Ok(()) => Ok(keeper),
            Err(error) => {
                keeper.finish().await;
                Err(error)
            }
        }
    }

    async fn make_all(&mut self) -> Result<(), KernelError> {
        for side in &self.sides {
            for device in &side.plan.device_interfaces {
                self.quiet.push(QuietDevice::make(&self.netlink, &side.plan, device).await?);
            }
        }
        for index in 0..self.sides.len() {
            self.make(index).await?;
        }
        Ok(())
    }

    /// Makes the TAP of a port that has none.
    async fn make(&mut self, index: usize) -> Result<(), KernelError> {
        let Some(side) = self.sides.get_mut(index) else { return Ok(()) };
        let tap = tap::make(&self.netlink, &side.plan).await?;
        let device = Arc::new(tap.device);
        tap::set(&self.netlink, &side.plan, tap.link, side.gateways_before, &self.probes).await?;
        self.pump.connect(index, device);
        (side.link, side.up) = (Some(tap.link), true);
        side.vips.clear();
        tracing::info!(port = side.plan.name, interface = tap.link, "TAP is up");
        Ok(())
    }

    /// Follows what is wanted and what happens, until `stop` changes or its sender is gone.
    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<Wanted>,
        told: mpsc::Sender<NeighbourEvent>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first look at what is wanted needs no change.
        wanted.mark_changed();
        let mut director = true;
        let (sight, vip_news) = (self.watch.sight(), self.watch.told());
        loop {
            let due = [self.announcements.next(), self.watch.next()].into_iter().flatten().min().map(tokio::time::Instant::from_std);
            let news = lock(&self.neighbours).has_news();
            tokio::select! {
                _ = stop.changed() => break,
                changed = wanted.changed(), if director => match changed {
                    Ok(()) => {
                        let now_wanted = wanted.borrow_and_update().clone();
                        self.follow(now_wanted).await;
                    }
                    Err(_) => director = false,
                },
                event = self.events.recv() => match event {
                    Some(event) => self.happened(event).await,
                    None => self.subscribe_again().await,
                },
                permit = told.reserve(), if news && !told.is_closed() => {
                    if let (Ok(permit), Some(event)) = (permit, lock(&self.neighbours).tell()) {
                        permit.send(event);
                    }
                }
                () = sight.noticed() => self.watch.hear(Instant::now()),
                permit = vip_news.reserve(), if self.watch.has_news() && !vip_news.is_closed() => {
                    if let (Ok(permit), Some(news)) = (permit, self.watch.tell()) {
                        permit.send(news);
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => self.announce(),
                _ = tick.tick() => self.tick().await,
            }
        }
        self.finish().await;
    }

    /// Undoes what was done. The TAPs go with their last handle.
    async fn finish(mut self) {
        self.pump.stop();
        for quiet in self.quiet.drain(..) {
            quiet.restore(&self.netlink).await;
        }
        let Self { pump, .. } = self;
        // The pump's channel may hold the last handle of a TAP.
        drop(pump);
    }

    async fn follow(&mut self, wanted: Wanted) {
        let now = Instant::now();
        let again = std::mem::replace(&mut self.announced, wanted.announcements) != wanted.announcements;
        for vip in wanted.taken.iter().filter(|vip| again || !self.taken.contains(vip)) {
            self.announcements.begin(*vip, now);
        }
        for vip in self.taken.difference(&wanted.taken) {
            self.announcements.end(*vip);
        }
        self.watch.follow(&wanted.vips, &wanted.taken, now);
        (self.vips, self.taken) = (wanted.vips, wanted.taken);
        self.carry_vips().await;

        let gateways = self.sides.iter().flat_map(|side| side.plan.gateways.iter().map(|gateway| (side.plan.index, *gateway)));
        let keys: BTreeSet<Key> = wanted.neighbours.into_iter().chain(gateways).collect();
        for gone in self.wanted.difference(&keys) {
            if self.lingering.len() < MOST_LINGERING {
                self.lingering.insert(*gone, now + LINGER);
            }
        }
        self.wanted = keys;
        if again {
            self.ask_anew().await;
        }
        self.want_neighbours(now).await;
    }

    /// Asks those anew that have not answered: a link has come, and the kernel would ask a second after its last question, or give up.
    async fn ask_anew(&mut self) {
        let missed = lock(&self.neighbours).missed();
        for key in missed {
            self.leave(key).await;
            self.ask(key.0, key.1).await;
        }
    }

    /// Asks for the neighbours that are wanted, and leaves those that have lingered long enough.
    async fn want_neighbours(&mut self, now: Instant) {
        let wanted = &self.wanted;
        self.lingering.retain(|key, until| *until > now && !wanted.contains(key));
        let keys: BTreeSet<Key> = wanted.iter().chain(self.lingering.keys()).copied().collect();
        let difference = lock(&self.neighbours).want(&keys);
        for key in difference.removed {
            self.leave(key).await;
        }
        if !difference.added.is_empty() {
            // The kernel tells changes only: it may know some of them already.
            self.resync().await;
        }
        for (port, address) in difference.added {
            let settled = lock(&self.neighbours).is_settled((port, address));
            if !settled {
                self.ask(port, address).await;
            }
        }
    }

    /// Puts the VIPs on every TAP and takes off those that are gone. What fails is tried again with the next tick.
    async fn carry_vips(&mut self) {
        for side in &mut self.sides {
            let Some(link) = side.link else { continue };
            let name = side.plan.name.as_str();
            let own = |vip: &IpAddr| side.plan.addresses.iter().any(|network| network.addr() == *vip);
            let gone: Vec<IpAddr> = side.vips.difference(&self.vips).copied().collect();
            let new: Vec<IpAddr> = self.vips.difference(&side.vips).filter(|vip| !own(vip)).copied().collect();
            for vip in gone {
                match self.netlink.remove_address(name, link, IpNet::from(vip)).await {
                    Ok(()) => _ = side.vips.remove(&vip),
                    Err(error) => complain(&mut self.troubles, &error),
                }
            }
            for vip in new {
                match self.netlink.add_address(name, link, IpNet::from(vip), Purpose::Vip).await {
                    Ok(()) => _ = side.vips.insert(vip),
                    Err(error) => complain(&mut self.troubles, &error),
                }
            }
        }
    }

    async fn ask(&mut self, port: u16, address: IpAddr) {
        let Some((name, link)) = self.side(port).and_then(|side| Some((side.plan.name.as_str(), side.link?))) else { return };
        let mut result = self.netlink.put_neighbour(name, link, address, self.ask).await;
        if self.ask == Ask::Managed && result.as_ref().is_err_and(|error| error.is(nix::Error::EINVAL) || error.is(nix::Error::EOPNOTSUPP))
        {
            let name = name.to_owned();
            result = self.netlink.put_neighbour(&name, link, address, Ask::Use).await;
            if result.is_ok() {
                tracing::info!("this kernel does not keep neighbours fresh by itself (NTF_EXT_MANAGED): asking for them every second");
                self.ask = Ask::Use;
            }
        }
        if let Err(error) = result {
            complain(&mut self.troubles, &error);
        }
    }

    async fn leave(&mut self, (port, address): Key) {
        let Some((name, link)) = self.side(port).and_then(|side| Some((side.plan.name.as_str(), side.link?))) else { return };
        if let Err(error) = self.netlink.remove_neighbour(name, link, address).await {
            complain(&mut self.troubles, &error);
        }
    }

    fn side(&self, port: u16) -> Option<&Side> {
        self.sides.iter().find(|side| side.plan.index == port)
    }

    fn announce(&mut self) {
        let now = Instant::now();
        let announced = self.announcements.due(now).into_iter().map(Due::Announce);
        for due in announced.chain(self.watch.due(now)) {
            let Due::Announce(vip) = due else {
                self.sides.iter().for_each(|side| side.ask(due));
                continue;
            };
            for side in announcing(&self.sides, vip) {
                side.send(&announce::frame(side.plan.mac, vip));
            }
        }
    }

    async fn happened(&mut self, event: Event) {
        match event {
            Event::Neighbour(entry) => {
                if let Some(side) = self.sides.iter().find(|side| side.link == Some(entry.link)) {
                    lock(&self.neighbours).saw(side.plan.index, &entry, Instant::now());
                }
            }
            Event::Link(info) => {
                if self.sides.iter().any(|side| side.link == Some(info.index) && (side.up != info.up || side.plan.mac != info.mac)) {
                    self.look_at_tap(info.index).await;
                }
            }
            Event::LinkGone(link) => {
                let Some(side) = self.sides.iter_mut().find(|side| side.link == Some(link)) else { return };
                (side.link, side.up) = (None, false);
                tracing::error!(port = side.plan.name, "the TAP was deleted: making it again");
                lock(&self.neighbours).lost_port(side.plan.index, Instant::now());
            }
            Event::Overrun => {
                tracing::warn!("the kernel told more than was read (ENOBUFS): asking for all interfaces and neighbours");
                self.resync_all().await;
            }
        }
    }

    /// A TAP was said to be set up or down, or to have another MAC. The word may be old, from when it was made: what it is now counts.
    async fn look_at_tap(&mut self, link: u32) {
        let Some(side) = self.sides.iter_mut().find(|side| side.link == Some(link)) else { return };
        let name = side.plan.name.as_str();
        let info = match self.netlink.link(name).await {
            Ok(Some(info)) => info,
            Ok(None) => return,
            Err(error) => return complain(&mut self.troubles, &error),
        };
        if info.mac != side.plan.mac {
            return self.take_mac_back(link, info).await;
        }
        match (side.up, info.up) {
            (true, false) => {
                side.up = false;
                tracing::error!(port = name, "the TAP was set down: its neighbours are lost until it is up (ip link set {name} up)");
            }
            (false, true) => self.mend(link).await,
            _ => {}
        }
    }

    /// Gives a TAP the port's MAC again: what the kernel sends from another one is answered to that, and the device lets none of it in. udev changes
    /// the MAC of an interface that it sees before it was given one (systemd.link(5), `MACAddressPolicy`).
    async fn take_mac_back(&mut self, link: u32, found: LinkInfo) {
        let Some(side) = self.sides.iter().find(|side| side.link == Some(link)) else { return };
        let name = side.plan.name.as_str();
        if let Some(suppressed) = self.changed_macs.pass(Instant::now()) {
            tracing::warn!(port = name, found = show(found.mac), suppressed, "somebody gave the TAP another MAC: it gets the port's again");
        }
        if let Err(error) = self.netlink.set_mac(name, link, side.plan.mac).await {
            return complain(&mut self.troubles, &error);
        }
        // The kernel forgets all neighbours of an interface whose MAC changes, also those that it was given.
        if found.up {
            self.mend(link).await;
        }
        self.resync().await;
        self.ask_anew().await;
    }

    /// A TAP is without its routes, neighbours or IPv6 addresses, because it was set down or had another MAC.
    async fn mend(&mut self, link: u32) {
        let Some(side) = self.sides.iter_mut().find(|side| side.link == Some(link)) else { return };
        match tap::set(&self.netlink, &side.plan, link, side.gateways_before, &self.probes).await {
            Ok(()) => {
                side.up = true;
                side.vips.clear();
                tracing::info!(port = side.plan.name, "the TAP is as it should be again");
                self.carry_vips().await;
            }
            Err(error) => complain(&mut self.troubles, &error),
        }
    }

    /// Looks at all TAPs, and takes over the kernel's whole neighbour table.
    async fn resync_all(&mut self) {
        let taps: Vec<u32> = self.sides.iter().filter_map(|side| side.link).collect();
        for tap in taps {
            self.look_at_tap(tap).await;
        }
        self.resync().await;
    }

    /// Takes over the kernel's whole neighbour table.
    async fn resync(&mut self) {
        match self.netlink.neighbours().await {
            Ok(entries) => {
                let port = |link| self.sides.iter().find(|side| side.link == Some(link)).map(|side| side.plan.index);
                let entries: Vec<_> = entries.into_iter().filter_map(|entry| Some((port(entry.link)?, entry))).collect();
                lock(&self.neighbours).saw_all(&entries, Instant::now());
            }
            Err(error) => complain(&mut self.troubles, &error),
        }
    }

    async fn subscribe_again(&mut self) {
        tracing::error!("the netlink socket for events failed: opening another");
        tokio::time::sleep(TICK).await;
        match netlink::subscribe() {
            Ok(events) => {
                self.events = events;
                self.resync_all().await;
            }
            Err(error) => complain(&mut self.troubles, &error),
        }
    }

    async fn tick(&mut self) {
        for index in 0..self.sides.len() {
            if self.sides.get(index).is_some_and(|side| side.link.is_none())
                && let Err(error) = self.make(index).await
            {
                complain(&mut self.troubles, &error);
            }
        }
        self.carry_vips().await;
        let now = Instant::now();
        if self.lingering.values().any(|until| *until <= now) {
            self.want_neighbours(now).await;
        }
        self.ticks += 1;
        if self.ticks == RESYNC_TICKS {
            self.ticks = 0;
            self.resync_all().await;
        }
        let up: Vec<u16> = self.sides.iter().filter(|side| side.up).map(|side| side.plan.index).collect();
        for port in up {
            let due = lock(&self.neighbours).due(port);
            for address in due {
                self.ask(port, address).await;
            }
        }
    }
}

/// The ports by which a VIP is announced: those inside whose networks it is, or all if it is inside none.
fn announcing(sides: &[Side], vip: IpAddr) -> Vec<&Side> {
    let inside: Vec<&Side> = sides.iter().filter(|side| side.plan.addresses.iter().any(|network| network.contains(&vip))).collect();
    if inside.is_empty() { sides.iter().collect() } else { inside }
}

fn complain(limit: &mut LogLimit, error: &KernelError) {
    if let Some(suppressed) = limit.pass(Instant::now()) {
        tracing::error!(%error, suppressed, "the kernel did not do what it was asked; it is asked again");
    }
}

/// Whether a kernel of this release has managed neighbour entries (Linux 5.16). An older one would take the request,
/// leave the flag out and forget the entry's state.
fn keeps_neighbours(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (5, 16)
}

/// The MACs of all ports.
pub(super) fn own_macs(plans: &[LinkPlan]) -> BTreeSet<Mac> {
    plans.iter().map(|plan| plan.mac).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_neighbours_need_linux_5_16() {
        for (release, has) in [("6.1.0-40-amd64", true), ("5.16.0", true), ("5.15.0-91-generic", false), ("4.18.0", false), ("", false)] {
            assert_eq!(keeps_neighbours(release), has, "{release}");
        }
    }
}
