//! Making volumes for claims.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{Client, ClientError, Resources, event::reference_to};

use super::{DEFAULT_CLASS, PROVISIONED_BY};

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
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        }
    }
}

/// Where [`LocalPath`] puts volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPathOptions {
    /// The folder below which each volume has its own.
    pub folder: PathBuf,
    /// Whether to delete a volume's folder with the volume. Right where the nodes are on this
    /// machine. Default true.
    pub deletes_folders: bool,
}

impl LocalPathOptions {
    /// Volumes below this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), deletes_folders: true }
    }
}

/// Volumes that are folders on a node. The node agent makes the folder when a pod first uses it.
///
/// Sizes are noted and not enforced.
#[derive(Clone, Debug)]
pub struct LocalPath {
    options: LocalPathOptions,
}

impl LocalPath {
    /// The name by which storage classes ask for it.
    pub const NAME: &'static str = "orch.dev/local-path";

    /// A provisioner of folders.
    pub fn new(options: LocalPathOptions) -> Self {
        Self { options }
    }

    /// The storage class `standard`, the default one, which waits for a claim's first consumer.
    pub fn storage_class() -> StorageClass {
        let annotations = BTreeMap::from([(DEFAULT_CLASS.to_owned(), "true".to_owned())]);
        StorageClass {
            metadata: ObjectMeta {
                name: Some("standard".to_owned()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            provisioner: Self::NAME.to_owned(),
            reclaim_policy: Some("Delete".to_owned()),
            volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
            ..StorageClass::default()
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

#[async_trait]
impl Provisioner for LocalPath {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn provision(
        &self,
        request: &ProvisionRequest,
    ) -> Result<PersistentVolumeSpec, ProvisionError> {
        let claim = request.claim.spec.clone().unwrap_or_default();
        if claim.volume_mode.as_deref() == Some("Block") {
            return Err(ProvisionError::Unsupported("a folder is no block device".to_owned()));
        }
        if claim.selector.is_some() {
            let why = "claim.Spec.Selector is not supported for dynamic provisioning";
            return Err(ProvisionError::Unsupported(why.to_owned()));
        }
        let path = self.options.folder.join(&request.volume_name);
        Ok(PersistentVolumeSpec {
            capacity: claim.resources.and_then(|resources| resources.requests),
            access_modes: claim.access_modes,
            host_path: Some(HostPathVolumeSource {
                path: path.to_string_lossy().into_owned(),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            node_affinity: request.node.as_deref().map(only_on),
            ..PersistentVolumeSpec::default()
        })
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<(), ProvisionError> {
        let spec = volume.spec.as_ref();
        let path =
            spec.and_then(|spec| spec.host_path.as_ref()).map(|source| Path::new(&source.path));
        // Exactly what was made, whatever the object says by now.
        let own = volume.metadata.name.as_deref().map(|name| self.options.folder.join(name));
        match (path, own) {
            (Some(path), Some(own)) if self.options.deletes_folders && path == own => {
                match tokio::fs::remove_dir_all(&own).await {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(ProvisionError::Storage(error))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn only_on(node: &Node) -> VolumeNodeAffinity {
    const HOSTNAME: &str = "kubernetes.io/hostname";
    let name = node.metadata.name.clone().unwrap_or_default();
    let hostname = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME)).cloned();
    let requirement = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![hostname.unwrap_or(name)]),
    };
    let term = NodeSelectorTerm {
        match_expressions: Some(vec![requirement]),
        ..NodeSelectorTerm::default()
    };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}
