//! The replica sets of a deployment: which is the current one, what they carry, and changing their
//! size.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/deployment/{sync.go,util/deployment_util.go}`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{ClientError, informer::Watchable};

use super::{REVISION, Rollout, hash::template_hash, status, strategy};
use crate::{context::EventType, ownership, pods};

const HASH_LABEL: &str = "pod-template-hash";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a deployment that are about itself.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The longest revision history that is kept, in bytes.
const HISTORY_BYTES_MAX: usize = 2000;

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn total_size(sets: &[ReplicaSet]) -> i32 {
    sets.iter().map(size).sum()
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn number(meta: &ObjectMeta, name: &str) -> Option<i32> {
    annotation(meta, name)?.parse().ok()
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    number(&set.metadata, DESIRED)
}

pub(super) fn max(set: &ReplicaSet) -> Option<i32> {
    number(&set.metadata, MAX)
}

/// The replica sets, the current one apart.
pub(super) struct Sets {
    pub(super) new: Option<ReplicaSet>,
    pub(super) old: Vec<ReplicaSet>,
}

impl Sets {
    pub(super) fn all(&self) -> Vec<ReplicaSet> {
        self.old.iter().chain(&self.new).cloned().collect()
    }
}

fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        template
    };
    without_hash(a) == without_hash(b)
}

fn is_current(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    let actual = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    wanted.zip(actual).is_some_and(|(wanted, actual)| same_template(wanted, actual))
}

pub(super) fn oldest_first(sets: &mut [ReplicaSet]) {
    sets.sort_by(|a, b| {
        let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|t| t.0);
        created(a).cmp(&created(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
}

impl Rollout<'_> {
    /// Tells the current replica set from the others. Of several with the same template the
    /// oldest counts.
    pub(super) fn split(&mut self) -> Sets {
        let mut sets = std::mem::take(&mut self.sets);
        oldest_first(&mut sets);
        let position = sets.iter().position(|set| is_current(&self.deployment, set));
        let new = position.map(|at| sets.remove(at));
        Sets { new, old: sets }
    }

    /// The replica sets, the current one brought up to date if it exists.
    pub(super) async fn find(&mut self) -> Result<Sets, ClientError> {
        let mut sets = self.split();
        if let Some(set) = sets.new.take() {
            sets.new = Some(self.refresh(set, &sets.old).await?);
        }
        Ok(sets)
    }

    /// The replica sets, the current one created if there is none.
    pub(super) async fn find_or_create(&mut self) -> Result<Sets, ClientError> {
        let mut sets = self.find().await?;
        if sets.new.is_none() {
            sets.new = self.create(&sets.old).await?;
        }
        Ok(sets)
    }

    /// Lets an existing set follow the deployment: its annotations, its place in history, and its
    /// `minReadySeconds`.
    async fn refresh(
        &mut self,
        set: ReplicaSet,
        old: &[ReplicaSet],
    ) -> Result<ReplicaSet, ClientError> {
        let next = old.iter().map(revision).max().unwrap_or(0) + 1;
        let mut wanted = set.clone();
        self.annotate(&mut wanted, next, false);
        let min_ready_s = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        if let Some(spec) = &mut wanted.spec
            && spec.min_ready_seconds.unwrap_or(0) != min_ready_s.unwrap_or(0)
        {
            spec.min_ready_seconds = min_ready_s;
        }
        if wanted != set {
            wanted = self.update_set(&wanted).await?;
        }
        self.write_revision(&revision(&wanted).to_string()).await?;
        if status::has_deadline(&self.deployment)
            && status::progressing(self.status_mut()).is_none()
        {
            let name = wanted.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Found new replica set \"{name}\"");
            self.progress("True", "FoundNewReplicaSet", message);
        }
        Ok(wanted)
    }

    async fn create(&mut self, old: &[ReplicaSet]) -> Result<Option<ReplicaSet>, ClientError> {
        let mut set = self.describe(old);
        let next = old.iter().map(revision).max().unwrap_or(0) + 1;
        self.annotate(&mut set, next, true);
        let resources = self.context.resources::<ReplicaSet>(&self.key().namespace);
        let name = set.metadata.name.clone().unwrap_or_default();
        let created = match resources.create(&set).await {
            Ok(created) => {
                self.own.created(&self.deployment.metadata, &*created);
                let size = size(&created);
                if size > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {size}");
                    self.event(EventType::Normal, "ScalingReplicaSet", message);
                }
                created.as_ref().clone()
            }
            Err(error) if error.is_already_exists() => self.take_existing(&name, error).await?,
            Err(error) if pods::is_namespace_terminating(&error) => return Ok(None),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {error}");
                self.event(EventType::Warning, "ReplicaSetCreateError", message.clone());
                if status::has_deadline(&self.deployment) {
                    self.progress("False", "ReplicaSetCreateError", message);
                }
                self.write_status().await?;
                return Err(error);
            }
        };
        self.write_revision(&revision(&created).to_string()).await?;
        if status::has_deadline(&self.deployment) {
            let message = format!("Created new replica set \"{name}\"");
            self.progress("True", "NewReplicaSetCreated", message);
        }
        Ok(Some(created))
    }

    /// The name is taken: by this deployment's own set, which the local copy did not show yet, or
    /// by another. Then the next attempt has another name.
    async fn take_existing(
        &mut self,
        name: &str,
        error: ClientError,
    ) -> Result<ReplicaSet, ClientError> {
        let resources = self.context.resources::<ReplicaSet>(&self.key().namespace);
        let existing = resources.get(name).await?;
        let uid = self.deployment.metadata.uid.as_deref().unwrap_or_default();
        if ownership::is_controlled_by(&existing.metadata, uid)
            && is_current(&self.deployment, &existing)
        {
            return Ok(existing.as_ref().clone());
        }
        let status = self.status_mut();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_status().await?;
        Err(error)
    }

    fn describe(&self, old: &[ReplicaSet]) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let status = self.deployment.status.as_ref();
        let hash = template_hash(&spec.template, status.and_then(|s| s.collision_count));
        let with_hash = |labels: Option<BTreeMap<String, String>>| {
            let mut labels = labels.unwrap_or_default();
            labels.insert(HASH_LABEL.to_owned(), hash.clone());
            Some(labels)
        };
        let mut template = spec.template;
        let meta = template.metadata.get_or_insert_default();
        meta.labels = with_hash(meta.labels.take());
        let labels = meta.labels.clone();
        let mut selector = spec.selector;
        selector.match_labels = with_hash(selector.match_labels.take());
        let deployment = &self.deployment;
        let key = self.key();
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", key.name)),
                namespace: Some(key.namespace),
                labels,
                owner_references: Some(vec![ownership::controller_reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: Some(new_size(deployment, 0, total_size(old))),
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    fn annotate(&self, set: &mut ReplicaSet, next: i64, created: bool) {
        let annotations = set.metadata.annotations.get_or_insert_default();
        for (name, value) in self.deployment.metadata.annotations.iter().flatten() {
            if !NOT_COPIED.contains(&name.as_str()) {
                annotations.insert(name.clone(), value.clone());
            }
        }
        let known = annotations.get(REVISION).cloned();
        if known.as_ref().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0) < next {
            annotations.insert(REVISION.to_owned(), next.to_string());
            if let Some(known) = known {
                let history = annotations.get(REVISION_HISTORY).map_or("", String::as_str);
                let history = extend_history(history, &known);
                annotations.insert(REVISION_HISTORY.to_owned(), history);
            }
        }
        if created {
            self.annotate_size(set);
        }
    }

    /// Notes on a set for which size of the deployment its own size was chosen.
    fn annotate_size(&self, set: &mut ReplicaSet) -> bool {
        let desired = strategy::replicas(&self.deployment);
        let max = desired.saturating_add(strategy::max_surge(&self.deployment));
        let annotations = set.metadata.annotations.get_or_insert_default();
        let mut changed = false;
        for (name, value) in [(DESIRED, desired), (MAX, max)] {
            let value = value.to_string();
            if annotations.get(name) != Some(&value) {
                annotations.insert(name.to_owned(), value);
                changed = true;
            }
        }
        changed
    }

    /// Changes a set's size. Gives whether that was a change of size.
    pub(super) async fn scale(
        &self,
        set: &mut ReplicaSet,
        wanted: i32,
    ) -> Result<bool, ClientError> {
        let before = size(set);
        let mut changed = set.clone();
        if !self.annotate_size(&mut changed) && before == wanted {
            return Ok(false);
        }
        if let Some(spec) = &mut changed.spec {
            spec.replicas = Some(wanted);
        }
        *set = self.update_set(&changed).await?;
        if before == wanted {
            return Ok(false);
        }
        let direction = if before < wanted { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {direction} replica set {name} from {before} to {wanted}");
        self.event(EventType::Normal, "ScalingReplicaSet", message);
        Ok(true)
    }

    async fn update_set(&self, set: &ReplicaSet) -> Result<ReplicaSet, ClientError> {
        let resources = self.context.resources::<ReplicaSet>(&self.key().namespace);
        let written = resources.update(set).await?;
        self.own.changed(&self.deployment.metadata, &*written);
        Ok(written.as_ref().clone())
    }

    pub(super) fn event(&self, kind: EventType, reason: &str, message: String) {
        self.context.event(&self.deployment, kind, reason, message);
    }
}

/// The size that the current set may have while the others have theirs.
pub(super) fn new_size(deployment: &Deployment, current: i32, total: i32) -> i32 {
    let wanted = strategy::replicas(deployment);
    if strategy::recreates(deployment) {
        return wanted;
    }
    let max = wanted.saturating_add(strategy::max_surge(deployment));
    if total >= max { current } else { current + (max - total).min(wanted - current) }
}

fn extend_history(history: &str, revision: &str) -> String {
    if history.is_empty() {
        return revision.to_owned();
    }
    let mut history = format!("{history},{revision}");
    while history.len() > HISTORY_BYTES_MAX {
        let Some(comma) = history.find(',') else { break };
        history.drain(..=comma);
    }
    history
}

/// Whether an object has been asked to go.
pub(super) fn is_going<K: Watchable>(object: &K) -> bool {
    object.metadata().deletion_timestamp.is_some()
}
