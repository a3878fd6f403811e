//! Which VIPs are ours, who else speaks for them, and real servers in quarantine for it.
//!
//! The commonest fault of direct routing is a real server that answers ARP for the VIP on its loopback interface: then clients go round the
//! director. The watch ([`crate::kernel::VipNews`]) says who was heard; here it is told whose MAC that is and what follows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use super::desired::Desired;
use super::neighbours::utc;
use super::records::{ServerKey, ServerRecord};
use super::{Director, Error, Inner, mac};
use crate::kernel::{Claim, VipNews};
use crate::model::{ArpLeak, RealServer, ServiceKey, Vip, VipConflict, VipState, What};

/// Machines that speak for VIPs and are remembered at a time; beyond, claims are only counted.
const MOST_CLAIMS: usize = 256;
/// VIPs and ports whose claims are counted.
const MOST_TOTALS: usize = 1_024;
/// How often it is looked anew whose MAC a claim has.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the director makes of VIPs that others speak for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchRules {
    /// A new VIP is taken only when the watch says that it is free.
    pub probe: bool,
    /// What is done about real servers.
    pub arp_leak: ArpLeak,
    /// After this time without a claim a conflict is over.
    pub quiet: Duration,
}

impl Default for WatchRules {
    fn default() -> Self {
        Self { probe: false, arp_leak: ArpLeak::Report, quiet: Duration::from_secs(30) }
    }
}

/// A machine that speaks for a VIP.
#[derive(Clone, Debug)]
struct Heard {
    since: SystemTime,
    last: SystemTime,
    at: Instant,
    count: u64,
    real_server: Option<IpAddr>,
    looked: Instant,
    /// An operator let the real server out: nothing follows from this conflict any more.
    pardoned: bool,
}

/// Why a real server gets no new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Quarantine {
    vip: IpAddr,
    mac: [u8; 6],
    since: SystemTime,
}

impl Quarantine {
    pub(super) fn reason(&self) -> String {
        format!(
            "in quarantine since {}: its MAC {} answers for the VIP {}; on it, `baton realserver check --vip {}` says what is wrong",
            utc(self.since),
            mac::format(self.mac),
            self.vip,
            self.vip
        )
    }
}

/// All VIPs and who else speaks for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Vips {
    rules: WatchRules,
    states: HashMap<IpAddr, VipState>,
    heard: BTreeMap<Claim, Heard>,
    totals: BTreeMap<(IpAddr, u16), u64>,
}

impl Vips {
    /// Whether the VIP is answered for and announced.
    pub(super) fn is_held(&self, vip: IpAddr) -> bool {
        self.state(vip) == VipState::Held
    }

    fn state(&self, vip: IpAddr) -> VipState {
        self.states.get(&vip).copied().unwrap_or_default()
    }

    pub(super) fn is_probing(&self, vip: IpAddr) -> bool {
        self.state(vip) == VipState::Probing
    }
}

impl Director {
    /// Says what follows from the watch over VIPs; for the VIPs that come from now on.
    pub fn watch_vips(&self, rules: WatchRules) {
        self.lock().desired.guard.rules = rules;
    }

    /// Notes what the watch found out.
    pub fn vip_news(&self, news: VipNews) {
        let mut inner = self.lock();
        match news {
            VipNews::Free(vip) => inner.desired.vip_is_free(vip),
            VipNews::Claimed(claim) => inner.desired.vip_is_claimed(claim, SystemTime::now(), Instant::now()),
        }
        self.commit(&mut inner);
    }

    /// Ends what has been quiet for long enough.
    pub(super) fn forget_quiet_claims(&self) {
        let mut inner = self.lock();
        inner.desired.forget_quiet_claims(Instant::now());
        self.commit(&mut inner);
    }

    /// Every VIP with its state and with those who speak for it, in order.
    pub fn vips(&self) -> Vec<Vip> {
        let inner = self.lock();
        let addresses: BTreeSet<IpAddr> = inner.desired.vips.keys().copied().collect();
        let vip = |address: IpAddr| Vip {
            address,
            state: inner.desired.guard.state(address),
            conflicts: inner.conflicts_of(|vip| vip == address),
        };
        addresses.into_iter().map(vip).collect()
    }

    /// Takes a VIP although another machine has it.
    pub async fn take_vip(&self, vip: IpAddr) -> Result<Vip, Error> {
        let committed = self.act(|inner| {
            if !inner.desired.vips.contains_key(&vip) {
                return Err(Error::NoSuchVip(vip));
            }
            inner.desired.take_vip(vip);
            Ok(())
        })?;
        self.settle(committed).await?;
        self.vips().into_iter().find(|known| known.address == vip).ok_or(Error::NoSuchVip(vip))
    }

    /// Lets a real server out of quarantine, until it has been quiet and is heard again.
    pub async fn release(&self, service: ServiceKey, server: SocketAddr) -> Result<RealServer, Error> {
        let key = ServerKey { service, address: server.ip(), port: server.port() };
        let committed = self.act(|inner| {
            let id = inner.find_service(service)?;
            let id = inner.find_member(id, &key).ok_or(Error::NoSuchRealServer(service, server))?;
            inner.desired.release(id);
            Ok(())
        })?;
        self.settle(committed).await?;
        self.real_server(service, server)
    }

    /// All conflicts at this moment, and how many claims were heard to each VIP on each port in all.
    pub fn vip_conflicts(&self) -> (Vec<VipConflict>, Vec<(IpAddr, u16, u64)>) {
        let inner = self.lock();
        let totals = inner.desired.guard.totals.iter().map(|((vip, port), count)| (*vip, *port, *count)).collect();
        (inner.conflicts_of(|_| true), totals)
    }
}

impl Desired {
    /// Takes over VIPs that came or went.
    pub(super) fn follow_vips(&mut self, touched: &HashSet<IpAddr>) {
        for vip in touched {
            if !self.vips.contains_key(vip) {
                self.guard.states.remove(vip);
                self.guard.heard.retain(|claim, _| claim.vip != *vip);
                self.guard.totals.retain(|(claimed, _), _| claimed != vip);
            } else if !self.guard.states.contains_key(vip) {
                let state = if self.guard.rules.probe { VipState::Probing } else { VipState::Held };
                self.guard.states.insert(*vip, state);
            }
        }
    }

    fn vip_is_free(&mut self, vip: IpAddr) {
        if self.vips.contains_key(&vip) && !self.guard.is_held(vip) {
            self.take_vip(vip);
        }
    }

    fn take_vip(&mut self, vip: IpAddr) {
        self.guard.states.insert(vip, VipState::Held);
        self.touched.vips.insert(vip);
    }

    fn vip_is_claimed(&mut self, claim: Claim, now: SystemTime, at: Instant) {
        if !self.vips.contains_key(&claim.vip) {
            return;
        }
        let total = (claim.vip, claim.port);
        if self.guard.totals.len() < MOST_TOTALS || self.guard.totals.contains_key(&total) {
            *self.guard.totals.entry(total).or_default() += 1;
        }
        let known = self.guard.heard.get(&claim).map(|heard| (heard.real_server, heard.looked));
        if known.is_none() && self.guard.heard.len() >= MOST_CLAIMS {
            return;
        }
        let real_server = match known {
            Some((real_server, looked)) if at.duration_since(looked) < LOOK_AGAIN => real_server,
            _ => self.whose(claim.mac),
        };
        let heard = self.guard.heard.entry(claim).or_insert(Heard {
            since: now,
            last: now,
            at,
            count: 0,
            real_server: None,
            looked: at,
            pardoned: false,
        });
        (heard.last, heard.at, heard.count) = (now, at, heard.count + 1);
        if heard.real_server != real_server {
            heard.looked = at;
        }
        heard.real_server = real_server;
        let pardoned = heard.pardoned;
        match (self.guard.state(claim.vip), real_server) {
            (VipState::Held, _) => {}
            // It is ours to serve: if the director held back, that real server would get every client.
            (_, Some(_)) => self.take_vip(claim.vip),
            (_, None) => _ = self.guard.states.insert(claim.vip, VipState::Contested),
        }
        if known.is_none_or(|(before, _)| before != real_server) {
            let reason = match (real_server, self.guard.is_held(claim.vip)) {
                (Some(rip), _) => format!("real server {rip} answers for it: clients may go round the director"),
                (None, true) => "a machine that is no real server answers for it".to_owned(),
                (None, false) => {
                    "a machine that is no real server has it: it is not taken until it is free, or by `baton vips take`".to_owned()
                }
            };
            let (port, mac) = (self.port_name(claim.port), mac::format(claim.mac));
            self.happened.push((What::AddressConflict { address: claim.vip, port, mac, real_server }, reason));
        }
        if self.guard.rules.arp_leak == ArpLeak::Quarantine && real_server.is_some() && !pardoned {
            self.quarantine(claim, now);
        }
    }

    fn port_name(&self, port: u16) -> String {
        self.links.get(usize::from(port)).map_or_else(|| port.to_string(), |link| link.name.clone())
    }

    /// The RIP of a real server on our links that has this MAC. Cost: linear in all real servers.
    fn whose(&self, mac: [u8; 6]) -> Option<IpAddr> {
        let members = self.order.values().filter_map(|id| self.services.get(*id)).flat_map(|service| &service.members);
        members.filter_map(|id| self.servers.place(*id)).find(|place| has_mac(&place.record, place.key.address, mac)).map(|p| p.key.address)
    }

    /// The services that have this VIP, by themselves or by mark rules.
    fn services_of(&self, vip: IpAddr) -> Vec<u32> {
        let all = self.order.values().filter_map(|id| Some((*id, self.services.place(*id)?.key)));
        all.filter(|(_, key)| self.has_vip(*key, vip)).map(|(id, _)| id).collect()
    }

    fn has_vip(&self, key: ServiceKey, vip: IpAddr) -> bool {
        match key.mark() {
            None => key.address == vip,
            Some(mark) => self.marks().iter().any(|rule| rule.mark == mark && rule.destination.host() == Some(vip)),
        }
    }

    /// Takes new connections from the real servers with the MAC of `claim`, in the services of its VIP that have others.
    fn quarantine(&mut self, claim: Claim, now: SystemTime) {
        for service in self.services_of(claim.vip) {
            let members = self.services.get(service).map(|record| record.members.clone()).unwrap_or_default();
            let takes = |id: &u32| self.servers.get(*id).is_some_and(|record| record.effective_weight() > 0 && record.next_hop.is_some());
            for id in &members {
                let Some(place) = self.servers.place(*id) else { continue };
                if place.record.quarantine.is_some() || !has_mac(&place.record, place.key.address, claim.mac) {
                    continue;
                }
                let key = place.key;
                if !members.iter().any(|other| other != id && takes(other)) {
                    tracing::debug!(service = %key.service, real_server = %key.socket(), "no quarantine for the last real server");
                    continue;
                }
                if let Some(record) = self.servers.get_mut(*id) {
                    record.quarantine = Some(Quarantine { vip: claim.vip, mac: claim.mac, since: now });
                }
                let reason = format!("its MAC {} answers for {}", mac::format(claim.mac), claim.vip);
                self.happened.push((What::QuarantineBegan { service: key.service.to_string(), real_server: key.socket() }, reason));
                self.touched.services.insert(service);
                // The next one must not be judged by what this one got.
                self.judge(service);
                break;
            }
        }
    }

    fn forget_quiet_claims(&mut self, at: Instant) {
        let quiet = self.guard.rules.quiet;
        let over: Vec<Claim> =
            self.guard.heard.iter().filter(|(_, heard)| at.duration_since(heard.at) >= quiet).map(|(claim, _)| *claim).collect();
        for claim in over {
            self.guard.heard.remove(&claim);
            let (port, mac) = (self.port_name(claim.port), mac::format(claim.mac));
            let reason = format!("MAC {mac} has been quiet for {} s", quiet.as_secs());
            self.happened.push((What::AddressConflictOver { address: claim.vip, port }, reason));
            if self.guard.heard.keys().any(|other| other.vip == claim.vip && other.mac == claim.mac) {
                continue;
            }
            for service in self.services_of(claim.vip) {
                let members = self.services.get(service).map(|record| record.members.clone()).unwrap_or_default();
                for id in members {
                    let quarantined = self.servers.get(id).and_then(|record| record.quarantine);
                    if quarantined.is_some_and(|quarantine| quarantine.vip == claim.vip && quarantine.mac == claim.mac) {
                        self.let_out(id, "it no longer answers for the VIP");
                    }
                }
            }
        }
    }

    fn release(&mut self, id: u32) {
        let Some(quarantine) = self.servers.get(id).and_then(|record| record.quarantine) else { return };
        for (claim, heard) in &mut self.guard.heard {
            heard.pardoned |= claim.vip == quarantine.vip && claim.mac == quarantine.mac;
        }
        self.let_out(id, "by command");
    }

    fn let_out(&mut self, id: u32, reason: &str) {
        let Some(place) = self.servers.place(id) else { return };
        let (key, service) = (place.key, place.record.service);
        if let Some(record) = self.servers.get_mut(id) {
            record.quarantine = None;
        }
        self.happened.push((What::QuarantineEnded { service: key.service.to_string(), real_server: key.socket() }, reason.to_owned()));
        self.touched.services.insert(service);
    }
}

/// Whether a real server on one of our links has this MAC; behind a gateway, the MAC is the gateway's.
fn has_mac(record: &ServerRecord, rip: IpAddr, mac: [u8; 6]) -> bool {
    record.hop.1 == rip && record.next_hop.is_some_and(|hop| hop.mac == mac)
}

impl Inner {
    fn conflicts_of(&self, meant: impl Fn(IpAddr) -> bool) -> Vec<VipConflict> {
        let all = self.desired.guard.heard.iter().filter(|(claim, _)| meant(claim.vip));
        all.map(|(claim, heard)| VipConflict {
            vip: claim.vip,
            port: self.desired.port_name(claim.port),
            mac: mac::format(claim.mac),
            real_server: heard.real_server,
            since: utc(heard.since),
            last: utc(heard.last),
            claims: heard.count,
        })
        .collect()
    }

    /// Whether a service's VIPs are ours, and who else speaks for them.
    pub(super) fn vip_view(&self, key: ServiceKey) -> (VipState, Vec<VipConflict>) {
        let state = if key.mark().is_some() { VipState::Held } else { self.desired.guard.state(key.address) };
        if self.desired.guard.heard.is_empty() {
            return (state, Vec::new());
        }
        (state, self.conflicts_of(|vip| self.desired.has_vip(key, vip)))
    }
}

#[cfg(test)]
mod tests;
