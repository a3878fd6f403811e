//! Real servers that recovered: their weights grow from a tenth to the whole.
//!
//! Weights are whole numbers, so while one real server of a service starts slowly, workers are given all of the service's weights
//! ten times as great: the schedulers that allow it compare weights and nothing else.

use std::time::Instant;

use super::desired::Desired;
use super::records::{ServerRecord, ServiceRecord};
use super::{Director, Inner};
use crate::model::OnFailure;

/// Weights grow in so many steps.
const STEPS: u32 = 10;

/// A real server that starts slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ramp {
    /// When it began.
    began: Instant,
    /// The connections that it had been given by then.
    connections: u64,
    /// How many tenths of its weight it gets: 1 to 9.
    tenths: u32,
}

impl Ramp {
    /// How many tenths it gets at `now`, when `connections` were given to it in all.
    fn tenths_at(&self, service: &ServiceRecord, connections: u64, now: Instant) -> u32 {
        let Some(spec) = service.fields.health.as_ref() else { return STEPS };
        let share = |part: u128, whole: u128| u32::try_from(1 + part * u128::from(STEPS - 1) / whole.max(1)).unwrap_or(STEPS).min(STEPS);
        let by_time = spec.slow_start.map(|span| share(now.saturating_duration_since(self.began).as_millis(), span.0.as_millis()));
        let given = u128::from(connections.saturating_sub(self.connections));
        let by_connections = spec.slow_start_connections.map(|whole| share(given, whole.into()));
        by_time.max(by_connections).unwrap_or(STEPS)
    }

    /// How much of its weight it gets, in percent.
    pub(super) fn percent(&self) -> u8 {
        u8::try_from(self.tenths * 100 / STEPS).unwrap_or(100)
    }
}

impl Director {
    /// Lets the weights of those that start slowly grow.
    pub(super) fn grow_weights(&self) {
        let mut inner = self.lock();
        if !inner.desired.ramping.is_empty() {
            inner.grow_weights(Instant::now());
            self.commit(&mut inner);
        }
    }
}

impl Inner {
    pub(super) fn grow_weights(&mut self, now: Instant) {
        for server in self.desired.ramping.clone() {
            self.desired.grow_weight(server, now);
        }
    }
}

impl Desired {
    /// Lets a real server that has just recovered start slowly, where its service wants that.
    pub(super) fn start_slowly(&mut self, server: u32, now: Instant) {
        let Some(record) = self.servers.get(server) else { return };
        let spec = self.services.get(record.service).and_then(|service| service.fields.health.as_deref());
        let wanted = spec.is_some_and(|spec| {
            (spec.slow_start.is_some() || spec.slow_start_connections.is_some()) && spec.on_failure != Some(OnFailure::Keep)
        });
        let connections = record.stats.sum().connections;
        self.set_ramp(server, wanted.then_some(Ramp { began: now, connections, tenths: 1 }));
    }

    /// Gives it its whole weight, or nothing because it is down.
    pub(super) fn end_ramp(&mut self, server: u32) {
        self.set_ramp(server, None);
    }

    fn grow_weight(&mut self, server: u32, now: Instant) {
        let present = self.servers.is_present(server);
        let Some(record) = self.servers.get(server) else { return };
        let (Some(ramp), Some(service)) = (record.ramp, self.services.get(record.service)) else { return self.end_ramp(server) };
        let tenths = if present { ramp.tenths_at(service, record.stats.sum().connections, now) } else { STEPS };
        if tenths != ramp.tenths {
            self.set_ramp(server, (tenths < STEPS).then_some(Ramp { tenths, ..ramp }));
        }
    }

    /// All weights of the service change for workers with the first ramp that begins and the last that ends.
    fn set_ramp(&mut self, server: u32, ramp: Option<Ramp>) {
        let Some(record) = self.servers.get_mut(server) else { return };
        let (before, service) = (std::mem::replace(&mut record.ramp, ramp), record.service);
        if ramp.is_some() {
            self.ramping.insert(server)
        } else {
            self.ramping.remove(&server)
        };
        if before == ramp {
            return;
        }
        let Some(of_service) = self.services.get(service) else { return };
        self.touched.servers.extend(of_service.members.iter().chain(&of_service.sorry));
        self.list_changed(service);
    }

    /// The weight that workers go by.
    pub(super) fn worker_weight(&self, record: &ServerRecord) -> u32 {
        let weight = record.effective_weight();
        let Some(service) = self.services.get(record.service).filter(|_| !self.ramping.is_empty()) else { return weight };
        let ramps = service.members.iter().any(|member| self.servers.get(*member).is_some_and(|server| server.ramp.is_some()));
        if !ramps {
            return weight;
        }
        weight.saturating_mul(record.ramp.map_or(STEPS, |ramp| ramp.tenths))
    }
}
