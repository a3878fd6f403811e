//! What a worker does as its table fills: `drop_entry`, `drop_packet` and `secure_tcp`, under IPVS's names (Documentation/networking/ipvs-sysctl).
//!
//! The kernel goes by its free memory; a worker's memory is its table, so here the places that are free decide. Also here, because
//! it walks the table as well: ending the connections of removed real servers while `expire_nodest_conn` is on.

use crate::connection::entry::flags;
use crate::connection::{Entry, EntryId};
use crate::rules::Rules;
use crate::sctp;
use crate::service::Protocol;
use crate::settings::{Mode, Settings};
use crate::tcp::State;
use crate::tick::Tick;
use crate::track::Tracker;

/// Ticks from one look at the free places to the next.
const CHECK: u32 = Tick::PER_SECOND;
/// The part of the places that `drop_entry` looks at between two checks.
const PART: u32 = 32;
/// Places that one turn looks at, at most, chosen at random: each may cost a cache miss.
const SAMPLES: u32 = 32;
/// Places that one turn looks at, at most, one after the other.
const WALK: u32 = 256;
/// An entry that had a packet within so many ticks is in use.
const IDLE: u32 = 60 * Tick::PER_SECOND;

/// The defences of one worker, as they are at the moment.
#[derive(Debug)]
pub struct Defence {
    next_check: Tick,
    /// The version of the configuration that the last check went by.
    version: u64,
    /// Whether `secure_tcp` is in force.
    pub(crate) secure: bool,
    drop_entry: bool,
    /// Every so many-th first packet is dropped; 0 for none.
    drop_rate: u32,
    drop_counter: u32,
    /// Places that `drop_entry` has still to look at before the next check.
    samples: u32,
    /// For idle entries of 1 to 8 packets, how many are passed over before the next is dropped.
    patience: [u32; 8],
    random: u64,
    /// Where the walk that ends entries of removed real servers goes on.
    walk: Option<u32>,
}

impl Defence {
    /// No defence in force; `seed` is to be a secret.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            next_check: Tick::default(),
            version: 0,
            secure: false,
            drop_entry: false,
            drop_rate: 0,
            drop_counter: 0,
            samples: 0,
            patience: [0; 8],
            random: seed | 1,
            walk: None,
        }
    }

    /// The next check is now if this is another version of the configuration.
    pub(crate) fn check_soon(&mut self, version: u64, now: Tick) {
        if std::mem::replace(&mut self.version, version) != version {
            self.next_check = now;
        }
    }

    /// Walks the table from the beginning, because a real server was removed.
    pub(crate) fn walk(&mut self) {
        self.walk = Some(0);
    }

    /// The defences in force, as bits: 1 `drop_entry`, 2 `drop_packet`, 4 `secure_tcp`.
    pub(crate) fn in_force(&self) -> u64 {
        u64::from(self.drop_entry) | u64::from(self.drop_rate != 0) << 1 | u64::from(self.secure) << 2
    }

    /// Whether a first packet is to be dropped (`drop_packet`).
    pub(crate) fn drops_packet(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        let drops = self.drop_counter <= 1;
        self.drop_counter = if drops { self.drop_rate } else { self.drop_counter - 1 };
        drops
    }

    /// Decides what is in force until the next check.
    fn check(&mut self, settings: &Settings, free: u32, capacity: u32, extent: u32, now: Tick) {
        self.next_check = Tick(now.0.wrapping_add(CHECK));
        let wanted = u64::from(capacity) * u64::from(settings.amemthresh) / 100;
        let missing = wanted.saturating_sub(free.into());
        let in_force = |mode| mode == Mode::Always || mode == Mode::Automatic && missing > 0;
        self.secure = in_force(settings.secure_tcp);
        self.drop_entry = in_force(settings.drop_entry);
        match settings.drop_packet {
            Mode::Always => self.drop_rate = settings.am_droprate,
            Mode::Automatic if missing > 0 => {
                self.drop_rate = u32::try_from(wanted / missing).unwrap_or(u32::MAX);
                self.drop_counter = self.drop_rate;
            }
            _ => self.drop_rate = 0,
        }
        self.samples = if self.drop_entry { extent.div_ceil(PART) } else { 0 };
    }

    /// One step of xorshift64 (Marsaglia, 2003), reduced to 0..`below`.
    fn random_below(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from(((self.random >> 32) * u64::from(below)) >> 32).unwrap_or_default()
    }

    /// Whether `drop_entry` ends an entry that may be a real connection: idle for a minute, of 1 to 8 packets, and the fewer the likelier.
    fn drops_idle(&mut self, entry: &Entry, timeout_ticks: u32, now: Tick) -> bool {
        let idle = timeout_ticks.saturating_sub(now.until(entry.expires()));
        let packets = usize::try_from(entry.in_packets).unwrap_or(usize::MAX);
        let Some(patience) = packets.checked_sub(1).and_then(|n| self.patience.get_mut(n)).filter(|_| idle >= IDLE) else { return false };
        if *patience > 1 {
            *patience -= 1;
            return false;
        }
        *patience = entry.in_packets;
        true
    }
}

impl Tracker {
    /// Looks at the free places once a second, and at a bounded number of entries a turn while a defence is in force. Whether there
    /// is more to look at. Cost at rest: two comparisons.
    #[inline]
    pub fn defend(&mut self, rules: &Rules, now: Tick) -> bool {
        let rests = self.defence.samples == 0 && self.defence.walk.is_none();
        if rests && !now.has_reached(self.defence.next_check) {
            return false;
        }
        self.defend_now(rules, now)
    }

    #[inline(never)]
    fn defend_now(&mut self, rules: &Rules, now: Tick) -> bool {
        if now.has_reached(self.defence.next_check) {
            let table = &self.connections;
            self.defence.check(&rules.settings, table.capacity() - table.len(), table.capacity(), table.extent(), now);
        }
        self.drop_entries(rules, now);
        self.end_orphans(rules);
        self.defence.samples != 0 || self.defence.walk.is_some()
    }

    /// Some of the places that `drop_entry` looks at.
    fn drop_entries(&mut self, rules: &Rules, now: Tick) {
        let extent = self.connections.extent();
        let samples = self.defence.samples.min(SAMPLES);
        self.defence.samples -= samples;
        for _ in 0..samples {
            let id = EntryId(self.defence.random_below(extent));
            let Some((_, entry)) = self.connections.scan(id.0, 1).next() else { continue };
            if self.defence.drops(entry, rules, now) && self.end(id, rules) {
                self.counts.dropped_entries += 1;
            }
        }
    }

    /// Ends entries of real servers that are gone, and templates that only those needed.
    fn end_orphans(&mut self, rules: &Rules) {
        let Some(from) = self.defence.walk else { return };
        let end = from.saturating_add(WALK).min(self.connections.extent());
        for id in (from..end).map(EntryId) {
            let Some((_, entry)) = self.connections.scan(id.0, 1).next() else { continue };
            if rules.server(entry.server()).is_some_and(|target| target.available) {
                continue;
            }
            let template = self.connections.template(id);
            if self.end(id, rules)
                && let Some(template) = template
            {
                self.end(template, rules);
            }
        }
        self.defence.walk = Some(end).filter(|end| *end < self.connections.extent());
    }
}

impl Defence {
    /// Whether `drop_entry` ends this entry, which it came upon by chance.
    fn drops(&mut self, entry: &Entry, rules: &Rules, now: Tick) -> bool {
        let service = rules.service_ref(entry.service());
        if entry.is_template() {
            let one_packet = service.is_some_and(|found| found.service.one_packet);
            return entry.flags & flags::ASSURED == 0 && !one_packet;
        }
        let timeouts = service.and_then(|found| found.timeouts.as_ref()).unwrap_or(&rules.settings.timeouts);
        let idle_for = match (Protocol::of_flow(entry.protocol), entry.state(), entry.association()) {
            (Protocol::Tcp, State::SynRecv | State::SynAck, _) | (Protocol::Sctp, _, sctp::State::Init1 | sctp::State::Init) => {
                return true;
            }
            (Protocol::Tcp, State::Established, _) => timeouts.tcp,
            (Protocol::Udp, ..) => timeouts.udp,
            (Protocol::Sctp, _, sctp::State::Established) => sctp::State::Established.timeout(),
            _ => return false,
        };
        self.drops_idle(entry, idle_for * Tick::PER_SECOND, now)
    }
}

#[cfg(test)]
mod tests;
