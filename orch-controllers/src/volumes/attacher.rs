//! Drivers that attach volumes to nodes, and the controller that asks them.
//!
//! Source: `github.com/kubernetes-csi/external-attacher/pkg/controller`.
//! Differs: volumes get no finalizer while they are attached; a driver detaches what is gone by the
//! attachment alone.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::PersistentVolume,
    storage::v1::{VolumeAttachment, VolumeError},
};
use orch_core::{
    ClientError, Key,
    client::PatchKind,
    informer::{Informer, Informers},
};
use serde_json::{Value, json};

use super::protection::set_finalizer;
use crate::{Action, Controller, ReconcileError, Reconciler, context::Context};

/// A volume could not be attached or detached. Users read the text; it is tried again with
/// back-off.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AttachError(pub String);

/// Attaches the volumes of one CSI driver to nodes.
///
/// Both methods may be called again after they succeeded, for the same attachment: they must be
/// idempotent. They may be dropped at any await. Object-safe.
#[async_trait]
pub trait Attacher: Send + Sync + fmt::Debug + 'static {
    /// The driver's name, as volumes and attachments have it.
    fn driver(&self) -> &str;

    /// Attaches a volume to a node. What is given back is for the driver's part on the node, in
    /// `status.attachmentMetadata`.
    async fn attach(
        &self,
        attachment: &VolumeAttachment,
        volume: &PersistentVolume,
    ) -> Result<BTreeMap<String, String>, AttachError>;

    /// Detaches a volume, of which there may be nothing left but the attachment.
    async fn detach(
        &self,
        attachment: &VolumeAttachment,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), AttachError>;
}

/// The controller that does what `VolumeAttachment`s ask these drivers for.
pub fn volume_attacher(informers: &Informers, attachers: Vec<Arc<dyn Attacher>>) -> Controller {
    let context = Context::new(informers, "volume-attacher");
    let volumes = context.informer();
    let attachments = context.informer();
    let builder = context.builder().watches_own::<VolumeAttachment>().reads::<PersistentVolume>();
    builder.build(Attaching { context, volumes, attachments, attachers })
}

struct Attaching {
    context: Context,
    volumes: Informer<PersistentVolume>,
    attachments: Informer<VolumeAttachment>,
    attachers: Vec<Arc<dyn Attacher>>,
}

/// The finalizer under which a driver keeps its attachments.
fn finalizer(driver: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut name: String = driver.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    if name.ends_with('-') {
        name.push('X');
    }
    format!("external-attacher/{name}")
}

#[async_trait]
impl Reconciler for Attaching {
    async fn reconcile(&self, key: Key) -> Result<Action, ReconcileError> {
        let Some(attachment) = self.attachments.get(&key) else { return Ok(Action::Done) };
        let driver = &attachment.spec.attacher;
        let Some(attacher) = self.attachers.iter().find(|one| one.driver() == driver) else {
            return Ok(Action::Done);
        };
        let name = attachment.spec.source.persistent_volume_name.as_deref();
        let volume = name.and_then(|name| self.volumes.get(&Key::cluster(name)));
        if attachment.metadata.deletion_timestamp.is_some() {
            self.detach(attacher.as_ref(), &attachment, volume.as_deref()).await
        } else {
            self.attach(attacher.as_ref(), &attachment, volume.as_deref()).await
        }
    }
}

impl Attaching {
    async fn attach(
        &self,
        attacher: &dyn Attacher,
        attachment: &VolumeAttachment,
        volume: Option<&PersistentVolume>,
    ) -> Result<Action, ReconcileError> {
        if attachment.status.as_ref().is_some_and(|status| status.attached) {
            return Ok(Action::Done);
        }
        let finalizer = finalizer(attacher.driver());
        let finalizers = attachment.metadata.finalizers.iter().flatten();
        if !finalizers.into_iter().any(|known| *known == finalizer) {
            let meta = &attachment.metadata;
            // The change leads here again: what is attached can then not be forgotten.
            set_finalizer::<VolumeAttachment>(&self.context, meta, &finalizer, true).await?;
            return Ok(Action::Done);
        }
        let attached = match volume {
            Some(volume) => attacher.attach(attachment, volume).await,
            None => Err(AttachError("the volume does not exist".to_owned())),
        };
        match attached {
            Ok(metadata) => {
                let status = json!({
                    "attached": true, "attachmentMetadata": metadata,
                    "attachError": null, "detachError": null,
                });
                self.write(attachment, status).await?;
                Ok(Action::Done)
            }
            Err(error) => {
                let status = json!({"attached": false, "attachError": self.failure(&error)});
                self.write(attachment, status).await?;
                Err(ReconcileError::message(error))
            }
        }
    }

    async fn detach(
        &self,
        attacher: &dyn Attacher,
        attachment: &VolumeAttachment,
        volume: Option<&PersistentVolume>,
    ) -> Result<Action, ReconcileError> {
        let finalizer = finalizer(attacher.driver());
        let finalizers = attachment.metadata.finalizers.iter().flatten();
        if !finalizers.into_iter().any(|known| *known == finalizer) {
            return Ok(Action::Done);
        }
        if let Err(error) = attacher.detach(attachment, volume).await {
            let status = json!({"detachError": self.failure(&error)});
            self.write(attachment, status).await?;
            return Err(ReconcileError::message(error));
        }
        let status = json!({"attached": false, "attachmentMetadata": null, "detachError": null});
        let Some(latest) = self.write(attachment, status).await? else { return Ok(Action::Done) };
        set_finalizer::<VolumeAttachment>(&self.context, &latest.metadata, &finalizer, false)
            .await?;
        Ok(Action::Done)
    }

    fn failure(&self, error: &AttachError) -> VolumeError {
        VolumeError {
            message: Some(error.to_string()),
            time: Some(self.context.time()),
            ..VolumeError::default()
        }
    }

    async fn write(
        &self,
        attachment: &VolumeAttachment,
        status: Value,
    ) -> Result<Option<Arc<VolumeAttachment>>, ClientError> {
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({"metadata": {"uid": attachment.metadata.uid}, "status": status});
        let attachments = self.context.resources::<VolumeAttachment>("");
        match attachments.patch_status(name, PatchKind::Merge, patch).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finalizers_are_upstreams() {
        let check = |driver: &str, expected: &str| assert_eq!(super::finalizer(driver), expected);
        check("csi.example.com", "external-attacher/csi-example-com");
        check("csi/example.", "external-attacher/csi-example-X");
    }
}
