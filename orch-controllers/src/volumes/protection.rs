//! Claims and volumes that are in use do not go.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/{pvcprotection,pvprotection}`.

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    ClientError, Key, claim,
    client::{ListOptions, PatchKind},
    informer::{Change, Informers, Watchable},
};
use serde_json::json;

use super::{BY_CLAIM, claims_of, index_by_claim, node_of};
use crate::{Action, Controller, context::Context};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// The controller that keeps claims while there are pods that use them, even pods that are over.
pub fn claim_protection(informers: &Informers) -> Controller {
    let context = Context::new(informers, "persistentvolumeclaim-protection-controller");
    let (claims, users) = (context.informer::<PersistentVolumeClaim>(), context.informer::<Pod>());
    index_by_claim(&users);
    context
        .builder()
        .watches_own::<PersistentVolumeClaim>()
        .watches::<Pod>(|change| match change {
            Change::Deleted(pod) => claims_of(pod),
            Change::Updated { old, new } if old.metadata.uid != new.metadata.uid => claims_of(old),
            Change::Updated { old, new } if !is_shut_down(old) && is_shut_down(new) => {
                claims_of(new)
            }
            _ => Vec::new(),
        })
        .build(move |key: Key| {
            let (context, claim, users) = (context.clone(), claims.get(&key), users.clone());
            async move {
                let Some(claim) = claim else { return Ok(Action::Done) };
                let going = claim.metadata.deletion_timestamp.is_some();
                let has_finalizer =
                    claim.metadata.finalizers.iter().flatten().any(|name| name == CLAIM);
                if going && has_finalizer {
                    let known = users.by_index(BY_CLAIM, &key.to_string());
                    if known.iter().any(|pod| uses(pod, &claim)) {
                        return Ok(Action::Done);
                    }
                    // The local copy may lack a pod that was assigned just now.
                    let resources = context.resources::<Pod>(&key.namespace);
                    let live = resources.list(ListOptions::default()).await?;
                    if live.iter().any(|pod| uses(pod, &claim)) {
                        return Ok(Action::RequeueAfter(std::time::Duration::from_secs(5)));
                    }
                }
                set_finalizer::<PersistentVolumeClaim>(&context, &claim.metadata, CLAIM, !going)
                    .await?;
                Ok(Action::Done)
            }
        })
}

/// Whether a pod uses a claim. One that is on no node does not: the node will not start a pod whose
/// claim is going.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    node_of(pod).is_some()
        && claim::claims_of(pod).any(|used| {
            Some(used.name) == claim.metadata.name
                && (!used.is_ephemeral
                    || (!is_shut_down(pod) && claim::check_made_for(pod, claim).is_ok()))
        })
}

/// The node is done with the pod, or somebody did not want to wait for that. What still holds it
/// may itself wait for the claim to go.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// The controller that keeps volumes while they are bound.
pub fn volume_protection(informers: &Informers) -> Controller {
    let context = Context::new(informers, "persistentvolume-protection-controller");
    let volumes = context.informer::<PersistentVolume>();
    context.builder().watches_own::<PersistentVolume>().build(move |key: Key| {
        let (context, volume) = (context.clone(), volumes.get(&key));
        async move {
            let Some(volume) = volume else { return Ok(Action::Done) };
            let going = volume.metadata.deletion_timestamp.is_some();
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            if !(going && phase == Some("Bound")) {
                set_finalizer::<PersistentVolume>(&context, &volume.metadata, VOLUME, !going)
                    .await?;
            }
            Ok(Action::Done)
        }
    })
}

/// Adds or removes a finalizer, unless that is done already.
pub(crate) async fn set_finalizer<K: Watchable>(
    context: &Context,
    meta: &ObjectMeta,
    name: &str,
    wanted: bool,
) -> Result<(), ClientError> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|finalizer| finalizer == name);
    if has == wanted {
        return Ok(());
    }
    if wanted {
        finalizers.push(name.to_owned());
    } else {
        finalizers.retain(|finalizer| finalizer != name);
    }
    let key = Key::of(meta);
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers,
    }});
    match context.resources::<K>(&key.namespace).patch(&key.name, PatchKind::Merge, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
