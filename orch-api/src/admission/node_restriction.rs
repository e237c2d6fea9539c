//! Node agents write only their own node and the pods bound to it.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/noderestriction`.

use async_trait::async_trait;
use orch_core::ApiError;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::node::node_name;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that say where a node belongs: a node must not choose them itself.
const RESERVED_PREFIX: &str = "node-restriction.kubernetes.io/";

/// Narrows down what the members of `system:nodes` may write. Concerns nobody else.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeRestriction;

fn pod(node: &str, request: &AdmissionRequest) -> Result<(), String> {
    let bound = |pod: &Value| pod["spec"]["nodeName"] == node;
    let old = request.old.as_ref().map(|old| old.to_value());
    let subresource = request.target.subresource.as_deref().unwrap_or_default();
    let name = request.target.name.as_deref().unwrap_or_default();
    match (request.operation, subresource) {
        (Operation::Create, "") => {
            let pod = request.object.as_ref().unwrap_or(&Value::Null);
            if pod["metadata"]["annotations"][MIRROR].is_null() {
                return Err(format!(
                    "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
                ));
            }
            if !bound(pod) {
                return Err(format!(
                    "node \"{node}\" can only create pods with spec.nodeName set to itself"
                ));
            }
            Ok(())
        }
        (Operation::Update, "status") | (Operation::Delete, "") => match old {
            Some(old) if !bound(&old) => Err(format!(
                "node \"{node}\" can only {} for pods with spec.nodeName set to itself",
                if subresource.is_empty() { "delete pods" } else { "update pod status" }
            )),
            Some(old) if !subresource.is_empty() => {
                claims(node, &old, request.object.as_ref().unwrap_or(&Value::Null))
            }
            _ => Ok(()),
        },
        (Operation::Create, "eviction") => Ok(()),
        _ => Err(format!("unexpected operation on pod \"{name}\" by node \"{node}\"")),
    }
}

/// Which claims a pod has is none of the node's business.
fn claims(node: &str, old: &Value, new: &Value) -> Result<(), String> {
    let made = |pod: &Value| -> Vec<(Value, Value)> {
        let statuses = pod["status"]["resourceClaimStatuses"].as_array();
        let named = |of: &Value| (of["name"].clone(), of["resourceClaimName"].clone());
        statuses.into_iter().flatten().map(named).collect()
    };
    if made(old) != made(new) {
        return Err(format!("node \"{node}\" cannot update resource claim statues"));
    }
    let extended = |pod: &Value| pod["status"]["extendedResourceClaimStatus"].clone();
    if extended(old) != extended(new) {
        return Err(format!("node \"{node}\" cannot update extended resource claim status"));
    }
    Ok(())
}

fn own_node(node: &str, request: &AdmissionRequest) -> Result<(), String> {
    let object = request.object.as_ref().unwrap_or(&Value::Null);
    let named = request.target.name.as_deref().or_else(|| object["metadata"]["name"].as_str());
    let named = named.unwrap_or_default();
    if !named.is_empty() && named != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{named}\""));
    }
    let old = request.old.as_ref().map(|old| old.to_value()).unwrap_or_default();
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let changed: Vec<&str> = labels
        .filter(|(key, value)| {
            key.starts_with(RESERVED_PREFIX) && old["metadata"]["labels"][key.as_str()] != **value
        })
        .map(|(key, _)| key.as_str())
        .collect();
    if !changed.is_empty() {
        return Err(format!("is not allowed to modify labels: {}", changed.join(", ")));
    }
    let taints = |node: &Value| node["spec"]["taints"].clone();
    if request.operation == Operation::Update && taints(object) != taints(&old) {
        return Err(format!("node \"{node}\" is not allowed to modify taints"));
    }
    Ok(())
}

fn token(node: &str, request: &AdmissionRequest) -> Result<(), String> {
    let reference = request.object.as_ref().map_or(&Value::Null, |o| &o["spec"]["boundObjectRef"]);
    if reference["kind"] != "Pod" || !reference["uid"].is_string() {
        return Err(format!("node \"{node}\" may only request tokens bound to a pod with its uid"));
    }
    Ok(())
}

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let Some(node) = node_name(&request.user) else { return Ok(()) };
        let resource = &request.target.resource;
        let subresource = request.target.subresource.as_deref().unwrap_or_default();
        let checked = match (&*resource.group, &*resource.plural, subresource) {
            ("", "pods", _) => pod(node, request),
            ("", "nodes", _) => own_node(node, request),
            ("", "serviceaccounts", "token") => token(node, request),
            _ => Ok(()),
        };
        checked.map_err(|why| request.refuse(&why))
    }
}
