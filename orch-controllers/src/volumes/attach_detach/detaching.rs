//! A volume that no pod on the node needs any more.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/attachdetach/reconciler`.

use std::time::Duration;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use orch_core::{Key, client::DeleteOptions};

use super::{AttachDetach, identity, node_status, node_status::in_use};
use crate::ReconcileError;

/// When a node that has just said that it uses the volume is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// How a volume may go from its node.
enum Way {
    /// Not yet; perhaps after this time.
    Wait(Option<Duration>),
    /// If the node agrees.
    Asking,
    /// Whatever the node says, for this reason.
    Forced(&'static str),
}

impl AttachDetach {
    pub(super) async fn detach(
        &self,
        attachment: &VolumeAttachment,
        unique_name: Option<&str>,
    ) -> Result<Option<Duration>, ReconcileError> {
        if attachment.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let node_name = attachment.spec.node_name.as_str();
        let unique_name = match unique_name {
            Some(name) => Some(name.to_owned()),
            None => self.find_name(attachment),
        };
        let way = self.way(attachment, unique_name.as_deref());
        if let Way::Wait(time) = way {
            return Ok(time);
        }
        if let Some(name) = &unique_name {
            let reported = self.report(node_name, name, false).await?;
            if let (Way::Asking, Some((node, was_attached))) = (&way, reported)
                && in_use(&node).contains(name)
            {
                tracing::info!(node = node_name, volume = name, "still in use by the node");
                if was_attached {
                    self.report(node_name, name, true).await?;
                }
                return Ok(Some(AGAIN));
            }
        }
        if let Way::Forced(reason) = way {
            tracing::warn!(node = node_name, reason, "detached without the node's consent");
            self.metrics.forced_detach(reason);
        }
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        let options =
            DeleteOptions { uid: attachment.metadata.uid.clone(), ..DeleteOptions::default() };
        match self.context.resources::<VolumeAttachment>("").delete(name, options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(None),
        }
    }

    /// The name in the node's status of a volume that is gone.
    fn find_name(&self, attachment: &VolumeAttachment) -> Option<String> {
        let node = self.nodes.get(&Key::cluster(attachment.spec.node_name.as_str()))?;
        let names = node_status::attached(&node).iter().map(|volume| &volume.name);
        names.chain(in_use(&node)).find(|name| identity::is_named(attachment, name)).cloned()
    }

    fn way(&self, attachment: &VolumeAttachment, unique_name: Option<&str>) -> Way {
        let node_name = attachment.spec.node_name.as_str();
        let name = attachment.metadata.name.clone().unwrap_or_default();
        let (since, is_used) = {
            let mut state = self.state.lock();
            let since = *state.unwanted_since.entry(name).or_insert_with(|| self.context.now());
            let used = state.in_use.get(node_name);
            (since, used.is_some_and(|used| unique_name.is_some_and(|name| used.contains(name))))
        };
        let waited = Duration::try_from(self.context.now().duration_since(since));
        let waited = waited.unwrap_or_default();
        let longest = self.options.wait_for_unmount;
        let is_expired = waited > longest && !self.options.never_forces;
        let node = self.nodes.get(&Key::cluster(node_name));
        let is_healthy = node.as_deref().is_some_and(node_status::is_ready);
        let is_out_of_service = node.as_deref().is_some_and(node_status::is_out_of_service);
        let may_keep_it = is_healthy || !is_expired;
        if is_used && may_keep_it && !is_out_of_service {
            // From then on whatever happens to the node leads here.
            let left = longest.checked_sub(waited).map(|left| left + Duration::from_millis(100));
            return Way::Wait(left);
        }
        match (is_expired, is_out_of_service) {
            (true, _) => Way::Forced("timeout"),
            (false, true) => Way::Forced("out-of-service"),
            (false, false) => Way::Asking,
        }
    }
}
