//! One connection to the API, with bounds on all that its other end can draw out.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tower::ServiceExt as _;

use crate::api::who::Peer;

/// How long the headers of a request may take, and how long a connection may be idle between two.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long an answer may find no room at the other end.
const STALL_TIME: Duration = Duration::from_secs(30);
/// The most bytes of a request's line and headers.
const LONGEST_HEADERS: usize = 32 << 10;
/// The most headers.
const MOST_HEADERS: usize = 64;

/// Answers requests until the other end goes, takes too long, or `stopping` comes.
pub(super) async fn converse<I>(io: I, peer: Peer, routes: Router, stopping: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.clone().oneshot(request)
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(LONGEST_HEADERS).max_headers(MOST_HEADERS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Unstalled::new(io)), service));
    tokio::select! {
        // What goes wrong on a connection is the other end's to know.
        ended = connection.as_mut() => drop(ended),
        () = stopping => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// A stream that breaks when what is written finds no room for [`STALL_TIME`].
struct Unstalled<I> {
    io: I,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Unstalled<I> {
    const fn new(io: I) -> Self {
        Self { io, stalled: None }
    }

    /// Looks at the clock while a write waits.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let clock = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIME)));
        ready!(clock.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Unstalled<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Unstalled<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
