//! gRPC's health service, `grpc.health.v1.Health/Check`, over HTTP/2.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md> and `PROTOCOL-HTTP2.md` beside it.

use h2::RecvStream;
use h2::client;
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::MOST;
use crate::health::check::Call;
use crate::health::connect::Failure;

/// The same as [`MOST`], as settings of HTTP/2 have it.
const WINDOW: u32 = 64 << 10;

/// One call and its answer.
pub(super) async fn converse<S>(stream: S, call: &Call, until: Instant) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let speak = async {
        let mut builder = client::Builder::new();
        builder.enable_push(false).max_header_list_size(WINDOW).initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        builder.max_send_buffer_size(MOST).max_concurrent_reset_streams(1);
        let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(nonsense)?;
        let exchange = async {
            let request = request(call)?;
            std::future::poll_fn(|cx| sender.poll_ready(cx)).await.map_err(nonsense)?;
            let (answer, mut body) = sender.send_request(request, false).map_err(nonsense)?;
            body.send_data(message(&call.service), true).map_err(nonsense)?;
            let answer = answer.await.map_err(nonsense)?;
            if answer.status().as_u16() != 200 {
                return Err(Failure::Status(answer.status().as_u16()));
            }
            // An error without a message comes in the head.
            said(answer.headers())?;
            let mut body = answer.into_body();
            let read = read(&mut body).await?;
            if let Some(trailers) = body.trailers().await.map_err(nonsense)? {
                said(&trailers)?;
            }
            serving(&read)
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            // What has come before the end may be the whole answer.
            ended = &mut connection => match timeout_at(until, exchange).await {
                Ok(Err(Failure::Nonsense(..))) if ended.is_err() => Err(ended.err().map_or(Failure::Silent, nonsense)),
                Ok(done) => done,
                Err(_) => Err(Failure::Unfinished("answer")),
            },
        }
    };
    timeout_at(until, speak).await.unwrap_or(Err(Failure::Unfinished("whole answer")))
}

fn request(call: &Call) -> Result<Request<()>, Failure> {
    let scheme = if call.tls.is_some() { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", call.host))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("baton/", env!("CARGO_PKG_VERSION"), " (health check)"));
    request.body(()).map_err(|why| Failure::Unable(format!("the request cannot be written: {why}")))
}

/// `HealthCheckRequest`, whose field 1 is the service's name, as gRPC frames messages.
fn message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if let Ok(length @ 1..) = u8::try_from(service.len()).map(|length| length & 0x7f) {
        message.extend([0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// What gRPC's own status says.
fn said(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(status) => {
            let name = match status {
                "5" => "NOT_FOUND: the server knows no such service",
                "12" => "UNIMPLEMENTED: the server has no health service",
                "14" => "UNAVAILABLE",
                _ => text("grpc-message").unwrap_or_default(),
            };
            Err(Failure::WrongAnswer(format!("{status} {name}").trim_end().to_owned()))
        }
    }
}

/// The beginning of a body, as far as it is read.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(nonsense)?;
        read.extend_from_slice(&data);
        if read.len() > MOST {
            return Err(Failure::Nonsense("gRPC", "an answer of more than 64 KiB".to_owned()));
        }
        body.flow_control().release_capacity(data.len()).map_err(nonsense)?;
    }
    Ok(read)
}

/// Whether `HealthCheckResponse`, whose field 1 is the status, says `SERVING`.
fn serving(framed: &[u8]) -> Result<(), Failure> {
    let nonsense = |why: &str| Failure::Nonsense("gRPC", why.to_owned());
    let [compressed, a, b, c, d, message @ ..] = framed else { return Err(nonsense("no message")) };
    let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
    if *compressed != 0 || length != message.len() {
        return Err(nonsense("a message that is compressed, or not of its length"));
    }
    let status = match message {
        // A field of value 0 is left out.
        [] => 0,
        [0x08, status, ..] => *status,
        _ => return Err(nonsense("a message without a status")),
    };
    let name = match status {
        0 => "UNKNOWN",
        1 => return Ok(()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status that nobody knows",
    };
    Err(Failure::WrongAnswer(name.to_owned()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn nonsense(why: h2::Error) -> Failure {
    Failure::Nonsense("HTTP/2", why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_names_the_service() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("shop")[..], b"\0\0\0\0\x06\x0a\x04shop");
    }

    #[test]
    fn only_serving_is_healthy() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Err(Failure::WrongAnswer("NOT_SERVING".to_owned())));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Err(Failure::WrongAnswer("UNKNOWN".to_owned())));
        for nonsense in [&[][..], &[0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 3, 8, 1], &[0, 0, 0, 0, 2, 9, 1]] {
            assert!(matches!(serving(nonsense), Err(Failure::Nonsense(..))), "{nonsense:?}");
        }
    }
}
