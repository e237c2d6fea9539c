//! From a change of a pod to the owners that it concerns.

use std::sync::Arc;

use k8s_openapi::{
    Resource,
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use orch_core::{
    Key,
    informer::{Change, Informer, Watchable},
};

use crate::{
    expectations::Expectations,
    ownership::controller_of,
    pods::{Labels, is_terminating},
};

/// Whether the owner that was there before is no more: nothing is expected for it.
pub(crate) fn is_over<K: Watchable>(change: &Change<K>) -> bool {
    match change {
        Change::Deleted(_) => true,
        Change::Updated { old, new } => old.metadata().uid != new.metadata().uid,
        Change::Added(_) => false,
    }
}

/// Maps changes of pods to keys of a kind that creates them, and tells its expectations.
pub(crate) struct PodSource<K> {
    pub(crate) owners: Informer<K>,
    pub(crate) expectations: Arc<Expectations>,
    pub(crate) selects: fn(&K, Option<&Labels>) -> bool,
}

impl<K: Watchable> PodSource<K> {
    /// The owners that a change concerns.
    pub(crate) fn keys(&self, change: &Change<Pod>) -> Vec<Key> {
        match change {
            Change::Added(pod) if is_terminating(pod) => self.gone(pod),
            Change::Added(pod) => match self.owner(&pod.metadata) {
                Some(owner) => {
                    if self.is_of(&pod.metadata, &owner) {
                        self.expectations.creation_observed(&owner);
                    }
                    vec![owner]
                }
                None => self.candidates(pod),
            },
            Change::Updated { old, new } => self.updated(old, new),
            Change::Deleted(pod) => self.gone(pod),
        }
    }

    fn updated(&self, old: &Pod, new: &Pod) -> Vec<Key> {
        let (before, after) = (self.owner(&old.metadata), self.owner(&new.metadata));
        let moved = controller_of(&old.metadata) != controller_of(&new.metadata);
        let mut keys: Vec<Key> = before.into_iter().filter(|_| moved).collect();
        if is_terminating(new) && !is_terminating(old) {
            keys.extend(self.gone(new));
        } else if let Some(owner) = after {
            keys.push(owner);
        } else if controller_of(&new.metadata).is_none()
            && (moved || old.metadata.labels != new.metadata.labels)
        {
            keys.extend(self.candidates(new));
        }
        keys
    }

    fn gone(&self, pod: &Pod) -> Vec<Key> {
        let owner = self.owner(&pod.metadata);
        if let (Some(owner), Some(uid)) = (&owner, &pod.metadata.uid)
            && self.is_of(&pod.metadata, owner)
        {
            self.expectations.deletion_observed(owner, uid);
        }
        owner.into_iter().collect()
    }

    fn owner(&self, meta: &ObjectMeta) -> Option<Key> {
        let reference: &OwnerReference = controller_of(meta)?;
        let ours =
            reference.kind == K::KIND && reference.api_version == <K as Resource>::API_VERSION;
        ours.then(|| Key::new(meta.namespace.clone().unwrap_or_default(), reference.name.clone()))
    }

    /// Whether the pod is of the owner that is there now: what an earlier one of that name made is
    /// not what this one waits for.
    fn is_of(&self, pod: &ObjectMeta, owner: &Key) -> bool {
        let known = self.owners.get(owner);
        let uid = known.as_ref().and_then(|owner| owner.metadata().uid.as_deref());
        controller_of(pod).is_some_and(|controller| Some(controller.uid.as_str()) == uid)
    }

    /// Those that may adopt a pod without controller.
    fn candidates(&self, pod: &Pod) -> Vec<Key> {
        if controller_of(&pod.metadata).is_some() {
            return Vec::new();
        }
        let owners = self.owners.list_in(pod.metadata.namespace.as_deref().unwrap_or_default());
        let labels = pod.metadata.labels.as_ref();
        owners
            .iter()
            .filter(|owner| (self.selects)(owner, labels))
            .map(|owner| Key::of(owner.metadata()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use orch_core::{Client, Environment, Resources, informer::Informers, testing::MemoryClient};
    use serde_json::json;

    use super::*;

    fn set(uid: &str) -> Arc<ReplicaSet> {
        let set = json!({"metadata": {"name": "web", "namespace": "default", "uid": uid},
            "spec": {"selector": {"matchLabels": {"app": "web"}}}});
        Arc::new(serde_json::from_value(set).unwrap())
    }

    fn pod(owner_uid: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "web-x", "namespace": "default", "uid": "pod",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": owner_uid, "controller": true}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn an_owner_is_over_when_it_is_gone_or_another_has_its_name() {
        let updated = |old, new| Change::Updated { old: set(old), new: set(new) };
        assert!(is_over(&Change::Deleted(set("a"))));
        assert!(is_over(&updated("a", "b")));
        assert!(!is_over(&updated("a", "a")));
        assert!(!is_over(&Change::Added(set("a"))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_owner_of_the_name_made_is_not_what_this_one_waits_for() {
        let client: Arc<dyn Client> = Arc::new(MemoryClient::new(Environment::system()));
        let sets = Resources::<ReplicaSet>::namespaced(client.clone(), "default");
        let mut new = (*set("a")).clone();
        new.metadata.uid = None;
        let own = sets.create(&new).await.unwrap().metadata.uid.clone().unwrap();
        let owners = Informers::new(client, Environment::system()).of::<ReplicaSet>();
        owners.synced().await;
        let (expectations, key) = (Arc::new(Expectations::default()), Key::new("default", "web"));
        let source = PodSource {
            owners,
            expectations: expectations.clone(),
            selects: |_: &ReplicaSet, _| false,
        };
        expectations.expect_creations(&key, 1);
        // The owner is looked at either way, as whoever has its name may have to adopt.
        assert_eq!(source.keys(&Change::Added(pod("another"))), [key.clone()]);
        assert!(!expectations.satisfied(&key));
        assert_eq!(source.keys(&Change::Added(pod(&own))), [key.clone()]);
        assert!(expectations.satisfied(&key));

        expectations.expect_deletions(&key, ["pod".to_owned()]);
        source.keys(&Change::Deleted(pod("another")));
        assert!(!expectations.satisfied(&key));
        source.keys(&Change::Deleted(pod(&own)));
        assert!(expectations.satisfied(&key));
    }
}
