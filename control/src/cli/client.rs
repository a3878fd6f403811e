//! A client of the director's REST API, over its unix socket or over HTTP.

mod follow;
pub mod reach;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::codes::Code;
use crate::model::Problem;
use reach::{Reach, Shown};

/// How long the director may take for one answer. A write waits for the workers for 2 s at most, so this only ends
/// what would otherwise never end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the API is: `unix:PATH`, `https://HOST:PORT` or `http://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port, as in an URL's authority.
    Http(String),
    /// The same through TLS.
    Https(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
        }
    }
}

/// Why a text does not say where the API is.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no address of an API: expected unix:PATH, https://HOST:PORT or http://HOST:PORT")]
pub struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(PathBuf::from(path))) };
        }
        let (secure, authority) = match text.strip_prefix("https://") {
            Some(authority) => (true, authority),
            None => (false, text.strip_prefix("http://").ok_or_else(bad)?),
        };
        let authority = authority.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        let bracketed = host.starts_with('[') == host.ends_with(']') && (host.starts_with('[') || !host.contains(':'));
        if host.is_empty() || !bracketed || host.contains('/') || port.parse::<u16>().is_err() {
            return Err(bad());
        }
        let authority = authority.to_owned();
        Ok(if secure { Self::Https(authority) } else { Self::Http(authority) })
    }
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is at the other end.
    #[error(
        "cannot reach the director at {endpoint}: {cause}; is baton running? (baton run --config FILE; or say where it is with --api or BATON_API)"
    )]
    Unreachable {
        /// Where it was looked for.
        endpoint: Endpoint,
        /// What the system said.
        cause: String,
    },
    /// The director refused, and said why.
    #[error("{}", Refusal(.0))]
    Refused(Box<Problem>),
    /// The answer is none that this version understands.
    #[error("the director at {endpoint} gave an answer that this command does not understand ({what}): are both of the same version?")]
    NotUnderstood {
        /// Who answered.
        endpoint: Endpoint,
        /// What was wrong with it.
        what: String,
    },
    /// No answer came in time.
    #[error("the director at {endpoint} did not answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// Who was asked.
        endpoint: Endpoint,
    },
}

impl ClientError {
    /// The stable name of the director's refusal (`service-exists`), when it is one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(problem.kind.rsplit('/').next().unwrap_or(&problem.kind)),
            _ => None,
        }
    }
}

impl ClientError {
    /// The message with the stable name, and with where in a document each fault is.
    pub fn with_places(&self) -> String {
        let Self::Refused(problem) = self else { return self.with_code() };
        let faults: Vec<String> = problem.errors.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        if faults.is_empty() { self.with_code() } else { format!("{} [{}]", faults.join("\n"), self.code().unwrap_or_default()) }
    }

    /// The message, with the stable name of the error in brackets behind it.
    pub fn with_code(&self) -> String {
        let code = self.code().unwrap_or(match self {
            Self::Unreachable { .. } => Code::Unreachable.as_str(),
            Self::Silent { .. } => Code::NoAnswer.as_str(),
            Self::NotUnderstood { .. } | Self::Refused(_) => Code::NotUnderstood.as_str(),
        });
        format!("{self} [{code}]")
    }
}

/// A problem as a person reads it: the faults one a line where there are any, else what happened.
struct Refusal<'a>(&'a Problem);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.errors.is_empty() {
            let text = if self.0.detail.is_empty() { &self.0.title } else { &self.0.detail };
            return f.write_str(text);
        }
        for (index, fault) in self.0.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&fault.detail)?;
        }
        Ok(())
    }
}

/// Sends requests one after another and waits for each answer; a connection each.
///
/// It runs a small runtime of its own, so it must not be used inside another one.
pub struct Client {
    endpoint: Endpoint,
    shown: Shown,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client of the API that is reached so; files are read, and nothing is connected yet.
    ///
    /// # Errors
    /// What cannot be read, or why the system does not let it start.
    pub fn new(reach: &Reach) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| why.to_string())?;
        Ok(Self { endpoint: reach.api.clone(), shown: reach.read()?, runtime })
    }

    /// GETs `path` (below `/api/v1/`) and parses the answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parse(&self.request(Method::GET, path, None)?)
    }

    /// Sends `body` and parses the answer.
    pub fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = self.render(body)?;
        self.parse(&self.request(method, path, Some(body))?)
    }

    /// Sends `body` and looks only at whether it was accepted.
    pub fn submit(&self, method: Method, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        let body = self.render(body)?;
        self.request(method, path, Some(body)).map(drop)
    }

    /// Sends a request without a body and looks only at whether it was accepted.
    pub fn order(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.request(method, path, None).map(drop)
    }

    /// Sends a request without a body and parses the answer.
    pub fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        self.parse(&self.request(method, path, None)?)
    }

    fn render(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body).map(Bytes::from).map_err(|error| self.not_understood(error))
    }

    fn parse<T: DeserializeOwned>(&self, body: &Bytes) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.not_understood(error))
    }

    fn not_understood(&self, what: impl fmt::Display) -> ClientError {
        ClientError::NotUnderstood { endpoint: self.endpoint.clone(), what: what.to_string() }
    }

    fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, ClientError> {
        let exchange = async { tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await };
        let answered = self.runtime.block_on(exchange).map_err(|_| ClientError::Silent { endpoint: self.endpoint.clone() })?;
        let (status, body) = answered?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(_) => Err(self.not_understood(format_args!("status {status}"))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<(StatusCode, Bytes), ClientError> {
        let request = self.build(method, path, body)?;
        self.converse(self.connect().await?, request).await
    }

    fn build(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &self.endpoint {
            Endpoint::Unix(_) => "localhost",
            Endpoint::Http(authority) | Endpoint::Https(authority) => authority.as_str(),
        };
        let mut request = Request::builder().method(method).uri(format!("/api/v1/{path}")).header(header::HOST, host);
        if let Some(token) = &self.shown.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.unwrap_or_default())).map_err(|error| self.not_understood(error))
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |error: hyper::Error| self.not_understood(error);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The sender reports what goes wrong on the connection.
        tokio::spawn(async move { drop(connection.await) });
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        Ok((status, body))
    }
}

fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Percent-encodes one segment of a path or one value of a query (RFC 3986 section 2.1). Colons stay: ids are full of
/// them, and both places allow them.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|half| char::from_digit(half.into(), 16).unwrap_or('0').to_ascii_uppercase()));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_paths_or_http_authorities() {
        for (text, shown) in [
            ("unix:/run/baton/baton.sock", "unix:/run/baton/baton.sock"),
            ("unix:///run/x", "unix:/run/x"),
            ("unix:here.sock", "unix:here.sock"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://director:9000", "http://director:9000"),
            ("https://director:8443/", "https://director:8443"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "unix:",
            "/run/x",
            "http://",
            "http://host",
            "http://host:99999",
            "https://a",
            "ftp://a:1",
            "http://::1:80",
            "http://a/b:80",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_are_encoded_for_paths() {
        assert_eq!(encode("tcp:[fd00::1]:80"), "tcp:%5Bfd00::1%5D:80");
        assert_eq!(encode("a b/c?d&e"), "a%20b%2Fc%3Fd%26e");
    }

    #[test]
    fn a_missing_socket_is_named_with_what_mends_it() {
        let client = Client::new(&Endpoint::Unix("/nonexistent/baton.sock".into()).into()).unwrap();
        let text = client.order(Method::GET, "services").unwrap_err().to_string();
        assert!(text.contains("unix:/nonexistent/baton.sock") && text.contains("is baton running?"), "{text}");
    }
}
