//! A change of size, spread over the replica sets of a rollout that is under way.
//!
//! Source: `scale` of `k8s.io/kubernetes/pkg/controller/deployment/sync.go`.

use k8s_openapi::api::apps::v1::ReplicaSet;
use orch_core::ClientError;

use super::{
    Rollout,
    replica_sets::{self, Sets, available, size},
    strategy,
};

impl Rollout<'_> {
    /// `Differs:` a single set that has the wanted size is told that it is wanted, as one that was
    /// adopted during a rollout may not be. Upstream leaves it, and takes it for a change of size
    /// for ever.
    pub(super) async fn scale_all(&self, sets: &mut Sets) -> Result<(), ClientError> {
        let wanted = strategy::replicas(&self.deployment);
        if let Some(single) = active_or_latest(sets) {
            let told = replica_sets::desired(single).is_none_or(|desired| desired == wanted);
            if size(single) != wanted || !told {
                self.scale(single, wanted).await?;
            }
            return Ok(());
        }
        let saturated = sets.new.as_ref().is_some_and(|new| {
            size(new) == wanted
                && replica_sets::desired(new) == Some(wanted)
                && available(new) == wanted
        });
        if saturated {
            for set in sets.old.iter_mut().filter(|set| size(set) > 0) {
                self.scale(set, 0).await?;
            }
        } else if !strategy::recreates(&self.deployment) {
            self.scale_proportionally(sets).await?;
        }
        Ok(())
    }

    /// Lets every set grow or shrink by its share, so that a rollout neither gets further nor
    /// falls back. What rounding leaves goes to the largest.
    async fn scale_proportionally(&self, sets: &mut Sets) -> Result<(), ClientError> {
        let wanted = strategy::replicas(&self.deployment);
        let max = if wanted > 0 {
            wanted.saturating_add(strategy::max_surge(&self.deployment))
        } else {
            0
        };
        let mut active: Vec<&mut ReplicaSet> =
            sets.old.iter_mut().chain(&mut sets.new).filter(|set| size(set) > 0).collect();
        let to_add = max - active.iter().map(|set| size(set)).sum::<i32>();
        let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|t| t.0);
        active.sort_by(|a, b| {
            let by_age = created(a).cmp(&created(b));
            size(b).cmp(&size(a)).then(if to_add > 0 { by_age.reverse() } else { by_age })
        });
        let mut added = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for set in &active {
            let share = if to_add == 0 { 0 } else { self.share(set, to_add, added) };
            added += share;
            sizes.push(size(set) + share);
        }
        for (at, (set, mut size)) in active.into_iter().zip(sizes).enumerate() {
            if at == 0 && to_add != 0 {
                size = (size + to_add - added).max(0);
            }
            self.scale(set, size).await?;
        }
        Ok(())
    }

    fn share(&self, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
        let left = to_add - added;
        let fraction = self.fraction(set);
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, set: &ReplicaSet) -> i32 {
        let (wanted, current) = (strategy::replicas(&self.deployment), size(set));
        if wanted == 0 {
            return -current;
        }
        let max = i64::from(wanted) + i64::from(strategy::max_surge(&self.deployment));
        let status = self.deployment.status.as_ref().and_then(|status| status.replicas);
        let before = i64::from(replica_sets::max(set).or(status).unwrap_or(0));
        if before <= 0 {
            return 0;
        }
        // Rounded half up, in whole numbers.
        let grown = (i64::from(current) * max * 2 + before) / (before * 2);
        i32::try_from(grown).unwrap_or(i32::MAX) - current
    }
}

/// The one set that has pods, or the latest if none has any.
fn active_or_latest(sets: &mut Sets) -> Option<&mut ReplicaSet> {
    let active = sets.old.iter().chain(&sets.new).filter(|set| size(set) > 0).count();
    match active {
        0 if sets.new.is_some() => sets.new.as_mut(),
        0 => sets.old.iter_mut().max_by(|a, b| {
            let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|t| t.0);
            created(a).cmp(&created(b))
        }),
        1 => sets.old.iter_mut().chain(&mut sets.new).find(|set| size(set) > 0),
        _ => None,
    }
}
