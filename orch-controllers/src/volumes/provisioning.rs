//! A claim that no volume suits: one is made for it, here or elsewhere.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use orch_core::{ClientError, Key, client::PatchKind};
use serde_json::json;

use super::{
    Binder, Provisioner, SELECTED_NODE, STORAGE_PROVISIONER, annotation, claims::Consumer,
    matching, provisioner::ProvisionRequest,
};
use crate::{ReconcileError, context::EventType};

/// Provisioners whose names begin so are nobody else's.
const IN_TREE: &str = "kubernetes.io/";

impl Binder {
    pub(super) async fn provision(
        &self,
        key: &Key,
        claim: &PersistentVolumeClaim,
        class: Option<Arc<StorageClass>>,
        consumer: Consumer,
    ) -> Result<(), ReconcileError> {
        let Some(class) = class else {
            let name = matching::class_of_claim(claim).unwrap_or_default();
            let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
            self.provisioning_failed(claim, &message);
            return Ok(());
        };
        let name = &class.provisioner;
        match self.provisioner(name).cloned() {
            Some(provisioner) => {
                self.note_provisioner(key, claim, name).await?;
                self.provision_here(key, claim, class, consumer, provisioner).await
            }
            None if name.starts_with(IN_TREE) => {
                let message = format!("no volume plugin matched name: {name}");
                self.provisioning_failed(claim, &message);
                Ok(())
            }
            None => {
                self.note_provisioner(key, claim, name).await?;
                let message = format!(
                    "Waiting for a volume to be created either by the external provisioner \
                     '{name}' or manually by the system administrator. If volume creation is \
                     delayed, please verify that the provisioner is running and correctly \
                     registered."
                );
                self.context.event(claim, EventType::Normal, "ExternalProvisioning", message);
                Ok(())
            }
        }
    }

    fn provisioning_failed(&self, claim: &PersistentVolumeClaim, message: &str) {
        self.context.event(claim, EventType::Warning, "ProvisioningFailed", message);
    }

    async fn provision_here(
        &self,
        key: &Key,
        claim: &PersistentVolumeClaim,
        class: Arc<StorageClass>,
        consumer: Consumer,
        provisioner: Arc<dyn Provisioner>,
    ) -> Result<(), ReconcileError> {
        let node = match consumer {
            Consumer::None => None,
            Consumer::On(node) => Some(node),
            Consumer::Missing(node) => {
                let message = format!("Failed to get target node: node \"{node}\" not found");
                self.provisioning_failed(claim, &message);
                return Err(ReconcileError::message(message));
            }
        };
        if claim.spec.as_ref().is_some_and(|spec| spec.data_source.is_some()) {
            let message = format!(
                "plugin \"{}\" is not a CSI plugin. Only CSI plugin can provision a claim with a \
                 datasource",
                class.provisioner
            );
            self.provisioning_failed(claim, &message);
            return Err(ReconcileError::message(message));
        }
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        let request = ProvisionRequest {
            volume_name: format!("pvc-{uid}"),
            claim: claim.clone(),
            class: class.clone(),
            node,
        };
        let volume = match provisioner.provision(&request).await {
            Ok(spec) => request.describe(spec),
            Err(error) => {
                self.let_scheduler_choose_again(key, claim).await;
                let class = class.metadata.name.as_deref().unwrap_or_default();
                let message =
                    format!("Failed to provision volume with StorageClass \"{class}\": {error}");
                self.provisioning_failed(claim, &message);
                return Err(ReconcileError::Other(Box::new(error)));
            }
        };
        match self.context.resources::<PersistentVolume>("").create(&volume).await {
            Ok(_) => {
                let message = format!(
                    "Successfully provisioned volume {} using {}",
                    request.volume_name, class.provisioner
                );
                self.context.event(claim, EventType::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
            // It was made before; the local copy will show it.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The node that was chosen may be why it failed. If this fails too, it is tried again there.
    async fn let_scheduler_choose_again(&self, key: &Key, claim: &PersistentVolumeClaim) {
        if annotation(&claim.metadata, SELECTED_NODE).is_none() {
            return;
        }
        let patch = json!({"metadata": {
            "uid": claim.metadata.uid, "annotations": {SELECTED_NODE: null},
        }});
        let claims = self.context.resources::<PersistentVolumeClaim>(&key.namespace);
        if let Err(error) = claims.patch(&key.name, PatchKind::Merge, patch).await {
            tracing::debug!(%key, %error, "the selected node was not taken back");
        }
    }

    async fn note_provisioner(
        &self,
        key: &Key,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
    ) -> Result<(), ClientError> {
        if annotation(&claim.metadata, STORAGE_PROVISIONER) == Some(provisioner) {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": claim.metadata.uid,
            "annotations": {STORAGE_PROVISIONER: provisioner,
                "volume.beta.kubernetes.io/storage-provisioner": provisioner},
        }});
        let resources = self.context.resources::<PersistentVolumeClaim>(&key.namespace);
        resources.patch(&key.name, PatchKind::Merge, patch).await.map(drop)
    }
}
