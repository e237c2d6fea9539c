//! Volume types that were part of Kubernetes once, and the drivers that serve them now.
//!
//! Source: `k8s.io/csi-translation-lib`, `pkg/scheduler/framework/plugins/nodevolumelimits/utils.go`.

use k8s_openapi::api::{
    core::v1::{PersistentVolumeSpec, Volume},
    storage::v1::CSINode,
};

const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";

/// A volume type whose volumes are attached by a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum InTree {
    AwsElasticBlockStore,
    AzureDisk,
    Cinder,
    GcePersistentDisk,
    Portworx,
}

impl InTree {
    const ALL: [Self; 5] = [
        Self::AwsElasticBlockStore,
        Self::AzureDisk,
        Self::Cinder,
        Self::GcePersistentDisk,
        Self::Portworx,
    ];

    fn provisioner(self) -> &'static str {
        match self {
            Self::AwsElasticBlockStore => "kubernetes.io/aws-ebs",
            Self::AzureDisk => "kubernetes.io/azure-disk",
            Self::Cinder => "kubernetes.io/cinder",
            Self::GcePersistentDisk => "kubernetes.io/gce-pd",
            Self::Portworx => "kubernetes.io/portworx-volume",
        }
    }

    pub(super) fn driver(self) -> &'static str {
        match self {
            Self::AwsElasticBlockStore => "ebs.csi.aws.com",
            Self::AzureDisk => "disk.csi.azure.com",
            Self::Cinder => "cinder.csi.openstack.org",
            Self::GcePersistentDisk => "pd.csi.storage.gke.io",
            Self::Portworx => "pxd.portworx.com",
        }
    }

    /// Whether the driver serves such volumes on a node. All but one have no other way any more.
    pub(super) fn is_migrated_on(self, node: &CSINode) -> bool {
        if self != Self::Portworx {
            return true;
        }
        let annotations = node.metadata.annotations.as_ref();
        let migrated = annotations.and_then(|all| all.get(MIGRATED_PLUGINS));
        migrated.is_some_and(|all| all.split(',').any(|one| one == self.provisioner()))
    }
}

/// The type that a class makes volumes of.
pub(super) fn of_class(provisioner: &str) -> Option<InTree> {
    InTree::ALL.into_iter().find(|in_tree| in_tree.provisioner() == provisioner)
}

/// `aws://zone/vol-1` names the same volume as `vol-1`.
fn last_part(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// The type and the name of a volume that a pod names itself.
pub(super) fn of_pod(volume: &Volume) -> Option<(InTree, String)> {
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some((InTree::AwsElasticBlockStore, last_part(&disk.volume_id)));
    }
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some((InTree::GcePersistentDisk, disk.pd_name.clone()));
    }
    if let Some(disk) = &volume.azure_disk {
        return Some((InTree::AzureDisk, disk.disk_uri.clone()));
    }
    if let Some(disk) = &volume.cinder {
        return Some((InTree::Cinder, disk.volume_id.clone()));
    }
    let disk = volume.portworx_volume.as_ref()?;
    Some((InTree::Portworx, disk.volume_id.clone()))
}

/// The type and the name of a persistent volume.
pub(super) fn of_volume(volume: &PersistentVolumeSpec) -> Option<(InTree, String)> {
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some((InTree::AwsElasticBlockStore, last_part(&disk.volume_id)));
    }
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some((InTree::GcePersistentDisk, disk.pd_name.clone()));
    }
    if let Some(disk) = &volume.azure_disk {
        return Some((InTree::AzureDisk, disk.disk_uri.clone()));
    }
    if let Some(disk) = &volume.cinder {
        return Some((InTree::Cinder, disk.volume_id.clone()));
    }
    let disk = volume.portworx_volume.as_ref()?;
    Some((InTree::Portworx, disk.volume_id.clone()))
}
