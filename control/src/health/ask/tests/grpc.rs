//! gRPC's health service, played by an HTTP/2 server.

use hyper::body::Bytes;
use hyper::{HeaderMap, Response};

use super::*;

/// What a check says of a server that answers with these bytes, in this status of HTTP and of gRPC.
async fn answered(json: &str, http: u16, body: &'static [u8], grpc: Option<&'static str>) -> (Result<(), Failure>, Vec<u8>) {
    let (said, heard) = tokio::sync::oneshot::channel();
    let verdict = checked(json, |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(
            (&request.headers()["te"], &request.headers()["content-type"]),
            (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
        );
        let mut asked = request.into_body();
        let answer = async {
            let question = asked.data().await.unwrap().unwrap().to_vec();
            said.send(question).unwrap();
            let head = Response::builder().status(http).header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(body), grpc.is_none()).unwrap();
            if let Some(status) = grpc {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", status.parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = answer => {}
            _ = connection.accept() => {}
        }
    })
    .await;
    (verdict, heard.await.unwrap_or_default())
}

#[tokio::test]
async fn serving_is_healthy_and_everything_else_says_what_it_is() {
    let (verdict, asked) = answered(r#"{"type": "grpc", "grpc_service": "shop"}"#, 200, &[0, 0, 0, 0, 2, 8, 1], Some("0")).await;
    assert_eq!((verdict, &asked[..]), (Ok(()), &b"\0\0\0\0\x06\x0a\x04shop"[..]));
    let wrong = |text: &str| Err(Failure::WrongAnswer(text.to_owned()));
    let plain = r#"{"type": "grpc"}"#;
    assert_eq!(answered(plain, 200, &[0, 0, 0, 0, 2, 8, 2], Some("0")).await.0, wrong("NOT_SERVING"));
    assert_eq!(answered(plain, 200, &[], Some("5")).await.0, wrong("5 NOT_FOUND: the server knows no such service"));
    assert_eq!(answered(plain, 503, &[], None).await.0, Err(Failure::Status(503)));
    assert!(matches!(answered(plain, 200, b"<html>", None).await.0, Err(Failure::Nonsense("gRPC", _))));
}

#[tokio::test]
async fn what_is_no_http2_is_said_to_be_so() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2p1\r\n"] {
        let verdict = answers(r#"{"type": "grpc"}"#, answer).await;
        assert!(matches!(verdict, Err(Failure::Nonsense("HTTP/2", _))), "{verdict:?}");
    }
}

#[tokio::test]
async fn endless_frames_end_by_the_timeout() {
    let verdict = checked(r#"{"type": "grpc"}"#, |mut stream| async move {
        // SETTINGS, empty, again and again.
        while stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.is_ok() {
            let mut heard = [0; 4096];
            let _ = stream.try_read(&mut heard);
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(verdict.is_err(), "{verdict:?}");
}

#[tokio::test]
async fn endless_body_ends_at_64_kib() {
    let verdict = checked(r#"{"type": "grpc"}"#, |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let flood = async {
            loop {
                stream.reserve_capacity(16_384);
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let Some(Ok(room)) = room else { break };
                if stream.send_data(vec![0; room].into(), false).is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = flood => {}
            _ = connection.accept() => {}
        }
    })
    .await;
    assert_eq!(verdict, Err(Failure::Nonsense("gRPC", "an answer of more than 64 KiB".to_owned())));
}
