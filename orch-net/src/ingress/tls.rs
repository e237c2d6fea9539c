//! Certificates for HTTPS, from the secrets that ingresses name.

use std::{collections::HashMap, io, sync::Arc};

use k8s_openapi::api::{core::v1::Secret, networking::v1::Ingress};
use orch_core::{
    Key,
    informer::{Informer, Informers},
};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

const BY_TLS_HOST: &str = "orch-net/ingresses-by-tls-host";

/// A certificate with the revision of the secret that it was in.
#[derive(Clone, Debug)]
struct Parsed {
    revision: Option<String>,
    certified: Arc<CertifiedKey>,
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct Certificates {
    ingresses: Informer<Ingress>,
    secrets: Informer<Secret>,
    /// Parsed once per revision of a secret; those of secrets that are gone are dropped.
    parsed: Mutex<HashMap<Key, Parsed>>,
}

/// A TLS configuration with the cluster's certificates.
pub(super) fn config(informers: &Informers) -> io::Result<Arc<ServerConfig>> {
    let ingresses = informers.of::<Ingress>();
    ingresses.add_index(BY_TLS_HOST, |ingress| {
        let blocks = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let hosts = blocks.flat_map(|block| block.hosts.iter().flatten());
        hosts.map(|host| host.to_ascii_lowercase()).collect()
    });
    let secrets = informers.of::<Secret>();
    let certificates = Certificates { ingresses, secrets, parsed: Mutex::default() };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Certificates {
    fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        [Some(host.to_owned()), wildcard].into_iter().flatten().find_map(|name| {
            let ingresses = self.ingresses.by_index(BY_TLS_HOST, &name);
            ingresses.iter().find_map(|ingress| self.of_ingress(ingress, &name))
        })
    }

    fn of_ingress(&self, ingress: &Ingress, host: &str) -> Option<Arc<CertifiedKey>> {
        let blocks = ingress.spec.as_ref()?.tls.iter().flatten();
        let mut mine = blocks.filter(|block| {
            block.hosts.iter().flatten().any(|name| name.eq_ignore_ascii_case(host))
        });
        let secret = mine.find_map(|block| block.secret_name.clone())?;
        self.of_secret(&Key::new(ingress.metadata.namespace.clone()?, secret))
    }

    fn of_secret(&self, key: &Key) -> Option<Arc<CertifiedKey>> {
        let Some(secret) = self.secrets.get(key) else {
            self.parsed.lock().remove(key);
            return None;
        };
        let revision = &secret.metadata.resource_version;
        if let Some(parsed) = self.parsed.lock().get(key)
            && parsed.revision == *revision
        {
            return Some(parsed.certified.clone());
        }
        match parse(&secret) {
            Ok(certified) => {
                let certified = Arc::new(certified);
                let parsed = Parsed { revision: revision.clone(), certified: certified.clone() };
                self.parsed.lock().insert(key.clone(), parsed);
                Some(certified)
            }
            Err(reason) => {
                tracing::warn!(secret = %key, reason, "a certificate cannot be used");
                None
            }
        }
    }
}

fn parse(secret: &Secret) -> Result<CertifiedKey, String> {
    let data = secret.data.as_ref().ok_or("the secret has no data")?;
    let field = |name: &str| data.get(name).ok_or_else(|| format!("{name} is missing"));
    let chain = CertificateDer::pem_slice_iter(&field("tls.crt")?.0)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("tls.crt: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&field("tls.key")?.0)
        .map_err(|error| format!("tls.key: {error}"))?;
    let key = ring::sign::any_supported_type(&key).map_err(|error| format!("tls.key: {error}"))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| format!("tls.crt and tls.key: {error}"))?;
    Ok(certified)
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(&hello.server_name()?.to_ascii_lowercase())
    }
}
