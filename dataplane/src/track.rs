//! Connections: what an entry does with a packet, and what happens to a packet without one.

use std::sync::Arc;

use crate::address::Address;
use crate::command::WorkerReport;
use crate::complaints::complain;
use crate::connection::entry::flags;
use crate::connection::{ConnectionTable, Entry, EntryId, InsertError, Key, NewEntry};
use crate::defence::Defence;
use crate::handover::Directory;
use crate::icmp_error::{Cause, IcmpErrors};
use crate::lanes::{Fate, Lanes, each, has};
use crate::masquerade::Ends;
use crate::parse::{Kind, Packet};
use crate::persist::is_member;
use crate::recycle::Overflow;
use crate::rules::{Rules, ServerRules};
use crate::sctp;
use crate::service::{Drain, Method, NoRealServer, Protocol, ServerId, ServiceId, ServiceKey};
use crate::settings::Timeouts;
use crate::stats::{ServerShare, Traffic};
use crate::tcp::{self, State, Table};
use crate::tick::Tick;
use crate::verdict::Verdict;

/// The source port that IPVS never schedules: FTP's data connections come from the real server's side.
const FTP_DATA: u16 = 20;
/// Seconds that an entry lives which no packet of its own has reached.
const FRESH: u32 = 3;

/// What the connection stages work on.
#[derive(Debug)]
pub struct Tracker {
    /// This worker's number, for the counters.
    pub worker: usize,
    /// The connection table.
    pub connections: ConnectionTable,
    /// Where other workers look for the owner of a connection; `None` for a worker alone.
    pub directory: Option<Arc<Directory>>,
    /// Whether an entry was removed during this burst, so that what was found must be looked up again.
    disturbed: bool,
    /// The method of most plain packets lately.
    pub(crate) usual: Method,
    pub(crate) defence: Defence,
    pub(crate) overflow: Overflow,
    pub(crate) counts: Counts,
    /// What the client is told whose packet no real server takes.
    refusal: Option<Cause>,
}

/// What a new entry holds of its first packet.
struct Beginning {
    /// The value of its protocol's state.
    state: u8,
    flags: u16,
    /// Until it ends unless another packet comes.
    seconds: u32,
}

/// What happened to the table since it was last told.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) recycled: u64,
    pub(crate) without_entry: u64,
    pub(crate) dropped_entries: u64,
    pub(crate) unshared_templates: u64,
}

/// What is known of a packet that is to begin a connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct First {
    /// The connection's other packets may come to another worker, which is to choose the same real server.
    pub(crate) apart: bool,
    /// Its connection was ended to be scheduled again: it may begin one whatever its flags are.
    pub(crate) anew: bool,
}

impl Tracker {
    /// A tracker over an empty table.
    pub fn new(worker: usize, connections: ConnectionTable, directory: Option<Arc<Directory>>) -> Self {
        // The table's hash is keyed with a secret, and so is what is made from it.
        let nothing = Key { client: Address(0), virtual_: Address(0), client_port: 0, virtual_port: 0, protocol: 0 };
        let defence = Defence::new(connections.hash(&nothing));
        Self {
            worker,
            connections,
            directory,
            disturbed: false,
            usual: Method::DirectRouting,
            defence,
            overflow: Overflow::default(),
            counts: Counts::default(),
            refusal: None,
        }
    }

    /// After commands: the defences go by new settings, and connections of removed real servers end if they are to.
    pub fn rules_changed(&mut self, rules: &mut Rules, now: Tick) {
        self.defence.check_soon(rules.version, now);
        if std::mem::take(&mut rules.servers_left) && rules.settings.expire_nodest_conn {
            self.defence.walk();
        }
    }

    /// Publishes what happened to the table. Cost: a comparison when nothing did.
    pub fn report(&mut self, report: &WorkerReport) {
        let Counts { recycled, without_entry, dropped_entries, unshared_templates } = std::mem::take(&mut self.counts);
        if recycled | without_entry | dropped_entries | unshared_templates != 0 {
            report.recycled.add(recycled);
            report.without_entry.add(without_entry);
            report.dropped_entries.add(dropped_entries);
            report.unshared_templates.add(unshared_templates);
        }
        report.defences.set(self.defence.in_force());
    }

    /// Stage: packets of known connections, both directions. Moves the TCP state, restarts the timer, counts; leaves undecided what must be
    /// scheduled.
    #[inline]
    pub fn track(&mut self, lanes: &mut Lanes, ends: Ends<'_>, errors: &mut IcmpErrors) {
        self.disturbed = false;
        lanes.missed = 0;
        let answers = self.seek_answers(lanes, ends.rules);
        for i in each(lanes.flows) {
            let packet = &lanes.packets[i];
            let found = if self.disturbed { self.connections.find(lanes.hashes[i], &packet.key) } else { lanes.entries[i] };
            if let Some(id) = found {
                lanes.fates[i] = self.packet_of(id, packet, ends.rules, ends.now);
            }
            if lanes.fates[i] == Fate::Undecided && has(answers, i) {
                self.answer(i, lanes, ends, errors);
            }
            lanes.missed |= u64::from(lanes.fates[i] == Fate::Undecided) << i;
        }
    }

    /// Stage: first packets of connections. What belongs to no service goes to the kernel.
    #[inline]
    pub fn schedule(&mut self, lanes: &mut Lanes, rules: &mut Rules, errors: &mut IcmpErrors, now: Tick) {
        // Connections that this burst may have made, by six bits of their hashes.
        let mut begun = 0_u64;
        while lanes.missed != 0 {
            let i = lanes.missed.trailing_zeros() as usize;
            lanes.missed &= lanes.missed - 1;
            let packet = lanes.packets[i];
            let hash = lanes.hashes[i];
            // An entry may have ended since it was found, and been made since none was.
            let may_be_known = lanes.entries[i].is_some() || begun >> (hash & 63) & 1 != 0;
            begun |= 1 << (hash & 63);
            let known = may_be_known.then(|| self.connections.find(hash, &packet.key)).flatten();
            let known = known.map(|id| self.packet_of(id, &packet, rules, now));
            let drain = if known == Some(Fate::Undecided) { self.drained(hash, &packet, rules) } else { Drain::No };
            lanes.fates[i] = match (known, drain) {
                (Some(fate), _) if fate != Fate::Undecided => fate,
                (_, Drain::Reset) => Fate::Drop(Verdict::NoRealServer),
                _ => {
                    let first = First { apart: lanes.firsts >> i & 1 != 0, anew: drain == Drain::Reschedule };
                    self.first_packet(hash, &packet, first, rules, now)
                }
            };
            if lanes.fates[i] == Fate::Drop(Verdict::NoRealServer)
                && let Some(cause) = self.refusal.take()
            {
                errors.ask(i, cause);
            }
            lanes.own_sources |= u64::from(lanes.fates[i] == Fate::Drop(Verdict::OwnSource)) << i;
        }
        if lanes.unrelated != 0 {
            self.schedule_errors(lanes, rules, now);
        }
    }

    /// What a packet of the connection `id` does; `Undecided` when the entry ended and the packet is to be scheduled anew.
    #[inline]
    fn packet_of(&mut self, id: EntryId, packet: &Packet, rules: &Rules, now: Tick) -> Fate {
        let server = self.connections.entry(id).server();
        let Some(target) = rules.server(server) else {
            // The control plane gives a place up only once no entry refers to it.
            return Fate::Drop(Verdict::RealServerRemoved);
        };
        if (packet.tcp_flags & tcp::SYN != 0 || !target.available)
            && let Some(fate) = self.ends_or_drops(id, packet, target, rules)
        {
            return fate;
        }
        self.packet_in(id, packet, target, rules, now);
        Fate::Server(server, self.connections.entry(id).method())
    }

    /// Whether a SYN begins a new connection in the place of an old one, and what becomes of packets of a removed real server.
    #[inline(never)]
    fn ends_or_drops(&mut self, id: EntryId, packet: &Packet, target: &ServerRules, rules: &Rules) -> Option<Fate> {
        if !target.available && target.drain.ends_connections() {
            // The schedule stage sees to it.
            return Some(Fate::Undecided);
        }
        let settings = &rules.settings;
        let begins = packet.tcp_flags & tcp::SYN != 0
            && (settings.expire_nodest_conn && target.quiescent || ended(self.connections.entry(id), settings.conn_reuse_mode));
        if (begins || (!target.available && settings.expire_nodest_conn)) && self.end(id, rules) {
            return Some(Fate::Undecided);
        }
        (!target.available).then_some(Fate::Drop(Verdict::RealServerRemoved))
    }

    /// Counts a packet of an entry, moves its TCP state and restarts its timer.
    #[inline]
    fn packet_in(&mut self, id: EntryId, packet: &Packet, target: &ServerRules, rules: &Rules, now: Tick) {
        let entry = self.connections.entry(id);
        count_packet(&target.share.traffic, packet);
        let mut timeouts = &rules.settings.timeouts;
        if let Some(service) = rules.service_ref(entry.service()) {
            count_packet(&service.traffic, packet);
            timeouts = service.timeouts.as_ref().unwrap_or(timeouts);
        }
        if entry.protocol == Protocol::Sctp as u8 {
            return self.sctp_packet(id, packet, target, now);
        }
        if entry.protocol != Protocol::Tcp as u8 {
            self.connections.touch(id, now, timeouts.udp * Tick::PER_SECOND);
            self.connections.confirm(id);
            return;
        }
        let old = entry.state();
        // Nearly every segment: what all three tables say of it, said without them.
        if old == State::Established && packet.tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK) == tcp::ACK {
            self.connections.touch(id, now, timeouts.tcp * Tick::PER_SECOND);
            return;
        }
        let table = Table::of_client(entry.is_one_way(), self.defence.secure);
        let new = tcp::next(table, old, packet.tcp_flags);
        complain(&target.share, old, packet.tcp_flags);
        let timeout = new.timeout(timeouts) * Tick::PER_SECOND;
        self.connections.touch(id, now, timeout);
        if new != old {
            self.connections.set_state(id, new, now, timeout);
            recount(&target.share, old.counts_as_active(), new.counts_as_active());
            if new == State::Established
                && let Some(template) = self.connections.template(id)
            {
                self.connections.assure(template);
            }
        }
    }

    /// Moves the state of an SCTP association, of which a packet is counted already, and restarts its timer.
    #[inline(never)]
    fn sctp_packet(&mut self, id: EntryId, packet: &Packet, target: &ServerRules, now: Tick) {
        let entry = self.connections.entry(id);
        let table = if entry.is_one_way() { sctp::Table::InputOnly } else { sctp::Table::Input };
        let was_active = entry.counts_as_active();
        let new = sctp::next(table, entry.association(), sctp::event(packet.tcp_flags));
        let timeout = new.timeout() * Tick::PER_SECOND;
        self.connections.touch(id, now, timeout);
        self.connections.set_state_value(id, new as u8, now, timeout);
        let is_active = new == sctp::State::Established;
        recount(&target.share, was_active, is_active);
        if is_active
            && !was_active
            && let Some(template) = self.connections.template(id)
        {
            self.connections.assure(template);
        }
    }

    /// Ends the packet's connection if that is what draining its real server says; which of both, where it did. A packet that begins or ends a
    /// connection itself is not reset.
    fn drained(&mut self, hash: u64, packet: &Packet, rules: &Rules) -> Drain {
        let Some(id) = self.connections.find(hash, &packet.key) else { return Drain::No };
        let Some(target) = rules.server(self.connections.entry(id).server()) else { return Drain::No };
        if target.available || !target.drain.ends_connections() || !self.end(id, rules) {
            return Drain::No;
        }
        if target.drain == Drain::Reset {
            if packet.tcp_flags & (tcp::SYN | tcp::RST) != 0 {
                return Drain::No;
            }
            self.refusal = refusal(NoRealServer::Reset, Protocol::of_flow(packet.key.protocol));
        }
        target.drain
    }

    /// Schedules the first packet of a connection, or an ICMP error that quotes one (`schedule_icmp`), under the quote's key.
    ///
    #[inline(never)]
    pub(crate) fn first_packet(&mut self, hash: u64, packet: &Packet, First { apart, anew }: First, rules: &mut Rules, now: Tick) -> Fate {
        let key = &packet.key;
        let protocol = Protocol::of_flow(key.protocol);
        let quoted = packet.kind != Kind::Flow;
        let sloppy = match protocol {
            _ if anew => true,
            Protocol::Tcp => rules.settings.sloppy_tcp,
            Protocol::Sctp => rules.settings.sloppy_sctp,
            Protocol::Udp | Protocol::Ip => true,
        };
        let default_timeouts = rules.settings.timeouts;
        if rules.is_own(key.client) {
            let answer = rules.answers_check(key.client, key.virtual_);
            return if answer { Fate::Answer } else { Fate::Drop(Verdict::OwnSource) };
        }
        let service_key = ServiceKey { protocol, address: key.virtual_, port: key.virtual_port };
        let Some(id) = rules.find_marked(key).or_else(|| rules.find_again(&service_key)) else { return Fate::Kernel };
        if packet.tcp_flags & tcp::RST != 0 || !(sloppy || quoted || packet.tcp_flags & tcp::SYN != 0) {
            if self.overflow.is_in_force(now) {
                return self.forward_without_entry(hash, packet, id, false, rules, now);
            }
            return Fate::Kernel;
        }
        if self.defence.drops_packet() {
            return Fate::Drop(Verdict::DropPacket);
        }
        if key.client_port == FTP_DATA {
            return Fate::Kernel;
        }
        let Some(found) = rules.service_ref(id) else { return Fate::Kernel };
        self.refusal = refusal(found.service.no_real_server, protocol);
        let followed = match found.service.persistence.map(|persistence| self.persistent(key, id, persistence, rules, now)) {
            Some(Err(Verdict::TableFull)) => {
                return self.forward_without_entry(hash, packet, id, true, rules, now);
            }
            Some(Err(verdict)) => return Fate::Drop(verdict),
            Some(Ok(followed)) => Some(followed),
            None => None,
        };
        let Some(server) = followed
            .map(|f| f.server)
            .or_else(|| self.choose(key, id, apart.then_some(if quoted { FRESH } else { default_timeouts.udp }), rules, now))
        else {
            return Fate::Drop(Verdict::NoRealServer);
        };
        let (Some(found), Some(target)) = (rules.service_ref(id), rules.server(server)) else {
            return Fate::Drop(Verdict::RealServerRemoved);
        };
        let (share, traffic) = (&target.share, &found.traffic);
        if !(found.service.one_packet && protocol == Protocol::Udp) {
            let timeouts = found.timeouts.as_ref().unwrap_or(&default_timeouts);
            let masqueraded = target.method == Method::Masquerading;
            let Beginning { state, flags, seconds } = self.beginning(packet, target.method, timeouts);
            if masqueraded && !self.connections.has_replies() {
                return Fate::Drop(Verdict::TableFull);
            }
            let timeout_ticks = seconds * Tick::PER_SECOND;
            let new = NewEntry { server, service: id, state, flags, timeout_ticks };
            match self.admit(hash, key, new, followed.map(|f| f.template), rules, now) {
                Ok(entry) => {
                    if self.connections.entry(entry).counts_as_active() {
                        share.active.increment();
                    } else {
                        share.inactive.increment();
                    }
                    target.connection_came();
                    if masqueraded {
                        self.await_replies(entry, key, target);
                    }
                    if let Some(followed) = followed {
                        self.control(entry, followed.template);
                    }
                }
                Err(error) => {
                    if let Some(followed) = followed.filter(|f| f.fresh) {
                        self.end(followed.template, rules);
                    }
                    if error == InsertError::TableFull {
                        return self.forward_without_entry(hash, packet, id, true, rules, now);
                    }
                    return Fate::Drop(error.into());
                }
            }
        }
        for counters in [traffic, &share.traffic] {
            counters.connections.add(1);
            count_packet(counters, packet);
        }
        Fate::Server(server, target.method)
    }

    /// What an entry begins with by its first packet, or by the ICMP error that quotes it.
    fn beginning(&self, packet: &Packet, method: Method, timeouts: &Timeouts) -> Beginning {
        // Replies of a masquerading real server pass the director, all others do not.
        let (seen, flags) = match method {
            Method::Masquerading => (sctp::Table::Input, 0),
            Method::DirectRouting => (sctp::Table::InputOnly, flags::NO_OUTPUT),
            Method::Tunnel => (sctp::Table::InputOnly, flags::NO_OUTPUT | flags::TUNNELLED),
        };
        let mut first = State::None as u8;
        let seconds = match Protocol::of_flow(packet.key.protocol) {
            // No packet of its own has come: the time that IPVS gives an entry before that.
            _ if packet.kind != Kind::Flow => FRESH,
            Protocol::Tcp => {
                let table = Table::of_client(flags & flags::NO_OUTPUT != 0, self.defence.secure);
                let state = tcp::next(table, State::None, packet.tcp_flags);
                first = state as u8;
                state.timeout(timeouts)
            }
            Protocol::Udp | Protocol::Ip => timeouts.udp,
            Protocol::Sctp => {
                let association = sctp::next(seen, sctp::State::None, sctp::event(packet.tcp_flags));
                first = association as u8;
                association.timeout()
            }
        };
        Beginning { state: first, flags, seconds }
    }

    /// The real server for a new connection of service `id`: that of another worker which has begun it with a part of a packet, else the
    /// scheduler's. One that begins so here is agreed on for `apart` seconds. Cost beyond the scheduler's: one load with several workers,
    /// while no connection has begun so.
    fn choose(&self, key: &Key, id: ServiceId, apart: Option<u32>, rules: &mut Rules, now: Tick) -> Option<ServerId> {
        let Some(affinity) = self.connections.affinity() else { return rules.schedule(id, key, now) };
        let begun = affinity.server_of_flow(key, now).filter(|server| is_member(*server, id, rules));
        let server = begun.or_else(|| rules.schedule(id, key, now))?;
        let one_packet = rules.service_ref(id).is_some_and(|found| found.service.one_packet);
        let Some(seconds) = apart.filter(|_| !one_packet) else { return Some(server) };
        Some(affinity.agree_on_flow(key, server, now, seconds * Tick::PER_SECOND, |other| is_member(other, id, rules)))
    }

    /// What workers agreed on about connection `id`, which has this key, holds on.
    pub(crate) fn keep_flow(&self, id: EntryId, key: &Key, rules: &Rules, now: Tick) {
        if let Some(affinity) = self.connections.affinity() {
            affinity.keep_flow(key, self.connections.entry(id).server(), now, rules.settings.timeouts.udp * Tick::PER_SECOND);
        }
    }

    /// Ends an entry at once; a template only once no connection of its own is left. Whether it did.
    pub fn end(&mut self, id: EntryId, rules: &Rules) -> bool {
        if !self.connections.may_remove(id) {
            return false;
        }
        self.connections.withdraw(id);
        let entry = self.connections.remove(id);
        self.disturbed = true;
        release(&entry, rules);
        true
    }

    /// Stage: ends entries whose time is up, at most `budget` of them looked at.
    #[inline]
    pub fn expire(&mut self, rules: &Rules, now: Tick, budget: usize) {
        self.connections.expire(now, budget, &mut |_, entry| release(entry, rules));
    }

    /// Lets other workers find the connection with this key here. Cost: that of [`Directory::note`].
    pub fn note(&self, key: &Key) {
        if let Some(directory) = &self.directory {
            directory.note(key, self.worker);
        }
    }
}

/// What a client is told whose packet no real server takes.
fn refusal(policy: NoRealServer, protocol: Protocol) -> Option<Cause> {
    match policy {
        NoRealServer::Drop => None,
        NoRealServer::Reset if protocol == Protocol::Tcp => Some(Cause::Reset),
        NoRealServer::Icmp | NoRealServer::Reset => Some(Cause::PortUnreachable),
    }
}

/// Moves a connection between its real server's counts.
#[inline(never)]
pub(crate) fn recount(share: &ServerShare, was_active: bool, is_active: bool) {
    match (was_active, is_active) {
        (false, true) => {
            share.inactive.decrement();
            share.active.increment();
        }
        (true, false) => {
            share.active.decrement();
            share.inactive.increment();
        }
        _ => {}
    }
}

/// Counts a packet from a client.
#[inline(always)]
pub(crate) fn count_packet(traffic: &Traffic, packet: &Packet) {
    traffic.count_in(packet.length);
}

/// Takes an entry that ended out of its real server's counts.
fn release(entry: &Entry, rules: &Rules) {
    if let Some(target) = rules.server(entry.server()) {
        let share = &target.share;
        if entry.is_template() {
            share.persistent.decrement();
        } else if entry.counts_as_active() {
            share.active.decrement();
        } else {
            share.inactive.decrement();
        }
        target.connection_ended();
    }
}

/// Whether a SYN or an INIT on this entry begins a new connection (`conn_reuse_mode`, ipvs-sysctl); never on one made through a template.
fn ended(entry: &Entry, mode: u8) -> bool {
    if entry.flags & flags::CONTROLLED != 0 {
        return false;
    }
    match (Protocol::of_flow(entry.protocol), entry.state()) {
        (Protocol::Tcp, State::TimeWait | State::Close) => mode != 0,
        (Protocol::Tcp, State::FinWait) => mode & 2 != 0 && entry.is_one_way(),
        (Protocol::Sctp, _) => mode != 0 && entry.association() == sctp::State::Closed,
        _ => false,
    }
}
