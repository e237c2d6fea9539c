//! PersistentVolumes and the claims on them: binding, provisioning, growing, reclaiming, protection.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/persistentvolume`.
//! Differs: a claim of a class that waits for its first consumer is also provisioned for the node
//! that a pod which uses it was assigned to, so that a scheduler which knows nothing of volumes
//! suffices. Recycling is not done.

mod attach_detach;
mod attacher;
mod attributes_class;
mod binding;
mod claims;
mod ephemeral;
mod expansion;
mod local_path;
mod matching;
mod metrics;
mod protection;
mod provisioner;
mod provisioning;
mod reclaiming;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use orch_core::{
    Key, claim,
    informer::{Change, Informer, Informers},
};

pub use attach_detach::{AttachDetachOptions, attach_detach};
pub use attacher::{AttachError, Attacher, volume_attacher};
pub use attributes_class::attributes_class_protection;
pub use ephemeral::ephemeral_volume;
pub use expansion::{Expansion, VolumeExpander, volume_expansion};
pub use local_path::{LocalPath, LocalPathOptions};
pub use metrics::StorageMetrics;
pub(crate) use protection::set_finalizer;
pub use protection::{claim_protection, volume_protection};
pub use provisioner::{ProvisionError, ProvisionRequest, Provisioner, ensure_storage_class};

use crate::{Action, Controller, Reconciler, context::Context, reconciler::Reconciled};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Keeps a volume until what was provisioned for it is deleted.
const DELETION_FINALIZER: &str = "kubernetes.io/pv-controller";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Volumes by the name of their class.
const BY_CLASS: &str = "storage-class";
/// Volumes by the claim that they are, or are to be, bound to.
const BY_CLAIM_REF: &str = "claim-ref";
/// Pods by the claims that they use.
const BY_CLAIM: &str = "claim";

/// The controller that binds claims to volumes, has volumes made for claims of a class, and
/// reclaims those whose claim is gone. Classes of other provisioners are left to those.
pub fn volume_binder(informers: &Informers, provisioners: Vec<Arc<dyn Provisioner>>) -> Controller {
    let name = "persistentvolume-binder-controller";
    let context = Context::reporting(informers, name, "persistentvolume-controller");
    let binder = Binder {
        claims: context.informer(),
        volumes: context.informer(),
        classes: context.informer(),
        pods: context.informer(),
        nodes: context.informer(),
        provisioners,
        context,
    };
    binder.index();
    let (claims, of_class) = (binder.claims.clone(), binder.claims.clone());
    binder
        .context
        .builder()
        .reads::<Node>()
        .watches_own::<PersistentVolumeClaim>()
        .watches::<PersistentVolumeClaim>(|change| {
            let claim = change.object();
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            volume.filter(|name| !name.is_empty()).map(Key::cluster).into_iter().collect()
        })
        .watches_own::<PersistentVolume>()
        .watches::<PersistentVolume>(move |change| concerned_claims(&claims, change))
        .watches::<StorageClass>(move |_| pending(&of_class, |_| true))
        .watches::<Pod>(|change| match change {
            // There is a consumer, or it was assigned to a node.
            Change::Added(pod) => claims_of(pod),
            Change::Updated { old, new } if node_of(old).is_none() && node_of(new).is_some() => {
                claims_of(new)
            }
            _ => Vec::new(),
        })
        .build(binder)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The keys of the claims that a pod uses, ephemeral ones included.
pub(crate) fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    claim::claims_of(pod).map(|claim| Key::new(namespace.clone(), claim.name)).collect()
}

fn pending(
    claims: &Informer<PersistentVolumeClaim>,
    which: impl Fn(&PersistentVolumeClaim) -> bool,
) -> Vec<Key> {
    let waits = |claim: &Arc<PersistentVolumeClaim>| !is_bound(claim) && which(claim);
    claims.list().into_iter().filter(waits).map(|claim| Key::of(&claim.metadata)).collect()
}

/// The claim that a volume names, or those that a free volume may suit.
fn concerned_claims(
    claims: &Informer<PersistentVolumeClaim>,
    change: &Change<PersistentVolume>,
) -> Vec<Key> {
    let volume = change.object();
    if let Some(key) = claim_key(volume) {
        return vec![key];
    }
    if let Change::Deleted(_) = change {
        return Vec::new();
    }
    let class = matching::class_of_volume(volume).to_owned();
    let name = volume.metadata.name.clone();
    pending(claims, |claim| {
        let asks = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        matching::class_of_claim(claim).unwrap_or_default() == class || asks == name
    })
}

/// The claim that a volume is, or is to be, bound to.
fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(claim.namespace.clone()?, claim.name.clone()?))
}

fn annotation<'a>(
    meta: &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    name: &str,
) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

struct Binder {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    provisioners: Vec<Arc<dyn Provisioner>>,
}

pub(super) fn index_by_claim(pods: &Informer<Pod>) {
    pods.add_index(BY_CLAIM, |pod| claims_of(pod).iter().map(ToString::to_string).collect());
}

impl Binder {
    fn index(&self) {
        index_by_claim(&self.pods);
        self.volumes
            .add_index(BY_CLASS, |volume| vec![matching::class_of_volume(volume).to_owned()]);
        self.volumes.add_index(BY_CLAIM_REF, |volume| {
            claim_key(volume).map(|key| key.to_string()).into_iter().collect()
        });
    }

    fn provisioner(&self, name: &str) -> Option<&Arc<dyn Provisioner>> {
        self.provisioners.iter().find(|provisioner| provisioner.name() == name)
    }
}

#[async_trait]
impl Reconciler for Binder {
    /// A key with a namespace is a claim's, one without is a volume's.
    async fn reconcile(&self, key: Key) -> Reconciled {
        if key.namespace.is_empty() {
            if let Some(volume) = self.volumes.get(&key) {
                self.sync_volume(&volume).await?;
            }
        } else if let Some(claim) = self.claims.get(&key) {
            Box::pin(self.sync_claim(&key, &claim)).await?;
        }
        Ok(Action::Done)
    }
}
