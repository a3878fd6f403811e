//! `[watch]`: how VIPs are watched, and what is done about others that speak for them.

use std::time::Duration;

use super::faults::Collector;
use super::reader::Section;
use crate::model::{ArpLeak, ProbeMode, Span};

/// How VIPs are watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// How often each VIP is asked for on each port: 1 s to 1 h.
    pub interval: Duration,
    /// How a VIP is probed for before it is taken.
    pub probe: ProbeMode,
    /// What is done about a real server that answers for a VIP.
    pub arp_leak: ArpLeak,
    /// After so many intervals without a claim a conflict is over: 2 to 100.
    pub quiet: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), probe: ProbeMode::default(), arp_leak: ArpLeak::default(), quiet: 3 }
    }
}

pub(super) fn read(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Watch {
    let mut watch = Watch::default();
    let Some(mut section) = root.take_section("watch", faults) else { return watch };
    if let Some(item) = section.take("interval")
        && let Some(Span(interval)) = item.parsed(faults, Span::EXPECTED)
    {
        if (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&interval) {
            watch.interval = interval;
        } else {
            item.refuse(faults, "expected a time from \"1s\" to \"60m\"");
        }
    }
    let modes = [("quick", ProbeMode::Quick), ("rfc5227", ProbeMode::Rfc5227), ("off", ProbeMode::Off)];
    if let Some(probe) = section.take("probe").and_then(|item| item.choice(faults, &modes)) {
        watch.probe = probe;
    }
    let policies = [("report", ArpLeak::Report), ("quarantine", ArpLeak::Quarantine)];
    if let Some(arp_leak) = section.take("arp_leak").and_then(|item| item.choice(faults, &policies)) {
        watch.arp_leak = arp_leak;
    }
    if let Some(quiet) = section.take("quiet").and_then(|item| item.number(faults, 2..=100)) {
        watch.quiet = quiet;
    }
    section.finish(faults);
    watch
}
