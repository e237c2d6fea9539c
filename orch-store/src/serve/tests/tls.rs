//! TLS, with and without certificates of clients.

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::serve::ServerTls;

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> Identity {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    fn client(&self, identity: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

async fn serve(tls: ServerTls) -> Server {
    Server::with(ServeOptions { tls: Some(tls), ..<_>::default() }).await
}

/// A range over TLS.
async fn ask(address: SocketAddr, config: ClientConfig) -> Result<i64, Status> {
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    // The scheme is not looked at: the connector encrypts.
    let endpoint = Endpoint::from_static("http://127.0.0.1");
    let mut client = KvClient::new(endpoint.connect_with_connector_lazy(connect));
    let answer = soon("an answer", client.range(range("k", ""))).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

#[tokio::test]
async fn clients_without_a_certificate_are_taken_or_refused() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let identity = servers.issue("127.0.0.1");
    let tls = |client_ca_pem: Option<String>| ServerTls {
        certificate_pem: identity.certificate.clone().into(),
        key_pem: identity.key.clone().into(),
        client_ca_pem: client_ca_pem.map(String::into_bytes),
    };
    let open = serve(tls(None)).await;
    assert_eq!(ask(open.address, servers.client(None)).await.unwrap(), 1);
    assert!(ask(open.address, clients.client(None)).await.is_err(), "another authority's server");

    let closed = serve(tls(Some(clients.pem.clone()))).await;
    let known = clients.issue("somebody");
    assert_eq!(ask(closed.address, servers.client(Some(&known))).await.unwrap(), 1);
    let foreign = servers.issue("somebody");
    assert!(ask(closed.address, servers.client(Some(&foreign))).await.is_err());
    assert!(ask(closed.address, servers.client(None)).await.is_err());
    // Nor is anybody served without encryption.
    let mut plain = KvClient::new(channel(closed.address));
    assert!(soon("a refusal", plain.range(range("k", ""))).await.is_err());
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let [one, other] = [(); 2].map(|()| Authority::new().issue("127.0.0.1"));
    let tls = |certificate: &str, key: &str, ca: Option<&str>| ServerTls {
        certificate_pem: certificate.into(),
        key_pem: key.into(),
        client_ca_pem: ca.map(Into::into),
    };
    for (tls, what) in [
        (tls("", &one.key, None), "the server's certificate: there is no certificate"),
        (tls(&one.certificate, "", None), "the server's key: "),
        (tls(&one.certificate, &other.key, None), "the server's certificate and key: "),
        (tls(&one.certificate, &one.key, Some("")), "the clients' authority: there is no"),
    ] {
        let options = ServeOptions { tls: Some(tls), ..<_>::default() };
        let server = EtcdServer::new(Arc::new(MemoryStore::default()), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = server.serve(listener, std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}
