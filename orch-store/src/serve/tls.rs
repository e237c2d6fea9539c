//! The server's side of TLS, with ring.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::{ServeError, ServerTls};

fn refuse(what: &'static str, why: impl std::fmt::Display) -> ServeError {
    ServeError::Tls { what, why: why.to_string() }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| refuse(what, error))?;
    if found.is_empty() {
        return Err(refuse(what, "there is no certificate in it"));
    }
    Ok(found)
}

/// What rustls needs: TLS 1.2 or newer, HTTP/2 preferred.
pub(super) fn config(tls: &ServerTls) -> Result<Arc<ServerConfig>, ServeError> {
    let chain = certificates("the server's certificate", &tls.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key_pem);
    let key = key.map_err(|error| refuse("the server's key", error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| refuse("TLS", error))?;
    let builder = match &tls.client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => builder.with_client_cert_verifier(verifier(pem, provider)?),
    };
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| refuse("the server's certificate and key", error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(
    pem: &[u8],
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ServeError> {
    const WHAT: &str = "the certificate of the clients' authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(WHAT, pem)? {
        roots.add(certificate).map_err(|error| refuse(WHAT, error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| refuse(WHAT, error))
}
