//! Certificates and the TLS listener, over real sockets.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use orch_api::{
    auth::{Authenticator, ClientCertificates},
    serve::{
        Credentials, KubeconfigEntry, Listener, ListenerOptions, Pki, PkiOptions, ServeError,
        kubeconfig, write_kubeconfig,
    },
};
use orch_core::clock::{Clock, SystemClock};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio_util::sync::CancellationToken;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Answers with the name of the caller.
async fn whoami(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, _) = request.into_parts();
    let user = ClientCertificates::default().authenticate(&parts).await.ok().flatten();
    let text = user.map_or("nobody".into(), |u| format!("{} {}", u.name, u.groups.join(",")));
    Ok(Response::new(Full::from(text)))
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

async fn start(pki: &Pki, options: ListenerOptions) -> Server {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, Some(pki.server_config().unwrap()), options).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let serving = listener.serve(tower::service_fn(whoami), stop.clone());
    Server { address, stop, done: tokio::spawn(serving) }
}

fn client_config(pki: &Pki, credentials: Option<&Credentials>, protocol: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

async fn get(
    address: SocketAddr,
    config: ClientConfig,
    host: &'static str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = connector.connect(ServerName::try_from(host)?, tcp).await?;
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let request = Request::get(format!("https://{host}/")).body(Full::<Bytes>::default())?;
    let io = TokioIo::new(tls);
    let response = if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
}

#[tokio::test]
async fn callers_are_who_their_certificates_say() {
    let pki = Pki::in_memory(&PkiOptions::default(), clock()).unwrap();
    let server = start(&pki, ListenerOptions::default()).await;
    let scheduler = pki.client_certificate("system:kube-scheduler", &[]).unwrap();
    let admin = "kubernetes-admin system:masters,system:authenticated";
    for (credentials, protocol, host, expected) in [
        (Some(pki.admin()), "h2", "127.0.0.1", admin),
        (Some(pki.admin()), "http/1.1", "localhost", admin),
        (None, "h2", "kubernetes.default.svc", "nobody"),
        (Some(&scheduler), "h2", "10.96.0.1", "system:kube-scheduler system:authenticated"),
    ] {
        let config = client_config(&pki, credentials, protocol);
        assert_eq!(get(server.address, config, host).await.unwrap(), expected);
    }
    let other = Pki::in_memory(&PkiOptions::default(), clock()).unwrap();
    let config = client_config(&pki, Some(other.admin()), "h2");
    assert!(get(server.address, config, "localhost").await.is_err(), "another cluster's admin");
    let config = client_config(&pki, None, "h2");
    assert!(get(server.address, config, "example.com").await.is_err(), "a name it does not bear");
    server.stop.cancel();
    server.done.await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_told_apart() {
    let pki = Pki::in_memory(&PkiOptions::default(), clock()).unwrap();
    let server = start(&pki, ListenerOptions::default()).await;
    let second = Listener::bind(server.address, None, ListenerOptions::default()).await;
    assert!(matches!(second, Err(ServeError::AddressInUse(address)) if address == server.address));
}

#[tokio::test]
async fn shutting_down_ends_idle_connections() {
    let pki = Pki::in_memory(&PkiOptions::default(), clock()).unwrap();
    let server = start(&pki, ListenerOptions::default()).await;
    let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let config = client_config(&pki, None, "h2");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let _idle = connector.connect(name, tcp).await.unwrap();
    server.stop.cancel();
    server.done.await.unwrap();
}

#[test]
fn a_folder_keeps_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pki");
    let mut options = PkiOptions::default();
    let first = Pki::load_or_create(&path, &options, clock()).unwrap();
    let again = Pki::load_or_create(&path, &options, clock()).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(first.serving(), again.serving());
    assert_eq!(first.service_account_key_pem(), again.service_account_key_pem());
    options.host_names.push("node.example".into());
    let renamed = Pki::load_or_create(&path, &options, clock()).unwrap();
    assert_ne!(first.serving(), renamed.serving(), "another name needs another certificate");
    assert_eq!(first.admin(), renamed.admin());
    #[cfg(unix)]
    for file in std::fs::read_dir(&path).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    std::fs::write(path.join("ca.crt"), "rubbish").unwrap();
    let broken = Pki::load_or_create(&path, &options, clock()).unwrap_err().to_string();
    assert!(broken.contains("ca.crt"), "{broken}");
}

/// A clock that stands still.
#[derive(Debug)]
struct Still(jiff::Timestamp);

impl Clock for Still {
    fn now(&self) -> jiff::Timestamp {
        self.0
    }
}

#[test]
fn certificates_near_their_end_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let options = PkiOptions::default();
    let at = |day: i64| {
        let time = jiff::Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap();
        Pki::load_or_create(folder.path(), &options, Arc::new(Still(time))).unwrap()
    };
    let (new, old, renewed) = (at(0), at(300), at(340));
    assert_eq!(new.serving(), old.serving());
    assert_ne!(new.serving(), renewed.serving());
    assert_ne!(new.admin(), renewed.admin());
    assert_eq!(new.ca_pem(), renewed.ca_pem());
}

#[test]
fn a_kubeconfig_is_private_and_reads_as_one() {
    let pki = Pki::in_memory(&PkiOptions::default(), clock()).unwrap();
    let entry = KubeconfigEntry {
        cluster: "orch",
        user: "kubernetes-admin",
        server: "https://127.0.0.1:6443",
        ca_pem: pki.ca_pem(),
        credentials: pki.admin(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/config");
    write_kubeconfig(&path, &entry).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, kubeconfig(&entry));
    let parsed: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    assert_eq!(parsed["contexts"][0]["context"]["user"], "kubernetes-admin");
    assert_eq!(parsed["current-context"], "orch");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
