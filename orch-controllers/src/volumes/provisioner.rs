//! Making volumes for claims.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{Client, ClientError, Resources, event::reference_to};

use super::{DELETION_FINALIZER, PROVISIONED_BY};

/// Why a volume could not be made or deleted. It is tried again with back-off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The claim asks for something that the provisioner does not have.
    #[error("{0}")]
    Unsupported(String),
    /// The storage failed.
    #[error("the storage failed: {0}")]
    Storage(#[source] io::Error),
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// A volume that a claim needs.
#[derive(Clone, Debug)]
pub struct ProvisionRequest {
    /// The name that the volume will have: the same for every attempt for the same claim.
    pub volume_name: String,
    /// The claim.
    pub claim: PersistentVolumeClaim,
    /// Its class.
    pub class: Arc<StorageClass>,
    /// Where it is to be used, if that is known: classes that wait for their first consumer.
    pub node: Option<Arc<Node>>,
}

/// Makes volumes for the claims of its storage classes, and deletes them.
///
/// Both methods may be called again after they succeeded, with the same volume name: they must be
/// idempotent. They may be dropped at any await. An error is reported with an event on the claim
/// (or the volume) and the call is repeated with back-off. Object-safe.
#[async_trait]
pub trait Provisioner: Send + Sync + fmt::Debug + 'static {
    /// The name by which storage classes ask for it.
    fn name(&self) -> &str;

    /// Makes a volume. What is given back needs its source, capacity, access modes and node
    /// affinity; the rest is filled in from claim and class.
    async fn provision(
        &self,
        request: &ProvisionRequest,
    ) -> Result<PersistentVolumeSpec, ProvisionError>;

    /// Deletes what [`Provisioner::provision`] made. The `PersistentVolume` is deleted afterwards
    /// by the caller.
    async fn delete(&self, volume: &PersistentVolume) -> Result<(), ProvisionError>;
}

impl ProvisionRequest {
    /// The volume around what the provisioner gave.
    pub(super) fn describe(&self, mut spec: PersistentVolumeSpec) -> PersistentVolume {
        let class = &self.class;
        let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
        let finalizers = (policy == "Delete").then(|| vec![DELETION_FINALIZER.to_owned()]);
        spec.storage_class_name.clone_from(&class.metadata.name);
        spec.persistent_volume_reclaim_policy = Some(policy);
        spec.claim_ref = Some(reference_to(&self.claim));
        spec.mount_options = spec.mount_options.or_else(|| class.mount_options.clone());
        let mode = self.claim.spec.as_ref().and_then(|claim| claim.volume_mode.clone());
        spec.volume_mode = spec.volume_mode.or(mode);
        let annotations = BTreeMap::from([
            (PROVISIONED_BY.to_owned(), class.provisioner.clone()),
            (super::BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned()),
        ]);
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(self.volume_name.clone()),
                annotations: Some(annotations),
                finalizers,
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        }
    }
}

/// Creates a storage class if there is none of its name.
///
/// # Errors
/// [`ClientError`], except that it exists.
pub async fn ensure_storage_class(
    client: Arc<dyn Client>,
    class: &StorageClass,
) -> Result<(), ClientError> {
    match Resources::<StorageClass>::all(client).create(class).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}
