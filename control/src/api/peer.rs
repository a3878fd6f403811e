//! Who is at the other end of a connection.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::{TcpListener, UnixListener};

use super::serve::Limited;
use crate::director::Actor;

impl Connected<IncomingStream<'_, Limited<UnixListener>>> for Actor {
    /// The user at the other end of the unix socket, as the kernel says.
    fn connect_info(stream: IncomingStream<'_, Limited<UnixListener>>) -> Self {
        match getsockopt(stream.io().get(), PeerCredentials) {
            Ok(peer) => local(peer.uid()),
            Err(_) => Self::named("someone on the unix socket"),
        }
    }
}

impl Connected<IncomingStream<'_, Limited<TcpListener>>> for Actor {
    /// Nobody is known over TCP but by where he is.
    fn connect_info(stream: IncomingStream<'_, Limited<TcpListener>>) -> Self {
        Self::named(format!("someone at {}", stream.remote_addr().ip()))
    }
}

/// A user of this machine: `root (uid 0)`. Only /etc/passwd is asked for the name, since other sources of names may hang.
fn local(uid: u32) -> Actor {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    Actor::named(name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_with_their_number() {
        assert_eq!(local(0), Actor::named("root (uid 0)"));
        assert_eq!(local(4_000_000_000), Actor::named("uid 4000000000"));
    }
}
