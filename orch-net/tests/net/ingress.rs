//! Requests through the ingress, over real sockets.

use std::net::SocketAddr;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use orch_net::{IngressController, IngressOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A backend that answers with its name and what it was asked, or speaks back once upgraded.
async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(name, stream));
        }
    });
    address
}

async fn serve(name: &'static str, mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if head.contains("upgrade: echo") {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        return;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let text = format!("{name}\n{head}{}", String::from_utf8_lossy(&body));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

fn seed_service(client: &MemoryClient, name: &str, endpoints: &[SocketAddr]) {
    let service = json!({
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}]},
    });
    client.seed_typed::<Service>(&typed(service)).unwrap();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let slice = json!({
            "metadata": {"name": format!("{name}-{index}"), "namespace": "a",
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": endpoint.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [endpoint.ip().to_string()]}],
        });
        client.seed_typed::<EndpointSlice>(&typed(slice)).unwrap();
    }
}

fn seed_ingress(client: &MemoryClient, name: &str, spec: &Value) {
    let ingress = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
    client.seed_typed::<Ingress>(&typed(ingress)).unwrap();
}

fn path(kind: &str, path: &str, service: &str, port: &Value) -> Value {
    json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": port}}})
}

async fn start(informers: &Informers) -> (SocketAddr, CancellationToken) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options =
        IngressOptions { connect_deadline: std::time::Duration::ZERO, ..IngressOptions::default() };
    let ingress = IngressController::bind(any, informers, options).await.unwrap();
    informers.of::<Ingress>().synced().await;
    informers.of::<IngressClass>().synced().await;
    informers.of::<Service>().synced().await;
    informers.of::<EndpointSlice>().synced().await;
    let (address, cancel) = (ingress.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(ingress.run(cancel.clone()));
    (address, cancel)
}

async fn request(ingress: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(ingress).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(ingress: SocketAddr, host: &str, path: &str) -> String {
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n"
    );
    request(ingress, &text).await
}

#[tokio::test]
async fn requests_find_their_way() {
    let (client, informers) = cluster();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for name in ["root", "api", "exact", "wild", "fallback"] {
        // One endpoint of each does not answer: nobody may notice.
        seed_service(&client, name, &[backend(name).await, gone]);
    }
    seed_service(&client, "empty", &[]);
    seed_service(&client, "dead", &[gone]);
    let (number, named) = (json!({"number": 80}), json!({"name": "http"}));
    let rules = json!({"ingressClassName": "orch", "rules": [
        {"host": "shop.test", "http": {"paths": [
            path("Prefix", "/", "root", &number),
            path("Prefix", "/api", "api", &named),
            path("Exact", "/api/exact", "exact", &number),
            path("Prefix", "/empty", "empty", &number),
            path("Prefix", "/dead", "dead", &number),
        ]}},
        {"host": "*.shop.test", "http": {"paths": [path("Prefix", "/only", "wild", &named)]}},
    ]});
    seed_ingress(&client, "shop", &rules);
    let backend = json!({"service": {"name": "fallback", "port": number}});
    seed_ingress(
        &client,
        "other",
        &json!({"ingressClassName": "foreign",
        "rules": [{"host": "foreign.test", "http": {"paths": [path("Prefix", "/", "root", &json!({"number": 80}))]}}]}),
    );
    let class = json!({"metadata": {"name": "orch"}, "spec": {"controller": "orch.dev/ingress"}});
    client.seed_typed::<IngressClass>(&typed(class)).unwrap();
    let (ingress, _cancel) = start(&informers).await;

    let check = async |host: &str, path: &str, status: &str, name: &str| {
        for _ in 0..4 {
            let answer = get(ingress, host, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}{path}: {answer}");
            assert!(answer.contains(&format!("\r\n\r\n{name}")), "{host}{path}: {answer}");
        }
    };
    check("shop.test", "/", "200", "root\n").await;
    check("SHOP.test:8080", "/apix", "200", "root\n").await;
    check("shop.test", "/api/v1?x=1", "200", "api\n").await;
    check("shop.test", "/api/exact", "200", "exact\n").await;
    check("shop.test", "/api/exact/", "200", "api\n").await;
    check("shop.test", "/empty", "503", "503").await;
    check("shop.test", "/dead", "502", "502").await;
    check("x.shop.test", "/only/this", "200", "wild\n").await;
    check("x.shop.test", "/", "404", "404").await;
    check("y.x.shop.test", "/only", "404", "404").await;
    check("foreign.test", "/", "404", "404").await;

    let answer = get(ingress, "shop.test", "/api/v1?x=1").await;
    assert!(answer.contains("get /api/v1?x=1 http/1.1"), "{answer}");
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    assert!(answer.contains("x-forwarded-host: shop.test\r\n"), "{answer}");
    assert!(answer.contains("\r\nhost: shop.test\r\n"), "{answer}");
    let post = "POST /api HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    for _ in 0..4 {
        let answer = request(ingress, post).await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }

    seed_ingress(&client, "fallback", &json!({"defaultBackend": backend}));
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    informers.of::<Ingress>().on_change(move |change| {
        let ingress = change.object();
        let status = ingress.status.as_ref().and_then(|status| status.load_balancer.clone());
        let address = status.and_then(|status| status.ingress?.first()?.ip.clone());
        drop(told.send((ingress.metadata.name.clone().unwrap(), address)));
    });
    // The status tells that it is served, and where.
    while seen.recv().await.unwrap() != ("fallback".into(), Some("127.0.0.1".into())) {}
    check("elsewhere.test", "/", "200", "fallback\n").await;
}

#[tokio::test]
async fn upgrades_pass_through() {
    let (client, informers) = cluster();
    seed_service(&client, "echo", &[backend("echo").await]);
    let rules = json!({"rules": [{"http": {"paths": [
        path("Prefix", "/", "echo", &json!({"number": 80})),
    ]}}]});
    seed_ingress(&client, "echo", &rules);
    let (ingress, cancel) = start(&informers).await;
    let mut stream = TcpStream::connect(ingress).await.unwrap();
    let ask =
        "GET / HTTP/1.1\r\nHost: any\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"over and out").await.unwrap();
    let mut echo = [0; 12];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"over and out");
    cancel.cancel();
}

#[tokio::test]
async fn https_is_served_with_the_certificate_of_the_secret() {
    use k8s_openapi::{ByteString, api::core::v1::Secret};
    use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};

    let (client, informers) = cluster();
    seed_service(&client, "web", &[backend("web").await]);
    let made = rcgen::generate_simple_self_signed(["*.secure.test".to_owned()]).unwrap();
    let mut secret: Secret = typed(json!({"metadata": {"name": "cert", "namespace": "a"}}));
    secret.data = Some(std::collections::BTreeMap::from([
        ("tls.crt".into(), ByteString(made.cert.pem().into_bytes())),
        ("tls.key".into(), ByteString(made.signing_key.serialize_pem().into_bytes())),
    ]));
    client.seed_typed(&secret).unwrap();
    let rules = json!({
        "tls": [{"hosts": ["*.secure.test"], "secretName": "cert"}],
        "rules": [{"host": "www.secure.test", "http": {"paths": [
            path("Prefix", "/", "web", &json!({"number": 80})),
        ]}}],
    });
    seed_ingress(&client, "secure", &rules);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = IngressOptions { tls_address: Some(any), ..IngressOptions::default() };
    let ingress = IngressController::bind(any, &informers, options).await.unwrap();
    informers.of::<Ingress>().synced().await;
    informers.of::<Secret>().synced().await;
    informers.of::<Service>().synced().await;
    informers.of::<EndpointSlice>().synced().await;
    let address = ingress.tls_addr().unwrap();
    tokio::spawn(ingress.run(CancellationToken::new()));

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = async |name: &'static str| {
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from(name).unwrap(), stream).await
    };
    let mut stream = connect("www.secure.test").await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: www.secure.test\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
    assert!(connect("unknown.test").await.is_err(), "no certificate, no session");
}
