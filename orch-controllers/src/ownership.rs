//! Who owns an object, and taking and giving up control of it.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/controller_ref_manager.go`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
pub use orch_core::owner::{controller_of, controller_reference, is_controlled_by};
use orch_core::{
    ApiError, ClientError, ResourceType, Resources,
    client::PatchKind,
    informer::{Informer, Watchable},
    status::Reason,
};
use serde_json::{Value, json};

/// The index of objects by the uid of their controller, as [`index_by_controller`] adds it.
pub const BY_CONTROLLER: &str = "controller-uid";

/// The index of objects that no controller controls, by namespace.
pub const ORPHANS: &str = "orphans-by-namespace";

/// Lets objects of an informer be found by their controller, and those without one by namespace.
pub fn index_by_controller<K: Watchable>(informer: &Informer<K>) {
    informer.add_index(BY_CONTROLLER, |object| {
        controller_of(object.metadata()).map(|owner| owner.uid.clone()).into_iter().collect()
    });
    informer.add_index(ORPHANS, |object| {
        let meta = object.metadata();
        match controller_of(meta) {
            None => vec![meta.namespace.clone().unwrap_or_default()],
            Some(_) => Vec::new(),
        }
    });
}

/// Takes over orphans that an owner selects, and lets go of dependents that it selects no more.
pub(crate) struct Claim<'a, O, C> {
    /// Where the owner can be read afresh before it adopts anything.
    pub(crate) owners: Resources<O>,
    pub(crate) dependents: Resources<C>,
    pub(crate) informer: &'a Informer<C>,
    pub(crate) owner: &'a O,
    /// Which of the orphans that are selected are worth adopting.
    pub(crate) adopts: fn(&C) -> bool,
    /// The finalizer that what is adopted gets, if any.
    pub(crate) finalizer: Option<&'static str>,
}

impl<O: Watchable, C: Watchable> Claim<'_, O, C> {
    /// The objects that the owner controls after this.
    pub(crate) async fn run(
        &self,
        selects: impl Fn(&C) -> bool + Send + Sync,
    ) -> Result<Vec<Arc<C>>, ClientError> {
        self.among(BY_CONTROLLER, selects).await
    }

    /// Lets go of those of these dependents that the owner selects no more.
    pub(crate) async fn release_others(
        &self,
        dependents: &[Arc<C>],
        selects: impl Fn(&C) -> bool + Send + Sync,
    ) -> Result<(), ClientError> {
        if self.owner.metadata().deletion_timestamp.is_some() {
            return Ok(());
        }
        for object in dependents.iter().filter(|object| !selects(object)) {
            if is_controlled_by(object.metadata(), text(&self.owner.metadata().uid)) {
                self.release(object).await?;
            }
        }
        Ok(())
    }

    /// The same, where an index has those of the owner's dependents that are to be looked at, by
    /// its uid.
    pub(crate) async fn among(
        &self,
        index: &str,
        selects: impl Fn(&C) -> bool + Send + Sync,
    ) -> Result<Vec<Arc<C>>, ClientError> {
        let meta = self.owner.metadata();
        let (uid, going) = (text(&meta.uid), meta.deletion_timestamp.is_some());
        let mut claimed = Vec::new();
        for object in self.informer.by_index(index, uid) {
            if selects(&object) {
                claimed.push(object);
            } else if !going {
                self.release(&object).await?;
            }
        }
        if going {
            return Ok(claimed);
        }
        let mut checked = false;
        for orphan in self.informer.by_index(ORPHANS, text(&meta.namespace)) {
            if orphan.metadata().deletion_timestamp.is_some()
                || !(self.adopts)(&orphan)
                || !selects(&orphan)
            {
                continue;
            }
            if !checked {
                self.check_adoption().await?;
                checked = true;
            }
            claimed.extend(self.adopt(&orphan).await?);
        }
        Ok(claimed)
    }

    /// The local copy of the owner may be old: one that was deleted with orphaning in the meantime
    /// must not take back what it has just lost, nor replace it.
    ///
    /// Source: `RecheckDeletionTimestamp`, `CanAdopt`.
    async fn check_adoption(&self) -> Result<(), ClientError> {
        let meta = self.owner.metadata();
        let fresh = self.owners.get(text(&meta.name)).await?;
        let fresh = fresh.metadata();
        let why = if fresh.uid != meta.uid {
            format!("it is gone: got uid {}, wanted {}", text(&fresh.uid), text(&meta.uid))
        } else if let Some(time) = &fresh.deletion_timestamp {
            format!("it has just been deleted at {}", time.0)
        } else {
            return Ok(());
        };
        let of = ResourceType::of::<O>();
        Err(ApiError::conflict(&of.group, &of.plural, text(&meta.name), &why).into())
    }

    async fn release(&self, object: &C) -> Result<(), ClientError> {
        let meta = object.metadata();
        let uid = text(&self.owner.metadata().uid);
        let rest: Vec<&OwnerReference> =
            meta.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
        let patch = owners_patch(meta, &rest);
        match self.dependents.patch(text(&meta.name), PatchKind::Merge, patch).await {
            Ok(_) => Ok(()),
            // Gone, or no longer the object that was meant: nothing to let go of.
            Err(error) if error.is_not_found() || error.reason() == Reason::Invalid => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn adopt(&self, object: &C) -> Result<Option<Arc<C>>, ClientError> {
        let (meta, own) = (object.metadata(), controller_reference(self.owner));
        let mut owners: Vec<&OwnerReference> =
            meta.owner_references.iter().flatten().filter(|owner| owner.uid != own.uid).collect();
        owners.push(&own);
        let mut patch = owners_patch(meta, &owners);
        if let Some(finalizer) = self.finalizer {
            let mut finalizers = meta.finalizers.clone().unwrap_or_default();
            if !finalizers.iter().any(|known| known == finalizer) {
                finalizers.push(finalizer.to_owned());
            }
            patch["metadata"]["finalizers"] = json!(finalizers);
        }
        match self.dependents.patch(text(&meta.name), PatchKind::Merge, patch).await {
            Ok(adopted) => Ok(Some(adopted)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The whole list, guarded by the resource version: unlike a strategic patch, this works for every
/// kind.
fn owners_patch(meta: &ObjectMeta, owners: &[&OwnerReference]) -> Value {
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": owners,
    }})
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}
