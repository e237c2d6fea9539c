//! Pods stay for five minutes on a node that is not ready or not reachable.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/defaulttolerationseconds`.

use async_trait::async_trait;
use orch_core::ApiError;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// Adds the tolerations that pods do not have themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultTolerationSeconds;

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    (text("key") == taint || text("key").is_empty())
        && (text("effect") == "NoExecute" || text("effect").is_empty())
}

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || !request.is_for("", "pods") {
            return Ok(());
        }
        let spec = request.object.as_mut().and_then(|pod| pod.get_mut("spec"));
        let Some(spec) = spec.filter(|spec| spec.is_object()) else { return Ok(()) };
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        let before = tolerations.len();
        for taint in TAINTS {
            if !tolerations.iter().any(|toleration| tolerates(toleration, taint)) {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": SECONDS,
                }));
            }
        }
        if tolerations.len() > before {
            spec["tolerations"] = Value::Array(tolerations);
        }
        Ok(())
    }
}
