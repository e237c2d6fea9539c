//! New nodes take no pods until they have reported that they are ready.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/nodetaint`.

use async_trait::async_trait;
use orch_core::ApiError;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Taints new nodes as not ready; the node lifecycle controller takes the taint off.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("", "nodes") {
            return Ok(());
        }
        let Some(node) = request.object.as_mut().filter(|node| node.is_object()) else {
            return Ok(());
        };
        if !node["spec"].is_object() {
            node["spec"] = json!({});
        }
        let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        if !taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            node["spec"]["taints"] = Value::Array(taints);
        }
        Ok(())
    }
}
