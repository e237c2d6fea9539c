//! Binds the claims once the node is certain, and waits for it.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orch_core::{
    ClientError, Resources,
    client::{PatchKind, WatchOptions},
};
use serde_json::json;

use super::{Bindings, SELECTED_NODE, VolumeBinding, matching::is_bound};
use crate::{
    cycle_state::CycleState, error::Fault, plugin::PreBind, pod_info::PodInfo, verdict::Verdict,
};

impl VolumeBinding {
    async fn bind(&self, plan: &Bindings, node: &str) -> Result<(), ClientError> {
        let volumes: Resources<PersistentVolume> = Resources::all(self.client.clone());
        for (volume, claim) in &plan.existing {
            let meta = &claim.metadata;
            let patch = json!({
                // Guarded: a volume that was given away meanwhile is not taken over.
                "metadata": {
                    "resourceVersion": volume.metadata.resource_version,
                    "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta.namespace,
                    "name": meta.name,
                    "uid": meta.uid,
                    "resourceVersion": meta.resource_version,
                }},
            });
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            volumes.patch(name, PatchKind::Merge, patch).await?;
        }
        for claim in &plan.provisioned {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            self.claims_in(claim).patch(name, PatchKind::Merge, patch).await?;
        }
        Ok(())
    }

    fn claims_in(&self, claim: &PersistentVolumeClaim) -> Resources<PersistentVolumeClaim> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        Resources::namespaced(self.client.clone(), namespace)
    }

    /// Waits until a claim is bound, or its provisioner has given the node up.
    async fn wait_until_bound(
        &self,
        claim: &PersistentVolumeClaim,
        provisioned: bool,
    ) -> Result<(), Fault> {
        let claims = self.claims_in(claim);
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let given_up = |claim: &PersistentVolumeClaim| {
            let annotations = claim.metadata.annotations.as_ref();
            provisioned && !annotations.is_some_and(|a| a.contains_key(SELECTED_NODE))
        };
        let options = WatchOptions {
            field_selector: Some(format!("metadata.name={name}")),
            ..WatchOptions::default()
        };
        loop {
            let stream = claims.watch(options.clone()).await?;
            let done = move |claim: &PersistentVolumeClaim| is_bound(claim) || given_up(claim);
            match Resources::first_match(stream, done).await? {
                Some(claim) if is_bound(&claim) => return Ok(()),
                Some(_) => return Err(format!("provisioning for claim {name:?} failed").into()),
                // The server ended the watch: ask again.
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

#[async_trait]
impl PreBind for VolumeBinding {
    async fn pre_bind(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<Verdict, Fault> {
        let Some(plan) = state.get::<Bindings>().cloned() else { return Ok(Verdict::Skip) };
        let work = async {
            self.bind(&plan, node).await?;
            for (_, claim) in &plan.existing {
                self.wait_until_bound(claim, false).await?;
            }
            for claim in &plan.provisioned {
                self.wait_until_bound(claim, true).await?;
            }
            Ok::<(), Fault>(())
        };
        let outcome = tokio::time::timeout(self.arguments.bind_timeout, work).await;
        outcome.map_err(|_| "timed out waiting for the pod's claims to be bound")??;
        self.promised.lock().retain(|_, owner| owner != pod.uid());
        Ok(Verdict::Success)
    }
}
