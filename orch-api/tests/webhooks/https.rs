//! The default way out: a Service's endpoints over TLS.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Service},
        discovery::v1::EndpointSlice,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, api::PostParams};
use orch_api::{
    ApiServer, Bootstrap, FRONT_PROXY,
    admission::LateClient,
    auth::{Authenticator as _, ClientCertificates, UserInfo},
    outbound::Https,
    serve::{Listener, ListenerOptions, Pki, PkiOptions},
};
use orch_core::{Environment, clock::SystemClock};
use orch_store::MemoryStore;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::{Cluster, allowed, answer, cluster, for_maps, refusal, typed, with};

/// A webhook behind TLS that allows everything.
struct Server {
    address: SocketAddr,
    /// The certificate, which signs itself.
    pem: String,
    connections: Arc<AtomicUsize>,
}

async fn review(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    Ok(Response::new(answer(&review, allowed()).to_string()))
}

async fn serve(name: &str) -> Server {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = hyper::service::service_fn(review);
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(tls), service).await;
            });
        }
    });
    Server { address, pem: made.cert.pem(), connections }
}

impl Cluster {
    /// A Service whose one endpoint is at an address.
    async fn publish(&self, name: &str, address: SocketAddr) {
        let ports = json!([{"name": "https", "port": 443, "targetPort": address.port()}]);
        let service = json!({"metadata": {"name": name}, "spec": {"ports": ports}});
        let services: Api<Service> = Api::default_namespaced(self.client.clone());
        services.create(&PostParams::default(), &typed(service)).await.unwrap();
        let slice = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        });
        let slices: Api<EndpointSlice> = Api::default_namespaced(self.client.clone());
        slices.create(&PostParams::default(), &typed(slice)).await.unwrap();
    }
}

fn trusting(mut hook: Value, pem: &str) -> Value {
    hook["clientConfig"]["caBundle"] = STANDARD.encode(pem).into();
    hook
}

#[tokio::test]
async fn a_service_is_reached_at_its_endpoints_over_kept_connections() {
    let cluster = cluster().await;
    let server = serve("hook.default.svc").await;
    cluster.publish("hook", server.address).await;
    cluster.validate("hook", vec![trusting(for_maps("hook"), &server.pem)]).await;
    for name in ["a", "b", "c"] {
        cluster.create_map(name, json!({})).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn whoever_cannot_prove_to_be_the_service_is_not_believed() {
    let cluster = cluster().await;
    let (server, other) = (serve("hook.default.svc").await, serve("other.default.svc").await);
    cluster.publish("hook", server.address).await;
    cluster.publish("other", other.address).await;
    let refused = async |hook: Value| {
        cluster.validate("hook", vec![hook]).await;
        let (code, message) = refusal(cluster.create_map("m", json!({})).await);
        cluster.validating().delete("hook", &Default::default()).await.unwrap();
        assert_eq!(code, 500);
        let (_, why) = message.split_once("?timeout=10s\": ").unwrap();
        why.to_owned()
    };
    assert_eq!(
        refused(trusting(for_maps("hook"), &other.pem)).await,
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    assert_eq!(
        refused(for_maps("hook")).await,
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    let url = format!("https://localhost:{}/ask", server.address.port());
    let hook = with(for_maps("hook"), "clientConfig", json!({"url": url}));
    assert_eq!(
        refused(trusting(hook, &server.pem)).await,
        "tls: failed to verify certificate: x509: certificate is valid for hook.default.svc, not localhost"
    );
}

#[tokio::test]
async fn who_is_not_there_is_told_as_upstream_does() {
    let cluster = cluster().await;
    let services: Api<Service> = Api::default_namespaced(cluster.client.clone());
    let service = json!({"metadata": {"name": "empty"}, "spec": {"ports": [{"port": 443}]}});
    services.create(&PostParams::default(), &typed(service)).await.unwrap();
    let refused = async |config: Value| {
        let hook = with(for_maps("hook"), "clientConfig", config);
        cluster.validate("hook", vec![hook]).await;
        let (_, message) = refusal(cluster.create_map("m", json!({})).await);
        cluster.validating().delete("hook", &Default::default()).await.unwrap();
        message.split_once("failed to call webhook: ").unwrap().1.to_owned()
    };
    let service = |name: &str, port: u16| json!({"service": {"namespace": "default", "name": name, "port": port}});
    assert_eq!(
        refused(service("empty", 443)).await,
        "Post \"https://empty.default.svc:443/?timeout=10s\": no endpoints available for service \"empty\""
    );
    assert_eq!(
        refused(service("empty", 80)).await,
        "Post \"https://empty.default.svc:80/?timeout=10s\": no service port 80 found for service \"empty\""
    );
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let url = format!("https://{address}/x");
    assert_eq!(
        refused(json!({"url": url})).await,
        format!("Post \"{url}?timeout=10s\": dial tcp {address}: connect: connection refused")
    );
}

/// Answers with the name that the caller's certificate bears, and who it says asks.
async fn callers(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let (parts, _) = request.into_parts();
    let user = ClientCertificates::default().authenticate(&parts).await.ok().flatten();
    let user = user.map_or_else(|| "nobody".to_owned(), |user| user.name);
    let asks = parts.headers.get("x-remote-user").and_then(|value| value.to_str().ok());
    Ok(Response::new(json!({"proxy": user, "asks": asks}).to_string()))
}

#[tokio::test]
async fn aggregated_api_servers_see_the_front_proxy() {
    let pki = Pki::in_memory(&PkiOptions::default(), Arc::new(SystemClock)).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let tls = Some(pki.server_config().unwrap());
    let listener = Listener::bind(any, tls, ListenerOptions::default()).await.unwrap();
    let (address, stop) = (listener.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(listener.serve(tower::service_fn(callers), stop.clone()));
    let late = LateClient::new();
    let front_proxy = pki.client_certificate(FRONT_PROXY, &[]).unwrap();
    let outbound = Https::new(late.clone(), Environment::system()).front_proxy(&front_proxy);
    let server = ApiServer::builder(Arc::new(MemoryStore::default()))
        .outbound(Arc::new(outbound.unwrap()))
        .late_client(late)
        .build();
    let authority = Some(pki.ca_pem().to_owned());
    let bootstrap = Bootstrap { client_authority: authority, ..Bootstrap::default() };
    server.bootstrap(&bootstrap).await.unwrap();
    let client = server.kube_client(UserInfo::master("ann"), "default");
    let cluster = Cluster { server, client, services: Arc::default(), asked: Arc::default() };
    let trust: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    let trust = trust.get("extension-apiserver-authentication").await.unwrap().data.unwrap();
    assert_eq!(trust["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(trust["requestheader-client-ca-file"], pki.ca_pem());
    cluster.publish("sample-api", address).await;
    let service = json!({"namespace": "default", "name": "sample-api"});
    let body = json!({
        "metadata": {"name": "v1.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "version": "v1", "groupPriorityMinimum": 1000,
            "versionPriority": 10, "insecureSkipTLSVerify": true, "service": service,
        },
    });
    let all: Api<APIService> = Api::all(cluster.client.clone());
    all.create(&PostParams::default(), &typed(body)).await.unwrap();
    cluster.condition("Passed").await;
    let request = Request::get("/apis/stable.example.com/v1/things").body(Vec::new()).unwrap();
    let told: Value = cluster.client.request(request).await.unwrap();
    assert_eq!(told, json!({"proxy": "front-proxy-client", "asks": "ann"}));
    stop.cancel();
    serving.await.unwrap();
}
