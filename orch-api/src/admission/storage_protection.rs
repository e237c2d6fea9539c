//! Volumes and claims in use outlive their deletion.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/storage/storageobjectinuseprotection`.

use async_trait::async_trait;
use orch_core::ApiError;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest};

/// Puts the protecting finalizers on new claims and volumes. The protection controllers take them
/// off again once nothing uses the object: without those controllers, deletions never finish.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let finalizer = if request.creates("", "persistentvolumeclaims") {
            "kubernetes.io/pvc-protection"
        } else if request.creates("", "persistentvolumes") {
            "kubernetes.io/pv-protection"
        } else {
            return Ok(());
        };
        let meta = request.object.as_mut().and_then(|object| object.get_mut("metadata"));
        let Some(meta) = meta.filter(|meta| meta.is_object()) else { return Ok(()) };
        let mut finalizers = meta["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.contains(&json!(finalizer)) {
            finalizers.push(json!(finalizer));
            meta["finalizers"] = Value::Array(finalizers);
        }
        Ok(())
    }
}
