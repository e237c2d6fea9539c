//! Logs, exec, port-forward and proxies, forwarded to a node and a pod that are made up here.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use orch_api::{
    auth::UserInfo,
    connect::{BoxBody, ConnectContext, Connector},
    proxy::NodeConnector,
};
use orch_core::{
    Environment, ResourceType, Target,
    node::{Connection, DialError, Dialer},
    testing::MemoryClient,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Serves whatever is dialed: tells what was asked, refuses what it is told to, and echoes on
/// upgraded connections until the client has no more to say.
#[derive(Debug)]
struct Backend;

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let mut response = Response::new(Full::from(path.clone()));
    if path.contains("/waiting") {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        *response.body_mut() = Full::from("container \"c\" is waiting to start");
    }
    if request.headers().contains_key("authorization") {
        *response.body_mut() = Full::from("the caller's token got here");
    }
    if request.headers().contains_key("upgrade") {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
        response.headers_mut().insert("x-asked", path.parse().unwrap());
        *response.body_mut() = Full::default();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut all = Vec::new();
            io.read_to_end(&mut all).await.unwrap();
            all.reverse();
            io.write_all(&all).await.unwrap();
            io.shutdown().await.unwrap();
        });
    }
    Ok(response)
}

fn serve() -> Box<dyn Connection> {
    let (ours, theirs) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(theirs), service_fn(answer))
            .with_upgrades()
            .await
    });
    Box::new(ours)
}

#[async_trait]
impl Dialer for Backend {
    async fn dial_node(&self, node: &str) -> Result<Box<dyn Connection>, DialError> {
        if node == "n1" { Ok(serve()) } else { Err(DialError::UnknownNode(node.into())) }
    }

    async fn dial_pod(&self, address: SocketAddr) -> Result<Box<dyn Connection>, DialError> {
        if address.port() == 8080 {
            return Ok(serve());
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(DialError::Io(address.to_string(), refused))
    }
}

struct Setup {
    client: Arc<MemoryClient>,
    connector: NodeConnector,
}

fn setup() -> Setup {
    let client = Arc::new(MemoryClient::new(Environment::system()));
    for (name, node) in [("web", json!("n1")), ("lost", json!("n2")), ("pending", Value::Null)] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "a"},
            "spec": {"nodeName": node, "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]},
            ]},
            "status": {"podIP": "10.0.0.1"}});
        client.seed(&ResourceType::of::<Pod>(), pod).unwrap();
    }
    Setup { client, connector: NodeConnector::new(Arc::new(Backend)) }
}

fn empty() -> BoxBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn target<K>(name: &str, subresource: &'static str) -> Target
where
    K: k8s_openapi::Resource,
    K::Scope: orch_core::resource::StaticScope,
{
    Target::object(ResourceType::of::<K>(), Some("a"), name).subresource(subresource)
}

impl Setup {
    async fn connect(
        &self,
        target: Target,
        rest: &str,
        request: Request<BoxBody>,
    ) -> Response<BoxBody> {
        let context = ConnectContext {
            user: Arc::new(UserInfo::master("root")),
            client: self.client.clone(),
            environment: Environment::system(),
            rest: rest.into(),
        };
        self.connector.connect(context, target, request).await
    }

    /// Status and text (or the message of the `Status`) of a GET.
    async fn get(&self, target: Target, rest: &str, query: &str) -> (u16, String) {
        let uri = format!("{}{rest}?{query}", target.path());
        let request = Request::get(uri).header("authorization", "Bearer secret");
        let response = self.connect(target, rest, request.body(empty()).unwrap()).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let status: Option<Value> = serde_json::from_str(&text).ok();
        let message = status.and_then(|s| s["message"].as_str().map(str::to_owned));
        (code, message.unwrap_or(text))
    }
}

#[tokio::test]
async fn logs_come_from_the_pods_node() {
    let setup = setup();
    let check = async |pod: &str, query: &str, code: u16, text: &str| {
        let found = setup.get(target::<Pod>(pod, "log"), "", query).await;
        assert_eq!(found, (code, text.to_owned()), "{pod} {query}");
    };
    check("web", "follow=true&tailLines=5", 200, "/containerLogs/a/web/c?follow=true&tailLines=5")
        .await;
    check("pending", "", 200, "").await;
    check("none", "", 404, "pods \"none\" not found").await;
    check("web", "container=x", 400, "container x is not valid for pod web").await;
    let unknown = "Internal error occurred: error dialing backend: node \"n2\" cannot be reached: \
                   it has no address";
    check("lost", "", 500, unknown).await;
    check(
        "web",
        "limitBytes=0",
        422,
        "PodLogOptions \"web\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
    )
    .await;
}

#[tokio::test]
async fn refusals_of_a_node_are_statuses() {
    let setup = setup();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "waiting", "namespace": "a"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}});
    setup.client.seed(&ResourceType::of::<Pod>(), pod).unwrap();
    let found = setup.get(target::<Pod>("waiting", "log"), "", "").await;
    assert_eq!(found, (400, "container \"c\" is waiting to start".to_owned()));
}

/// The API server's side of a client's connection: every request goes to the connector.
async fn client_connection(
    setup: &Arc<Setup>,
    target: Target,
) -> hyper::client::conn::http1::SendRequest<BoxBody> {
    let (ours, theirs) = tokio::io::duplex(1024);
    let setup = setup.clone();
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let (setup, target) = (setup.clone(), target.clone());
            async move {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                Ok::<_, Infallible>(setup.connect(target, "", request).await)
            }
        });
        hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(theirs), service)
            .with_upgrades()
            .await
    });
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

#[tokio::test]
async fn upgrades_are_tunnelled_both_ways_with_half_close() {
    let setup = Arc::new(setup());
    for (subresource, query, asked) in [
        (
            "exec",
            "command=ls&command=-l&stdout=true&stdin=true",
            "/exec/a/web/c?input=1&output=1&command=ls&command=-l",
        ),
        ("attach", "stdout=true&tty=true", "/attach/a/web/c?output=1&tty=1"),
        ("portforward", "ports=80", "/portForward/a/web?port=80"),
    ] {
        let mut sender = client_connection(&setup, target::<Pod>("web", subresource)).await;
        let request = Request::post(format!("/x?{query}"))
            .header("host", "api")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1");
        let mut response = sender.send_request(request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["x-asked"], asked);
        let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        io.write_all(&sent).await.unwrap();
        io.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        io.read_to_end(&mut echoed).await.unwrap();
        echoed.reverse();
        assert!(echoed == sent, "{subresource}: the answer comes after the end of the question");
    }
}

#[tokio::test]
async fn connections_that_cannot_be_are_refused() {
    let setup = setup();
    let check = async |pod: &str, subresource: &'static str, query: &str, text: &str| {
        let (code, message) = setup.get(target::<Pod>(pod, subresource), "", query).await;
        assert_eq!((code, message.as_str()), (400, text), "{subresource} {query}");
    };
    check("pending", "exec", "command=ls&stdout=1", "pod pending does not have a host assigned")
        .await;
    check("web", "exec", "command=ls&stdout=1", "Upgrade request required").await;
    check("web", "exec", "command=ls", "you must specify at least 1 of stdin, stdout, stderr")
        .await;
    check("web", "portforward", "ports=x", "\"x\" is not a port").await;
}

#[tokio::test]
async fn proxies_lead_to_pods_services_and_nodes() {
    let setup = setup();
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "front", "namespace": "a"},
        "spec": {"ports": [{"name": "http", "port": 80}]}});
    setup.client.seed(&ResourceType::of::<Service>(), service).unwrap();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "front-1", "namespace": "a",
            "labels": {"kubernetes.io/service-name": "front"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "http", "port": 8080}]});
    let pods =
        async |name: &str, rest: &str| setup.get(target::<Pod>(name, "proxy"), rest, "q=1").await;
    let services =
        async |name: &str| setup.get(target::<Service>(name, "proxy"), "/path", "q=1").await;
    let good = (200, "/path?q=1".to_owned());
    assert_eq!(pods("web", "/path").await, good);
    assert_eq!(pods("web:http", "/path").await, good);
    assert_eq!(pods("http:web:8080", "/path").await, good);
    let (code, why) = pods("web:9", "/path").await;
    assert_eq!(code, 503);
    assert!(why.contains("error trying to reach service"), "{why}");
    assert_eq!(pods("web", "").await.0, 301, "a page's relative links need the slash");
    assert_eq!(
        services("front").await,
        (503, "no endpoints available for service \"front\"".to_owned())
    );
    setup.client.seed(&ResourceType::of::<EndpointSlice>(), slice).unwrap();
    for name in ["front", "front:http", "http:front:80"] {
        assert_eq!(services(name).await, good);
    }
    assert_eq!(services("front:81").await.0, 503);
    let node = Target::object(ResourceType::of::<k8s_openapi::api::core::v1::Node>(), None, "n1");
    let found = setup.get(node.subresource("proxy"), "/healthz", "").await;
    assert_eq!(found, (200, "/healthz?".to_owned()));
}
