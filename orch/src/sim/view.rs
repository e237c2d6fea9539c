//! The cluster at a revision, and the step that led there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::Resource;
use orch_core::{Key, Object, informer::Watchable, owner::controller_of};
use orch_store::{Entry, Event, EventKind};

use crate::testing::only_beats;

/// Which object: its group and kind, and its key.
type Id = (String, String, Key);

fn id(object: &Object) -> Id {
    let group = object.api_version().rsplit_once('/').map_or("", |(group, _)| group);
    (group.to_owned(), object.kind().to_owned(), object.key())
}

fn is<K: Resource>(object: &Object) -> bool {
    let group = object.api_version().rsplit_once('/').map_or("", |(group, _)| group);
    object.kind() == K::KIND && group == K::GROUP
}

/// The object that lies in an entry; `None` if it is none: a store keeps other things too.
fn stored(entry: &Entry, revision: u64) -> Option<Object> {
    let object = Object::from_encoded(entry.value.clone(), revision).ok()?;
    (!object.kind().is_empty()).then_some(object)
}

/// Whether a change says nothing but that the cluster runs: leases and events come and go in the
/// quietest one, and nodes say that they are there.
fn beats(old: impl FnOnce() -> Option<Arc<Object>>, new: &Object) -> bool {
    match new.kind() {
        "Lease" | "Event" => true,
        "Node" => old().is_some_and(|old| only_beats(&old, new)),
        _ => false,
    }
}

/// Every object of a cluster at one revision. What is asked for in a typed form is decoded once.
#[derive(Debug, Default)]
pub struct View {
    revision: u64,
    time: Timestamp,
    objects: BTreeMap<Id, Arc<Object>>,
    by_uid: BTreeMap<String, Id>,
    by_controller: BTreeMap<String, BTreeSet<Id>>,
}

impl View {
    /// The cluster that these entries are. What is no object is left out: a store keeps other things
    /// too.
    pub fn of_entries(entries: &[Entry], revision: u64, time: Timestamp) -> Self {
        let mut view = Self { revision, time, ..Self::default() };
        for entry in entries {
            if let Some(object) = stored(entry, entry.mod_revision) {
                view.put(Arc::new(object));
            }
        }
        view
    }

    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When the revision was committed.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Every object, kind by kind, in the order of their keys.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// One object.
    pub fn get<K: Watchable>(&self, key: &Key) -> Option<Arc<K>> {
        let id = (K::GROUP.to_owned(), K::KIND.to_owned(), key.clone());
        self.objects.get(&id)?.decode().ok()
    }

    /// All objects of a kind, by namespace and name.
    pub fn list<K: Watchable>(&self) -> Vec<Arc<K>> {
        let from = (K::GROUP.to_owned(), K::KIND.to_owned(), Key::default());
        let kind = self.objects.range(from..);
        kind.take_while(|((group, kind, _), _)| group == K::GROUP && kind == K::KIND)
            .filter_map(|(_, object)| object.decode().ok())
            .collect()
    }

    /// The object with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Object>> {
        self.objects.get(self.by_uid.get(uid)?)
    }

    /// The objects of a kind that the object with this uid controls, by name.
    pub fn controlled_by<K: Watchable>(&self, uid: &str) -> Vec<Arc<K>> {
        let ids = self.by_controller.get(uid).into_iter().flatten();
        ids.filter(|(group, kind, _)| group == K::GROUP && kind == K::KIND)
            .filter_map(|id| self.objects.get(id)?.decode().ok())
            .collect()
    }

    fn remove(&mut self, id: &Id) -> Option<Arc<Object>> {
        let old = self.objects.remove(id)?;
        if let Some(uid) = &old.metadata().uid {
            self.by_uid.remove(uid);
        }
        if let Some(owner) = controller_of(old.metadata())
            && let Some(ids) = self.by_controller.get_mut(&owner.uid)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.by_controller.remove(&owner.uid);
            }
        }
        Some(old)
    }

    fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let id = id(&object);
        if let Some(old) = self.objects.get_mut(&id)
            && old.metadata().uid == object.metadata().uid
            && old.metadata().owner_references == object.metadata().owner_references
        {
            // What it is found by stays as it is, as with most changes.
            return Some(std::mem::replace(old, object));
        }
        let old = self.remove(&id);
        if let Some(uid) = &object.metadata().uid {
            self.by_uid.insert(uid.clone(), id.clone());
        }
        if let Some(owner) = controller_of(object.metadata()) {
            self.by_controller.entry(owner.uid.clone()).or_default().insert(id.clone());
        }
        self.objects.insert(id, object);
        old
    }

    /// Takes in the changes of one revision, and gives those of objects: a store keeps other
    /// things too.
    pub fn apply(&mut self, events: &[Event], time: Timestamp) -> Vec<ObjectChange> {
        self.time = time;
        let mut changes = Vec::new();
        for event in events {
            self.revision = event.entry.mod_revision;
            let revision = self.revision;
            let change = match event.kind {
                EventKind::Put => stored(&event.entry, revision).map(|object| {
                    let new = Arc::new(object);
                    ObjectChange { old: self.put(new.clone()), new: Some(new) }
                }),
                EventKind::Delete => {
                    let last = event.previous.as_ref().and_then(|entry| stored(entry, revision));
                    last.and_then(|last| self.remove(&id(&last)))
                        .map(|old| ObjectChange { old: Some(old), new: None })
                }
            };
            changes.extend(change);
        }
        changes
    }
}

/// What became of one object in a step.
#[derive(Clone, Debug)]
pub struct ObjectChange {
    /// The object before; `None` if it was created.
    pub old: Option<Arc<Object>>,
    /// The object after; `None` if it is gone.
    pub new: Option<Arc<Object>>,
}

impl ObjectChange {
    /// What an event of a store changed; `None` if that is no object.
    pub(crate) fn of_event(event: &Event) -> Option<Self> {
        let previous = event.previous.as_ref();
        let old = previous.and_then(|entry| stored(entry, entry.mod_revision)).map(Arc::new);
        let new = match event.kind {
            EventKind::Put => Some(Arc::new(stored(&event.entry, event.entry.mod_revision)?)),
            EventKind::Delete => None,
        };
        (old.is_some() || new.is_some()).then_some(Self { old, new })
    }

    /// Whether it says nothing but that the cluster runs.
    pub(crate) fn is_heartbeat(&self) -> bool {
        beats(|| self.old.clone().filter(|_| self.new.is_some()), self.object())
    }

    /// The object, as new as it can be told.
    ///
    /// # Panics
    /// If there is neither an old nor a new one.
    pub fn object(&self) -> &Arc<Object> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change of something")
    }

    /// The object in its typed form, if it is of this kind.
    pub fn of<K: Watchable>(&self) -> Option<Arc<K>> {
        let object = self.object();
        if is::<K>(object) { object.decode().ok() } else { None }
    }

    /// The object if it is of this kind and was created.
    pub fn created<K: Watchable>(&self) -> Option<Arc<K>> {
        if self.old.is_none() { self.of() } else { None }
    }

    /// The object's last state if it is of this kind and is gone.
    pub fn removed<K: Watchable>(&self) -> Option<Arc<K>> {
        if self.new.is_none() { self.of() } else { None }
    }

    /// The object before and after if it is of this kind and was changed.
    pub fn updated<K: Watchable>(&self) -> Option<(Arc<K>, Arc<K>)> {
        let (old, new) = (self.old.as_ref()?, self.new.as_ref()?);
        if !is::<K>(new) {
            return None;
        }
        Some((old.decode().ok()?, new.decode().ok()?))
    }

    /// The object after, if it is of this kind and this step began its deletion: it got a deletion
    /// timestamp, or went without one.
    pub fn began_to_go<K: Watchable>(&self) -> Option<Arc<K>> {
        let going = |object: &Object| object.metadata().deletion_timestamp.is_some();
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if !going(old) && going(new) => self.of(),
            (Some(old), None) if !going(old) => self.of(),
            _ => None,
        }
    }
}

/// Whether an event of a store says nothing but that the cluster runs.
pub(crate) fn is_heartbeat(event: &Event) -> bool {
    let previous = || event.previous.as_ref().filter(|_| event.kind == EventKind::Put);
    let old = || previous().and_then(|entry| stored(entry, entry.mod_revision)).map(Arc::new);
    let entry = match event.kind {
        EventKind::Put => Some(&event.entry),
        EventKind::Delete => event.previous.as_ref(),
    };
    let object = entry.and_then(|entry| stored(entry, entry.mod_revision));
    object.is_some_and(|object| beats(old, &object))
}

/// One revision: what it changed, by whom, and the cluster after it.
#[derive(Debug)]
pub struct Step<'a> {
    /// The cluster after the step.
    pub view: &'a View,
    /// What changed.
    pub changes: &'a [ObjectChange],
    /// The component whose call it was; `None` where that is not known.
    pub writer: Option<&'a str>,
}
