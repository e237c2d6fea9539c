//! Owners and what they own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use orch_core::{Object, owner::controller_of};
use serde_json::Value;

use crate::sim::{Component, Invariant, ObjectChange, Step, View};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Nobody takes an object from its owner without the owner's consent: it was deleted with
/// orphaning, or selects the object no more. Who is deleted with orphaning goes after its
/// dependents were freed, in the foreground after they are gone. In the end nothing is left whose
/// owners are all gone.
#[derive(Debug)]
pub struct OwnersConsent {
    staleness: Duration,
    /// Owners that were ever seen with the finalizer, and since when.
    orphaning: BTreeMap<String, Timestamp>,
    /// Owners whose deletion was seen to begin, and when.
    going: BTreeMap<String, Timestamp>,
    /// When an object (by uid) came to refer to which owner (by uid), if that was seen.
    referring: BTreeMap<String, BTreeMap<String, Timestamp>>,
}

impl OwnersConsent {
    /// For controllers whose copy of the cluster may be so old.
    pub fn new(staleness: Duration) -> Self {
        let (orphaning, going, referring) = Default::default();
        Self { staleness, orphaning, going, referring }
    }

    fn check_released(&self, change: &ObjectChange, step: &Step<'_>) -> Result<(), String> {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Ok(()) };
        let Some(owner) = controller_of(old.metadata()) else { return Ok(()) };
        let kept = new.metadata().owner_references.iter().flatten().any(|o| o.uid == owner.uid);
        if kept || step.writer == Some("user") || self.orphaning.contains_key(&owner.uid) {
            return Ok(());
        }
        let Some(object) = step.view.by_uid(&owner.uid) else { return Ok(()) };
        if !selects(object, new) || !selects(object, old) {
            return Ok(());
        }
        let (kind, key) = (new.kind(), new.key());
        Err(format!("{kind} {key} was taken from {} {}", owner.kind, owner.name))
    }

    /// When deletions began, and when objects came to refer to whom.
    fn note(&mut self, change: &ObjectChange, now: Timestamp) {
        let meta = change.object().metadata();
        let Some(uid) = &meta.uid else { return };
        if change.new.is_none() {
            self.referring.remove(uid);
            return;
        }
        if meta.deletion_timestamp.is_some() {
            self.going.entry(uid.clone()).or_insert(now);
        }
        let had = |owner: &str| {
            let old = change.old.iter().flat_map(|old| old.metadata().owner_references.iter());
            old.flatten().any(|reference| reference.uid == owner)
        };
        for owner in meta.owner_references.iter().flatten().filter(|owner| !had(&owner.uid)) {
            self.referring.entry(uid.clone()).or_default().insert(owner.uid.clone(), now);
        }
    }

    /// An owner is gone: those that it had when its deletion began must not refer to it.
    fn check_gone(&self, owner: &Object, view: &View) -> Result<(), String> {
        let meta = owner.metadata();
        let Some(uid) = &meta.uid else { return Ok(()) };
        let finalizers: BTreeSet<&str> =
            meta.finalizers.iter().flatten().map(String::as_str).collect();
        let orphaned = self.orphaning.contains_key(uid);
        let foreground = finalizers.contains(FOREGROUND);
        let Some(since) = self.going.get(uid) else { return Ok(()) };
        if !orphaned && !foreground {
            return Ok(());
        }
        for object in view.objects() {
            let of = object.metadata();
            let refers = of.owner_references.iter().flatten().any(|reference| {
                let blocks = reference.block_owner_deletion == Some(true);
                reference.uid == *uid && (orphaned || blocks)
            });
            // What was made or adopted lately may not have been seen.
            let referring = of.uid.as_ref().and_then(|object| self.referring.get(object)?.get(uid));
            let old = referring.is_none_or(|referring| {
                let age = since.duration_since(*referring);
                age.is_positive() && age.unsigned_abs() > self.staleness
            });
            if refers && old && of.deletion_timestamp.is_none() {
                let (owner, kind, key) = (owner.name(), object.kind(), object.key());
                return Err(format!("{owner} is gone, and {kind} {key} refers to it"));
            }
        }
        Ok(())
    }
}

/// Whether the labels that an owner selects are the object's; owners of other kinds select all.
fn selects(owner: &Object, object: &Object) -> bool {
    let selector = owner.to_value();
    let selector = &selector["spec"]["selector"];
    let wanted = match &selector["matchLabels"] {
        Value::Null if owner.kind() == "ReplicationController" => selector,
        labels => labels,
    };
    let labels = object.metadata().labels.clone().unwrap_or_default();
    let mut wanted = wanted.as_object().into_iter().flatten();
    wanted.all(|(name, value)| labels.get(name).map(String::as_str) == value.as_str())
}

fn dangling(object: &Arc<Object>, view: &View) -> bool {
    let owners = object.metadata().owner_references.as_deref().unwrap_or_default();
    !owners.is_empty() && owners.iter().all(|owner| view.by_uid(&owner.uid).is_none())
}

impl Invariant for OwnersConsent {
    fn name(&self) -> &str {
        "owners consent to what becomes of what they own"
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), String> {
        let now = step.view.time();
        self.orphaning.retain(|uid, since| {
            step.view.by_uid(uid).is_some()
                || now.duration_since(*since).unsigned_abs() < self.staleness * 10
        });
        for change in step.changes {
            let meta = change.object().metadata();
            if meta.finalizers.iter().flatten().any(|name| name == ORPHAN)
                && let Some(uid) = &meta.uid
            {
                self.orphaning.insert(uid.clone(), now);
            }
            self.note(change, now);
            self.check_released(change, step)?;
            // Who deletes an owner again may let go of what it waits for.
            if let (Some(last), None) = (&change.old, &change.new)
                && step.writer == Some(Component::Housekeeping.to_string().as_str())
            {
                self.check_gone(last, step.view)?;
            }
            if let (None, Some(uid)) = (&change.new, &meta.uid) {
                self.going.remove(uid);
            }
        }
        Ok(())
    }

    fn settled(&mut self, view: &View) -> Result<(), String> {
        match view.objects().find(|object| dangling(object, view)) {
            None => Ok(()),
            Some(object) => {
                let owners = &object.metadata().owner_references;
                let (kind, key) = (object.kind(), object.key());
                Err(format!("{kind} {key} is left over, its owners are gone: {owners:?}"))
            }
        }
    }
}
