//! What a volume is called where it is attached, and what may be done with it.
//!
//! Source: `k8s.io/kubernetes/pkg/volume/csi/{csi_plugin,csi_attacher}.go`.

use k8s_openapi::api::{
    core::v1::PersistentVolume,
    storage::v1::{CSIDriver, VolumeAttachment},
};
use sha2::{Digest, Sha256};

/// What the names of volumes of CSI drivers begin with in a node's status.
const PREFIX: &str = "kubernetes.io/csi/";
const SEPARATOR: char = '^';

/// A volume of a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The name of the `PersistentVolume`.
    pub(super) volume: String,
    pub(super) driver: String,
    pub(super) handle: String,
    /// Whether it may be attached to several nodes at once.
    pub(super) is_shared: bool,
}

impl Identity {
    /// The volume's identity, if it is of a CSI driver: no others are attached by controllers.
    pub(super) fn of(volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        // Without a mode nobody knows; the driver will say no if it has to.
        let is_shared = modes.is_empty()
            || modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"));
        Some(Self {
            volume: volume.metadata.name.clone()?,
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            is_shared,
        })
    }

    /// The name in a node's status.
    pub(super) fn unique_name(&self) -> String {
        format!("{PREFIX}{}{SEPARATOR}{}", self.driver, self.handle)
    }

    /// The name of the `VolumeAttachment` to a node.
    pub(super) fn attachment_name(&self, node: &str) -> String {
        attachment_name(&self.handle, &self.driver, node)
    }
}

fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let digest = Sha256::digest(format!("{handle}{driver}{node}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("csi-{hex}")
}

/// Whether a name of a node's status is that of the volume which an attachment is about. The way
/// back where the volume itself is gone.
pub(super) fn is_named(attachment: &VolumeAttachment, unique_name: &str) -> bool {
    let parts = unique_name.strip_prefix(PREFIX).and_then(|rest| rest.split_once(SEPARATOR));
    parts.is_some_and(|(driver, handle)| {
        let name = attachment_name(handle, driver, &attachment.spec.node_name);
        attachment.metadata.name.as_deref() == Some(name.as_str())
    })
}

/// Whether an attachment is one that this controller makes: others are left alone.
pub(super) fn is_ours(attachment: &VolumeAttachment, identity: Option<&Identity>) -> bool {
    let name = attachment.metadata.name.as_deref().unwrap_or_default();
    match identity {
        Some(identity) => name == identity.attachment_name(&attachment.spec.node_name),
        None => name.strip_prefix("csi-").is_some_and(|rest| {
            rest.len() == 64 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        }),
    }
}

/// Whether volumes of a driver must be attached before they are used: unless it says otherwise.
pub(super) fn needs_attaching(driver: Option<&CSIDriver>) -> bool {
    driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_upstreams() {
        let volume = json!({"metadata": {"name": "pv"}, "spec": {
            "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "csi.example.com", "volumeHandle": "v1"},
        }});
        let identity = Identity::of(&serde_json::from_value(volume).unwrap()).unwrap();
        assert_eq!(identity.unique_name(), "kubernetes.io/csi/csi.example.com^v1");
        assert!(!identity.is_shared);
        let name = identity.attachment_name("node-1");
        assert_eq!((&name[..4], name.len()), ("csi-", 68));
        let attachment = json!({"metadata": {"name": name}, "spec": {
            "attacher": "csi.example.com", "nodeName": "node-1",
            "source": {"persistentVolumeName": "pv"},
        }});
        let attachment: VolumeAttachment = serde_json::from_value(attachment).unwrap();
        assert!(is_ours(&attachment, Some(&identity)) && is_ours(&attachment, None));
        assert!(is_named(&attachment, &identity.unique_name()));
        assert!(!is_named(&attachment, "kubernetes.io/csi/csi.example.com^v2"));
    }
}
