//! Signals, and what systemd is told.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::StartError;

/// The signals that end the director, and the one that people send to make a daemon read its file again.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Catches the signals from now on: one that comes during the start is acted on right after it.
    pub(super) fn catch() -> Result<Self, StartError> {
        let catch = |kind| {
            signal(kind).map_err(|why| StartError::new(format!("cannot catch signals: {why}"), "raise the limit of open files (ulimit -n)"))
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the director, and says which.
    pub(super) async fn end(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => tracing::warn!(
                    "SIGHUP changes nothing: PUT /api/v1/config replaces services and settings while the director runs; \
                     ports, workers and limits need a restart"
                ),
            }
        }
    }
}

/// Tells systemd how far the director is (`READY=1`, `STOPPING=1`; `sd_notify(3)`), when it was started with `Type=notify`.
pub(super) fn tell_systemd(state: &str) {
    let Some(target) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match target.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&target),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(why) = sent {
        tracing::warn!("systemd was not told {state}: {why}");
    }
}
