//! What a configuration takes in memory, part by part, and whether a machine has it.

use std::fmt;

use dataplane::sizes;

use super::error::StartError;
use super::plan;
use crate::config::{Config, Count};

const MIB: u64 = 1 << 20;

/// A part of what a director takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// What for.
    pub(super) what: &'static str,
    /// How that comes about: `4 workers x 10M x 60 bytes`.
    pub(super) how: String,
    /// How much.
    pub(super) bytes: u64,
}

impl Part {
    fn new(what: &'static str, how: impl Into<String>, bytes: u64) -> Self {
        Self { what, how: how.into(), bytes }
    }

    /// In MiB, rounded up.
    pub(super) fn mebibytes(&self) -> u64 {
        self.bytes.div_ceil(MIB)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB {} ({})", self.mebibytes(), self.what, self.how)
    }
}

/// What a machine has to give, MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// Free huge pages.
    pub(super) huge: u64,
    /// Other memory that can be had without swapping; `None` when the kernel does not say.
    pub(super) other: Option<u64>,
}

/// What DPDK takes: on huge pages, unless the configuration does without.
pub(super) fn of_dpdk(config: &Config) -> [Part; 2] {
    let (count, each) = (u64::from(plan::mbufs(config)), plan::bytes_of_mbuf(config));
    [
        Part::new("for packet buffers", format!("{count} x {each} bytes"), count * each),
        Part::new("for DPDK itself", "devices, tables, heap", plan::BASE_MEMORY * MIB),
    ]
}

/// What the workers' tables take from the start: on huge pages as far as there are any left, else on others.
pub(super) fn of_tables(config: &Config) -> Vec<Part> {
    let (workers, limits) = (config.workers.cores.len(), &config.limits);
    let many = workers as u64;
    let (services, servers) = (limits.services, limits.real_servers);
    let crew = format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
    let mut parts = vec![
        Part::new(
            "for connections",
            format!("{crew} x {} x {} bytes", Count(limits.connections), sizes::CONNECTION),
            many * u64::from(limits.connections) * sizes::CONNECTION,
        ),
        Part::new(
            "for services and real servers",
            format!("{crew} x ({services} x {} + {servers} x {}) bytes", sizes::SERVICE, sizes::REAL_SERVER),
            many * sizes::rules(services, servers),
        ),
    ];
    let shared = sizes::between_workers(workers, limits.connections);
    if shared > 0 {
        parts.push(Part::new("between the workers", "who has which connection, and persistence", shared));
    }
    parts
}

/// What all places take besides, once connections are of these kinds.
pub(super) fn of_growth(config: &Config) -> [Part; 2] {
    let places = config.workers.cores.len() as u64 * u64::from(config.limits.connections);
    let part = |what, bytes| Part::new(what, format!("{bytes} bytes a connection"), places * bytes);
    [part("more when all are of IPv6", sizes::ADDRESSES_V6), part("more when anything is masqueraded", sizes::MASQUERADING)]
}

/// The sum of parts in MiB.
pub(super) fn sum(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.bytes).sum::<u64>().div_ceil(MIB)
}

/// Refuses tables that do not fit into what DPDK leaves of a machine's memory, with the arithmetic.
///
/// # Errors
/// What is needed for what, what there is, and the most connections that fit.
pub(super) fn fits(config: &Config, room: Room) -> Result<(), StartError> {
    let Some(other) = room.other else { return Ok(()) };
    let dpdk = config.eal.memory.map_or_else(|| sum(&of_dpdk(config)), |given| u64::from(given.mebibytes()));
    let tables = of_tables(config);
    // DPDK's own is looked at before: here it only takes its share away.
    let (huge, ordinary) =
        if config.eal.no_huge { (room.huge, other.saturating_sub(dpdk)) } else { (room.huge.saturating_sub(dpdk), other) };
    let (have, needed) = (huge + ordinary, sum(&tables));
    if needed <= have {
        return Ok(());
    }
    let list: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let besides: u64 = tables.iter().skip(1).map(|part| part.bytes).sum();
    let each = config.workers.cores.len().max(1) as u64 * sizes::CONNECTION;
    let most = (have * MIB).saturating_sub(besides) / each;
    // Round, so that it can be copied, and on the safe side.
    let most = Count(u32::try_from(most / 1000 * 1000).unwrap_or(u32::MAX));
    let mend = match most.0 {
        0..1024 => "give the machine more memory, or lower limits.services and limits.real_servers".to_owned(),
        _ => format!("give limits.connections = \"{most}\" or less, or the machine {} MiB more", needed - have),
    };
    Err(StartError::new(
        format!(
            "limits.connections = \"{}\" does not fit: {} make {needed} MiB; there are {have} MiB: {huge} MiB of free huge pages and {ordinary} MiB \
             of other memory, without the {dpdk} MiB of packet buffers and DPDK",
            Count(config.limits.connections),
            list.join(" + "),
        ),
        mend,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = format!("[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n{more}");
        crate::config::parse(&text, std::path::Path::new("baton.toml"), &[0, 1, 2, 3, 4]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    const BIG: &str = "[workers]\ncores = [1, 2, 3, 4]\n[limits]\nconnections = \"10M\"\n";

    #[test]
    fn connections_that_do_not_fit_are_refused_with_the_arithmetic() {
        let refused = fits(&config(BIG), Room { huge: 1024, other: Some(512) }).unwrap_err();
        assert!(
            refused.what.starts_with("limits.connections = \"10M\" does not fit: 2289 MiB for connections (4 workers x 10M x 60 bytes) + ")
        );
        for part in ["131072 x 552) bytes)", "32 MiB between the workers", "1536 MiB", "MiB of free huge pages and 512 MiB of other memory"]
        {
            let without = part.replace("1536 MiB", "MiB");
            assert!(refused.what.contains(&without), "{without} is not in {}", refused.what);
        }
        assert!(refused.mend.starts_with("give limits.connections = \"") && refused.mend.contains("MiB more"), "{}", refused.mend);
    }

    #[test]
    fn what_is_proposed_instead_fits() {
        for (huge, other) in [(1024, 512), (0, 2000), (4000, 0)] {
            let room = Room { huge, other: Some(other) };
            let Err(refused) = fits(&config(BIG), room) else { continue };
            let proposed = refused.mend.split('"').nth(1).unwrap();
            assert_eq!(fits(&config(&BIG.replace("10M", proposed)), room), Ok(()), "{proposed}");
        }
        let tiny = fits(&config(BIG), Room { huge: 0, other: Some(100) }).unwrap_err();
        assert!(tiny.mend.contains("limits.services"), "{tiny}");
    }

    #[test]
    fn what_fits_is_taken_and_so_is_what_cannot_be_known() {
        assert_eq!(fits(&config(BIG), Room { huge: 3000, other: Some(500) }), Ok(()));
        assert_eq!(fits(&config(BIG), Room { huge: 0, other: None }), Ok(()));
        assert_eq!(fits(&config(""), Room { huge: 83, other: Some(200) }), Ok(()));
    }

    #[test]
    fn without_huge_pages_dpdk_takes_of_the_same_memory() {
        let text = "[eal]\nno_huge = true\nmemory = \"1G\"\n";
        assert!(fits(&config(text), Room { huge: 0, other: Some(1124) }).is_err());
        assert_eq!(fits(&config(text), Room { huge: 0, other: Some(1424) }), Ok(()));
    }
}
