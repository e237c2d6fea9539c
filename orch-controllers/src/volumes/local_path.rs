//! Volumes that are folders.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{
    DEFAULT_CLASS, Expansion, PROVISIONED_BY, ProvisionError, ProvisionRequest, Provisioner,
    VolumeExpander, annotation,
};

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
            allow_volume_expansion: Some(true),
            ..StorageClass::default()
        }
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

#[async_trait]
impl VolumeExpander for LocalPath {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn answers_for(&self, volume: &PersistentVolume) -> bool {
        annotation(&volume.metadata, PROVISIONED_BY) == Some(Self::NAME)
    }

    async fn expand(
        &self,
        _: &PersistentVolume,
        _: &Quantity,
        to: &Quantity,
    ) -> Result<Expansion, ProvisionError> {
        // A folder grows by itself, on the node and here.
        Ok(Expansion { size: to.clone(), needs_node: false })
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
