//! A server with a definition.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use orch_api::{ApiServer, auth::UserInfo};
use orch_store::MemoryStore;
use serde_json::{Value, json};

pub(super) fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(super) fn client(server: &ApiServer) -> Client {
    server.kube_client(UserInfo::master("test"), "default")
}

/// A client of a server with a namespace and nothing else.
pub(super) async fn server() -> (ApiServer, Client) {
    let server = ApiServer::new(Arc::new(MemoryStore::default()));
    let client = client(&server);
    make_namespace(&client).await;
    (server, client)
}

/// A client of a server of its own over a store, in which a namespace is or will be.
pub(super) async fn over(store: Arc<MemoryStore>) -> Client {
    let client = client(&ApiServer::new(store));
    make_namespace(&client).await;
    client
}

async fn make_namespace(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let default = typed(json!({"metadata": {"name": "default"}}));
    if namespaces.get_opt("default").await.unwrap().is_none() {
        namespaces.create(&PostParams::default(), &default).await.unwrap();
    }
}

/// A definition of `widgets.example.com` with a schema for `spec` and `status`.
pub(super) fn widgets(spec: impl Into<Value>) -> Value {
    let spec: Value = spec.into();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"],
                      "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": spec},
                    "status": {"type": "object", "properties": {
                        "ready": {"type": "boolean"}, "replicas": {"type": "integer"},
                        "selector": {"type": "string"},
                    }},
                }}},
            }],
        },
    })
}

/// The usual definition: a size and a note.
pub(super) fn plain() -> Value {
    widgets(json!({"size": {"type": "integer"}, "note": {"type": "string"}}))
}

pub(super) fn definitions(client: &Client) -> Api<CustomResourceDefinition> {
    Api::all(client.clone())
}

pub(super) async fn define(client: &Client, definition: Value) -> CustomResourceDefinition {
    definitions(client).create(&PostParams::default(), &typed(definition)).await.unwrap()
}

pub(super) fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", version, "Widget"))
}

pub(super) fn objects(client: &Client) -> Api<DynamicObject> {
    Api::default_namespaced_with(client.clone(), &resource("v1"))
}

pub(super) fn widget(name: &str, spec: impl Into<Value>) -> DynamicObject {
    let spec: Value = spec.into();
    typed(json!({
        "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": name}, "spec": spec,
    }))
}

/// A bare request with JSON both ways.
pub(super) async fn call(
    client: &Client,
    method: &str,
    path: &str,
    accept: &str,
) -> Result<Value, kube::Error> {
    let request = http::Request::builder().method(method).uri(path).header("accept", accept);
    client.request(request.body(Vec::new()).unwrap()).await
}

/// What the server refused a request with.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        other => panic!("{other}"),
    }
}
