//! `?compat=node_ipvs`: what `node_exporter` tells of the kernel's IPVS, by its names, so that its dashboards and alerts go on working.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::PoisonError;

use dataplane::stats::TrafficSum;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::{App, Families, Label, MOST, proto};
use crate::director::{ServerSample, ServiceSample};
use crate::model::ServiceKey;

/// What passed in all, as the kernel counts it: what a service counted stays in when the service goes, or each removal would look like a
/// restart to whoever takes rates.
#[derive(Debug, Default)]
pub(in crate::api) struct Totals {
    sum: TrafficSum,
    /// What each service had counted at the last look.
    seen: HashMap<ServiceKey, TrafficSum>,
}

impl Totals {
    /// Adds what services counted since the last look; the sum then. A service that counts less than before is another one.
    fn look(&mut self, services: &[ServiceSample]) -> TrafficSum {
        let mut seen = HashMap::with_capacity(services.len());
        for ServiceSample { key, sum } in services {
            let before = self.seen.get(key).copied().unwrap_or_default();
            let new = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            self.sum.connections += new(sum.connections, before.connections);
            self.sum.in_packets += new(sum.in_packets, before.in_packets);
            self.sum.in_bytes += new(sum.in_bytes, before.in_bytes);
            self.sum.out_packets += new(sum.out_packets, before.out_packets);
            self.sum.out_bytes += new(sum.out_bytes, before.out_bytes);
            seen.insert(*key, *sum);
        }
        self.seen = seen;
        self.sum
    }
}

#[derive(Debug)]
struct NodeIpvs {
    totals: TrafficSum,
    servers: Vec<ServerSample>,
}

/// These metrics, and no others.
pub(super) fn registry(app: &App) -> Registry {
    let observed = app.director.observe(MOST);
    let totals = app.totals.lock().unwrap_or_else(PoisonError::into_inner).look(&observed.services);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(NodeIpvs { totals, servers: observed.servers }));
    registry
}

impl Collector for NodeIpvs {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        out.counter("node_ipvs_connections", "Connections scheduled", self.totals.connections)?;
        out.counter("node_ipvs_incoming_packets", "Packets from clients", self.totals.in_packets)?;
        out.counter("node_ipvs_outgoing_packets", "Packets to clients", self.totals.out_packets)?;
        out.counter("node_ipvs_incoming_bytes", "Bytes from clients", self.totals.in_bytes)?;
        out.counter("node_ipvs_outgoing_bytes", "Bytes to clients", self.totals.out_bytes)?;
        let rows = |value: fn(&ServerSample) -> u32| self.servers.iter().map(move |s| (labels(s), u64::from(value(s))));
        out.gauges("node_ipvs_backend_connections_active", "Active connections of a real server", rows(|s| s.active))?;
        out.gauges("node_ipvs_backend_connections_inactive", "Inactive connections of a real server", rows(|s| s.inactive))?;
        out.gauges("node_ipvs_backend_weight", "Weight of a real server", rows(|s| s.weight))
    }
}

/// All six labels, always: what a service has not is empty, and 0 for its port.
fn labels(sample: &ServerSample) -> [Label; 6] {
    let ServiceKey { protocol, address, port } = sample.service;
    let remote: SocketAddr = sample.server;
    let (address, mark) = match sample.service.mark() {
        Some(mark) => (String::new(), format!("{mark:08X}")),
        None => (address.to_string(), String::new()),
    };
    [
        ("local_address", address),
        ("local_port", port.to_string()),
        ("remote_address", remote.ip().to_string()),
        ("remote_port", remote.port().to_string()),
        ("proto", proto(protocol).to_owned()),
        ("local_mark", mark),
    ]
}
