//! Claims and volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orch_core::Key;

use crate::sim::{Invariant, ObjectChange, Step, View};

/// A claim is bound to one volume, and keeps it; a volume that is bound is bound to one claim, and
/// no other volume is bound to that. In the end every claim that has a volume is bound both ways.
#[derive(Clone, Copy, Debug)]
pub struct OneVolumePerClaim;

fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

fn claim_uid(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref()
}

fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn keeps(change: &ObjectChange) -> Result<(), String> {
    if let Some((old, new)) = change.updated::<PersistentVolumeClaim>()
        && old.metadata.uid == new.metadata.uid
        && let Some(before) = volume_of(&old)
        && volume_of(&new) != Some(before)
    {
        let (key, after) = (Key::of(&new.metadata), volume_of(&new));
        return Err(format!("claim {key} had {before} and now has {after:?}"));
    }
    if let Some((old, new)) = change.updated::<PersistentVolume>()
        && let (Some(before), Some(after)) = (claim_uid(&old), claim_uid(&new))
        && before != after
    {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        return Err(format!("volume {name} went from claim {before} to claim {after}"));
    }
    Ok(())
}

fn one_each(volumes: &[Arc<PersistentVolume>]) -> Result<(), String> {
    let mut bound: Vec<&str> =
        volumes.iter().filter(|volume| is_bound(volume)).filter_map(|v| claim_uid(v)).collect();
    let count = bound.len();
    bound.sort_unstable();
    bound.dedup();
    if bound.len() == count { Ok(()) } else { Err("two volumes are bound to one claim".to_owned()) }
}

impl Invariant for OneVolumePerClaim {
    fn name(&self) -> &str {
        "a claim is bound to exactly one volume"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        for change in step.changes {
            keeps(change)?;
            if change.of::<PersistentVolume>().is_some() {
                one_each(&step.view.list::<PersistentVolume>())?;
            }
        }
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        for claim in view.list::<PersistentVolumeClaim>() {
            let key = Key::of(&claim.metadata);
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            let Some(name) = volume_of(&claim) else { continue };
            let volume = view.get::<PersistentVolume>(&Key::cluster(name));
            let mutual = volume.is_some_and(|volume| {
                is_bound(&volume) && claim_uid(&volume) == claim.metadata.uid.as_deref()
            });
            if !mutual || phase != Some("Bound") {
                return Err(format!("claim {key} has volume {name} and is {phase:?}"));
            }
        }
        Ok(())
    }
}
