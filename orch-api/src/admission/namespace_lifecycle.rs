//! Objects are created only in namespaces that exist and are not going away.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails},
};
use orch_core::{ApiError, Client, ClientError, Resources};

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::service_account::into_api_error;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
const SYSTEM: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Creates the namespaces that every cluster has, where they are missing.
///
/// Source: `k8s.io/kubernetes/pkg/controlplane/controller/systemnamespaces`.
///
/// # Errors
/// [`ClientError`] of the first call that failed.
pub async fn create_system_namespaces(client: &Arc<dyn Client>) -> Result<(), ClientError> {
    let namespaces: Resources<Namespace> = Resources::all(client.clone());
    for name in SYSTEM {
        if namespaces.get_opt(name).await?.is_some() {
            continue;
        }
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        match namespaces.create(&namespace).await {
            Err(error) if !error.is_already_exists() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses writes into namespaces that do not exist, creations in those that are being deleted,
/// and the deletion of the system's own.
#[derive(Debug)]
pub struct NamespaceLifecycle {
    client: Arc<dyn Client>,
}

impl NamespaceLifecycle {
    /// Looks namespaces up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }

    async fn check(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let resource = &request.target.resource;
        let named = request.target.name.as_deref().unwrap_or_default();
        if request.operation == Operation::Delete {
            let doomed = request.is_for("", "namespaces") && IMMORTAL.contains(&named);
            let why = "this namespace may not be deleted";
            return if doomed { Err(request.refuse(why)) } else { Ok(()) };
        }
        let namespace = request.namespace();
        if namespace.is_empty()
            || (resource.group.is_empty() && resource.plural == "namespaces")
            || resource.plural == "localsubjectaccessreviews"
        {
            return Ok(());
        }
        let namespaces: Resources<Namespace> = Resources::all(self.client.clone());
        let found = namespaces.get_opt(namespace).await.map_err(into_api_error)?;
        let Some(found) = found else {
            return Err(ApiError::not_found("", "namespaces", namespace));
        };
        let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
        let going = found.metadata.deletion_timestamp.is_some() || phase == Some("Terminating");
        if !going || request.operation != Operation::Create {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let refusal = request.refuse(&why);
        let details = refusal.status().details.clone().unwrap_or_default();
        let cause = StatusCause {
            reason: Some("NamespaceTerminating".into()),
            message: Some(format!("namespace {namespace} is being terminated")),
            field: Some("metadata.namespace".into()),
        };
        Err(refusal.with_details(StatusDetails { causes: Some(vec![cause]), ..details }))
    }
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    /// Upstream checks in this half, so that other plugins need not care.
    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        self.check(request).await
    }
}
