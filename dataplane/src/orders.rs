//! What the control plane asked for, between two bursts: changes at once, listings a slice a turn.

use arrayvec::ArrayVec;

use crate::command::{Command, ConnectionFilter, ConnectionPage, ConnectionRow, Flush, Reply, WorkerEnd};
use crate::connection::entry::TEMPLATE;
use crate::connection::template::NO_PORT;
use crate::connection::{Entry, EntryId, Key};
use crate::rules::Rules;
use crate::service::Protocol;
use crate::tick::Tick;
use crate::track::Tracker;

/// Entries that a listing looks at in one turn: bounds what it adds to a frame's delay.
const SLICE: u32 = 512;
/// Listings and flushes that may wait.
const WAITING: usize = 16;

#[derive(Debug)]
enum Order {
    List(Box<ConnectionPage>),
    /// From which place on, and whether it is templates' turn: they end only after the connections made through them.
    Flush(Box<Flush>, u32, bool),
}

/// Orders that take more than a turn, and replies that found the ring full.
#[derive(Debug)]
pub struct Orders {
    waiting: ArrayVec<Order, WAITING>,
    unsent: Option<Reply>,
}

impl Orders {
    /// No orders.
    pub fn new() -> Self {
        Self { waiting: ArrayVec::new(), unsent: None }
    }

    /// Takes what has come and does a turn's share of it; `true` when there was anything. Cost without orders: two loads.
    #[inline]
    pub fn carry_out(&mut self, end: &mut WorkerEnd, rules: &mut Rules, tracker: &mut Tracker, now: Tick) -> bool {
        if let Some(reply) = self.unsent.take()
            && let Err(reply) = end.reply(reply)
        {
            self.unsent = Some(reply);
            return false;
        }
        let mut worked = false;
        while self.unsent.is_none() && !self.waiting.is_full() {
            let Some(command) = end.take() else { break };
            worked = true;
            match command {
                Command::Apply(mut batch) => {
                    rules.apply(&mut batch);
                    tracker.connections.take_replies(&mut batch.replies);
                    end.report().version.set(rules.version);
                    self.unsent = end.reply(Reply::Applied(batch)).err();
                }
                // The loop goes on only while there is room.
                Command::Connections(page) => {
                    let _ = self.waiting.try_push(Order::List(page));
                }
                Command::Flush(flush) => {
                    let _ = self.waiting.try_push(Order::Flush(flush, 0, false));
                }
            }
        }
        if self.unsent.is_none() && !self.waiting.is_empty() {
            worked = true;
            self.unsent = self.slice(rules, tracker, now).and_then(|reply| end.reply(reply).err());
        }
        worked
    }

    /// A slice of the oldest order; its reply when that was the last slice.
    fn slice(&mut self, rules: &Rules, tracker: &mut Tracker, now: Tick) -> Option<Reply> {
        let extent = tracker.connections.extent();
        let done = match self.waiting.first_mut()? {
            Order::List(page) => {
                let end = page.cursor.saturating_add(SLICE).min(extent);
                let mut next = end;
                for (id, entry) in tracker.connections.scan(page.cursor, end.saturating_sub(page.cursor)) {
                    if let Some(row) = row(&tracker.connections.key(id), entry, &page.filter, rules, now) {
                        if page.rows.len() == page.rows.capacity() {
                            next = id.0;
                            break;
                        }
                        page.rows.push(row);
                    }
                }
                page.cursor = next;
                page.next = (next < extent).then_some(next);
                next >= extent || page.rows.len() == page.rows.capacity()
            }
            Order::Flush(flush, cursor, templates) => {
                let count = SLICE.min(extent.saturating_sub(*cursor));
                let mut ids = ArrayVec::<EntryId, { SLICE as usize }>::new();
                for (id, entry) in tracker.connections.scan(*cursor, count) {
                    let key = tracker.connections.key(id);
                    if entry.is_template() == *templates && row(&key, entry, &flush.filter, rules, now).is_some() {
                        let _ = ids.try_push(id);
                    }
                }
                for id in ids {
                    flush.removed += u64::from(tracker.end(id, rules));
                }
                *cursor += count;
                let end = *cursor >= extent;
                if end && !*templates {
                    (*cursor, *templates) = (0, true);
                    false
                } else {
                    end
                }
            }
        };
        if !done {
            return None;
        }
        Some(match self.waiting.pop_at(0)? {
            Order::List(page) => Reply::Connections(page),
            Order::Flush(flush, ..) => Reply::Flushed(flush),
        })
    }
}

impl Default for Orders {
    fn default() -> Self {
        Self::new()
    }
}

/// The entry as a listing shows it, if the filter means it.
fn row(key: &Key, entry: &Entry, filter: &ConnectionFilter, rules: &Rules, now: Tick) -> Option<ConnectionRow> {
    let protocol = match entry.protocol & !TEMPLATE {
        ip if ip == Protocol::Ip as u8 => Protocol::Ip,
        number => Protocol::of_flow(number),
    };
    if filter.server_id.is_some_and(|id| id != entry.server()) {
        return None;
    }
    let server = &rules.server(entry.server())?.server;
    let put_aside = entry.is_template() && key.virtual_port == NO_PORT;
    let service = rules.service_ref(entry.service()).map(|found| found.service.key);
    let by_service = if filter.protocol == Some(Protocol::Ip) {
        // What a mark brought has the VIPs, vports and protocols of its packets.
        service.is_some_and(|s| s.is_marked() && filter.virtual_address.is_none_or(|a| a == s.address))
    } else {
        filter.protocol.is_none_or(|p| p == protocol)
            && filter.virtual_address.is_none_or(|a| a == key.virtual_)
            && filter.virtual_port.is_none_or(|p| p == key.virtual_port || service.is_some_and(|s| s.port == p && !s.is_marked()))
    };
    let meant = by_service && filter.client.is_none_or(|a| a == key.client) && filter.server.is_none_or(|a| a == server.address);
    meant.then(|| ConnectionRow {
        protocol,
        client: (key.client.ip(), key.client_port).into(),
        virtual_address: (key.virtual_.ip(), key.virtual_port).into(),
        server: (server.address.ip(), if put_aside { key.virtual_port } else { server.port_for(key.virtual_port) }).into(),
        state: entry.state_name(),
        expires_in: now.until(entry.expires()),
        in_packets: if entry.is_template() { 0 } else { entry.in_packets },
    })
}
