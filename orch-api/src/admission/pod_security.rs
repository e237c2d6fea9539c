//! Pod security standards, by the labels of namespaces.
//!
//! Source: `k8s.io/pod-security-admission`.

mod checks;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use orch_core::{ApiError, Client, Resources};
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::service_account::into_api_error;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may ask of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Refuses pods that a namespace's `pod-security.kubernetes.io/enforce` label excludes, and warns
/// of what its `warn` label excludes. Namespaces without labels are not restricted.
///
/// `Differs:` checks are the latest whatever version a label names; workloads are not looked into,
/// only pods; there is no audit log to annotate.
#[derive(Debug)]
pub struct PodSecurity {
    client: Arc<dyn Client>,
}

impl PodSecurity {
    /// Looks namespaces up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }
}

fn level(namespace: &Namespace, mode: &str) -> Option<(Level, String)> {
    let labels = namespace.metadata.labels.as_ref()?;
    let name = labels.get(&format!("{PREFIX}{mode}"))?;
    let level = match name.as_str() {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        // Upstream takes what it does not know as the strictest.
        _ => Level::Restricted,
    };
    let version = labels.get(&format!("{PREFIX}{mode}-version"));
    let name = if level == Level::Restricted { "restricted" } else { name };
    Some((level, format!("{name}:{}", version.map_or("latest", String::as_str))))
}

fn violations(pod: &Value, level: Level) -> Option<String> {
    let found = match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => checks::baseline(pod, false),
        Level::Restricted => {
            let mut found = checks::baseline(pod, true);
            found.extend(checks::restricted(pod));
            found
        }
    };
    (!found.is_empty()).then(|| found.join(", "))
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    /// Updates are looked at too, unless they leave the spec as it is.
    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || !request.is_for("", "pods") {
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        if request.old.as_ref().is_some_and(|old| old.to_value()["spec"] == pod["spec"]) {
            return Ok(());
        }
        let namespaces: Resources<Namespace> = Resources::all(self.client.clone());
        let found = namespaces.get_opt(request.namespace()).await.map_err(into_api_error)?;
        let Some(namespace) = found else { return Ok(()) };
        if let Some((level, title)) = level(&namespace, "enforce")
            && let Some(violations) = violations(pod, level)
        {
            return Err(request.refuse(&format!("violates PodSecurity \"{title}\": {violations}")));
        }
        if let Some((level, title)) = level(&namespace, "warn")
            && let Some(violations) = violations(pod, level)
        {
            let warning = format!("would violate PodSecurity \"{title}\": {violations}");
            request.notes.warn(warning);
        }
        Ok(())
    }
}
