//! Runtime classes: overhead and placement of the pods that use them.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/runtimeclass`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::node::v1 as node;
use orch_core::{ApiError, Client, Resources};
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest};
use crate::auth::service_account::into_api_error;

/// Requires that the class exists, and passes its overhead, node selector and tolerations on.
#[derive(Debug)]
pub struct RuntimeClass {
    client: Arc<dyn Client>,
}

impl RuntimeClass {
    /// Looks classes up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }
}

fn merge_selector(spec: &mut Value, class: &Value) -> Result<(), String> {
    for (key, value) in class.as_object().into_iter().flatten() {
        let own = &spec["nodeSelector"][key];
        if !own.is_null() && own != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                own.as_str().unwrap_or_default()
            ));
        }
        spec["nodeSelector"][key] = value.clone();
    }
    Ok(())
}

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("", "pods") {
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        let Some(name) = pod["spec"]["runtimeClassName"].as_str().map(str::to_owned) else {
            return Ok(());
        };
        let classes: Resources<node::RuntimeClass> = Resources::all(self.client.clone());
        let Some(class) = classes.get_opt(&name).await.map_err(into_api_error)? else {
            let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
            return Err(request.refuse(&why));
        };
        let class = serde_json::to_value(&*class).map_err(ApiError::internal)?;
        let mut spec = pod["spec"].clone();
        let overhead = &class["overhead"]["podFixed"];
        if overhead.is_object() {
            if !spec["overhead"].is_null() && spec["overhead"] != *overhead {
                return Err(request.refuse(
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
                ));
            }
            spec["overhead"] = overhead.clone();
        }
        merge_selector(&mut spec, &class["scheduling"]["nodeSelector"])
            .map_err(|why| request.refuse(&why))?;
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        if !tolerations.is_empty() {
            spec["tolerations"] = json!(tolerations);
        }
        if let Some(pod) = request.object.as_mut() {
            pod["spec"] = spec;
        }
        Ok(())
    }
}
