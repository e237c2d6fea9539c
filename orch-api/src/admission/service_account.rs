//! Every pod runs as a service account and finds its token.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/serviceaccount`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use orch_core::{ApiError, Client, Environment, Resources, client::WatchOptions};
use serde_json::{Map, Value, json};

use super::{Admission, AdmissionRequest, pod_shape};
use crate::auth::service_account::into_api_error;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const EXPIRATION_S: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The default account of a new namespace comes from a controller: it may be on its way.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_millis(1500);

/// Sets the account of pods that name none (`default`), requires that it exists, mounts its token,
/// the cluster's CA and the namespace into every container, and passes its image pull secrets on.
#[derive(Debug)]
pub struct ServiceAccount {
    client: Arc<dyn Client>,
    environment: Environment,
}

impl ServiceAccount {
    /// Looks accounts up through `client`.
    pub fn new(client: Arc<dyn Client>, environment: Environment) -> Self {
        Self { client, environment }
    }

    async fn account(
        &self,
        request: &AdmissionRequest,
        name: &str,
    ) -> Result<Arc<core::ServiceAccount>, ApiError> {
        let namespace = request.namespace();
        let accounts: Resources<core::ServiceAccount> =
            Resources::namespaced(self.client.clone(), namespace);
        if let Some(account) = accounts.get_opt(name).await.map_err(into_api_error)? {
            return Ok(account);
        }
        if name == "default" {
            let options = WatchOptions {
                field_selector: Some(format!("metadata.name={name}")),
                ..WatchOptions::default()
            };
            let stream = accounts.watch(options).await.map_err(into_api_error)?;
            let arrived = Resources::first_match(stream, |_: &core::ServiceAccount| true);
            if let Ok(arrived) = tokio::time::timeout(DEFAULT_ACCOUNT_WAIT, arrived).await
                && let Some(account) = arrived.map_err(into_api_error)?
            {
                return Ok(account);
            }
        }
        Err(request.refuse(&format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        )))
    }
}

fn automounts(spec: &Value, account: &core::ServiceAccount) -> bool {
    let own = spec["automountServiceAccountToken"].as_bool();
    own.or(account.automount_service_account_token).unwrap_or(true)
}

fn has_mount(container: &Map<String, Value>) -> bool {
    let mounts = container.get("volumeMounts").and_then(Value::as_array);
    mounts.into_iter().flatten().any(|mount| mount["mountPath"] == MOUNT_PATH)
}

/// The projected volume: token, CA and namespace.
fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRATION_S, "path": "token"}},
        {"configMap": {
            "name": "kube-root-ca.crt",
            "items": [{"key": "ca.crt", "path": "ca.crt"}],
        }},
        {"downwardAPI": {"items": [{
            "path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
        }]}},
    ]}})
}

fn push(map: &mut Map<String, Value>, list: &str, item: Value) {
    let entry = map.entry(list).or_insert_with(|| json!([]));
    if entry.is_null() {
        *entry = json!([]);
    }
    if let Some(items) = entry.as_array_mut() {
        items.push(item);
    }
}

fn mount_token(spec: &mut Value, new_name: impl FnOnce() -> String) {
    let existing = spec["volumes"].as_array().into_iter().flatten().find_map(|volume| {
        volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
    });
    let is_new = existing.is_none();
    let name = existing.unwrap_or_else(new_name);
    let mut mounted = false;
    pod_shape::each_container(spec, |container| {
        if !has_mount(container) {
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            push(container, "volumeMounts", mount);
            mounted = true;
        }
    });
    if let Some(spec) = spec.as_object_mut().filter(|_| mounted && is_new) {
        push(spec, "volumes", volume(&name));
    }
}

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let Some(pod) = request.object.as_ref() else { return Ok(()) };
        let named = pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty());
        if !pod["metadata"]["annotations"][MIRROR].is_null() {
            return match named {
                Some(_) => Err(request.refuse("a mirror pod may not reference service accounts")),
                None => Ok(()),
            };
        }
        let name = named.unwrap_or("default").to_owned();
        let account = self.account(request, &name).await?;
        let Some(spec) = request.object.as_mut().and_then(|pod| pod.get_mut("spec")) else {
            return Ok(());
        };
        if !spec.is_object() {
            return Ok(());
        }
        spec["serviceAccountName"] = json!(name);
        if automounts(spec, &account) {
            let random = &self.environment.random;
            mount_token(spec, || format!("{VOLUME_PREFIX}{}", random.name_suffix(5)));
        }
        let has_secrets = spec["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
        if let Some(secrets) = account.image_pull_secrets.as_ref().filter(|_| !has_secrets) {
            let names = secrets.iter().map(|secret| json!({"name": secret.name}));
            spec["imagePullSecrets"] = names.collect();
        }
        Ok(())
    }
}
