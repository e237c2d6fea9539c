//! The versions of a set's template, kept as ControllerRevisions, to roll back to.
//!
//! Source: `constructHistory` and `cleanupHistory` of
//! `k8s.io/kubernetes/pkg/controller/daemon/update.go`.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{ClientError, Key, client::DeleteOptions};

use super::{HASH_LABEL, SetReconciler};
use crate::{
    deployment::template_hash,
    history::{self, name},
    ownership::{self, BY_CONTROLLER},
};

const HISTORY_DEFAULT: i32 = 10;

fn hash_of(revision: &ControllerRevision) -> Option<&String> {
    revision.metadata.labels.as_ref()?.get(HASH_LABEL)
}

impl SetReconciler {
    /// Keeps the set's template as its newest revision. Gives the hash that its pods bear.
    pub(super) async fn sync_revisions(
        &self,
        key: &Key,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        owned: &[Arc<Pod>],
    ) -> Result<String, ClientError> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut known = self.revisions.by_index(BY_CONTROLLER, uid);
        known.sort_by_key(|revision| revision.revision);
        let current = self.current(key, set, spec, &known).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let hash = hash_of(&current).cloned();
        let hash = hash.unwrap_or_else(|| template_hash(&spec.template, collisions));
        let old = known.iter().filter(|revision| name(revision) != name(&current));
        let old: Vec<&Arc<ControllerRevision>> = old.collect();
        self.forget_old(key, spec, &old, owned).await?;
        Ok(hash)
    }

    async fn current(
        &self,
        key: &Key,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        known: &[Arc<ControllerRevision>],
    ) -> Result<Arc<ControllerRevision>, ClientError> {
        let resources = self.context.resources::<ControllerRevision>(&key.namespace);
        let newest = known.last().map_or(0, |last| last.revision);
        if let Some(same) = history::newest_of(known, &spec.template) {
            if same.revision == newest {
                return Ok(same.clone());
            }
            // Rolled back: the old version is the newest again.
            let updated = ControllerRevision { revision: newest + 1, ..same.as_ref().clone() };
            return resources.update(&updated).await;
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&spec.template, collisions);
        let template = spec.template.metadata.as_ref();
        let mut labels = template.and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", key.name)),
                namespace: Some(key.namespace.clone()),
                labels: Some(labels),
                annotations: set.metadata.annotations.clone(),
                owner_references: Some(vec![ownership::controller_reference(set)]),
                ..ObjectMeta::default()
            },
            data: Some(history::data(&spec.template)),
            revision: newest + 1,
        };
        match resources.create(&revision).await {
            Err(error) if error.is_already_exists() => {
                let known = resources.get(name(&revision)).await?;
                // Made before; the local copy does not show it yet.
                if history::is_same(&known, &revision) {
                    return Ok(known);
                }
                self.count_collision(key, set).await?;
                Err(error)
            }
            result => result,
        }
    }

    /// The hash is taken by another template: the next try makes another one, of one more.
    async fn count_collision(&self, key: &Key, set: &DaemonSet) -> Result<(), ClientError> {
        let status = set.status.clone().unwrap_or_default();
        let count = Some(history::collisions(status.collision_count).saturating_add(1));
        let status = DaemonSetStatus { collision_count: count, ..status };
        let updated = DaemonSet { status: Some(status), ..set.clone() };
        // By the version that was looked at: what counts is how often this one was tried.
        self.context.resources::<DaemonSet>(&key.namespace).update_status(&updated).await.map(drop)
    }

    /// Deletes the oldest revisions that no pod has, beyond the history's limit.
    async fn forget_old(
        &self,
        key: &Key,
        spec: &DaemonSetSpec,
        old: &[&Arc<ControllerRevision>],
        owned: &[Arc<Pod>],
    ) -> Result<(), ClientError> {
        let limit = spec.revision_history_limit.unwrap_or(HISTORY_DEFAULT);
        let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let labels = owned.iter().filter_map(|pod| pod.metadata.labels.as_ref());
        let used: HashSet<&String> = labels.filter_map(|labels| labels.get(HASH_LABEL)).collect();
        let unused =
            old.iter().filter(|revision| hash_of(revision).is_none_or(|h| !used.contains(h)));
        let resources = self.context.resources::<ControllerRevision>(&key.namespace);
        for revision in unused.take(excess) {
            match resources.delete(name(revision), DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
