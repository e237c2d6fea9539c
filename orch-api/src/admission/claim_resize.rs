//! Claims grow only where their storage class lets them.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/storage/persistentvolume/resize`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::storage::v1::StorageClass;
use orch_core::{ApiError, Client, Resources};

use super::{Admission, AdmissionRequest, Operation, pod_shape::amount};
use crate::auth::service_account::into_api_error;

/// Refuses to grow claims whose class does not allow expansion.
#[derive(Debug)]
pub struct PersistentVolumeClaimResize {
    client: Arc<dyn Client>,
}

impl PersistentVolumeClaimResize {
    /// Looks classes up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        if request.operation != Operation::Update || !request.is_for("", "persistentvolumeclaims") {
            return Ok(());
        }
        let (Some(new), Some(old)) = (&request.object, &request.old) else { return Ok(()) };
        let old = old.to_value();
        let size =
            |claim: &serde_json::Value| amount(&claim["spec"]["resources"]["requests"]["storage"]);
        let (Some(wanted), Some(present)) = (size(new), size(&old)) else { return Ok(()) };
        if wanted <= present {
            return Ok(());
        }
        let name = old["spec"]["storageClassName"].as_str().unwrap_or_default();
        let classes: Resources<StorageClass> = Resources::all(self.client.clone());
        let class = match name {
            "" => None,
            name => classes.get_opt(name).await.map_err(into_api_error)?,
        };
        if class.is_some_and(|class| class.allow_volume_expansion == Some(true)) {
            return Ok(());
        }
        Err(request.refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}
