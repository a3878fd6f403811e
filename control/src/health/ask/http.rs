//! HTTP, in TLS or not.

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::MOST;
use crate::health::check::Question;
use crate::health::connect::Failure;

/// One request and its answer.
pub(super) async fn converse<S>(stream: S, question: &Question, body: Option<&Regex>, until: Instant) -> Result<(), Failure>
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
                Ok(Err(Failure::Nonsense(..))) if ended.is_err() => Err(ended.err().map_or(Failure::Silent, nonsense)),
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
    Failure::Nonsense("HTTP", cause)
}
