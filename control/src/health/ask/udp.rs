//! Datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use regex::bytes::Regex;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::MOST;
use crate::health::check::Datagram;
use crate::health::connect::Failure;

/// How often a question is sent at most: a datagram that is lost does not fail a check.
const TRIES: u32 = 3;

/// A datagram and what its answer must be.
pub(in crate::health) struct Exchange {
    datagram: Datagram,
    body: Option<Regex>,
}

impl Exchange {
    pub(super) fn new(datagram: Datagram, body: Option<Regex>) -> Self {
        Self { datagram, body }
    }

    pub(super) async fn ask(&self, from: Option<IpAddr>, to: SocketAddr, until: Instant) -> Result<(), Failure> {
        let judge = |answer: &[u8]| match &self.body {
            Some(pattern) if !pattern.is_match(answer) => Some(Err(Failure::Body)),
            _ => Some(Ok(())),
        };
        match exchange(from, to, &self.datagram.send, judge, until).await {
            Err(Failure::Silent) if !self.datagram.answer => Ok(()),
            result => result,
        }
    }

    /// Whether anything comes back that is no ICMP error.
    pub(super) async fn is_answered(&self, to: SocketAddr, until: Instant) -> bool {
        exchange(None, to, &self.datagram.send, |_| Some(Ok(())), until).await.is_ok()
    }
}

/// Sends `question` up to three times within the time there is; `judge` says `None` of a datagram that is no answer to it.
pub(super) async fn exchange(
    from: Option<IpAddr>,
    to: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> Option<Result<(), Failure>>,
    until: Instant,
) -> Result<(), Failure> {
    let fail = |error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::PortClosed(to),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Failure::Silent,
        _ => Failure::Unable(error.to_string()),
    };
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(from.unwrap_or(any), 0)).await.map_err(|error| fail(&error))?;
    socket.connect(to).await.map_err(|error| fail(&error))?;
    let began = Instant::now();
    let patience = until.saturating_duration_since(began) / TRIES;
    let mut answer = vec![0; MOST];
    for turn in 1..=TRIES {
        socket.send(question).await.map_err(|error| fail(&error))?;
        let end = if turn == TRIES { until } else { began + patience * turn };
        while let Ok(received) = timeout_at(end, socket.recv(&mut answer)).await {
            let length = received.map_err(|error| fail(&error))?;
            if let Some(verdict) = judge(answer.get(..length).unwrap_or_default()) {
                return verdict;
            }
        }
    }
    Err(Failure::Silent)
}
