//! `/ui`: the director on one page for browsers: services with their real servers, ports, workers, verdicts, the latest events.
//!
//! It only shows. It needs no script and nothing from elsewhere, and asks for itself again every few seconds.

mod rows;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::num::NonZeroUsize;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Redirect;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::Asked;
use super::html::{Html, Page, page};
use super::problem::{BadId, Rejection};
use super::{App, health, system};
use crate::events::KEPT;
use crate::model::moment::utc;
use crate::model::{Event, Port, RealServerState, Service, Worker};

/// How many services a page shows.
const A_PAGE: usize = 200;

/// How many of the latest events it shows.
const EVENTS: usize = 20;

/// How often a browser asks again, in seconds, where nothing else was asked for.
const EVERY: u16 = 5;

const STYLE: &str = "body{font:13px/1.35 sans-serif;margin:1em;color:#222;background:#fff}h1{font-size:1.3em;margin:0 0 .3em}\
h2{font-size:1em;margin:1.4em 0 .3em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.1em .5em;text-align:left;white-space:nowrap}\
th{background:#eee}td.n{text-align:right;font-variant-numeric:tabular-nums}td.why{white-space:normal}tr.s td{background:#f4f6f8;font-weight:bold}\
.ok{color:#0a5c24}.warn{color:#7a4b00;background:#fff3d6!important}.bad{color:#8c0d0d;background:#fde3e3!important}p{margin:.3em 0}form{display:inline}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}th{background:#2a2a2a}tr.s td{background:#22262a}\
a{color:#8bf}.ok{color:#7bd88f}.warn{color:#ffd479;background:#3a2e10!important}.bad{color:#ff9c9c;background:#401717!important}}";

/// Which services are shown, and how often.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct UiQuery {
    /// Only services whose id, or the id of one of whose real servers, contains this.
    search: String,
    /// Only services of which something is not as it should be.
    trouble: bool,
    /// Which page of 200 services, from 1; the last one when there are fewer.
    #[param(value_type = Option<usize>, minimum = 1)]
    page: Option<NonZeroUsize>,
    /// Seconds after which a browser asks again: 5 when left out, 0 for never.
    refresh: Option<u16>,
}

impl UiQuery {
    fn refresh(&self) -> u16 {
        self.refresh.unwrap_or(EVERY)
    }

    fn takes(&self, service: &Service) -> bool {
        let named = || service.id.contains(&self.search) || service.real_servers.iter().any(|server| server.id.contains(&self.search));
        (!self.trouble || rows::trouble(service)) && named()
    }
}

/// The director as a page for browsers: services, real servers, health, ports, workers, verdicts and the latest events.
#[utoipa::path(get, path = "/ui", tag = "system", params(UiQuery),
    responses((status = 200, description = "HTML", body = String, content_type = "text/html"), BadId))]
pub(super) async fn ui(State(app): State<App>, Asked(query): Asked<UiQuery>) -> Result<Page, Rejection> {
    let found = app.director.services();
    let latest = app.director.events().after(0, KEPT).events;
    let shown = Shown {
        version: app.facts.version,
        revision: found.revision,
        missing: health::missing(&app),
        services: &found.services,
        ports: &system::all_ports(&app),
        workers: &app.director.workers(&app.facts.cores, false),
        events: latest.iter().rev().take(EVENTS).map(AsRef::as_ref).collect(),
        query: &query,
    };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = shown.write(&mut text);
    Ok(page(text))
}

/// Leads to `/ui`.
#[utoipa::path(get, path = "/", tag = "system", responses((status = 303, description = "To `/ui`")))]
pub(super) async fn root() -> Redirect {
    Redirect::to("/ui")
}

/// All that a page shows.
struct Shown<'a> {
    version: &'a str,
    revision: u64,
    missing: Vec<String>,
    services: &'a [Service],
    ports: &'a [Port],
    workers: &'a [Worker],
    events: Vec<&'a Event>,
    query: &'a UiQuery,
}

impl Shown<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let refresh = self.query.refresh();
        write!(out, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">")?;
        if refresh > 0 {
            write!(out, "<meta http-equiv=\"refresh\" content=\"{refresh}\">")?;
        }
        write!(out, "<title>Baton</title><style>{STYLE}</style><h1>Baton {}</h1>", Html(self.version))?;
        write!(out, "<p>Revision {} · {} · ", self.revision, utc(SystemTime::now()))?;
        if self.missing.is_empty() {
            write!(out, "<span class=\"ok\">ready</span></p>")?;
        } else {
            write!(out, "<span class=\"bad\">not ready: {}</span></p>", Html(self.missing.join("; ")))?;
        }
        self.write_sums(out)?;
        self.write_services(out)?;
        self.write_ports(out)?;
        self.write_workers(out)?;
        self.write_verdicts(out)?;
        self.write_events(out)?;
        write!(
            out,
            "<p><a href=\"/api/v1/docs\">API</a> · <a href=\"/api/v1/services\">this table as JSON</a> · <a href=\"/metrics\">metrics</a></p></html>"
        )
    }

    fn write_sums(&self, out: &mut String) -> fmt::Result {
        let mut states: BTreeMap<&str, (RealServerState, usize)> = BTreeMap::new();
        let servers = || self.services.iter().flat_map(|service| &service.real_servers);
        for server in servers() {
            states.entry(server.state.in_words()).or_insert((server.state, 0)).1 += 1;
        }
        let in_trouble = self.services.iter().filter(|service| rows::trouble(service)).count();
        write!(out, "<p>{} virtual services", self.services.len())?;
        if in_trouble > 0 {
            write!(out, " (<span class=\"bad\">{in_trouble} in trouble</span>)")?;
        }
        write!(out, ", {} real servers", servers().count())?;
        for (name, (state, count)) in states {
            write!(out, " · <span class=\"{}\">{count} {name}</span>", rows::class(state))?;
        }
        let [checked, search] = [if self.query.trouble { " checked" } else { "" }, &self.query.search];
        write!(
            out,
            "</p><form><input type=\"hidden\" name=\"refresh\" value=\"{}\"><input name=\"search\" value=\"{}\" placeholder=\"address or id\" aria-label=\"search\"> \
            <label><input type=\"checkbox\" name=\"trouble\" value=\"true\"{checked}> only trouble</label> <button>Show</button></form>",
            self.query.refresh(),
            Html(search)
        )
    }

    fn write_services(&self, out: &mut String) -> fmt::Result {
        let chosen: Vec<&Service> = self.services.iter().filter(|service| self.query.takes(service)).collect();
        let pages = chosen.len().div_ceil(A_PAGE).max(1);
        let at = self.query.page.map_or(1, NonZeroUsize::get).min(pages);
        write!(out, "<h2>Services</h2>")?;
        if pages > 1 {
            write!(out, "<p>Page {at} of {pages}:")?;
            for (name, to) in [("first", 1), ("previous", at.saturating_sub(1).max(1)), ("next", (at + 1).min(pages)), ("last", pages)] {
                write!(
                    out,
                    " <a href=\"/ui?page={to}&amp;trouble={}&amp;refresh={}&amp;search={}\">{name}</a>",
                    self.query.trouble,
                    self.query.refresh(),
                    Html(percent_encoded(&self.query.search))
                )?;
            }
            write!(out, "</p>")?;
        }
        rows::head(out)?;
        for service in chosen.iter().skip((at - 1) * A_PAGE).take(A_PAGE) {
            rows::service(out, service)?;
        }
        write!(out, "</table>")?;
        if chosen.is_empty() {
            write!(out, "<p>{}</p>", if self.services.is_empty() { "There are no virtual services." } else { "None is like that." })?;
        }
        Ok(())
    }

    fn write_ports(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "<h2>Ports</h2><table><tr><th>port<th>device<th>MAC<th>link<th>addresses<th>received<th>sent<th>missed<th>no buffer<th>errors</tr>"
        )?;
        for port in self.ports {
            let link = if port.link_up { ("ok", "up") } else { ("bad", "down") };
            let device = port.vlan.as_ref().map_or_else(|| port.device.clone(), |vlan| format!("VLAN {vlan} of {}", port.device));
            write!(out, "<tr><td>{}<td>{}<td>{}<td class=\"{}\">{}", Html(&port.name), Html(device), Html(&port.mac), link.0, link.1)?;
            write!(out, "<td>{}", Html(port.addresses.join(" ")))?;
            let errors = port.rx_errors.saturating_add(port.tx_errors);
            rows::numbers(out, &[port.rx_packets, port.tx_packets])?;
            for lost in [port.rx_missed, port.rx_no_mbuf, errors] {
                write!(out, "<td class=\"n{}\">{}", if lost > 0 { " warn" } else { "" }, rows::Short(lost))?;
            }
            write!(out, "</tr>")?;
        }
        write!(out, "</table>")
    }

    fn write_workers(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "<h2>Workers</h2><table><tr><th>worker<th>core<th>runs revision<th>busy<th>connections<th>half-open<th>capacity<th>received<th>sent<th>defences</tr>"
        )?;
        for worker in self.workers {
            let late = if worker.version < self.revision { " warn" } else { "" };
            write!(out, "<tr><td>{}<td>{}<td class=\"n{late}\">{}", worker.id, worker.core, worker.version)?;
            write!(out, "<td class=\"n\">{:.1} %", worker.busy * 100.0)?;
            rows::numbers(out, &[worker.connections, worker.half_open, worker.capacity, worker.received, worker.sent])?;
            let class = if worker.defences.is_empty() { "" } else { "warn" };
            write!(out, "<td class=\"{class}\">{}</tr>", Html(worker.defences.join(" ")))?;
        }
        write!(out, "</table>")
    }

    fn write_verdicts(&self, out: &mut String) -> fmt::Result {
        let mut verdicts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (at, port) in self.ports.iter().enumerate() {
            for (verdict, frames) in port.verdicts.iter().filter(|(_, frames)| **frames > 0) {
                if let Some(place) = verdicts.entry(verdict).or_insert_with(|| vec![0; self.ports.len()]).get_mut(at) {
                    *place = *frames;
                }
            }
        }
        write!(out, "<h2>Verdicts</h2><table><tr><th>what became of received frames")?;
        for port in self.ports {
            write!(out, "<th>{}", Html(&port.name))?;
        }
        write!(out, "</tr>")?;
        for (verdict, frames) in verdicts {
            write!(out, "<tr><td>{}", Html(verdict))?;
            rows::numbers(out, &frames)?;
            write!(out, "</tr>")?;
        }
        write!(out, "</table>")
    }

    fn write_events(&self, out: &mut String) -> fmt::Result {
        write!(out, "<h2>Latest events</h2><table><tr><th>time<th>what<th>whom<th>why</tr>")?;
        for event in &self.events {
            let class = if event.what.is_bad() { "bad" } else { "" };
            write!(out, "<tr><td>{}<td class=\"{class}\">{}", Html(&event.time), event.what.kind())?;
            write!(out, "<td>{}<td class=\"why\">{}</tr>", Html(&event.what), Html(&event.reason))?;
        }
        write!(out, "</table>")
    }
}

/// Text as a part of a query: every byte but letters, digits, `.` and `-` as `%XX` (RFC 3986 section 2.1).
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
