//! Claims without a storage class get the default one.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/storage/storageclass/setdefault`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{api::storage::v1::StorageClass, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use orch_core::{ApiError, Client, Resources, client::ListOptions, informer::Watchable};
use serde_json::json;

use super::{Admission, AdmissionRequest};
use crate::auth::service_account::into_api_error;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// Sets `spec.storageClassName` of new claims that leave it out.
#[derive(Debug)]
pub struct DefaultStorageClass {
    client: Arc<dyn Client>,
}

impl DefaultStorageClass {
    /// Looks classes up through `client`.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }
}

/// The name of the class marked as default: the newest if there are several.
pub(super) async fn default_class<K: Watchable>(
    client: &Arc<dyn Client>,
    annotations: &[&str],
) -> Result<Option<String>, ApiError> {
    let classes: Resources<K> = Resources::all(client.clone());
    let list = classes.list_objects(ListOptions::default()).await.map_err(into_api_error)?;
    let marked = list.items.iter().map(|object| object.metadata()).filter(|meta| {
        let of = |name: &&str| meta.annotations.as_ref().and_then(|a| a.get(*name));
        annotations.iter().filter_map(of).any(|value| value == "true")
    });
    let newest = marked.max_by(|a, b| {
        let created = |m: &ObjectMeta| m.creation_timestamp.as_ref().map(|t| t.0);
        created(a).cmp(&created(b)).then_with(|| b.name.cmp(&a.name))
    });
    Ok(newest.and_then(|meta| meta.name.clone()))
}

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        if !request.creates("", "persistentvolumeclaims") {
            return Ok(());
        }
        let Some(claim) = request.object.as_mut().filter(|claim| claim["spec"].is_object()) else {
            return Ok(());
        };
        // An empty name asks for no class at all; only a missing one is filled in.
        if claim["spec"]["storageClassName"].is_string()
            || claim["metadata"]["annotations"][CLASS_BETA].is_string()
        {
            return Ok(());
        }
        let class = default_class::<StorageClass>(&self.client, &[DEFAULT, DEFAULT_BETA]).await?;
        if let Some(class) = class {
            claim["spec"]["storageClassName"] = json!(class);
        }
        Ok(())
    }
}
