//! Moving pods from the old replica sets to the current one.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/deployment/{rolling.go,recreate.go,sync.go}`.

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use orch_core::{ClientError, client::DeleteOptions};

use super::{
    Rollout,
    replica_sets::{self, Sets, available, is_going, new_size, oldest_first, size, total_size},
    status, strategy,
};
use crate::{ownership, pods, reconciler::Reconciled};

/// How many pods of a set are available and stay so: its status may still count those that go
/// because it was made smaller just before.
fn stays_available(set: &ReplicaSet) -> i32 {
    available(set).min(size(set))
}

impl Rollout<'_> {
    pub(super) async fn run(&mut self) -> Reconciled {
        if is_going(&self.deployment) {
            let sets = self.split();
            return self.finish_status(&sets, false).await;
        }
        self.note_pause();
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        if paused || self.is_scaling() {
            let mut sets = self.find().await?;
            self.scale_all(&mut sets).await?;
            if paused {
                self.clean_up(&sets.old).await?;
            }
            return self.finish_status(&sets, false).await;
        }
        let sets = if strategy::recreates(&self.deployment) {
            self.recreate().await?
        } else {
            self.roll().await?
        };
        self.finish_status(&sets, true).await
    }

    /// Whether the deployment's size was changed since its sets got theirs.
    ///
    /// `Differs:` not if it recreates and several sets have pods, as after an adoption: there is
    /// nothing to share out, and upstream would stay here for ever.
    fn is_scaling(&self) -> bool {
        let wanted = strategy::replicas(&self.deployment);
        let active = || self.sets.iter().filter(|set| size(set) > 0);
        if strategy::recreates(&self.deployment) && active().count() > 1 {
            return false;
        }
        active().filter_map(replica_sets::desired).any(|desired| desired != wanted)
    }

    async fn roll(&mut self) -> Result<Sets, ClientError> {
        let mut sets = self.find_or_create().await?;
        let total = total_size(&sets.all());
        if let Some(new) = &mut sets.new {
            let (current, wanted) = (size(new), strategy::replicas(&self.deployment));
            let target =
                if current > wanted { wanted } else { new_size(&self.deployment, current, total) };
            if current != target && self.scale(new, target).await? {
                return Ok(sets);
            }
        }
        if self.shrink_old(&mut sets).await? {
            return Ok(sets);
        }
        self.clean_up_if_complete(&sets).await?;
        Ok(sets)
    }

    /// Takes pods from the old sets, as far as enough others are available. Those that are not
    /// available go first.
    async fn shrink_old(&self, sets: &mut Sets) -> Result<bool, ClientError> {
        if total_size(&sets.old) == 0 {
            return Ok(false);
        }
        let all = sets.all();
        let wanted = strategy::replicas(&self.deployment);
        let min_available = wanted - strategy::max_unavailable(&self.deployment);
        let new_unavailable = sets.new.as_ref().map_or(0, |new| size(new) - available(new));
        let max_shrink = total_size(&all) - min_available - new_unavailable;
        if max_shrink <= 0 {
            return Ok(false);
        }
        oldest_first(&mut sets.old);
        let unhealthy = self.shrink_unhealthy(&mut sets.old, max_shrink).await?;
        let spare = all.iter().map(stays_available).sum::<i32>() - min_available;
        let healthy = self.shrink_each(&mut sets.old, spare, size).await?;
        Ok(unhealthy + healthy > 0)
    }

    async fn shrink_unhealthy(
        &self,
        old: &mut [ReplicaSet],
        at_most: i32,
    ) -> Result<i32, ClientError> {
        self.shrink_each(old, at_most, |set| size(set) - available(set)).await
    }

    /// Takes up to `at_most` pods from the sets, from each as many as `spare` says.
    async fn shrink_each(
        &self,
        old: &mut [ReplicaSet],
        at_most: i32,
        spare: impl Fn(&ReplicaSet) -> i32 + Send,
    ) -> Result<i32, ClientError> {
        let mut taken = 0;
        for set in old {
            let count = spare(set).min(size(set)).min(at_most - taken);
            if count > 0 {
                self.scale(set, size(set) - count).await?;
                taken += count;
            }
        }
        Ok(taken)
    }

    async fn recreate(&mut self) -> Result<Sets, ClientError> {
        let mut sets = self.find().await?;
        let mut shrunk = false;
        for set in sets.old.iter_mut().filter(|set| size(set) > 0) {
            shrunk |= self.scale(set, 0).await?;
        }
        if shrunk || self.old_pods_run(&sets) {
            return Ok(sets);
        }
        if sets.new.is_none() {
            self.sets = sets.all();
            sets = self.find_or_create().await?;
        }
        if let Some(new) = &mut sets.new {
            let wanted = strategy::replicas(&self.deployment);
            if size(new) != wanted {
                self.scale(new, wanted).await?;
            }
        }
        self.clean_up_if_complete(&sets).await?;
        Ok(sets)
    }

    fn old_pods_run(&self, sets: &Sets) -> bool {
        let informer = self.context.informer::<Pod>();
        sets.old.iter().any(|set| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            set.status.as_ref().is_some_and(|status| status.replicas > 0)
                || informer
                    .by_index(ownership::BY_CONTROLLER, uid)
                    .iter()
                    .any(|pod| !pods::is_terminal(pod))
        })
    }

    async fn clean_up_if_complete(&mut self, sets: &Sets) -> Result<(), ClientError> {
        let status = self.deployment.status.clone().unwrap_or_default();
        if status::is_complete(&self.deployment, &status) {
            self.clean_up(&sets.old).await?;
        }
        Ok(())
    }

    /// Deletes the oldest of the empty old sets beyond the history's limit.
    async fn clean_up(&self, old: &[ReplicaSet]) -> Result<(), ClientError> {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let mut alive: Vec<&ReplicaSet> = old.iter().filter(|set| !is_going(*set)).collect();
        alive.sort_by_key(|set| replica_sets::revision(set));
        let excess = alive.len().saturating_sub(limit);
        let resources = self.context.resources::<ReplicaSet>(&self.key().namespace);
        for set in alive.into_iter().take(excess) {
            let status = set.status.clone().unwrap_or_default();
            let observed = status.observed_generation.unwrap_or(0);
            let settled = set.metadata.generation.unwrap_or(0) <= observed;
            if status.replicas != 0 || size(set) != 0 || !settled {
                continue;
            }
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let options =
                DeleteOptions { uid: set.metadata.uid.clone(), ..DeleteOptions::default() };
            match resources.delete(name, options).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
