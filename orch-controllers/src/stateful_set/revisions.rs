//! The versions of a set's template, kept as ControllerRevisions.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/history`.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{ClientError, Key, client::DeleteOptions};

use super::{SetReconciler, identity};
use crate::{
    deployment::template_hash,
    history::{self, name},
    ownership::{self, BY_CONTROLLER},
};

/// The revisions that pods of a set have.
pub(super) struct Revisions {
    /// The one that new pods are to have.
    pub(super) update: ControllerRevision,
    /// The one before it.
    pub(super) current: ControllerRevision,
    /// How many hashes were somebody else's, over the set's whole life.
    pub(super) collisions: i32,
}

fn describe(
    key: &Key,
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: i64,
    collisions: i32,
) -> ControllerRevision {
    let hash = template_hash(template, (collisions > 0).then_some(collisions));
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert("controller.kubernetes.io/hash".to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", key.name)),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![ownership::controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(history::data(template)),
        revision,
    }
}

impl SetReconciler {
    /// The revision of the set's template and the one that it had before, if pods may have it.
    pub(super) async fn sync_revisions(
        &self,
        key: &Key,
        set: &StatefulSet,
    ) -> Result<Revisions, ClientError> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut known = self.revisions.by_index(BY_CONTROLLER, uid);
        known.sort_by_key(|revision| revision.revision);
        let (update, collisions) = self.update_revision(key, set, &known).await?;
        let status = set.status.as_ref();
        let current = status.and_then(|status| status.current_revision.as_deref());
        let current = current.and_then(|current| known.iter().find(|r| name(r) == current));
        let current = current.map_or_else(|| update.clone(), |current| current.as_ref().clone());
        self.forget_old(key, set, &known, [name(&update), name(&current)]).await?;
        Ok(Revisions { update, current, collisions })
    }

    async fn update_revision(
        &self,
        key: &Key,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
    ) -> Result<(ControllerRevision, i32), ClientError> {
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let next = known.last().map_or(0, |last| last.revision) + 1;
        let resources = self.context.resources::<ControllerRevision>(&key.namespace);
        if let Some(same) = history::newest_of(known, &template) {
            let count = set.status.as_ref().and_then(|status| status.collision_count);
            let collisions = history::collisions(count);
            if same.revision + 1 == next {
                return Ok((same.as_ref().clone(), collisions));
            }
            // Rolled back: the old version is the newest again.
            let updated = ControllerRevision { revision: next, ..same.as_ref().clone() };
            return Ok((resources.update(&updated).await?.as_ref().clone(), collisions));
        }
        let mut collisions =
            history::collisions(set.status.as_ref().and_then(|s| s.collision_count));
        loop {
            let wanted = describe(key, set, &template, next, collisions);
            match resources.create(&wanted).await {
                Ok(created) => return Ok((created.as_ref().clone(), collisions)),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
            // Made before, and the local copy does not show it yet; or another of the same hash.
            let known = resources.get(name(&wanted)).await?;
            if history::is_same(&known, &wanted) {
                return Ok((known.as_ref().clone(), collisions));
            }
            collisions = collisions.saturating_add(1);
        }
    }

    /// Deletes the oldest revisions that no pod has, beyond the history's limit.
    async fn forget_old(
        &self,
        key: &Key,
        set: &StatefulSet,
        known: &[Arc<ControllerRevision>],
        keep: [&str; 2],
    ) -> Result<(), ClientError> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let pods: Vec<Arc<Pod>> = self.pods.by_index(BY_CONTROLLER, uid);
        let used: HashSet<&str> = pods.iter().map(|pod| identity::revision(pod)).collect();
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let unused: Vec<_> = known
            .iter()
            .filter(|revision| !keep.contains(&name(revision)) && !used.contains(name(revision)))
            .collect();
        let excess = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let resources = self.context.resources::<ControllerRevision>(&key.namespace);
        for revision in unused.into_iter().take(excess) {
            match resources.delete(name(revision), DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
