//! The API's TLS: its certificate, and the authorities of its clients', read again on reload.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::who::Identity;
use crate::health::tls::authorities;

/// The files that TLS is made from; all PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The director's certificate, with those between it and the authority behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of client certificates; without them nobody is asked for one.
    pub client_ca: Option<PathBuf>,
}

/// TLS as it is now.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    /// Whether somebody may come without a certificate, with a token.
    optional: bool,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files; `optional` lets clients in that have no certificate.
    pub(super) fn read(files: TlsFiles, optional: bool) -> Result<Self, String> {
        let config = RwLock::new(make(&files, optional)?);
        Ok(Self { files, optional, config })
    }

    /// Reads the files again, for connections from now on. Files with a fault leave all as it was.
    pub(super) fn read_again(&self) -> Result<(), String> {
        let fresh = make(&self.files, self.optional)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What a new connection is made with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn make(files: &TlsFiles, optional: bool) -> Result<Arc<ServerConfig>, String> {
    let fail = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let provider = Arc::new(ring::default_provider());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).map_err(|why| fail(&files.certificate, &why))?.collect();
    let chain = chain.map_err(|why| fail(&files.certificate, &why))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| fail(&files.key, &why))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|why| fail(&files.certificate, &why))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = authorities(&path.to_string_lossy()).map_err(|why| fail(path, &why))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|why| fail(path, &why))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|why| fail(&files.certificate, &why))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A connection that was resumed would go by certificates as they were.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What the client's certificate says, which the handshake has verified.
pub(super) fn identity(connection: &ServerConnection) -> Option<Identity> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    Some(Identity { subject: subject.to_string(), name })
}
