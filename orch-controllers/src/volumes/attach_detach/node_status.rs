//! What a node's status says of volumes: `volumesAttached` is this controller's, `volumesInUse` the
//! node's.
//!
//! The node mounts what it finds attached, after it has said that it uses it. So a volume is taken
//! out of the first list before the second one is looked at, and only then detached.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/attachdetach/statusupdater`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{AttachedVolume, Node};
use orch_core::{ClientError, client::PatchKind};
use serde_json::json;

use super::AttachDetach;

pub(super) fn attached(node: &Node) -> &[AttachedVolume] {
    let status = node.status.as_ref();
    status.and_then(|status| status.volumes_attached.as_deref()).unwrap_or_default()
}

pub(super) fn in_use(node: &Node) -> &[String] {
    let status = node.status.as_ref();
    status.and_then(|status| status.volumes_in_use.as_deref()).unwrap_or_default()
}

pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

pub(super) fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().any(|taint| taint.key == "node.kubernetes.io/out-of-service")
}

impl AttachDetach {
    /// Says in a node's status whether a volume is attached. Gives the node as it is afterwards,
    /// and whether that is news; `None` if there is no such node.
    pub(super) async fn report(
        &self,
        node: &str,
        unique_name: &str,
        is_attached: bool,
    ) -> Result<Option<(Arc<Node>, bool)>, ClientError> {
        let nodes = self.context.resources::<Node>("");
        let Some(known) = nodes.get_opt(node).await? else { return Ok(None) };
        let mut list = attached(&known).to_vec();
        list.retain(|volume| volume.name != unique_name);
        let was_attached = list.len() < attached(&known).len();
        if was_attached == is_attached {
            return Ok(Some((known, false)));
        }
        if is_attached {
            let volume =
                AttachedVolume { name: unique_name.to_owned(), device_path: String::new() };
            list.push(volume);
        }
        let patch = json!({
            "metadata": {"uid": known.metadata.uid,
                "resourceVersion": known.metadata.resource_version},
            "status": {"volumesAttached": list},
        });
        match nodes.patch_status(node, PatchKind::Merge, patch).await {
            Ok(node) => Ok(Some((node, true))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
