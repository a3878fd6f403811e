//! `/metrics`: what Prometheus reads. Names are `baton_*` in base units; label names are `node_exporter`'s for IPVS.

mod classic;
mod compat;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use dataplane::command::WorkerReport;
use dataplane::stats::TrafficSum;
use dataplane::verdict::Verdict;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

pub(super) use compat::Totals;

use super::extract::Asked;
use super::problem::{BadId, Rejection};
use super::{App, MempoolFill, Plumbing, RingFill};
use crate::codes::Code;
use crate::director::{Observation, ServerSample, ServiceSample};
use crate::health::Pace;
use crate::model::{HealthState, Port, Protocol, RealServerState, ServiceKey, VipConflict, Worker};

/// Series are told for at most so many services and so many real servers; `baton_series_left_out` counts the others.
const MOST: usize = 10_000;

/// Everything of one scrape, taken together before any of it is written.
struct Scrape {
    version: &'static str,
    revision: u64,
    stored: bool,
    workers: Vec<Worker>,
    /// Per worker: turns, busy and idle cycles.
    cycles: Vec<[u64; 3]>,
    /// Worker, port, verdict, frames.
    frames: Vec<(usize, usize, Verdict, u64)>,
    received: Vec<(usize, usize, u64)>,
    sent: Vec<(usize, usize, u64)>,
    ports: Vec<Port>,
    plumbing: Plumbing,
    services: Observation,
    pace: Arc<Pace>,
    /// Who else speaks for VIPs, and claims by VIP, port and number.
    conflicts: (Vec<VipConflict>, Vec<(IpAddr, u16, u64)>),
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Which metrics.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct MetricsQuery {
    /// `node_ipvs`: the names and labels that `node_exporter` has for IPVS, and nothing else.
    #[param(inline)]
    compat: Option<Compat>,
}

/// Whose names metrics have.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Compat {
    NodeIpvs,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

/// All metrics: in the text format of Prometheus, or of `OpenMetrics` where the client asks for that.
#[utoipa::path(get, path = "/metrics", tag = "health", params(MetricsQuery), responses(
    (status = 200, description = "OpenMetrics where `Accept` names it", body = String, content_type = "text/plain"), BadId))]
pub(super) async fn metrics(
    State(app): State<App>,
    Asked(query): Asked<MetricsQuery>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], String), Rejection> {
    let registry = match query.compat {
        None => {
            let mut registry = Registry::with_prefix("baton");
            registry.register_collector(Box::new(Scrape::take(&app)));
            registry
        }
        Some(Compat::NodeIpvs) => compat::registry(&app),
    };
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|e| Rejection::new(Code::Metrics, format!("the metrics could not be written: {e}")))?;
    let open = headers.get_all(header::ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(OPEN_METRICS)));
    let (kind, text) = if open {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", classic::text(&text))
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text))
}

impl Scrape {
    fn take(app: &App) -> Self {
        let director = &app.director;
        let mut scrape = Self {
            version: app.facts.version,
            revision: director.revision(),
            stored: director.is_stored(),
            workers: director.workers(&app.facts.cores, false),
            cycles: Vec::new(),
            frames: Vec::new(),
            received: Vec::new(),
            sent: Vec::new(),
            ports: (app.facts.ports)(),
            plumbing: (app.facts.plumbing)(),
            services: director.observe(MOST),
            pace: Arc::clone(director.pace()),
            conflicts: director.vip_conflicts(),
        };
        director.for_each_worker(|worker, report| scrape.add(worker, report));
        scrape
    }

    fn add(&mut self, worker: usize, report: &WorkerReport) {
        self.cycles.push([report.turns.get(), report.busy_cycles.get(), report.idle_cycles.get()]);
        for (port, counters) in report.verdicts.iter().enumerate() {
            self.frames.extend(Verdict::ALL.iter().map(|v| (worker, port, *v, counters.get(*v))));
        }
        self.received.extend(report.received.iter().enumerate().map(|(port, n)| (worker, port, n.get())));
        self.sent.extend(report.sent.iter().enumerate().map(|(port, n)| (worker, port, n.get())));
    }

    /// A port's name; its number where the name is not known.
    fn port(&self, index: usize) -> String {
        self.ports.get(index).map_or_else(|| index.to_string(), |p| p.name.clone())
    }
}

type Label = (&'static str, String);

/// Writes families: a description, then one line for every set of labels.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counters<L: AsRef<[Label]>>(&mut self, name: &str, help: &str, rows: impl Iterator<Item = (L, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels.as_ref())?)?;
        }
        Ok(())
    }

    fn gauges<L: AsRef<[Label]>>(&mut self, name: &str, help: &str, rows: impl Iterator<Item = (L, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&labels.as_ref())?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        out.gauges("build_info", "The program's version", std::iter::once(([("version", self.version.to_owned())], 1)))?;
        out.gauge("revision", "Revision of the configuration", self.revision)?;
        out.gauge("state_stored", "Whether the present configuration is in the state file", u64::from(self.stored))?;
        out.gauge("series_left_out", "Services and real servers that these metrics do not show", self.services.left_out)?;
        self.encode_checks(&mut out)?;
        self.encode_workers(&mut out)?;
        self.encode_ports(&mut out)?;
        self.encode_plumbing(&mut out)?;
        self.encode_services(&mut out)?;
        self.encode_servers(&mut out)?;
        self.encode_conflicts(&mut out)
    }
}

impl Scrape {
    fn encode_checks(&self, out: &mut Families<'_>) -> fmt::Result {
        // The last class has no bound.
        let mut classes: Vec<(f64, u64)> = self.pace.classes().map(|(bound, count)| (bound.as_secs_f64(), count)).collect();
        if let Some(last) = classes.last_mut() {
            last.0 = f64::INFINITY;
        }
        let help = "How late health checks began: more than a few milliseconds say that the control core has too much to do";
        let mut family = out.0.encode_descriptor("health_check_delay", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(self.pace.sum().as_secs_f64(), self.pace.count(), &classes, None)
    }

    fn encode_workers(&self, out: &mut Families<'_>) -> fmt::Result {
        let rows = |value: fn(&Worker) -> u64| self.workers.iter().map(move |w| ([("worker", w.id.to_string())], value(w)));
        out.gauges("worker_version", "Revision of the configuration that the worker runs", rows(|w| w.version))?;
        out.gauges("worker_connections", "Connection entries", rows(|w| w.connections))?;
        out.gauges("worker_half_open_connections", "Half-open connection entries", rows(|w| w.half_open))?;
        out.gauges("worker_connections_capacity", "Connection entries that the worker can hold", rows(|w| w.capacity))?;
        out.counters("icmp_errors", "ICMP errors sent", rows(|w| w.icmp_errors))?;
        out.counters("handed_over", "Frames received and handed to other workers", rows(|w| w.handed_over))?;
        out.counters("taken_over", "Frames taken over from other workers", rows(|w| w.taken_over))?;
        out.counters("sent_by_others", "Frames that another worker sends for want of a transmit queue", rows(|w| w.sent_by_others))?;
        out.counters("sent_for_others", "Frames sent for workers without a transmit queue", rows(|w| w.sent_for_others))?;
        out.counters("resets", "TCP resets sent", rows(|w| w.resets))?;
        out.counters("entries_recycled", "Unconfirmed entries that ended to make room for new connections", rows(|w| w.recycled))?;
        out.counters("entries_dropped", "Entries that drop_entry ended", rows(|w| w.dropped_entries))?;
        out.counters(
            "templates_unshared",
            "Connections whose persistence template other workers were not told of, for want of room",
            rows(|w| w.unshared_templates),
        )?;
        out.counters("frames_without_entry", "Packets forwarded without an entry for want of room", rows(|w| w.without_entry))?;
        let defences = self.workers.iter().flat_map(|w| {
            ["drop_entry", "drop_packet", "secure_tcp"].map(|name| {
                let labels = [("worker", w.id.to_string()), ("defence", name.to_owned())];
                (labels, u64::from(w.defences.iter().any(|in_force| in_force == name)))
            })
        });
        out.gauges("worker_defence", "Whether the defence is in force", defences)?;
        out.counters("fragments", "Second and later fragments of tunnelled packets sent", rows(|w| w.fragments))?;
        out.counters("frames_injected", "Frames of the kernel's that were sent on", rows(|w| w.injected))?;
        let cycles = |which: usize| self.cycles.iter().enumerate().map(move |(id, c)| ([("worker", id.to_string())], c[which]));
        out.counters("worker_turns", "Turns of the worker's loop", cycles(0))?;
        out.counters("worker_busy_cycles", "TSC cycles in turns that found work", cycles(1))?;
        out.counters("worker_idle_cycles", "TSC cycles in turns that found none", cycles(2))?;
        let verdicts = self.frames.iter().map(|(worker, port, verdict, n)| {
            ([("worker", worker.to_string()), ("port", self.port(*port)), ("verdict", verdict.label().to_owned())], *n)
        });
        out.counters("frames", "Received frames by what became of them", verdicts)?;
        let drops = self.frames.iter().filter_map(|(worker, port, verdict, n)| {
            let labels = [("worker", worker.to_string()), ("port", self.port(*port)), ("reason", verdict.label().to_owned())];
            verdict.is_drop().then_some((labels, *n))
        });
        out.counters("drops", "Received frames that were dropped, by the reason", drops)?;
        let by_port = |(worker, port, n): &(usize, usize, u64)| ([("worker", worker.to_string()), ("port", self.port(*port))], *n);
        out.counters("frames_received", "Frames received", self.received.iter().map(by_port))?;
        out.counters("frames_sent", "Frames sent", self.sent.iter().map(by_port))
    }

    fn encode_ports(&self, out: &mut Families<'_>) -> fmt::Result {
        let rows = |value: fn(&Port) -> u64| self.ports.iter().map(move |p| ([("port", p.name.clone())], value(p)));
        out.gauges("port_up", "Whether the link is up", rows(|p| u64::from(p.link_up)))?;
        out.gauges("port_speed_bytes_per_second", "Speed of the link; 0 when unknown", rows(|p| u64::from(p.speed_mbps) * 125_000))?;
        out.counters("port_received_frames", "Frames that the device received", rows(|p| p.rx_packets))?;
        out.counters("port_sent_frames", "Frames that the device sent", rows(|p| p.tx_packets))?;
        out.counters("port_missed_frames", "Frames that the device lost because no worker took them in time", rows(|p| p.rx_missed))?;
        out.counters("port_mbuf_failures", "Receptions that failed because the mempool was empty", rows(|p| p.rx_no_mbuf))?;
        out.counters("port_receive_errors", "Frames received with errors", rows(|p| p.rx_errors))?;
        out.counters("port_send_errors", "Frames that the device could not send", rows(|p| p.tx_errors))
    }

    fn encode_plumbing(&self, out: &mut Families<'_>) -> fmt::Result {
        let rings = |value: fn(&RingFill) -> u64| {
            self.plumbing.rings.iter().map(move |r| ([("kind", r.kind.to_owned()), ("name", r.name.clone())], value(r)))
        };
        let help = "Frames that wait in a ring: to and from the kernel by port, hand-over by workers, relay by port and worker that sends through another";
        out.gauges("ring_frames", help, rings(|r| r.frames))?;
        out.gauges("ring_capacity_frames", "Frames that the ring can hold", rings(|r| r.capacity))?;
        let mempools =
            |value: fn(&MempoolFill) -> u64| self.plumbing.mempools.iter().map(move |m| ([("mempool", m.name.clone())], value(m)));
        out.gauges("mempool_buffers_in_use", "Packet buffers in queues, rings and caches", mempools(|m| m.in_use))?;
        out.gauges("mempool_buffers", "Packet buffers in all", mempools(|m| m.size))
    }

    fn encode_conflicts(&self, out: &mut Families<'_>) -> fmt::Result {
        let (conflicts, totals) = &self.conflicts;
        let now = conflicts.iter().map(|c| {
            let real_server = c.real_server.map(|rip| rip.to_string()).unwrap_or_default();
            ([("vip", c.vip.to_string()), ("port", c.port.clone()), ("mac", c.mac.clone()), ("real_server", real_server)], 1)
        });
        out.gauges("vip_conflict", "1 for each machine that speaks for a VIP beside the director", now)?;
        let heard = totals.iter().map(|(vip, port, n)| ([("vip", vip.to_string()), ("port", self.port(usize::from(*port)))], *n));
        out.counters("vip_conflicts", "Times that another machine was heard speaking for a VIP", heard)
    }

    fn encode_services(&self, out: &mut Families<'_>) -> fmt::Result {
        let rows =
            |value: fn(&TrafficSum) -> u64| self.services.services.iter().map(move |s: &ServiceSample| (local(s.key), value(&s.sum)));
        out.counters("service_connections", "Connections scheduled", rows(|t| t.connections))?;
        out.counters("service_incoming_packets", "Packets from clients", rows(|t| t.in_packets))?;
        out.counters("service_outgoing_packets", "Packets to clients; 0 in direct routing", rows(|t| t.out_packets))?;
        out.counters("service_incoming_bytes", "Bytes from clients", rows(|t| t.in_bytes))?;
        out.counters("service_outgoing_bytes", "Bytes to clients; 0 in direct routing", rows(|t| t.out_bytes))
    }

    fn encode_servers(&self, out: &mut Families<'_>) -> fmt::Result {
        let rows = |value: fn(&ServerSample) -> u64| self.services.servers.iter().map(move |s| (both(s), value(s)));
        out.gauges("real_server_connections_active", "Active connections", rows(|s| u64::from(s.active)))?;
        out.gauges("real_server_connections_inactive", "Inactive connections", rows(|s| u64::from(s.inactive)))?;
        out.gauges("real_server_weight", "Weight; 0 is quiescent", rows(|s| u64::from(s.weight)))?;
        let states = self.services.servers.iter().flat_map(|s| {
            [
                (RealServerState::Ready, "ready"),
                (RealServerState::Quiescent, "quiescent"),
                (RealServerState::Overloaded, "overloaded"),
                (RealServerState::NoMac, "no-mac"),
                (RealServerState::Down, "down"),
                (RealServerState::Quarantined, "quarantined"),
                (RealServerState::Draining, "draining"),
            ]
            .map(|(state, name)| {
                let mut labels = both(s);
                labels.push(("state", name.to_owned()));
                (labels, u64::from(s.state == state))
            })
        });
        out.gauges("real_server_state", "1 for the state that it is in", states)?;
        let checked = self.services.servers.iter().filter_map(|s| Some((s, s.health?)));
        let health = checked.flat_map(|(s, health)| {
            [(HealthState::Unknown, "unknown"), (HealthState::Up, "up"), (HealthState::Down, "down")].map(|(state, name)| {
                let mut labels = both(s);
                labels.push(("state", name.to_owned()));
                (labels, u64::from(health == state))
            })
        });
        out.gauges("real_server_health", "1 for what its health checks say; of those that are checked", health)?;
        out.counters("real_server_connections", "Connections scheduled", rows(|s| s.sum.connections))?;
        out.counters("real_server_incoming_packets", "Packets from clients", rows(|s| s.sum.in_packets))?;
        out.counters("real_server_outgoing_packets", "Packets to clients; 0 in direct routing", rows(|s| s.sum.out_packets))?;
        out.counters("real_server_incoming_bytes", "Bytes from clients", rows(|s| s.sum.in_bytes))?;
        out.counters("real_server_outgoing_bytes", "Bytes to clients; 0 in direct routing", rows(|s| s.sum.out_bytes))
    }
}

/// A service by mark has no address; its mark is in hexadecimal, as in the kernel's own table, and IPv6 is told apart as ipvsadm does.
fn local(key: ServiceKey) -> Vec<Label> {
    let ServiceKey { protocol, address, port } = key;
    let protocol = ("proto", proto(protocol).to_owned());
    if let Some(mark) = key.mark() {
        let family = if address.is_ipv6() { " IPv6" } else { "" };
        return vec![("local_mark", format!("{mark:08X}{family}")), protocol];
    }
    vec![("local_address", IpAddr::to_string(&address)), ("local_port", port.to_string()), protocol]
}

/// A protocol as IPVS lists it.
fn proto(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Mark => "FWM",
    }
}

fn both(sample: &ServerSample) -> Vec<Label> {
    let remote: SocketAddr = sample.server;
    let mut labels = local(sample.service);
    let at = labels.len() - 1;
    labels.splice(at..at, [("remote_address", remote.ip().to_string()), ("remote_port", remote.port().to_string())]);
    labels
}
