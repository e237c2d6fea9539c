//! A server whose webhooks are closures.

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::{ConfigMap, Namespace, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use orch_api::{ApiServer, auth::UserInfo, connect::BoxBody, outbound::InProcess};
use orch_store::MemoryStore;
use serde_json::{Value, json};

pub(super) struct Cluster {
    pub(super) server: ApiServer,
    pub(super) services: Arc<InProcess>,
    pub(super) client: Client,
    /// The reviews that webhooks were asked, in their order.
    pub(super) asked: Arc<Mutex<Vec<Value>>>,
}

pub(super) fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A server with upstream's default admission and the namespaces `default` and `marked`.
pub(super) async fn cluster() -> Cluster {
    let services = Arc::new(InProcess::default());
    let server = ApiServer::builder(Arc::new(MemoryStore::default()))
        .default_admission()
        .in_process(services.clone())
        .build();
    let client = server.kube_client(UserInfo::master("test"), "default");
    let cluster = Cluster { server, services, client, asked: Arc::default() };
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    for (name, labels) in [("default", json!({})), ("marked", json!({"skip": "yes"}))] {
        let namespace = typed(json!({"metadata": {"name": name, "labels": labels}}));
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client.clone());
    let account = typed(json!({"metadata": {"name": "default"}}));
    accounts.create(&PostParams::default(), &account).await.unwrap();
    cluster
}

/// The answer of a review.
pub(super) fn answer(review: &Value, mut response: Value) -> Value {
    response["uid"] = review["request"]["uid"].clone();
    json!({
        "apiVersion": review["apiVersion"], "kind": review["kind"], "response": response,
    })
}

pub(super) fn allowed() -> Value {
    json!({"allowed": true})
}

pub(super) fn denied(why: &str) -> Value {
    json!({"allowed": false, "status": {"message": why}})
}

pub(super) fn patched(operations: &Value) -> Value {
    let patch = STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})
}

impl Cluster {
    /// Serves a webhook as the Service `default/NAME`. It gets the review, and gives the response.
    pub(super) fn serve<F, R>(&self, name: &str, webhook: F)
    where
        F: Fn(Value) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Value> + Send + 'static,
    {
        let asked = self.asked.clone();
        let service = tower::service_fn(move |request: Request<BoxBody>| {
            let (webhook, asked) = (webhook.clone(), asked.clone());
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                asked.lock().unwrap().push(review.clone());
                let response = webhook(review.clone()).await;
                let text = answer(&review, response).to_string();
                Ok::<_, Infallible>(Response::new(text))
            }
        });
        self.services.serve("default", name, service);
    }

    /// Serves a webhook that needs not wait for anything.
    pub(super) fn hook<F>(&self, name: &str, webhook: F)
    where
        F: Fn(&Value) -> Value + Clone + Send + Sync + 'static,
    {
        self.serve(name, move |review| std::future::ready(webhook(&review)));
    }

    pub(super) fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    pub(super) fn mutating(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    pub(super) fn validating(&self) -> Api<ValidatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    /// Registers mutating webhooks under one configuration.
    pub(super) async fn mutate(&self, name: &str, hooks: Vec<Value>) {
        let configuration = typed(configuration(name, hooks));
        self.mutating().create(&PostParams::default(), &configuration).await.unwrap();
    }

    /// Registers validating webhooks under one configuration.
    pub(super) async fn validate(&self, name: &str, hooks: Vec<Value>) {
        let configuration = typed(configuration(name, hooks));
        self.validating().create(&PostParams::default(), &configuration).await.unwrap();
    }

    pub(super) fn maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) async fn create_map(
        &self,
        name: &str,
        data: Value,
    ) -> Result<ConfigMap, kube::Error> {
        self.maps("default").create(&PostParams::default(), &map(name, data)).await
    }

    pub(super) fn objects(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::default_namespaced_with(self.client.clone(), &resource(version, kind))
    }
}

pub(super) fn resource(version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("stable.example.com", version, kind))
}

pub(super) fn configuration(name: &str, hooks: impl Into<Value>) -> Value {
    let hooks: Value = hooks.into();
    json!({"metadata": {"name": name, "labels": {"test": "list"}}, "webhooks": hooks})
}

pub(super) fn map(name: &str, data: impl Into<Value>) -> ConfigMap {
    let data: Value = data.into();
    typed(json!({"metadata": {"name": name}, "data": data}))
}

/// A webhook at the Service `default/SERVICE` for some operations on a resource.
pub(super) fn webhook(service: &str, operations: &[&str], group: &str, resource: &str) -> Value {
    json!({
        "name": format!("{service}.example.com"),
        "clientConfig": {"service": {"namespace": "default", "name": service, "path": "/ask"}},
        "rules": [{
            "operations": operations, "apiGroups": [group], "apiVersions": ["*"],
            "resources": [resource],
        }],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
    })
}

/// A webhook for the creation of config maps.
pub(super) fn for_maps(service: &str) -> Value {
    webhook(service, &["CREATE"], "", "configmaps")
}

pub(super) fn with(mut hook: Value, field: &str, value: Value) -> Value {
    hook[field] = value;
    hook
}

/// What the server refused a request with.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        other => panic!("{other}"),
    }
}

/// Adds a key to a config map's data, if another key is there.
pub(super) fn add_after(review: &Value, before: &str, key: &str) -> Value {
    let object = &review["request"]["object"];
    if object["data"][before] != "yes" {
        return allowed();
    }
    patched(&json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]))
}
