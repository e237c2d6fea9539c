//! A volume that pods on a node need.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/attachdetach/reconciler`,
//! `k8s.io/kubernetes/pkg/volume/csi/csi_attacher.go`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{AttachDetach, identity::Identity, wanted::Wanted};
use crate::{ReconcileError, context::EventType};

/// After so long without an answer of the driver its users are told, and again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

impl AttachDetach {
    pub(super) async fn attach(
        &self,
        volume: &Identity,
        node: &str,
        wanted: &Wanted,
        attachments: &[Arc<VolumeAttachment>],
    ) -> Result<Option<Duration>, ReconcileError> {
        let name = volume.attachment_name(node);
        self.state.lock().unwanted_since.remove(&name);
        let pods = wanted.get(node).map(Vec::as_slice).unwrap_or_default();
        let is_it = |one: &&Arc<VolumeAttachment>| one.metadata.name.as_ref() == Some(&name);
        let Some(known) = attachments.iter().find(is_it) else {
            return self.begin(volume, node, wanted, attachments).await;
        };
        if known.metadata.deletion_timestamp.is_some() {
            // It is on its way off the node; once it is gone it is attached anew.
            return Ok(None);
        }
        let status = known.status.clone().unwrap_or_default();
        if status.attached {
            if let Some((_, true)) = self.report(node, &volume.unique_name(), true).await? {
                let message =
                    format!("AttachVolume.Attach succeeded for volume \"{}\" ", volume.volume);
                self.tell(pods, EventType::Normal, "SuccessfulAttachVolume", &message);
            }
            let mut state = self.state.lock();
            state.asked_since.remove(&name);
            state.told.remove(&name);
            return Ok(None);
        }
        self.report(node, &volume.unique_name(), false).await?;
        if let Some(error) = status.attach_error {
            let message = error.message.unwrap_or_default();
            let stamp = format!("{:?} {message}", error.time);
            if self.state.lock().told.insert(name, stamp.clone()) != Some(stamp) {
                self.attach_failed(volume, pods, &message);
            }
            return Ok(None);
        }
        Ok(Some(self.wait_for_answer(volume, name, pods)))
    }

    /// How long to wait on; tells the pods when that was too long.
    fn wait_for_answer(&self, volume: &Identity, name: String, pods: &[Arc<Pod>]) -> Duration {
        let now = self.context.now();
        let since = *self.state.lock().asked_since.entry(name.clone()).or_insert(now);
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match ANSWER_TIMEOUT.checked_sub(waited).filter(|left| !left.is_zero()) {
            Some(left) => left,
            None => {
                self.state.lock().asked_since.insert(name, now);
                let message = format!(
                    "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
                    volume.driver, volume.handle
                );
                self.attach_failed(volume, pods, &message);
                ANSWER_TIMEOUT
            }
        }
    }

    async fn begin(
        &self,
        volume: &Identity,
        node: &str,
        wanted: &Wanted,
        attachments: &[Arc<VolumeAttachment>],
    ) -> Result<Option<Duration>, ReconcileError> {
        if !volume.is_shared && !attachments.is_empty() {
            // What is on its way is waited for in silence.
            let is_settled = |one: &Arc<VolumeAttachment>| {
                one.metadata.deletion_timestamp.is_none()
                    && one.status.as_ref().is_some_and(|status| status.attached)
            };
            if attachments.iter().all(is_settled) {
                self.tell_of_others(volume, node, wanted, attachments);
            }
            return Ok(None);
        }
        let name = volume.attachment_name(node);
        let attachment = VolumeAttachment {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: VolumeAttachmentSpec {
                attacher: volume.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.volume.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        };
        match self.context.resources::<VolumeAttachment>("").create(&attachment).await {
            Err(error) if !error.is_already_exists() => {
                let pods = wanted.get(node).map(Vec::as_slice).unwrap_or_default();
                let message = format!("kubernetes.io/csi: attacher.Attach failed: {error}");
                self.attach_failed(volume, pods, &message);
                Err(error.into())
            }
            _ => {
                self.state.lock().asked_since.insert(name, self.context.now());
                Ok(Some(ANSWER_TIMEOUT))
            }
        }
    }

    fn attach_failed(&self, volume: &Identity, pods: &[Arc<Pod>], why: &str) {
        let message =
            format!("AttachVolume.Attach failed for volume \"{}\" : {why}", volume.volume);
        self.tell(pods, EventType::Warning, "FailedAttachVolume", &message);
    }

    fn tell(&self, pods: &[Arc<Pod>], kind: EventType, reason: &str, message: &str) {
        pods.iter().for_each(|pod| self.context.event(&**pod, kind, reason, message));
    }

    /// The volume is on another node, and may be on one only. Told once for each node.
    fn tell_of_others(
        &self,
        volume: &Identity,
        node: &str,
        wanted: &Wanted,
        attachments: &[Arc<VolumeAttachment>],
    ) {
        if !self.state.lock().refused.insert((volume.volume.clone(), node.to_owned())) {
            return;
        }
        let elsewhere: BTreeSet<&str> =
            attachments.iter().map(|one| one.spec.node_name.as_str()).collect();
        let users: Vec<&Arc<Pod>> =
            elsewhere.into_iter().filter_map(|node| wanted.get(node)).flatten().collect();
        for pod in wanted.get(node).into_iter().flatten() {
            let message =
                format!("Multi-Attach error for volume \"{}\" {}", volume.volume, why(pod, &users));
            self.context.event(&**pod, EventType::Warning, "FailedAttachVolume", message);
        }
    }
}

/// Pods of other namespaces are counted, not named: who reads this may not know of them.
fn why(pod: &Pod, users: &[&Arc<Pod>]) -> String {
    if users.is_empty() {
        let text = "Volume is already exclusively attached to one node and can't be attached to \
                    another";
        return text.to_owned();
    }
    let is_near = |user: &&&Arc<Pod>| user.metadata.namespace == pod.metadata.namespace;
    let near: Vec<&str> =
        users.iter().filter(is_near).filter_map(|user| user.metadata.name.as_deref()).collect();
    let far = users.len() - near.len();
    match (near.is_empty(), far) {
        (true, far) => {
            format!("Volume is already used by {far} pod(s) in different namespaces")
        }
        (false, 0) => format!("Volume is already used by pod(s) {}", near.join(", ")),
        (false, far) => format!(
            "Volume is already used by pod(s) {} and {far} pod(s) in different namespaces",
            near.join(", ")
        ),
    }
}
