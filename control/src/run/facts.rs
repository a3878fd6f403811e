//! What the API tells of ports and neighbours: asked of the devices and the kernel when it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plumbing::Gauges;
use super::ports::Ports;
use crate::api::{Facts, Reread};
use crate::config::Config;
use crate::kernel::Kernel;

/// What the API tells that the director does not know.
///
/// `settled` is false until real servers were given their time to answer for their MACs.
pub(super) fn of(
    config: &Config,
    (ports, gauges): (&Ports, &Gauges),
    kernel: &Kernel,
    settled: &Arc<AtomicBool>,
    reread: &Reread,
) -> Facts {
    let config = Arc::new(config.clone());
    let (listed, watched, kernel) = (ports.clone(), ports.clone(), kernel.clone());
    let (settled, gauges) = (Arc::clone(settled), gauges.clone());
    let (for_list, for_missing) = (Arc::clone(&config), Arc::clone(&config));
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        cores: config.workers.cores.clone(),
        ports: Arc::new(move || listed.list(&for_list)),
        plumbing: Arc::new(move || gauges.read()),
        neighbours: Arc::new(move || kernel.neighbours()),
        missing: Arc::new(move || {
            let mut missing = watched.missing(&for_missing);
            if !settled.load(Ordering::Relaxed) {
                missing.push("real servers are being asked for their MACs".to_owned());
            }
            missing
        }),
        reread: reread.clone(),
    }
}
