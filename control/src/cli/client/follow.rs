//! An answer that goes on: lines as they come.

use http_body_util::BodyExt;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{Bytes, Client, ClientError, Full, PATIENCE, Request};
use crate::model::Problem;

/// The longest line that is taken.
const LONGEST: usize = 1 << 20;

impl Client {
    /// GETs the stream at `path` and gives each line to `take`, until that says `false` or the stream ends.
    ///
    /// A stream sends something every 15 s: one that is silent for a minute has broken off.
    pub fn follow(&self, path: &str, mut take: impl FnMut(&str) -> bool) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut request = self.build(Method::GET, path, None)?;
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
            self.read(self.connect().await?, request, &mut take).await
        })
    }

    async fn read<S>(&self, stream: S, request: Request<Full<Bytes>>, take: &mut impl FnMut(&str) -> bool) -> Result<(), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| self.not_understood(error);
        let silent = |_| ClientError::Silent { endpoint: self.endpoint.clone() };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The body reports what goes wrong on the connection.
        tokio::spawn(async move { drop(connection.await) });
        let answer = timeout(PATIENCE, sender.send_request(request)).await.map_err(silent)?.map_err(broken)?;
        let (status, mut body) = (answer.status(), answer.into_body());
        if status != StatusCode::OK {
            let body = timeout(PATIENCE, body.collect()).await.map_err(silent)?.map_err(broken)?.to_bytes();
            return Err(match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => ClientError::Refused(Box::new(problem)),
                Err(_) => self.not_understood(format_args!("status {status}")),
            });
        }
        let mut line = Vec::new();
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.map_err(silent)? {
            // A stream that breaks off has ended.
            let Ok(frame) = frame else { return Ok(()) };
            for byte in frame.into_data().unwrap_or_default() {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > LONGEST {
                        return Err(self.not_understood("an endless line"));
                    }
                    continue;
                }
                if !take(String::from_utf8_lossy(&line).trim_end_matches('\r')) {
                    return Ok(());
                }
                line.clear();
            }
        }
        Ok(())
    }
}
