//! What checks ask once they are connected, and how answers are judged.
//!
//! Whatever a server sends, a check reads at most 64 KiB of head and 64 KiB of body, follows nothing, and ends in time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use regex::bytes::{Regex, RegexBuilder};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::check::{Question, What};
use super::connect::{Failure, connect};
use super::tls;

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

/// A check's question with everything that it needs, made once.
pub(super) enum Asker {
    /// Looks at nothing but the MAC.
    Arp,
    /// Connects only.
    Tcp,
    /// HTTP, in TLS or not.
    Http(Box<Conversation>),
}

/// A request, what the answer must be, and whether there is TLS.
pub(super) struct Conversation {
    question: Question,
    body: Option<Regex>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Asker {
    pub(super) fn new(what: &What) -> Result<Self, String> {
        let http = |question: &Question, tls| {
            let body = question.body.as_deref().map(pattern).transpose()?;
            Ok(Self::Http(Box::new(Conversation { question: question.clone(), body, tls })))
        };
        match what {
            What::Arp => Ok(Self::Arp),
            What::Tcp => Ok(Self::Tcp),
            What::Http(question) => http(question, None),
            What::Https(question, trust) => {
                let connector = TlsConnector::from(Arc::new(tls::client(trust)?));
                http(question, Some((connector, tls::name(trust)?)))
            }
        }
    }

    /// Whether a known MAC is all that it wants.
    pub(super) fn asks_nothing(&self) -> bool {
        matches!(self, Self::Arp)
    }

    /// Asks `to`, from our address `from` where it is given; the verdict comes by `until`.
    pub(super) async fn ask(&self, from: Option<IpAddr>, to: SocketAddr, until: Instant) -> Result<(), Failure> {
        let stream = connect(from, to, until).await?;
        let Self::Http(conversation) = self else { return Ok(()) };
        let Conversation { question, body, tls } = conversation.as_ref();
        let Some((connector, name)) = tls else { return converse(stream, question, body.as_ref(), until).await };
        match timeout_at(until, connector.connect(name.clone(), stream)).await {
            Ok(Ok(stream)) => converse(stream, question, body.as_ref(), until).await,
            Ok(Err(why)) => Err(Failure::Tls(why.to_string())),
            Err(_) => Err(Failure::Unfinished("TLS handshake")),
        }
    }
}

/// One request and its answer.
async fn converse<S>(stream: S, question: &Question, body: Option<&Regex>, until: Instant) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let speak = async {
        let mut client = http1::Builder::new();
        client.max_buf_size(MOST).max_headers(256);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(nonsense)?;
        let exchange = async {
            let answer = sender.send_request(request(question)?).await.map_err(nonsense)?;
            let status = answer.status().as_u16();
            if !question.status.contains(status) {
                return Err(Failure::Status(status));
            }
            let Some(pattern) = body else { return Ok(()) };
            let read = read(answer.into_body(), until).await?;
            if pattern.is_match(&read) { Ok(()) } else { Err(Failure::Body) }
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            // The connection's end comes with the last of the answer, or in its place.
            ended = &mut connection => match timeout_at(until, exchange).await {
                Ok(Err(Failure::Nonsense(_))) if ended.is_err() => Err(ended.err().map_or(Failure::Silent, nonsense)),
                Ok(done) => done,
                Err(_) => Err(Failure::Unfinished("answer")),
            },
        }
    };
    timeout_at(until, speak).await.unwrap_or(Err(Failure::Unfinished("whole answer")))
}

fn request(question: &Question) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut request = Request::builder().method(question.method.as_str()).uri(&question.path).header("host", &question.host);
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    if !question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        request = request.header("user-agent", concat!("baton/", env!("CARGO_PKG_VERSION"), " (health check)"));
    }
    let request = request.header("connection", "close").body(Empty::new());
    request.map_err(|why| Failure::Unable(format!("the request cannot be written: {why}")))
}

/// The beginning of a body, as far as it is read.
async fn read(mut body: Incoming, until: Instant) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    while read.len() < MOST {
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                read.extend_from_slice(data.get(..data.len().min(MOST - read.len())).unwrap_or_default());
            }
            Ok(Some(Err(why))) => return Err(nonsense(why)),
            Ok(None) => break,
            Err(_) => return Err(Failure::Unfinished("whole body")),
        }
    }
    Ok(read)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn nonsense(why: hyper::Error) -> Failure {
    // The cause says more than the kind: "invalid HTTP version parsed" and the like.
    let cause = std::error::Error::source(&why).map_or_else(|| why.to_string(), |cause| format!("{why}: {cause}"));
    Failure::Nonsense(cause)
}

#[cfg(test)]
mod tests;
