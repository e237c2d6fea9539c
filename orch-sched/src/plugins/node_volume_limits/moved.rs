//! Notices when a pod attaches something else although neither it nor its node changed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orch_core::{Key, informer::Change};
use parking_lot::Mutex;

use super::{Attached, BY_VOLUME, InTree, Lookup, of_persistent};
use crate::snapshot::Snapshot;

/// How many claims are remembered until somebody asks; past that any may have changed.
const CLAIMS_MAX: usize = 4096;

/// Which claims count for another driver than before, or came or went. What concerns no pod that
/// has a place changes nothing.
#[derive(Debug, Default)]
pub(super) struct Moved {
    version: AtomicU64,
    claims: Mutex<BTreeSet<Key>>,
}

impl Moved {
    /// Follows claims and what they stand for. Informers outlive plugins: their handlers must not
    /// keep them alive.
    pub(super) fn follow(lookup: &Arc<Lookup>) -> Arc<Self> {
        let moved = Arc::new(Self::default());
        let (weak, of) = (Arc::downgrade(&moved), Arc::downgrade(lookup));
        lookup.claims.on_change(move |change| {
            if let (Some(moved), Some(lookup)) = (weak.upgrade(), of.upgrade()) {
                moved.claim_changed(&lookup, change);
            }
        });
        let (weak, of) = (Arc::downgrade(&moved), Arc::downgrade(lookup));
        lookup.volumes.on_change(move |change| {
            if let (Some(moved), Some(lookup)) = (weak.upgrade(), of.upgrade()) {
                moved.volume_changed(&lookup, change);
            }
        });
        let weak = Arc::downgrade(&moved);
        lookup.classes.on_change(move |_| {
            if let Some(moved) = weak.upgrade() {
                moved.anything();
            }
        });
        moved
    }

    /// As long as this is the same, what is attached to a node depends on the node and its pods.
    pub(super) fn version(&self, snapshot: &Snapshot) -> u64 {
        let claims = std::mem::take(&mut *self.claims.lock());
        if claims.iter().any(|claim| snapshot.is_claim_used(&claim.namespace, &claim.name)) {
            self.anything();
        }
        self.version.load(Relaxed)
    }

    fn anything(&self) {
        self.version.fetch_add(1, Relaxed);
    }

    fn claim(&self, key: Key) {
        let mut claims = self.claims.lock();
        claims.insert(key);
        if claims.len() > CLAIMS_MAX {
            claims.clear();
            self.anything();
        }
    }

    fn claim_changed(&self, lookup: &Lookup, change: &Change<PersistentVolumeClaim>) {
        if let Change::Updated { old, new } = change {
            let bound = |claim: &PersistentVolumeClaim| {
                let spec = claim.spec.as_ref();
                spec.map(|spec| (spec.volume_name.clone(), spec.storage_class_name.clone()))
            };
            let counts = |claim| counts_for(lookup.of_claim(claim), lookup);
            let same = bound(old) == bound(new) || counts(old) == counts(new);
            if same {
                return;
            }
        }
        self.claim(Key::of(&change.object().metadata));
    }

    /// A volume that comes late, or goes early, is what a claim stands for, not what is still to
    /// be made for it.
    fn volume_changed(&self, lookup: &Lookup, change: &Change<PersistentVolume>) {
        if matches!(change, Change::Updated { .. }) {
            // Of what kind a volume is never changes.
            return;
        }
        let volume = change.object();
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        if lookup.attachments.count_by_index(BY_VOLUME, name) > 0 {
            self.anything();
            return;
        }
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference else { return };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = Key::new(text(&reference.namespace), text(&reference.name));
        let Some(claim) = lookup.claims.get(&key) else { return };
        let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let before = counts_for(lookup.of_class(&claim), lookup);
        if bound == Some(name) && before != counts_for(of_persistent(volume), lookup) {
            self.claim(key);
        }
    }
}

/// The driver that a volume counts for: of the same, each new volume is one more. Volumes that are
/// one to their driver are told apart by what that calls them.
fn counts_for(
    volume: Option<Attached>,
    lookup: &Lookup,
) -> Option<(String, Option<InTree>, Option<String>)> {
    let volume = volume?;
    let shared = lookup.is_shared(&volume.handle);
    Some((volume.driver, volume.in_tree, shared.then_some(volume.handle)))
}
