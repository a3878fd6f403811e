//! Why checks fail, and how they connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

/// Why a check failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// Nobody says what MAC the real server has.
    NoMac,
    /// Nothing came back in time.
    Silent,
    /// Nothing came back in time from the VIP, while the real server's own address does answer.
    VipSilent { vip: SocketAddr, rip: SocketAddr },
    /// The VIP refused, while the real server's own address does answer.
    VipRefused { vip: SocketAddr, rip: SocketAddr },
    /// The connection was refused.
    Refused(SocketAddr),
    /// An ICMP error says that nobody listens on the port.
    PortClosed(SocketAddr),
    /// Connected, and then there was no whole answer in time.
    Unfinished(&'static str),
    /// Another status than is healthy.
    Status(u16),
    /// An answer of the protocol that says something else than is healthy.
    WrongAnswer(String),
    /// The body does not match.
    Body,
    /// What came back is not the protocol, or was broken off.
    Nonsense(&'static str, String),
    /// TLS went wrong.
    Tls(String),
    /// A program said so.
    Program(String),
    /// The director itself could not ask: this is no word about the real server.
    Unable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMac => f.write_str("no MAC: nobody answers for its address"),
            Self::Silent => f.write_str("no answer"),
            Self::VipSilent { vip, rip } => {
                write!(f, "RIP answers, VIP does not: {rip} answers, {vip} is silent; is the VIP on its loopback interface?")
            }
            Self::VipRefused { vip, rip } => {
                write!(f, "RIP answers, VIP does not: {rip} answers, {vip} refuses; does the server listen on the VIP?")
            }
            Self::Refused(address) => write!(f, "{address} refuses connections"),
            Self::Unfinished(what) => write!(f, "connected, but no {what} in time"),
            Self::PortClosed(address) => write!(f, "nobody listens on {address}, says an ICMP error"),
            Self::Status(status) => write!(f, "answers with the wrong status, {status}"),
            Self::WrongAnswer(answer) => write!(f, "answers with the wrong status, {answer}"),
            Self::Body => f.write_str("answers with a body that does not match"),
            Self::Nonsense(protocol, why) => write!(f, "answers with something else than {protocol}: {why}"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::Program(why) => f.write_str(why),
            Self::Unable(why) => write!(f, "cannot be checked: {why}"),
        }
    }
}

/// Opens a connection from `from`, where given; it is reset when it is closed, so that ports are free at once.
///
/// A SYN that is lost would be sent again only after a second: when there is no answer for a third of the time there is, a
/// second connection is tried beside the first.
pub(super) async fn connect(from: Option<IpAddr>, to: SocketAddr, until: Instant) -> Result<TcpStream, Failure> {
    let patience = until.saturating_duration_since(Instant::now()) / 3;
    let second = async {
        sleep(patience).await;
        connect_once(from, to).await
    };
    let both = async {
        tokio::select! {
            first = connect_once(from, to) => first,
            second = second => second,
        }
    };
    match timeout_at(until, both).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failure(&error, to)),
        Err(_) => Err(Failure::Silent),
    }
}

async fn connect_once(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_zero_linger()?;
    if let Some(from) = from {
        // A port of its own, which no other socket has: answers from a VIP are told apart by it.
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn failure(error: &io::Error, to: SocketAddr) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused(to),
        // The kernel gave up looking for its MAC, or a router said that it is not there.
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::TimedOut => Failure::Silent,
        _ => Failure::Unable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn refused_and_accepted_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        assert!(connect(None, address, until).await.is_ok());
        drop(listener);
        assert_eq!(connect(Some(IpAddr::from([127, 0, 0, 1])), address, until).await.unwrap_err(), Failure::Refused(address));
    }
}
