//! From the desired state to what the workers get: immutable snapshots of what a change touched.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dataplane::address::Address;
use dataplane::command::LocalAddresses;
use dataplane::marks::Marks;
use dataplane::routes::{Network, PortRoutes, Routes};
use dataplane::schedule::{Buckets, Seat};
use dataplane::service as worker;
use dataplane::service::{ServerId, ServiceId};
use dataplane::settings as paths;
use ipnet::IpNet;

use super::Link;
use super::desired::{Desired, Touched};
use super::health::Standing;
use super::neighbours::Hop;
use super::places::{Place, Presence};
use super::records::{ServerKey, ServerRecord, ServiceFields, ServiceRecord};
use super::routes::source_towards;
use crate::model::{
    Method, NoRealServer, Persistence, Protocol, Scheduler, SchedulerFlag, ServiceKey, ServiceTimeouts, Tunnel, TunnelChecksum, TunnelType,
};

/// What becomes of a VIP.
#[derive(Clone, Copy, Debug)]
pub(super) struct VipChange {
    pub(super) vip: IpAddr,
    /// It is there.
    pub(super) wanted: bool,
    /// It is answered for and announced.
    pub(super) taken: bool,
}

/// What one change comes to, for all workers and for the kernel beside us.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Its number: one more than that of the change before.
    pub(super) number: u64,
    pub(super) services: Vec<(ServiceId, Option<Arc<worker::VirtualService>>)>,
    pub(super) servers: Vec<(ServerId, Option<Arc<worker::RealServer>>)>,
    pub(super) locals: Option<Arc<LocalAddresses>>,
    pub(super) marks: Option<Arc<Marks>>,
    pub(super) settings: Option<paths::Settings>,
    pub(super) routes: Option<Arc<Routes>>,
    /// VIPs that appeared, are ours from now on, or are gone.
    pub(super) vips: Vec<VipChange>,
    /// Neighbours that are wanted from now on (`true`) or no longer.
    pub(super) hops: Vec<(Hop, bool)>,
    /// The document changed.
    pub(super) document: bool,
    /// Services that it shows otherwise than before.
    pub(super) rewritten_services: BTreeSet<u32>,
    /// Real servers that it shows otherwise than before.
    pub(super) rewritten_servers: BTreeSet<u32>,
    /// Real servers whose MACs are waited for.
    pub(super) awaited: Vec<u32>,
}

impl Desired {
    /// Takes what was touched since the last call; `None` when nothing was.
    ///
    /// Cost: linear in what was touched, with its members, and in all VIPs when one came or went.
    pub(super) fn take_change(&mut self, base: &paths::Settings) -> Option<Change> {
        for service in self.touched.services.iter().copied().collect::<Vec<_>>() {
            self.judge(service);
        }
        let Touched { services, servers, vips, hops, marks, settings, routes, document, rewritten_services, rewritten_servers, awaited } =
            std::mem::take(&mut self.touched);
        for id in &servers {
            if let Some(record) = self.servers.get_mut(*id).filter(|record| record.relieved) {
                record.relieved = false;
                record.stats.set_overloaded(false);
            }
        }
        let first = self.next_change == 1;
        self.follow_vips(&vips);
        if services.is_empty()
            && servers.is_empty()
            && vips.is_empty()
            && hops.is_empty()
            && !(marks || settings || routes || document || first)
        {
            return None;
        }
        let change = Change {
            number: self.next_change,
            services: services.into_iter().map(|id| (ServiceId(id), self.service_snapshot(id))).collect(),
            servers: servers.into_iter().map(|id| (ServerId(id), self.server_snapshot(id))).collect(),
            locals: (first || !vips.is_empty()).then(|| Arc::new(self.locals())),
            marks: marks.then(|| Arc::new(self.marks_for_workers())),
            settings: settings.then(|| self.settings_for_workers(base)),
            routes: routes.then(|| Arc::new(self.routes())),
            vips: vips.into_iter().map(|vip| self.vip_change(vip)).collect(),
            hops: hops.into_iter().map(|h| (h, self.hops.contains_key(&h))).collect(),
            document,
            rewritten_services,
            rewritten_servers,
            awaited,
        };
        self.next_change += 1;
        Some(change)
    }

    fn vip_change(&self, vip: IpAddr) -> VipChange {
        let wanted = self.vips.contains_key(&vip);
        VipChange { vip, wanted, taken: wanted && self.guard.is_held(vip) }
    }

    fn service_snapshot(&mut self, id: u32) -> Option<Arc<worker::VirtualService>> {
        self.patient.remove(&id);
        let buckets = self.buckets(id)?;
        let place = self.services.place(id).filter(|p| p.presence == Presence::Present)?;
        let record = &place.record;
        // IPVS keeps the packet until ARP has answered. Nothing is kept here, but the client asks again within a second.
        let patient = self.awaits_mac(record, SystemTime::now());
        // IPVS puts each new real server before the others, so its schedulers begin with the newest.
        let members = self.effective_members(record).filter_map(|server| {
            let member = self.servers.get(server)?;
            Some(worker::Member {
                server: ServerId(server),
                weight: self.worker_weight(member),
                reachable: member.next_hop.is_some(),
                limited: member.fields.thresholds.upper != 0,
                stats: Arc::clone(&member.stats),
            })
        });
        let snapshot = worker::VirtualService {
            id: ServiceId(id),
            key: key_for_workers(place.key),
            scheduler: scheduler_for_workers(&record.fields),
            one_packet: record.fields.one_packet,
            persistence: record.fields.persistence.map(|p| persistence_for_workers(p, place.key.address)),
            revision: record.list_revision,
            members: members.collect(),
            buckets,
            no_real_server: no_real_server_for_workers(if patient { NoRealServer::Drop } else { record.fields.no_real_server }),
            timeouts: record.fields.timeouts.map(|own| self.timeouts_for_workers(own)),
            stats: Arc::clone(&record.stats),
        };
        if patient {
            self.patient.insert(id);
        }
        Some(Arc::new(snapshot))
    }

    /// The buckets of a service's members: made anew only when the list of members or the scheduler is another, so that a new MAC
    /// costs no table.
    fn buckets(&mut self, id: u32) -> Option<Buckets> {
        let place = self.services.place(id)?;
        let (record, ipv6) = (&place.record, place.key.address.is_ipv6());
        let wanted = (record.list_revision, scheduler_for_workers(&record.fields));
        if record.buckets.0 == Some(wanted) {
            return Some(record.buckets.1.clone());
        }
        let seats: Vec<Seat> = self.effective_members(record).filter_map(|server| self.seat(server)).collect();
        let buckets = Buckets::new(wanted.1, ipv6, &seats);
        self.services.get_mut(id)?.buckets = (Some(wanted), buckets.clone());
        Some(buckets)
    }

    /// The members that workers are told of, newest first: those that health has not taken out, and the sorry server in its turn.
    pub(super) fn effective_members<'a>(&'a self, record: &'a ServiceRecord) -> impl Iterator<Item = u32> + 'a {
        let all = record.sorry.into_iter().chain(record.members.iter().rev().copied());
        all.filter(|server| self.servers.get(*server).is_some_and(|member| member.standing != Standing::Out))
    }

    fn seat(&self, server: u32) -> Option<Seat> {
        let place = self.servers.place(server)?;
        let record = &place.record;
        Some(Seat {
            address: Address::from(place.key.address),
            port: place.key.port,
            weight: self.worker_weight(record),
            last_weight: record.last_weight,
        })
    }

    /// A real server stays in the workers' tables after its removal, until no entry refers to it.
    fn server_snapshot(&self, id: u32) -> Option<Arc<worker::RealServer>> {
        let place = self.servers.place(id)?;
        let record = &place.record;
        let present = place.presence == Presence::Present;
        if !present && (record.dismissed.is_some() || matches!(place.presence, Presence::Remembered(_))) {
            return None;
        }
        Some(Arc::new(worker::RealServer {
            id: ServerId(id),
            service: ServiceId(record.service),
            address: Address::from(place.key.address),
            port: if self.keeps_ports(place) { 0 } else { place.key.port },
            protocol: protocol_for_workers(place.key.service.protocol),
            method: method_for_workers(record.fields.method),
            tunnel: self.tunnel(record),
            available: present && record.standing != Standing::Out,
            weight: self.worker_weight(record),
            drain: record.drain.as_ref().map_or(worker::Drain::No, |drain| drain.for_workers()),
            thresholds: record.fields.thresholds,
            next_hop: record.next_hop,
            stats: Arc::clone(&record.stats),
        }))
    }

    /// Whether packets keep their port whatever the real server's is: those of a persistent service of every port, or by mark,
    /// do, as in IPVS (`ip_vs_sched_persist`).
    fn keeps_ports(&self, server: &Place<ServerKey, ServerRecord>) -> bool {
        let service = self.services.place(server.record.service);
        server.key.service.port == 0 && service.is_some_and(|service| service.record.fields.persistence.is_some())
    }

    /// The tunnel, IPIP unless it has another, also for those that are reached otherwise now: connections that were made through a tunnel keep
    /// it. Its packets come from a DIP of the network that they leave to.
    fn tunnel(&self, record: &ServerRecord) -> Option<worker::Tunnel> {
        let (port, neighbour) = record.hop;
        let link = self.links.get(usize::from(port))?;
        let source = Address::from(source_towards(link, neighbour)?);
        Some(worker::Tunnel { source, encapsulation: encapsulation_for_workers(record.fields.tunnel) })
    }

    /// The ways to clients: the networks that we are connected to, and the gateways whose MACs are known.
    fn routes(&self) -> Routes {
        let port = |(index, link): (u16, &Link)| PortRoutes {
            networks: link.networks.iter().map(network_for_workers).collect(),
            gateways: [true, false].map(|v4| {
                let gateway = link.gateways.iter().find(|gateway| gateway.is_ipv4() == v4)?;
                let mac = self.neighbours.mac(&(index, *gateway))?;
                Some(worker::NextHop { port: index, mac, mtu: link.mtu })
            }),
            mtu: link.mtu,
        };
        Routes::new((0_u16..).zip(self.links.iter()).map(port).collect())
    }

    fn locals(&self) -> LocalAddresses {
        let mut locals = LocalAddresses { macs: self.links.iter().map(|l| l.mac).collect(), ..LocalAddresses::default() };
        let every_port = self.links.iter().zip(0_u32..64).fold(0, |bits, (_, port)| bits | 1_u64 << port);
        locals.addresses.reserve(self.vips.len() + self.links.len());
        for vip in self.vips.keys() {
            if self.guard.is_held(*vip) {
                locals.addresses.insert(Address::from(*vip), every_port);
            }
            locals.vips.insert(Address::from(*vip));
        }
        locals.probed = self.probed.keys().map(|vip| Address::from(*vip)).collect();
        for (link, port) in self.links.iter().zip(0_u32..64) {
            for network in &link.networks {
                *locals.addresses.entry(Address::from(network.addr())).or_default() |= 1 << port;
            }
        }
        locals
    }

    fn settings_for_workers(&self, base: &paths::Settings) -> paths::Settings {
        let s = &self.settings;
        paths::Settings {
            sloppy_tcp: s.sloppy_tcp != 0,
            sloppy_sctp: s.sloppy_sctp != 0,
            schedule_icmp: s.schedule_icmp != 0,
            nat_icmp_send: s.nat_icmp_send != 0,
            pmtu_disc: s.pmtu_disc != 0,
            expire_nodest_conn: s.expire_nodest_conn != 0,
            expire_quiescent_template: s.expire_quiescent_template != 0,
            conn_reuse_mode: s.conn_reuse_mode,
            drop_entry: mode_for_workers(s.drop_entry),
            drop_packet: mode_for_workers(s.drop_packet),
            secure_tcp: mode_for_workers(s.secure_tcp),
            amemthresh: s.amemthresh,
            am_droprate: s.am_droprate,
            timeouts: self.timeouts_for_workers(ServiceTimeouts::default()),
            lblc_expiration: s.lblc_expiration,
            lblcr_expiration: s.lblcr_expiration,
            ..*base
        }
    }

    /// A service's timeouts: its own and, for the rest, those of the settings.
    fn timeouts_for_workers(&self, own: ServiceTimeouts) -> paths::Timeouts {
        let s = &self.settings;
        paths::Timeouts {
            tcp: own.tcp.unwrap_or(s.timeout_tcp),
            tcp_fin: own.tcpfin.unwrap_or(s.timeout_tcpfin),
            udp: own.udp.unwrap_or(s.timeout_udp),
        }
    }

    /// Lets go of what was removed, as far as nobody refers to it any more, once every worker runs change `applied`.
    ///
    /// A removed real server goes in two steps: when its last entry has ended the workers are told to forget it, and when
    /// they have, its place is free for another. Cost: linear in what was removed and is not yet gone.
    pub(super) fn retire(&mut self, applied: u64) {
        let mut held: HashSet<u32> = HashSet::new();
        for id in self.servers.leaving().collect::<Vec<_>>() {
            let Some(place) = self.servers.place(id) else { continue };
            let Presence::Leaving(removed_by) = place.presence else { continue };
            match place.record.dismissed {
                Some(dismissed_by) if dismissed_by <= applied => self.servers.remember(id),
                None if removed_by <= applied && !place.record.is_referred_to() => {
                    held.insert(place.record.service);
                    let number = self.next_change;
                    if let Some(record) = self.servers.get_mut(id) {
                        record.dismissed = Some(number);
                    }
                    self.touched.servers.insert(id);
                }
                _ => {
                    held.insert(place.record.service);
                }
            }
        }
        for id in self.services.leaving().collect::<Vec<_>>() {
            let gone = self.services.place(id).is_some_and(|p| matches!(p.presence, Presence::Leaving(by) if by <= applied));
            if gone && !held.contains(&id) {
                self.services.remember(id);
            }
        }
    }
}

/// The packet path's protocol.
pub(super) fn protocol_for_workers(protocol: Protocol) -> worker::Protocol {
    match protocol {
        Protocol::Tcp => worker::Protocol::Tcp,
        Protocol::Udp => worker::Protocol::Udp,
        Protocol::Sctp => worker::Protocol::Sctp,
        Protocol::Mark => worker::Protocol::Ip,
    }
}

fn key_for_workers(key: ServiceKey) -> worker::ServiceKey {
    worker::ServiceKey { protocol: protocol_for_workers(key.protocol), address: Address::from(key.address), port: key.port }
}

fn scheduler_for_workers(fields: &ServiceFields) -> worker::SchedulerKind {
    let has = |flag| fields.flags.contains(&flag);
    match fields.scheduler {
        Scheduler::Rr => worker::SchedulerKind::RoundRobin,
        Scheduler::Wrr => worker::SchedulerKind::WeightedRoundRobin,
        Scheduler::Lc => worker::SchedulerKind::LeastConnections,
        Scheduler::Wlc => worker::SchedulerKind::WeightedLeastConnections,
        Scheduler::Lblc => worker::SchedulerKind::LocalityLeastConnections,
        Scheduler::Lblcr => worker::SchedulerKind::LocalityReplicated,
        Scheduler::Dh => worker::SchedulerKind::DestinationHash,
        Scheduler::Sed => worker::SchedulerKind::ShortestExpectedDelay,
        Scheduler::Nq => worker::SchedulerKind::NeverQueue,
        Scheduler::Fo => worker::SchedulerKind::Failover,
        Scheduler::Ovf => worker::SchedulerKind::Overflow,
        Scheduler::Twos => worker::SchedulerKind::TwoChoices,
        Scheduler::Mh => worker::SchedulerKind::Maglev { port: has(SchedulerFlag::MhPort), fallback: has(SchedulerFlag::MhFallback) },
        Scheduler::Sh => worker::SchedulerKind::SourceHash { port: has(SchedulerFlag::ShPort), fallback: has(SchedulerFlag::ShFallback) },
    }
}

/// A prefix of an IPv4 network is the whole mapped form but for its last bits.
fn network_for_workers(network: &IpNet) -> Network {
    let host_bits = network.max_prefix_len() - network.prefix_len();
    let mask = u128::MAX.checked_shl(host_bits.into()).unwrap_or_default();
    Network { prefix: Address::from(network.network()), mask, own: Address::from(network.addr()) }
}

/// A prefix of an IPv4 address is one of its last 32 bits in the form that both families share.
fn persistence_for_workers(persistence: Persistence, vip: IpAddr) -> worker::Persistence {
    if let Some(netmask) = persistence.netmask {
        return worker::Persistence { timeout: persistence.timeout, mask: u128::MAX << 32 | u128::from(netmask.to_bits()) };
    }
    let ignored = persistence.prefix.map_or(0, |prefix| if vip.is_ipv4() { 32_u8 } else { 128 }.saturating_sub(prefix));
    worker::Persistence { timeout: persistence.timeout, mask: u128::MAX.checked_shl(ignored.into()).unwrap_or_default() }
}

/// IPVS leaves a remote checksum to a device that computes one; a packet from a wire has its own, and gets the outer one in full.
pub(super) fn encapsulation_for_workers(tunnel: Tunnel) -> worker::Encapsulation {
    let checksum = tunnel.checksum != TunnelChecksum::None;
    match tunnel.kind {
        TunnelType::Ipip => worker::Encapsulation::IpIp,
        TunnelType::Gue => worker::Encapsulation::Gue { port: tunnel.port.unwrap_or_default(), checksum },
        TunnelType::Gre => worker::Encapsulation::Gre { checksum },
    }
}

const fn no_real_server_for_workers(policy: NoRealServer) -> worker::NoRealServer {
    match policy {
        NoRealServer::Icmp => worker::NoRealServer::Icmp,
        NoRealServer::Drop => worker::NoRealServer::Drop,
        NoRealServer::Reset => worker::NoRealServer::Reset,
    }
}

/// 1 and 2 are one: which of them the kernel shows tells whether the defence is in force, which `baton get workers` does here.
const fn mode_for_workers(value: u8) -> paths::Mode {
    match value {
        0 => paths::Mode::Never,
        1 | 2 => paths::Mode::Automatic,
        _ => paths::Mode::Always,
    }
}

fn method_for_workers(method: Method) -> worker::Method {
    match method {
        Method::DirectRouting => worker::Method::DirectRouting,
        Method::Tunnel => worker::Method::Tunnel,
        Method::Masquerading => worker::Method::Masquerading,
    }
}
