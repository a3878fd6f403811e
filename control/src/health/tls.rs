//! TLS for checks: whose certificates are believed.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::check::Trust;

/// Where Debian and most others keep the authorities that the system believes.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The longest file of authorities.
const LONGEST: u64 = 4 << 20;

/// The authorities in a PEM file; why there are none in words.
pub(crate) fn authorities(file: &str) -> Result<RootCertStore, String> {
    let found = fs::metadata(file).map_err(|why| format!("cannot be read: {why}"))?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(format!("is no file of at most {} MiB", LONGEST >> 20));
    }
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|why| format!("cannot be read: {why}"))?;
    let (mut taken, mut refused) = (0, 0);
    for certificate in certificates {
        let certificate = certificate.map_err(|why| format!("is no PEM: {why}"))?;
        *if store.add(certificate).is_ok() { &mut taken } else { &mut refused } += 1;
    }
    if taken == 0 { Err(format!("has no certificate that could be an authority's ({refused} that cannot)")) } else { Ok(store) }
}

/// The system's authorities, read once for all checks that run.
fn system() -> Result<Arc<RootCertStore>, String> {
    static KEPT: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = kept.upgrade() {
        return Ok(store);
    }
    let store =
        Arc::new(authorities(SYSTEM).map_err(|why| format!("{SYSTEM} {why}: install ca-certificates, or give ca or verify = false"))?);
    *kept = Arc::downgrade(&store);
    Ok(store)
}

/// What a check's connections are made with; `protocol` is what is to be spoken inside (ALPN).
pub(super) fn client(trust: &Trust, protocol: &[u8]) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
    let mut config = if trust.verify {
        let roots = match &trust.ca {
            Some(file) => Arc::new(authorities(file).map_err(|why| format!("{file} {why}"))?),
            None => system()?,
        };
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms))).with_no_client_auth()
    };
    // Each check is a connection of its own, like a new client's.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// The name in the form that rustls takes.
pub(super) fn name(trust: &Trust) -> Result<ServerName<'static>, String> {
    ServerName::try_from(trust.name.clone()).map_err(|_| format!("'{}' is no name that a certificate can have", trust.name))
}

/// Takes any certificate, but not one whose key the server does not have.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
