//! On which nodes pods need a volume.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/volume/attachdetach/{cache,populator,util}`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use orch_core::{Key, claim};

use super::{AttachDetach, annotation};
use crate::{
    pods,
    volumes::{BY_CLAIM, claim_key, node_of},
};

/// Nodes that leave attaching to this controller have this annotation.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const KEEPS_TERMINATED: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";

/// The pods that need a volume, by their nodes.
pub(super) type Wanted = BTreeMap<String, Vec<Arc<Pod>>>;

pub(super) fn is_managed(node: &Node) -> bool {
    annotation(&node.metadata, MANAGED).is_some()
}

impl AttachDetach {
    /// `is_attached` tells whether there is an attachment to a node: on one that is gone, what its
    /// pods need stays attached until they are gone too.
    pub(super) fn wanted(
        &self,
        volume: &PersistentVolume,
        is_attached: impl Fn(&str) -> bool,
    ) -> Wanted {
        let mut wanted = Wanted::new();
        let Some(key) = self.claim_of(volume) else { return wanted };
        for pod in self.pods.by_index(BY_CLAIM, &key.to_string()) {
            let Some(name) = node_of(&pod) else { continue };
            let node = self.nodes.get(&Key::cluster(name));
            let is_managed = match &node {
                Some(node) => is_managed(node),
                None => is_attached(name),
            };
            let keeps =
                node.as_deref().and_then(|node| annotation(&node.metadata, KEEPS_TERMINATED));
            let is_used = !pods::is_over(&pod) || keeps == Some("true");
            if is_managed && is_used && self.may_use(&pod, &key) {
                wanted.entry(name.to_owned()).or_default().push(pod.clone());
            }
        }
        wanted
    }

    /// The claim that is bound to the volume, as both of them say.
    fn claim_of(&self, volume: &PersistentVolume) -> Option<Key> {
        let key = claim_key(volume)?;
        let claim = self.claims.get(&key)?;
        let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
        let named = claim.spec.as_ref()?.volume_name.as_ref();
        let is_bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
        let is_same = reference.uid == claim.metadata.uid && named == volume.metadata.name.as_ref();
        (is_bound && is_same).then_some(key)
    }

    fn may_use(&self, pod: &Pod, key: &Key) -> bool {
        claim::claims_of(pod).filter(|used| used.name == key.name).any(|used| {
            let claim = self.claims.get(key);
            !used.is_ephemeral
                || claim.is_some_and(|claim| claim::check_made_for(pod, &claim).is_ok())
        })
    }
}
