//! Answers good, bad and hostile, from servers on loopback.

mod datagrams;
mod grpc;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::health::check::{Check, Place, Trust};
use crate::model::{HealthSpec, Method};

const TIMEOUT: Duration = Duration::from_millis(600);

fn what(json: &str) -> What {
    let spec: HealthSpec = serde_json::from_str(json).unwrap();
    let place = Place {
        service: "tcp:10.10.24.88:80".parse().unwrap(),
        server: "127.0.0.1:80".parse().unwrap(),
        method: Method::DirectRouting,
        link: 0,
        neighbour: IpAddr::from([127, 0, 0, 1]),
        fixed: None,
        own: None,
        tunnel: None,
    };
    Check::new(&HealthSpec { via: Some(crate::model::Via::Direct), ..spec }, &place).unwrap().what
}

/// What a check of `json` says of a server that does `serve` with its connection.
async fn checked<F>(json: &str, serve: impl FnOnce(TcpStream) -> F) -> Result<(), Failure>
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let asker = Asker::new(&what(json), &Tools::new("nobody")).unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
        std::future::pending::<()>().await;
    };
    let until = Instant::now() + TIMEOUT;
    tokio::select! {
        verdict = asker.ask(None, to, until) => verdict,
        () = server => unreachable!(),
        () = tokio::time::sleep(TIMEOUT * 10) => panic!("a check did not end in time"),
    }
}

async fn answers(json: &str, answer: &str) -> Result<(), Failure> {
    checked(json, |mut stream| async move {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

fn is_unfinished(verdict: &Result<(), Failure>) -> bool {
    matches!(verdict, Err(Failure::Unfinished(_)))
}

#[tokio::test]
async fn statuses_are_judged_by_the_set_and_redirects_are_not_followed() {
    let http = r#"{"type": "http"}"#;
    assert_eq!(answers(http, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(answers(http, redirect).await, Ok(()));
    assert_eq!(answers(r#"{"type": "http", "status": "200"}"#, redirect).await, Err(Failure::Status(302)));
    assert_eq!(answers(http, "HTTP/1.0 503 Busy\r\n\r\n").await, Err(Failure::Status(503)));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n";
    assert_eq!(answers(r#"{"type": "http", "body": "^well$"}"#, chunked).await, Ok(()));
    assert_eq!(answers(r#"{"type": "http", "body": "ill"}"#, chunked).await, Err(Failure::Body));
    let until_closed = "HTTP/1.0 200 OK\r\n\r\nall is well";
    assert_eq!(answers(r#"{"type": "http", "body": "well"}"#, until_closed).await, Ok(()));
}

#[tokio::test]
async fn request_says_what_was_configured() {
    let spec = r#"{"type": "http", "path": "/up?x=1", "host": "shop.example", "method": "HEAD", "headers": {"X-Probe": "yes"}}"#;
    let (said, heard) = tokio::sync::oneshot::channel();
    let verdict = checked(spec, |mut stream| async move {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        request.truncate(length);
        said.send(String::from_utf8(request).unwrap()).unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    })
    .await;
    assert_eq!(verdict, Ok(()));
    let request = heard.await.unwrap();
    assert!(request.starts_with("HEAD /up?x=1 HTTP/1.1\r\n"), "{request}");
    for line in ["host: shop.example\r\n", "x-probe: yes\r\n", "connection: close\r\n", "user-agent: baton/"] {
        assert!(request.contains(line), "{line} in {request}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_said_to_be_so() {
    let http = r#"{"type": "http"}"#;
    for answer in ["SSH-2.0-OpenSSH_9.2p1\r\n", "\u{15}\u{3}\u{1}garbage\r\n\r\n", "HTTP/9.9 200\r\n\r\n"] {
        let verdict = answers(http, answer).await;
        assert!(matches!(verdict, Err(Failure::Nonsense(..))), "{answer:?}: {verdict:?}");
    }
    let cut = answers(r#"{"type": "http", "body": "x"}"#, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    assert!(matches!(cut, Err(Failure::Nonsense(..))), "{cut:?}");
    let closed = checked(http, |stream| async move { drop(stream) }).await;
    assert!(matches!(closed, Err(Failure::Nonsense(..))), "{closed:?}");
}

#[tokio::test]
async fn endless_headers_end_at_64_kib() {
    let verdict = checked(r#"{"type": "http"}"#, |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-more: and more and more and more and more\r\n").await.is_ok() {}
    })
    .await;
    assert!(matches!(verdict, Err(Failure::Nonsense(..))), "{verdict:?}");
}

#[tokio::test]
async fn endless_interim_answers_end_by_the_timeout() {
    let verdict = checked(r#"{"type": "http"}"#, |mut stream| async move {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(verdict.is_err(), "{verdict:?}");
}

#[tokio::test]
async fn a_byte_now_and_then_ends_by_the_timeout() {
    for answer in ["HTTP/1.1 200 OK\r\nserver: slow and slower and slower and slower\r\n\r\n", ""] {
        let verdict = checked(r#"{"type": "http"}"#, |mut stream| async move {
            for byte in answer.bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            std::mem::forget(stream);
        })
        .await;
        assert!(is_unfinished(&verdict), "{verdict:?}");
    }
}

#[tokio::test]
async fn huge_bodies_are_read_to_64_kib() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4294967296\r\n\r\n";
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&sent);
    let verdict = checked(r#"{"type": "http", "body": "never there"}"#, |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(&[b'.'; 4096]).await.is_ok() {
            counter.fetch_add(4096, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .await;
    assert_eq!(verdict, Err(Failure::Body));
    // What the sockets on both sides hold comes on top of what was read.
    assert!(sent.load(std::sync::atomic::Ordering::Relaxed) < 32 << 20);
}

#[tokio::test]
async fn tls_garbage_is_a_tls_fault_and_silence_a_handshake_that_does_not_end() {
    let https = r#"{"type": "https", "verify": false}"#;
    let verdict = answers(https, "HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(matches!(verdict, Err(Failure::Tls(_))), "{verdict:?}");
    let verdict = checked(https, |stream| async move { std::mem::forget(stream) }).await;
    assert_eq!(verdict, Err(Failure::Unfinished("TLS handshake")));
}

#[test]
fn patterns_that_cannot_be_used_say_why() {
    assert!(pattern("up|ok").is_ok());
    assert_eq!(pattern("(").unwrap_err(), "unclosed group");
    assert!(pattern(r"(\w{1000}){1000}").unwrap_err().contains("size limit"));
}

#[test]
fn names_and_authorities_of_tls_are_judged_beforehand() {
    let trust = |name: &str, ca: Option<&str>| Trust { name: name.to_owned(), ca: ca.map(str::to_owned), verify: ca.is_some() };
    assert!(tls::name(&trust("10.10.24.88", None)).is_ok() && tls::name(&trust("shop.example", None)).is_ok());
    assert!(tls::name(&trust("no name", None)).is_err());
    assert!(tls::client(&trust("shop.example", None), b"h2").is_ok());
    assert!(tls::client(&trust("shop.example", Some("/nonexistent")), b"h2").unwrap_err().contains("cannot be read"));
    assert!(tls::authorities("/etc/hostname").unwrap_err().contains("no certificate"));
}
