//! Makes the claims of pods' ephemeral volumes.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/ephemeral`.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    Key,
    claim::{check_made_for, claim_of},
    informer::{Change, Informer, Informers},
    owner::controller_reference,
};

use super::{BY_CLAIM, StorageMetrics, index_by_claim};
use crate::{
    Action, Controller, ReconcileError,
    context::{Context, EventType},
    pods,
};

/// The controller that makes a claim for each `ephemeral` volume of a pod. The claim belongs to the
/// pod and goes with it; one that is deleted before is made again. A claim of the same name that
/// is not the pod's is left alone, and told of with an event on the pod.
pub fn ephemeral_volume(informers: &Informers, metrics: StorageMetrics) -> Controller {
    let context = Context::reporting(informers, "ephemeral-volume-controller", "ephemeral_volume");
    let (pods, claims) = (context.informer::<Pod>(), context.informer::<PersistentVolumeClaim>());
    index_by_claim(&pods);
    let users = pods.clone();
    let maker = Maker { context: context.clone(), claims, metrics };
    context
        .builder()
        // What a pod's volumes are never changes, so it is looked at once.
        .watches_own_if::<Pod>(
            |change| matches!(change, Change::Added(pod) if has_ephemeral_volumes(pod)),
        )
        .watches::<PersistentVolumeClaim>(move |change| match change {
            Change::Deleted(claim) => {
                let users = users.by_index(BY_CLAIM, &Key::of(&claim.metadata).to_string());
                let concerned = users.iter().filter(|pod| has_ephemeral_volumes(pod));
                concerned.map(|pod| Key::of(&pod.metadata)).collect()
            }
            _ => Vec::new(),
        })
        .build(move |key: Key| {
            let (maker, pod) = (maker.clone(), pods.get(&key));
            async move {
                match pod {
                    Some(pod) if !pods::is_terminating(&pod) => maker.make_all(&key, &pod).await,
                    _ => Ok(Action::Done),
                }
            }
        })
}

fn has_ephemeral_volumes(pod: &Pod) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    !pods::is_terminating(pod) && volumes.into_iter().flatten().any(|v| v.ephemeral.is_some())
}

#[derive(Clone)]
struct Maker {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    metrics: StorageMetrics,
}

impl Maker {
    async fn make_all(&self, key: &Key, pod: &Pod) -> Result<Action, ReconcileError> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for volume in volumes.into_iter().flatten().filter(|v| v.ephemeral.is_some()) {
            if let Err(error) = self.make(key, pod, volume).await {
                let message = format!("ephemeral volume {}: {error}", volume.name);
                self.context.event(pod, EventType::Warning, "FailedBinding", message.as_str());
                return Err(ReconcileError::message(format!("pod {key}, {message}")));
            }
        }
        Ok(Action::Done)
    }

    /// Makes the claim of one volume, unless it is there. The error is for users to read.
    async fn make(&self, key: &Key, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let Some(wanted) = claim_of(pod, volume) else { return Ok(()) };
        let claim_key = Key::new(key.namespace.as_str(), wanted.name.as_str());
        if let Some(claim) = self.claims.get(&claim_key) {
            return check_made_for(pod, &claim).map_err(|error| error.to_string());
        }
        let source = volume.ephemeral.as_ref();
        let template = source.and_then(|source| source.volume_claim_template.clone());
        let template = template.unwrap_or_default();
        let described = template.metadata.unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(wanted.name.clone()),
                namespace: Some(key.namespace.clone()),
                owner_references: Some(vec![controller_reference(pod)]),
                annotations: described.annotations,
                labels: described.labels,
                ..ObjectMeta::default()
            },
            spec: Some(template.spec),
            status: None,
        };
        self.metrics.ephemeral_creates.inc();
        let claims = self.context.resources::<PersistentVolumeClaim>(&key.namespace);
        if let Err(error) = claims.create(&claim).await {
            self.metrics.ephemeral_failures.inc();
            return Err(format!("create PVC {}: {error}", wanted.name));
        }
        Ok(())
    }
}
