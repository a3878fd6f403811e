//! Signals, and what systemd is told.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::StartError;

/// The signals that end the director, and the one that makes it read its file again.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) ends: Ends,
    pub(super) hang_up: Signal,
}

/// The signals that end the director.
#[derive(Debug)]
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals from now on: one that comes during the start is acted on right after it.
    pub(super) fn catch() -> Result<Self, StartError> {
        let catch = |kind| {
            signal(kind).map_err(|why| StartError::new(format!("cannot catch signals: {why}"), "raise the limit of open files (ulimit -n)"))
        };
        Ok(Self {
            ends: Ends { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? },
            hang_up: catch(SignalKind::hangup())?,
        })
    }
}

impl Ends {
    /// Waits for one, and says which.
    pub(super) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Tells systemd how far the director is (`READY=1`, `STOPPING=1`; `sd_notify(3)`), when it was started with `Type=notify`.
pub(super) fn tell_systemd(state: &str) {
    let told = std::env::var_os("NOTIFY_SOCKET").map_or(Ok(()), |socket| tell(&socket, state));
    if let Err(why) = told {
        tracing::warn!("systemd was not told {state}: {why}");
    }
}

/// Sends `state` to a datagram socket: a path, or a name in the abstract namespace behind `@`.
fn tell(socket: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match socket.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }?;
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_what_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str(), "READY=1").unwrap();
        let mut heard = [0; 16];
        let length = systemd.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        assert!(tell(OsStr::new("@nobody-listens-here"), "READY=1").is_err());
    }

    #[test]
    fn signal_that_came_during_the_start_is_not_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let mut signals = Signals::catch().unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(runtime.block_on(signals.ends.wait()), "SIGTERM");
        assert!(runtime.block_on(signals.hang_up.recv()).is_some());
    }
}
