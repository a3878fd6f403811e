//! How the API is reached: where it is, and what is shown at its door.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Client, ClientError, Endpoint, cause};
use crate::health::tls::authorities;

/// Where the API is unless something else is said.
pub const DEFAULT_API: &str = "unix:/run/baton/baton.sock";

/// Where Debian keeps the authorities that the system believes.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The longest token, in bytes.
const LONGEST_TOKEN: u64 = 4_096;

/// Options of every command that asks the director.
#[derive(Args, Clone, Debug)]
pub struct Reach {
    /// Where the director's API is: unix:PATH, https://HOST:PORT, or http://HOST:PORT on loopback
    #[arg(long, visible_alias = "url", global = true, env = "BATON_API", default_value = DEFAULT_API, value_name = "URL")]
    pub api: Endpoint,
    /// A file with the token that the API is asked with
    #[arg(long, global = true, env = "BATON_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The authorities that the API's certificate is believed from; the system's when not given
    #[arg(long, global = true, env = "BATON_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// A client certificate to show, a PEM file
    #[arg(long, global = true, env = "BATON_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The key of the client certificate, a PEM file
    #[arg(long, global = true, env = "BATON_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

impl From<Endpoint> for Reach {
    fn from(api: Endpoint) -> Self {
        Self { api, token_file: None, cacert: None, cert: None, key: None }
    }
}

impl Reach {
    /// What the environment says, for programs whose options are others'.
    pub fn of_environment() -> Result<Self, String> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let api = std::env::var("BATON_API").unwrap_or_else(|_| DEFAULT_API.to_owned());
        let api = api.parse().map_err(|why| format!("BATON_API: {why}"))?;
        Ok(Self {
            api,
            token_file: path("BATON_TOKEN_FILE"),
            cacert: path("BATON_CACERT"),
            cert: path("BATON_CERT"),
            key: path("BATON_KEY"),
        })
    }

    /// What the files hold.
    pub(super) fn read(&self) -> Result<Shown, String> {
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        let tls = matches!(self.api, Endpoint::Https(_)).then(|| self.tls()).transpose()?;
        Ok(Shown { token, tls })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let fail = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let ca = self.cacert.as_deref().unwrap_or(Path::new(SYSTEM));
        let roots: RootCertStore = authorities(&ca.to_string_lossy()).map_err(|why| fail(ca, &why))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .with_root_certificates(roots);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).map_err(|why| fail(cert, &why))?.collect();
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| fail(key, &why))?;
                builder.with_client_auth_cert(chain.map_err(|why| fail(cert, &why))?, secret).map_err(|why| fail(cert, &why))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err("a client certificate needs its key, and a key its certificate".to_owned()),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn read_token(path: &Path) -> Result<String, String> {
    let fail = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text)).map_err(|why| fail(&why))?;
    let token = text.trim();
    let sound = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if sound { Ok(token.to_owned()) } else { Err(fail(&"holds no token, which is one word")) }
}

/// What is shown at the door.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) token: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

/// A connection to the API, whichever way.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Client {
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let unreachable = |error: std::io::Error| ClientError::Unreachable { endpoint: self.endpoint.clone(), cause: cause(&error) };
        Ok(match &self.endpoint {
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(unreachable)?),
            Endpoint::Http(authority) => Box::new(TcpStream::connect(authority.as_str()).await.map_err(unreachable)?),
            Endpoint::Https(authority) => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(|why| unreachable(std::io::Error::other(why)))?;
                let Some(config) = &self.shown.tls else { return Err(unreachable(std::io::ErrorKind::Unsupported.into())) };
                let stream = TcpStream::connect(authority.as_str()).await.map_err(unreachable)?;
                Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(unreachable)?)
            }
        })
    }
}
