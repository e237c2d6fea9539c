//! What a controller has written and its copy of the cluster does not show yet.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::{
    Key,
    informer::{Informer, Watchable},
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// After so long a controller acts even if it has not seen what it created: a watch may have
/// skipped an object that lived shortly.
const EXPIRY: Duration = Duration::from_secs(300);

/// After so long a controller acts by a copy of an owner that the cluster has otherwise: it may be
/// the server that was in two minds.
const OUTDATED: Duration = Duration::from_secs(1);

/// Keeps a controller from deciding by dependents as they were before its own last write. Unlike
/// [`Expectations`](crate::expectations::Expectations), which count objects that come and go, this
/// is about objects that change.
///
/// Source: `k8s.io/kubernetes/pkg/controller/util/consistency`, which waits in the same way.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites {
    by_owner: Mutex<HashMap<Key, Own>>,
}

/// What was written for one owner. Another one of the same name has nothing to do with it.
#[derive(Debug, Default)]
struct Own {
    uid: Option<String>,
    dependents: BTreeMap<Key, Written>,
    /// The version of the owner that the cluster has no more, and since when that is known.
    outdated: Option<(Option<String>, Instant)>,
}

#[derive(Debug)]
struct Written {
    version: u64,
    created: bool,
    since: Instant,
}

fn version<K: Watchable>(object: &K) -> Option<u64> {
    object.metadata().resource_version.as_ref()?.parse().ok()
}

impl OwnWrites {
    /// An owner's dependent was created like this.
    pub(crate) fn created<K: Watchable>(&self, owner: &ObjectMeta, object: &K) {
        self.wrote(owner, object, true);
    }

    /// An owner's dependent that was known was changed to this.
    pub(crate) fn changed<K: Watchable>(&self, owner: &ObjectMeta, object: &K) {
        self.wrote(owner, object, false);
    }

    /// The cluster has the owner otherwise than this, or not at all: nothing is done by this copy
    /// for a moment. What is created for an owner that is gone, garbage collection deletes, and it
    /// would be created again, in a circle.
    pub(crate) fn outdated(&self, owner: &ObjectMeta) {
        let outdated = (owner.resource_version.clone(), Instant::now());
        Self::own(&mut self.by_owner.lock(), owner).outdated = Some(outdated);
    }

    /// What was written for the owner, nothing if another one had its name before.
    fn own<'a>(all: &'a mut HashMap<Key, Own>, owner: &ObjectMeta) -> &'a mut Own {
        let own = all.entry(Key::of(owner)).or_default();
        if own.uid != owner.uid {
            *own = Own { uid: owner.uid.clone(), ..Own::default() };
        }
        own
    }

    fn wrote<K: Watchable>(&self, owner: &ObjectMeta, object: &K, created: bool) {
        // Versions that are no numbers cannot be compared: nothing is waited for.
        let Some(version) = version(object) else { return };
        let mut all = self.by_owner.lock();
        let own = Self::own(&mut all, owner);
        let key = Key::of(object.metadata());
        let created = created || own.dependents.get(&key).is_some_and(|before| before.created);
        own.dependents.insert(key, Written { version, created, since: Instant::now() });
    }

    /// How long to wait at most until the copy shows what was written for an owner; nothing if it
    /// does. The change that brings it wakes whoever follows the dependents before that.
    pub(crate) fn unseen<K: Watchable>(
        &self,
        owner: &ObjectMeta,
        informer: &Informer<K>,
    ) -> Option<Duration> {
        let mut all = self.by_owner.lock();
        let owner_key = Key::of(owner);
        let own = all.get_mut(&owner_key)?;
        own.dependents.retain(|key, written| match informer.get(key) {
            _ if own.uid != owner.uid => false,
            Some(seen) => version(&*seen).is_some_and(|seen| seen < written.version),
            // One that was known and is gone was deleted since.
            None => written.created && written.since.elapsed() < EXPIRY,
        });
        let is_left = |(version, since): &(Option<String>, Instant)| {
            *version == owner.resource_version && since.elapsed() < OUTDATED
        };
        own.outdated =
            own.outdated.take().filter(|outdated| own.uid == owner.uid && is_left(outdated));
        if let Some((_, since)) = &own.outdated {
            return Some(OUTDATED.saturating_sub(since.elapsed()));
        }
        let oldest = own.dependents.values().map(|written| written.since).min();
        if oldest.is_none() {
            all.remove(&owner_key);
        }
        oldest.map(|since| EXPIRY.saturating_sub(since.elapsed()).max(Duration::from_secs(1)))
    }

    /// An owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.by_owner.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use orch_core::{Environment, informer::Informers, testing::MemoryClient};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn by_a_copy_that_is_outdated_nothing_is_done_for_a_moment() {
        let client = std::sync::Arc::new(MemoryClient::new(Environment::system()));
        let sets = Informers::new(client, Environment::system()).of::<ReplicaSet>();
        let text = |text: &str| Some(text.to_owned());
        let owner = ObjectMeta {
            name: text("web"),
            uid: text("a"),
            resource_version: text("7"),
            ..ObjectMeta::default()
        };
        let own = OwnWrites::default();
        assert_eq!(own.unseen(&owner, &sets), None);
        own.outdated(&owner);
        assert_eq!(own.unseen(&owner, &sets), Some(OUTDATED));
        let newer = ObjectMeta { resource_version: Some("8".into()), ..owner.clone() };
        assert_eq!(own.unseen(&newer, &sets), None);

        own.outdated(&owner);
        let another = ObjectMeta { uid: Some("b".into()), ..owner.clone() };
        assert_eq!(own.unseen(&another, &sets), None);

        own.outdated(&owner);
        tokio::time::advance(OUTDATED).await;
        assert_eq!(own.unseen(&owner, &sets), None);
    }
}
