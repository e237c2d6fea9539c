//! What node agents may do: what concerns their own node and the pods on it.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/auth/authorizer/node`.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use orch_core::{
    ApiError, Key,
    informer::{Informer, Informers},
};
use serde_json::Value;

use super::{Attributes, Authorizer, Decision, UserInfo, rbac::rules::allows};

const BY_REFERENCE: &str = "node.reference";

/// Allows members of `system:nodes` what the role `system:node` allows, narrowed down: secrets,
/// configmaps, claims, volumes and service account tokens only of pods that are bound to the node.
/// Has no opinion about anybody else. Cheap to clone.
///
/// `Differs:` references from volumes to secrets (CSI, iSCSI) and resource claims are not followed.
#[derive(Clone)]
pub struct NodeAuthorizer {
    pods: Informer<Pod>,
    volumes: Informer<PersistentVolume>,
    rules: Arc<[k8s_openapi::api::rbac::v1::PolicyRule]>,
}

impl fmt::Debug for NodeAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeAuthorizer")
    }
}

/// The name of the node that a user is, if it is one.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.in_group("system:nodes").then(|| user.name.strip_prefix("system:node:")).flatten()
}

fn reference(node: &str, resource: &str, namespace: &str, name: &str) -> String {
    format!("{node}|{resource}|{namespace}|{name}")
}

/// Everything that a pod refers to, with the node that the pod is bound to.
fn references(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) else {
        return Vec::new();
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |resource: &str, name: &str| {
        found.push(reference(node, resource, namespace, name));
    };
    if let Some(account) = &spec.service_account_name {
        add("serviceaccounts", account);
    }
    for claim in pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten()) {
        claim.resource_claim_name.iter().for_each(|name| add("resourceclaims", name));
    }
    let extended = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    if let Some(claim) = extended.filter(|claim| !claim.resource_claim_name.is_empty()) {
        add("resourceclaims", &claim.resource_claim_name);
    }
    // Secrets and configmaps are named in dozens of places; all of them are objects with a telling
    // field name, so the value is walked instead of the places being listed.
    let value = serde_json::to_value(spec).unwrap_or_default();
    walk(&value, &mut add);
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    for volume in value["volumes"].as_array().into_iter().flatten() {
        if let Some(name) = volume["name"].as_str().filter(|_| volume["ephemeral"].is_object()) {
            add("persistentvolumeclaims", &format!("{pod_name}-{name}"));
        }
    }
    found
}

fn walk(value: &Value, add: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, add)),
        Value::Object(fields) => {
            for (field, value) in fields {
                let mut name = |resource: &str, key: &str| {
                    if let Some(name) = value[key].as_str() {
                        add(resource, name);
                    }
                };
                match field.as_str() {
                    "secret" => {
                        name("secrets", "secretName");
                        name("secrets", "name");
                    }
                    "secretRef" | "secretKeyRef" | "nodePublishSecretRef" => {
                        name("secrets", "name");
                    }
                    "configMap" | "configMapRef" | "configMapKeyRef" => name("configmaps", "name"),
                    "persistentVolumeClaim" => name("persistentvolumeclaims", "claimName"),
                    "imagePullSecrets" => {
                        for secret in value.as_array().into_iter().flatten() {
                            secret["name"].as_str().into_iter().for_each(|n| add("secrets", n));
                        }
                    }
                    "azureFile" => name("secrets", "secretName"),
                    _ => {}
                }
                walk(value, add);
            }
        }
        _ => {}
    }
}

impl NodeAuthorizer {
    /// Follows the cluster's pods and volumes. Call it inside a tokio runtime.
    pub fn new(informers: &Informers) -> Self {
        let pods = informers.of::<Pod>();
        pods.add_index(BY_REFERENCE, references);
        let rules = super::rbac::node_rules();
        Self { pods, volumes: informers.of(), rules: rules.into() }
    }

    fn refers(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let wanted = reference(node, resource, namespace, name);
        self.pods.count_by_index(BY_REFERENCE, &wanted) > 0
    }

    fn uses_volume(&self, node: &str, volume: &str) -> bool {
        let volume = self.volumes.get(&Key::cluster(volume));
        let claim = volume.as_ref().and_then(|v| v.spec.as_ref()?.claim_ref.as_ref());
        claim.is_some_and(|claim| {
            let namespace = claim.namespace.as_deref().unwrap_or_default();
            let name = claim.name.as_deref().unwrap_or_default();
            self.refers(node, "persistentvolumeclaims", namespace, name)
        })
    }

    /// Why a node may not, or nothing.
    fn objection(&self, node: &str, wanted: &Attributes) -> Option<String> {
        let unrelated =
            || Some(format!("no relationship found between node '{node}' and this object"));
        let reads = matches!(wanted.verb.as_str(), "get" | "list" | "watch");
        let Attributes { resource, namespace, name, .. } = wanted;
        match (wanted.group.as_str(), resource.as_str(), wanted.subresource.as_str()) {
            ("", "secrets" | "configmaps", "") => {
                if !reads {
                    return Some("can only read resources of this type".into());
                }
                if name.is_empty() {
                    return Some("can only read namespaced object of this type".into());
                }
                (!self.refers(node, resource, namespace, name)).then(unrelated)?
            }
            ("", "persistentvolumeclaims", "" | "status") => {
                (!self.refers(node, resource, namespace, name)).then(unrelated)?
            }
            ("", "persistentvolumes", "") => (!self.uses_volume(node, name)).then(unrelated)?,
            ("", "serviceaccounts", "" | "token") => {
                (!self.refers(node, resource, namespace, name)).then(unrelated)?
            }
            ("resource.k8s.io", "resourceclaims", "") => {
                (!self.refers(node, resource, namespace, name)).then(unrelated)?
            }
            ("", "nodes", _) if !name.is_empty() && name != node => Some(format!(
                "node '{node}' cannot {} '{name}', only its own Node object",
                if reads { "read" } else { "modify" }
            )),
            ("coordination.k8s.io", "leases", "") => {
                if namespace != "kube-node-lease" {
                    let where_ =
                        "can only access leases in the \"kube-node-lease\" system namespace";
                    return Some(where_.into());
                }
                (wanted.verb != "create" && name != node).then(|| {
                    "can only access node lease with the same name as the requesting node".into()
                })
            }
            ("storage.k8s.io", "csinodes", "") => {
                (wanted.verb != "create" && name != node).then(|| {
                    "can only access CSINode with the same name as the requesting node".into()
                })
            }
            _ => None,
        }
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Result<Decision, ApiError> {
        let Some(node) = node_name(&attributes.user) else {
            return Ok(Decision::NoOpinion { reason: String::new() });
        };
        self.pods.synced().await;
        self.volumes.synced().await;
        if let Some(reason) = self.objection(node, attributes) {
            return Ok(Decision::NoOpinion { reason });
        }
        Ok(if self.rules.iter().any(|rule| allows(rule, attributes)) {
            Decision::Allow { reason: String::new() }
        } else {
            Decision::NoOpinion { reason: String::new() }
        })
    }

    async fn rules(&self, user: &UserInfo, _namespace: &str) -> super::Rules {
        // What a node may read depends on pods: the list is never complete for one.
        super::Rules { incomplete: node_name(user).is_some(), ..super::Rules::default() }
    }
}
