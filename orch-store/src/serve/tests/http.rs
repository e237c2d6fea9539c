//! The plain HTTP paths, and paths that nobody knows.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

async fn ask(server: &Server, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn probes_are_answered() {
    let server = Server::start().await;
    for (method, path, code, body) in [
        ("GET", "/health", "200", r#"{"health":"true","reason":""}"#),
        ("GET", "/health?serializable=true", "200", r#"{"health":"true","reason":""}"#),
        (
            "GET",
            "/version",
            "200",
            r#"{"etcdserver":"3.6.5","etcdcluster":"3.6.0","storage":"3.5.0"}"#,
        ),
        ("GET", "/livez", "200", "ok\n"),
        ("GET", "/readyz", "200", "ok\n"),
        ("POST", "/health", "405", "Method Not Allowed\n"),
        ("GET", "/v2/keys", "404", "404 page not found\n"),
    ] {
        let answer = ask(&server, method, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{path}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn unknown_services_and_methods_are_unimplemented() {
    let server = Server::start().await;
    for path in ["/v3lockpb.Lock/Lock", "/etcdserverpb.KV/RangeStream"] {
        let mut grpc = tonic::client::Grpc::new(server.channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
        let path = ::http::uri::PathAndQuery::from_static(path);
        let answer = grpc.unary(tonic::Request::new(range("a", "")), path, codec).await;
        assert_eq!(said(answer).0, Code::Unimplemented);
    }
}
