//! What checks ask once they are connected, and how answers are judged.
//!
//! Whatever a server sends, a check reads at most 64 KiB of head and 64 KiB of body, follows nothing, and ends in time.

mod dns;
pub(super) mod exec;
mod grpc;
mod http;
mod ping;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::check::{Call, Question, Trust, What};
use super::connect::{Failure, connect};
use super::tls;
pub(crate) use dns::{question as dns_question, rcode as dns_rcode};
pub(crate) use exec::{refusal as program_refusal, user as program_user};

/// The most that is read of an answer's head, and of its body.
const MOST: usize = 64 << 10;

/// The most memory that a pattern may take.
const PATTERN: usize = 1 << 20;

/// The pattern that a body must match; why it cannot be used in words.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    let pattern = RegexBuilder::new(text).size_limit(PATTERN).dfa_size_limit(PATTERN).build();
    // What regex says has lines of its own for the place; the last one says what is wrong.
    pattern.map_err(|why| why.to_string().lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned())
}

/// What checks of several real servers share.
#[derive(Debug)]
pub(super) struct Tools {
    pings: ping::Pings,
    programs: exec::Programs,
}

impl Tools {
    /// `user` is who programs run as.
    pub(super) fn new(user: &str) -> Self {
        Self { pings: ping::Pings::default(), programs: exec::Programs::new(user) }
    }
}

/// A check's question with everything that it needs, made once.
pub(super) enum Asker {
    /// Looks at nothing but the MAC.
    Arp,
    /// An echo.
    Ping(ping::Pings),
    /// Connects only.
    Tcp,
    /// A datagram.
    Udp(udp::Exchange),
    /// A question to a name server.
    Dns(Box<dns::Lookup>),
    /// HTTP, in TLS or not.
    Http(Box<(Question, Option<Regex>, Option<Secure>)>),
    /// gRPC's health service.
    Grpc(Box<(Call, Option<Secure>)>),
    /// A program.
    Exec(Box<exec::Program>),
}

impl Asker {
    pub(super) fn new(what: &What, tools: &Tools) -> Result<Self, String> {
        let body = |body: &Option<String>| body.as_deref().map(pattern).transpose();
        Ok(match what {
            What::Arp => Self::Arp,
            What::Ping => Self::Ping(tools.pings.clone()),
            What::Tcp => Self::Tcp,
            What::Udp(datagram) => Self::Udp(udp::Exchange::new(datagram.clone(), body(&datagram.body)?)),
            What::Dns(lookup) => Self::Dns(Box::new(dns::Lookup::new(lookup)?)),
            What::Http(question) => Self::Http(Box::new((question.clone(), body(&question.body)?, None))),
            What::Https(question, trust) => {
                Self::Http(Box::new((question.clone(), body(&question.body)?, Some(Secure::new(trust, b"http/1.1")?))))
            }
            What::Grpc(call) => {
                let secure = call.tls.as_ref().map(|trust| Secure::new(trust, b"h2")).transpose()?;
                Self::Grpc(Box::new((call.clone(), secure)))
            }
            What::Exec(program) => Self::Exec(Box::new(exec::Program::new(program.clone(), body(&program.body)?, tools.programs.clone()))),
        })
    }

    /// Whether a known MAC is all that it wants.
    pub(super) fn asks_nothing(&self) -> bool {
        matches!(self, Self::Arp)
    }

    /// Asks `to`, from our address `from` where it is given; the verdict comes by `until`.
    pub(super) async fn ask(&self, from: Option<IpAddr>, to: SocketAddr, until: Instant) -> Result<(), Failure> {
        match self {
            Self::Arp => Ok(()),
            Self::Ping(pings) => pings.ask(from, to.ip(), until).await,
            Self::Tcp => connect(from, to, until).await.map(drop),
            Self::Udp(exchange) => exchange.ask(from, to, until).await,
            Self::Dns(lookup) => lookup.ask(from, to, until).await,
            Self::Http(conversation) => {
                let (question, body, secure) = conversation.as_ref();
                let stream = open(from, to, secure.as_ref(), until).await?;
                http::converse(stream, question, body.as_ref(), until).await
            }
            Self::Grpc(conversation) => {
                let (call, secure) = conversation.as_ref();
                let stream = open(from, to, secure.as_ref(), until).await?;
                grpc::converse(stream, call, until).await
            }
            Self::Exec(program) => program.run(to, until).await,
        }
    }

    /// Whether anything answers at `to`, however: that a real server is there at all.
    pub(super) async fn reaches(&self, to: SocketAddr, until: Instant) -> bool {
        match self {
            // Where no answer is asked for, silence is good for the check, but says nothing of who is there.
            Self::Udp(exchange) => exchange.is_answered(to, until).await,
            Self::Ping(_) | Self::Dns(_) => {
                !matches!(self.ask(None, to, until).await, Err(Failure::Silent | Failure::PortClosed(_) | Failure::Unable(_)))
            }
            _ => connect(None, to, until).await.is_ok(),
        }
    }
}

/// What TLS needs.
pub(super) struct Secure {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Secure {
    fn new(trust: &Trust, protocol: &[u8]) -> Result<Self, String> {
        Ok(Self { connector: TlsConnector::from(Arc::new(tls::client(trust, protocol)?)), name: tls::name(trust)? })
    }
}

/// A connection, in TLS or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn open(from: Option<IpAddr>, to: SocketAddr, secure: Option<&Secure>, until: Instant) -> Result<Box<dyn Stream>, Failure> {
    let stream: TcpStream = connect(from, to, until).await?;
    let Some(Secure { connector, name }) = secure else { return Ok(Box::new(stream)) };
    match timeout_at(until, connector.connect(name.clone(), stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(why)) => Err(Failure::Tls(why.to_string())),
        Err(_) => Err(Failure::Unfinished("TLS handshake")),
    }
}

#[cfg(test)]
mod tests;
