//! The sections of `baton.toml` that hold single values.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use dataplane::settings::Ttl;

use super::entrance;
use super::faults::Collector;
use super::reader::{Item, Section};
use super::values::{ByteSize, Count};
use super::{Control, Eal, Forwarding, Idle, Limits, Workers};
use crate::api::Entrance;
use crate::model::Settings;

/// The highest CPU number that DPDK can be told of (`CPU_SETSIZE` - 1).
const LAST_CPU: u32 = 1023;
/// DPDK's `RTE_MAX_LCORE` is 128, of which the control plane takes one; one more is left for tools.
const MOST_WORKERS: usize = 126;
/// The longest path that fits a unix socket's address (`sun_path`, unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// 31 days: the longest timeout that `ipvsadm --set` takes.
const LONGEST_TIMEOUT: u32 = 2_678_400;

pub(super) fn control(root: &mut Section<'_>, cpus: &[u32], faults: &mut Collector<'_>) -> Control {
    let mut control = Control {
        core: cpus.first().copied().unwrap_or(0),
        entrance: Entrance::at(Path::new("/run/baton/baton.sock")),
        state: PathBuf::from("/var/lib/baton/state.json"),
    };
    let Some(mut section) = root.take_section("control", faults) else { return control };
    if let Some(core) = section.take("core").and_then(|item| item.number(faults, 0..=LAST_CPU)) {
        control.core = core;
    }
    if let Some(socket) = section.take("socket").and_then(|item| socket_path(&item, faults)) {
        control.entrance.socket = socket;
    }
    entrance::read(&mut section, &mut control.entrance, faults);
    if let Some(state) = section.take("state").and_then(|item| absolute(&item, faults)) {
        control.state = state;
    }
    section.finish(faults);
    control
}

pub(super) fn workers(root: &mut Section<'_>, cpus: &[u32], control: u32, faults: &mut Collector<'_>) -> Workers {
    let own = cpus.iter().copied().find(|cpu| *cpu != control).unwrap_or(control);
    let mut workers = Workers { cores: vec![own], idle: vec![Idle::default()] };
    let Some(mut section) = root.take_section("workers", faults) else { return workers };
    if let Some(item) = section.take("cores") {
        let list = item.list(faults);
        if list.len() > MOST_WORKERS {
            item.refuse(faults, format_args!("DPDK takes at most {MOST_WORKERS} workers"));
        } else if item.is_empty_list() {
            item.refuse(faults, "at least one core is needed, for one worker");
        }
        workers.cores = list.iter().filter_map(|core| core.number(faults, 0..=LAST_CPU)).collect();
    }
    workers.idle = vec![Idle::default(); workers.cores.len()];
    if let Some(item) = section.take("idle") {
        read_idle(&item, &mut workers.idle, faults);
    }
    section.finish(faults);
    workers
}

/// One word for all workers, or one for each.
fn read_idle(item: &Item<'_>, idle: &mut [Idle], faults: &mut Collector<'_>) {
    let choices = [("adaptive", Idle::Adaptive), ("poll", Idle::Poll), ("interrupt", Idle::Interrupt)];
    if !item.is_list() {
        if let Some(one) = item.choice(faults, &choices) {
            idle.fill(one);
        }
        return;
    }
    let list = item.list(faults);
    if list.len() != idle.len() {
        item.refuse(faults, format_args!("expected one word, or one for each of the {} workers", idle.len()));
    }
    for (place, entry) in idle.iter_mut().zip(&list) {
        *place = entry.choice(faults, &choices).unwrap_or_default();
    }
}

pub(super) fn eal(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Eal {
    let mut eal = Eal::default();
    let Some(mut section) = root.take_section("eal", faults) else { return eal };
    eal.no_huge = section.take("no_huge").and_then(|item| item.boolean(faults)).unwrap_or_default();
    eal.memory = section.take("memory").and_then(|item| item.parsed(faults, ByteSize::EXPECTED));
    eal.file_prefix = section.take("file_prefix").and_then(|item| file_prefix(&item, faults));
    eal.mbufs = section.take("mbufs").and_then(|item| item.number(faults, 1024..=1 << 26));
    if let Some(item) = section.take("args") {
        eal.args = item.list(faults).iter().filter_map(|arg| eal_argument(arg, faults)).collect();
    }
    section.finish(faults);
    eal
}

pub(super) fn forwarding(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Forwarding {
    let mut forwarding = Forwarding::default();
    let Some(mut section) = root.take_section("forwarding", faults) else { return forwarding };
    if let Some(ttl) =
        section.take("ttl").and_then(|item| item.choice(faults, &[("preserve", Ttl::Preserve), ("decrement", Ttl::Decrement)]))
    {
        forwarding.ttl = ttl;
    }
    section.finish(faults);
    forwarding
}

pub(super) fn limits(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut section) = root.take_section("limits", faults) else { return limits };
    let numbers = [
        ("services", &mut limits.services, 1..=1 << 20),
        ("real_servers", &mut limits.real_servers, 1..=1 << 22),
        ("exception_rate", &mut limits.exception_rate, 0..=10_000_000),
        ("icmp_error_rate", &mut limits.icmp_error_rate, 0..=10_000_000),
    ];
    for (key, place, allowed) in numbers {
        if let Some(number) = section.take(key).and_then(|item| item.number(faults, allowed)) {
            *place = number;
        }
    }
    if let Some(connections) = section.take("connections").and_then(|item| count(&item, faults, 1024..=1 << 28)) {
        limits.connections = connections;
    }
    if let Some(percent) = section.take("half_open_percent").and_then(|item| item.number(faults, 1..=100)) {
        limits.half_open_percent = percent;
    }
    section.finish(faults);
    limits
}

/// A number, or a text such as `10M`.
fn count(item: &Item<'_>, faults: &mut Collector<'_>, allowed: RangeInclusive<u32>) -> Option<u32> {
    if item.is_integer() {
        return item.number(faults, allowed);
    }
    let Count(number) = item.parsed(faults, Count::EXPECTED)?;
    if !allowed.contains(&number) {
        item.refuse(faults, format_args!("expected {} to {}", allowed.start(), allowed.end()));
        return None;
    }
    Some(number)
}

pub(super) fn settings(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Settings {
    let mut settings = Settings::default();
    let Some(mut section) = root.take_section("settings", faults) else { return settings };
    let flags = [
        ("sloppy_tcp", &mut settings.sloppy_tcp, 0..=1),
        ("sloppy_sctp", &mut settings.sloppy_sctp, 0..=1),
        ("schedule_icmp", &mut settings.schedule_icmp, 0..=1),
        ("nat_icmp_send", &mut settings.nat_icmp_send, 0..=1),
        ("pmtu_disc", &mut settings.pmtu_disc, 0..=1),
        ("expire_nodest_conn", &mut settings.expire_nodest_conn, 0..=1),
        ("expire_quiescent_template", &mut settings.expire_quiescent_template, 0..=1),
        // Bits 0 and 2 mean something; bit 1 is IPVS's own "any state", which 7 includes.
        ("conn_reuse_mode", &mut settings.conn_reuse_mode, 0..=7),
        ("drop_entry", &mut settings.drop_entry, 0..=3),
        ("drop_packet", &mut settings.drop_packet, 0..=3),
        ("secure_tcp", &mut settings.secure_tcp, 0..=3),
        ("amemthresh", &mut settings.amemthresh, 0..=100),
    ];
    for (key, place, allowed) in flags {
        if let Some(number) = section.take(key).and_then(|item| item.number(faults, allowed)) {
            *place = number;
        }
    }
    if let Some(rate) = section.take("am_droprate").and_then(|item| item.number(faults, 0..=crate::director::MAX_WEIGHT)) {
        settings.am_droprate = rate;
    }
    let expirations = [("lblc_expiration", &mut settings.lblc_expiration), ("lblcr_expiration", &mut settings.lblcr_expiration)];
    for (key, place) in expirations {
        if let Some(seconds) = section.take(key).and_then(|item| item.number(faults, 0..=LONGEST_TIMEOUT)) {
            *place = seconds;
        }
    }
    let timeouts = [
        ("timeout_tcp", &mut settings.timeout_tcp),
        ("timeout_tcpfin", &mut settings.timeout_tcpfin),
        ("timeout_udp", &mut settings.timeout_udp),
    ];
    for (key, place) in timeouts {
        if let Some(seconds) = section.take(key).and_then(|item| item.number(faults, 1..=LONGEST_TIMEOUT)) {
            *place = seconds;
        }
    }
    section.finish(faults);
    settings
}

pub(super) fn absolute(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<PathBuf> {
    let text = item.text(faults, "an absolute path")?;
    if text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') {
        return Some(PathBuf::from(text));
    }
    item.refuse(faults, "expected the absolute path of a file, because a daemon has no folder of its own");
    None
}

fn socket_path(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<PathBuf> {
    let path = absolute(item, faults)?;
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Some(path);
    }
    item.refuse(faults, format_args!("the path of a unix socket has at most {LONGEST_SOCKET_PATH} bytes"));
    None
}

fn file_prefix(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<String> {
    let expected = "1 to 32 letters, digits, '-' or '_'";
    let text = item.text(faults, expected)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=32).contains(&text.len()) && text.chars().all(plain) {
        return Some(text.to_owned());
    }
    item.refuse(faults, format_args!("expected {expected}"));
    None
}

/// Arguments of EAL that this file has keys for: given twice they would contradict each other.
const OWN_ARGUMENTS: &[(&str, &str)] = &[
    ("-l", "workers.cores and control.core"),
    ("-c", "workers.cores and control.core"),
    ("--lcores", "workers.cores and control.core"),
    ("--main-lcore", "control.core"),
    ("-m", "eal.memory"),
    ("--no-huge", "eal.no_huge"),
    ("--file-prefix", "eal.file_prefix"),
    ("--vdev", "port.device"),
    ("-a", "port.device"),
    ("--allow", "port.device"),
    ("--no-pci", "port.device"),
    ("--proc-type", "nothing: a director is always the primary process"),
];

fn eal_argument(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<String> {
    let text = item.text(faults, "a text")?;
    let name = text.split('=').next().unwrap_or_default();
    if let Some((_, key)) = OWN_ARGUMENTS.iter().find(|(own, _)| *own == name) {
        item.refuse(faults, format_args!("the key for it is {key}"));
        return None;
    }
    if text.is_empty() || text.contains('\0') || text == "--" {
        item.refuse(faults, "expected an argument of DPDK's EAL, such as \"--log-level=lib.eal:debug\"");
        return None;
    }
    Some(text.to_owned())
}
