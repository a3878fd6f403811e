//! Persistence: a client's first connection leaves a template, and its later ones follow that to the same real server.
//!
//! A template is an entry of the connection table (client's network, no cport, VIP, vport) that no packet matches; of a service
//! by mark it has the mark in the place of the VIP and holds for all protocols and ports. It lives
//! for the service's time after the last new connection, and on for a minute at a time while connections of its own are left.
//! Several workers agree on the real server of a client that comes to each of them ([`crate::affinity`]).

use crate::address::Address;
use crate::connection::entry::{TEMPLATE, flags};
use crate::connection::{EntryId, Key, NewEntry};
use crate::rules::Rules;
use crate::service::{Drain, Persistence, Protocol, ServerId, ServiceId};
use crate::tcp::State;
use crate::tick::Tick;
use crate::track::Tracker;
use crate::verdict::Verdict;

/// Where a persistent service sends a new connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed {
    /// The real server.
    pub(crate) server: ServerId,
    /// The template that says so.
    pub(crate) template: EntryId,
    /// Whether it was made for this connection.
    pub(crate) fresh: bool,
}

impl Tracker {
    /// Where a new connection `key` of a persistent service goes.
    ///
    /// A template is followed whatever the real server's weight, unless that is 0 and `expire_quiescent_template` is on, or it is being drained. When
    /// its real server was removed, the service schedules anew and another template says so from then on; if another worker has
    /// done so for this client, that holds here as well. Cost: one lookup, and the scheduler's for a client without a template;
    /// with several workers, what [`Affinity`](crate::affinity::Affinity) says.
    pub(crate) fn persistent(
        &mut self,
        key: &Key,
        service: ServiceId,
        persistence: Persistence,
        rules: &mut Rules,
        now: Tick,
    ) -> Result<Followed, Verdict> {
        let key_of_service = rules.service_ref(service).ok_or(Verdict::NoRealServer)?.service.key;
        let (virtual_, protocol) =
            if key_of_service.is_marked() { (key_of_service.address, Protocol::Ip as u8) } else { (key.virtual_, key.protocol) };
        let of_client = Key {
            client: Address(key.client.0 & persistence.mask),
            client_port: 0,
            virtual_,
            virtual_port: key_of_service.port,
            protocol: protocol | TEMPLATE,
        };
        let timeout_ticks = persistence.timeout * Tick::PER_SECOND;
        let hash = self.connections.hash(&of_client);
        let known = self.connections.find(hash, &of_client);
        if let Some(template) = known {
            let server = self.connections.entry(template).server();
            if self.is_good(template, service, rules) {
                self.connections.renew(template, now, timeout_ticks);
                self.agree(&of_client, server, service, timeout_ticks, rules, now);
                return Ok(Followed { server, template, fresh: false });
            }
        }
        // As in IPVS, one that is not followed any more stays until its time is up, where no connection finds it.
        let known = known.filter(|template| !self.connections.invalidate(*template));
        let elsewhere = self.connections.affinity().and_then(|affinity| affinity.server(&of_client, now));
        let elsewhere = elsewhere.filter(|server| is_member(*server, service, rules));
        let server = elsewhere.or_else(|| rules.schedule(service, key, now)).ok_or(Verdict::NoRealServer)?;
        let template = if let Some(template) = known {
            // Of the very port that stands for none: it cannot be put aside.
            Self::count_template(self.connections.entry(template).server(), rules, false);
            self.connections.redirect(template, server, service);
            self.connections.renew(template, now, timeout_ticks);
            template
        } else {
            let flags = if Protocol::of_flow(key.protocol) == Protocol::Udp { flags::NO_HANDSHAKE } else { 0 };
            let new = NewEntry { server, service, state: State::None as u8, flags, timeout_ticks };
            self.admit(hash, &of_client, new, None, rules, now)?
        };
        let agreed = self.agree(&of_client, server, service, timeout_ticks, rules, now);
        if agreed != server {
            // Another worker scheduled this client at the same moment.
            self.connections.redirect(template, agreed, service);
        }
        let server = agreed;
        Self::count_template(server, rules, true);
        Ok(Followed { server, template, fresh: known.is_none() })
    }

    /// Whether new connections may follow the template.
    fn is_good(&self, template: EntryId, service: ServiceId, rules: &Rules) -> bool {
        let entry = self.connections.entry(template);
        entry.service() == service && may_be_followed(entry.server(), rules)
    }

    /// Tells the other workers of a template for `ticks` from now; the real server that all of them agree on.
    fn agree(&mut self, key: &Key, server: ServerId, service: ServiceId, ticks: u32, rules: &Rules, now: Tick) -> ServerId {
        let Some(affinity) = self.connections.affinity() else { return server };
        let agreed = affinity.agree(key, server, now, ticks, |other| is_member(other, service, rules));
        self.counts.unshared_templates += u64::from(agreed.is_none());
        agreed.unwrap_or(server)
    }

    /// Counts a template in or out of its real server's.
    fn count_template(server: ServerId, rules: &Rules, comes: bool) {
        if let Some(target) = rules.server(server) {
            let templates = &target.share.persistent;
            if comes { templates.increment() } else { templates.decrement() }
        }
    }

    /// Puts a new entry under the control of its template.
    pub(crate) fn control(&mut self, entry: EntryId, template: EntryId) {
        self.connections.set_template(entry, template);
        let entry = self.connections.entry(entry);
        if entry.counts_as_active() && !entry.is_half_open() {
            self.connections.assure(template);
        }
    }
}

/// Whether new connections may follow a template to this real server.
fn may_be_followed(server: ServerId, rules: &Rules) -> bool {
    let Some(target) = rules.server(server) else { return false };
    target.available && target.drain == Drain::No && !(target.quiescent && rules.settings.expire_quiescent_template)
}

/// Whether what another worker says about a client of the service may be followed: the place may have come to another real server
/// meanwhile. Cost: linear in the service's real servers.
pub(crate) fn is_member(server: ServerId, service: ServiceId, rules: &Rules) -> bool {
    let members = rules.service_ref(service).map(|found| &found.service.members);
    may_be_followed(server, rules) && members.is_some_and(|members| members.iter().any(|member| member.server == server))
}

#[cfg(test)]
mod tests;
