//! The tasks that follow each kind of objects, by their metadata alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orch_core::{Key, Object, ResourceType};
use tokio::task::JoinHandle;

use super::Shared;
use crate::{
    follower::{Follow, Follower, Known, Synced},
    resource_types::ResourceTypes,
};

/// How long the work rests at most until new kinds are known.
///
/// Source: the garbage collector's `Sync`, which waits as long as its period.
const SYNC_MAX: Duration = Duration::from_secs(30);

/// Tells the graph of the objects of one kind.
struct Monitor {
    shared: Arc<Shared>,
    resource: Arc<ResourceType>,
}

impl Follow for Monitor {
    fn seen(&mut self, _object: &Object, meta: &ObjectMeta) {
        self.shared.change(|graph| graph.seen(&self.resource, meta));
    }

    fn gone(&mut self, _key: &Key, uid: &str) {
        self.shared.change(|graph| graph.gone(uid));
    }
}

struct Running {
    task: JoinHandle<()>,
    synced: Synced,
    known: Known,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// In an order of their own: what happens must not depend on that of a hash map.
pub(super) struct Monitors {
    shared: Arc<Shared>,
    running: BTreeMap<ResourceType, Running>,
    /// The kinds that are followed, as they were told.
    types: Vec<ResourceType>,
}

impl Monitors {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, running: BTreeMap::new(), types: Vec::new() }
    }

    /// Starts to follow all kinds, and waits until their objects are known: an owner that is only
    /// not known yet must not be taken for one that is gone.
    pub(super) async fn first(&mut self, types: &dyn ResourceTypes) {
        while self.refresh(types).await.is_none() {
            self.shared.context.environment().clock.sleep(Duration::from_secs(1)).await;
        }
        self.synced().await;
        self.shared.settled.set(true);
    }

    /// Follows what is new, and stops following what is gone. While the objects of new kinds are
    /// not known, nobody works: an owner must not go before dependents that are only not seen yet.
    pub(super) async fn again(&mut self, types: &dyn ResourceTypes) {
        if self.refresh(types).await != Some(true) {
            return;
        }
        self.shared.settled.set(false);
        let clock = self.shared.context.environment().clock.clone();
        // What cannot be read for so long is left behind; what it owns is asked for by name.
        let late = clock.sleep(SYNC_MAX);
        futures::future::select(Box::pin(self.synced()), late).await;
        self.shared.settled.set(true);
    }

    async fn synced(&self) {
        for monitor in self.running.values() {
            monitor.synced.wait_for(|synced| synced).await;
        }
    }

    /// Gives whether there are new kinds; `None` if the kinds are not known.
    async fn refresh(&mut self, types: &dyn ResourceTypes) -> Option<bool> {
        let types = match types.resource_types().await {
            Ok(types) => types,
            Err(error) => {
                tracing::debug!(%error, "the kinds are not known");
                return None;
            }
        };
        let types: Vec<ResourceType> =
            types.into_iter().filter(|resource| resource.plural != "events").collect();
        if types == self.types {
            return Some(false);
        }
        self.types.clone_from(&types);
        self.shared.change(|graph| graph.set_types(&types));
        let mut ended = BTreeMap::new();
        let is_served = |resource: &ResourceType, monitor: &mut Running| {
            let served = types.contains(resource);
            if !served {
                let kind = (resource.group.clone(), resource.kind.clone());
                ended.insert(kind, monitor.known.clone());
            }
            served
        };
        self.running.retain(is_served);
        let mut any_new = false;
        for resource in types {
            if self.running.contains_key(&resource) {
                continue;
            }
            let known = ended.remove(&(resource.group.clone(), resource.kind.clone()));
            let monitor = self.start(&resource, known.unwrap_or_default());
            self.running.insert(resource, monitor);
            any_new = true;
        }
        Some(any_new)
    }

    fn start(&self, resource: &ResourceType, known: Known) -> Running {
        let synced = Synced::new(orch_core::awaited::Awaited::new(false));
        let context = &self.shared.context;
        let follower = Follower {
            client: context.client().clone(),
            environment: context.environment().clone(),
            resource: resource.clone(),
            synced: synced.clone(),
            known: known.clone(),
            follow: Monitor { shared: self.shared.clone(), resource: Arc::new(resource.clone()) },
        };
        Running { task: tokio::spawn(follower.run()), synced, known }
    }
}
