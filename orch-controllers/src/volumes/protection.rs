//! Claims and volumes that are in use do not go.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/{pvcprotection,pvprotection}`.

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    ClientError, Key,
    client::{ListOptions, PatchKind},
    informer::{Change, Informers, Watchable},
};
use serde_json::json;

use super::{BY_CLAIM, claims_of, index_by_claim, node_of};
use crate::{Action, Controller, context::Context, pods};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// The controller that keeps claims until no pod uses them.
pub fn claim_protection(informers: &Informers) -> Controller {
    let context = Context::new(informers, "persistentvolumeclaim-protection-controller");
    let (claims, users) = (context.informer::<PersistentVolumeClaim>(), context.informer::<Pod>());
    index_by_claim(&users);
    context
        .builder()
        .watches_own::<PersistentVolumeClaim>()
        .watches::<Pod>(|change| match change {
            Change::Deleted(pod) => claims_of(pod),
            Change::Updated { old, new } if !pods::is_terminal(old) && pods::is_terminal(new) => {
                claims_of(new)
            }
            _ => Vec::new(),
        })
        .build(move |key: Key| {
            let (context, claim, users) = (context.clone(), claims.get(&key), users.clone());
            async move {
                let Some(claim) = claim else { return Ok(Action::Done) };
                let going = claim.metadata.deletion_timestamp.is_some();
                let uses = |pod: &Pod| node_of(pod).is_some() && !pods::is_terminal(pod);
                if going {
                    let known = users.by_index(BY_CLAIM, &key.to_string());
                    if known.iter().any(|pod| uses(pod)) {
                        return Ok(Action::Done);
                    }
                    // The local copy may lack a pod that was assigned just now.
                    let resources = context.resources::<Pod>(&key.namespace);
                    let live = resources.list(ListOptions::default()).await?;
                    if live.iter().any(|pod| uses(pod) && claims_of(pod).contains(&key)) {
                        return Ok(Action::RequeueAfter(std::time::Duration::from_secs(5)));
                    }
                }
                set_finalizer::<PersistentVolumeClaim>(&context, &claim.metadata, CLAIM, !going)
                    .await?;
                Ok(Action::Done)
            }
        })
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
async fn set_finalizer<K: Watchable>(
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
