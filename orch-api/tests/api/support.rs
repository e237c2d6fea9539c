//! A server of its own for every test.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::Namespace;
use orch_api::{ApiServer, auth::UserInfo};
use orch_core::Resources;
use orch_store::MemoryStore;
use serde_json::{Value, json};
use tower::{Service, ServiceExt};

pub(super) fn server() -> ApiServer {
    ApiServer::new(Arc::new(MemoryStore::default()))
}

pub(super) fn client(server: &ApiServer) -> Arc<dyn orch_core::Client> {
    server.client(UserInfo::master("test"))
}

/// A server with a namespace `default`.
pub(super) async fn with_namespace() -> ApiServer {
    let server = server();
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    Resources::all(client(&server)).create(&namespace).await.unwrap();
    server
}

pub(super) fn kube(server: &ApiServer) -> kube::Client {
    server.kube_client(UserInfo::master("test"), "default")
}

/// A bare request; gives the status code, the headers and the body.
pub(super) async fn call(
    server: &ApiServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (u16, http::HeaderMap, Bytes) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let mut service = server.clone();
    let service = ServiceExt::<http::Request<Full<Bytes>>>::ready(&mut service).await.unwrap();
    let response = service.call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
}

/// A request with JSON both ways.
pub(super) async fn json(
    server: &ApiServer,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let body = body.map(|value| value.to_string()).unwrap_or_default();
    let (code, _, bytes) =
        call(server, method, path, &[("content-type", "application/json")], body).await;
    (code, serde_json::from_slice(&bytes).unwrap())
}
