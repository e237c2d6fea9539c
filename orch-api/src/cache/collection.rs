//! The objects of one resource, in memory, as of a revision.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use orch_core::{Object, awaited::Awaited, client::WatchEvent};
use orch_store::{Event, EventKind};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    filter::{Filter, Item, Selectable},
    watchers::{Change, Watchers},
};
use crate::catalog::Resource;

/// How many changes are kept for those who watch from an older revision; who asks for more is
/// served from the store's own history.
const WINDOW_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Cold,
    Loading,
    Ready,
}

/// One resource's part of the cache.
pub(crate) struct Collection {
    pub(crate) prefix: Bytes,
    selectable: Selectable,
    state: Mutex<State>,
    pub(crate) phase: Awaited<Phase>,
}

#[derive(Default)]
struct State {
    objects: imbl::OrdMap<Bytes, Item>,
    by_node: HashMap<String, BTreeSet<Bytes>>,
    /// Events that arrived while the first range was being read.
    pending: Vec<Event>,
    /// Everything up to here is in `objects`.
    revision: u64,
    /// The revision of the first range: changes up to it are in it already.
    loaded: u64,
    /// Raised whenever everything is forgotten, so that a range that was begun before is not
    /// taken for the present.
    generation: u64,
    window: VecDeque<Arc<Change>>,
    /// Every change after this revision is in `window`.
    window_start: u64,
    watchers: Watchers,
}

/// The objects at one revision. Taken in constant time; later changes do not show.
pub(crate) struct Snapshot {
    objects: imbl::OrdMap<Bytes, Item>,
    /// For a selection by node: the keys, so that only they are looked at.
    keys: Option<Vec<Bytes>>,
    pub(crate) revision: u64,
}

/// A watch that was opened at a revision.
pub(crate) struct Opened {
    pub(crate) id: u64,
    /// What happened since the revision asked for, or what exists.
    pub(crate) first: First,
    pub(crate) events: mpsc::Receiver<WatchEvent>,
    pub(crate) revision: u64,
}

pub(crate) enum First {
    Changes(Vec<Arc<Change>>),
    Objects(Snapshot),
}

/// Why a watch cannot be opened here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// The revision is older than what is remembered.
    TooOld,
    /// Everything was forgotten in the meantime and is being read again.
    Reloading,
}

/// A range that is being read. Dropped before it is taken in, it lets somebody else try.
pub(crate) struct Loading {
    collection: Arc<Collection>,
    generation: u64,
}

impl Loading {
    pub(crate) fn prefix(&self) -> Bytes {
        self.collection.prefix.clone()
    }

    pub(crate) fn item(&self, object: Arc<Object>) -> Item {
        self.collection.item(object)
    }

    /// Takes in the range, and what arrived since.
    pub(crate) fn finish(self, revision: u64, objects: imbl::OrdMap<Bytes, Item>) {
        self.collection.load(self.generation, revision, objects);
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.collection.give_up(self.generation);
    }
}

impl Collection {
    pub(crate) fn new(resource: &Resource) -> Self {
        Self {
            prefix: Bytes::from(resource.prefix.clone()),
            selectable: Selectable::of(resource),
            state: Mutex::default(),
            phase: Awaited::new(Phase::Cold),
        }
    }

    fn load(&self, generation: u64, revision: u64, objects: imbl::OrdMap<Bytes, Item>) {
        let mut state = self.state.lock();
        if state.generation != generation {
            return;
        }
        state.by_node.clear();
        if self.selectable == Selectable::Node {
            for (key, item) in &objects {
                state.index(key, None, Some(item));
            }
        }
        state.objects = objects;
        state.revision = revision;
        state.loaded = revision;
        state.window_start = revision;
        state.window.clear();
        for event in std::mem::take(&mut state.pending) {
            self.apply_one(&mut state, &event, &mut |_| None);
        }
        self.phase.set(Phase::Ready);
    }

    /// A range was not read to its end: the next reader tries again.
    fn give_up(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation && self.phase.get() == Phase::Loading {
            state.forget();
            self.phase.set(Phase::Cold);
        }
    }

    pub(crate) fn item(&self, object: Arc<Object>) -> Item {
        Item::new(object, self.selectable)
    }

    /// Forgets everything and ends every watch: the store's history has a gap.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.forget();
        self.phase.set(Phase::Cold);
    }

    /// Begins to load; `None` if that has happened already.
    pub(crate) fn start_loading(self: &Arc<Self>) -> Option<Loading> {
        let state = self.state.lock();
        if self.phase.get() != Phase::Cold {
            return None;
        }
        self.phase.set(Phase::Loading);
        Some(Loading { collection: self.clone(), generation: state.generation })
    }

    /// Takes in a change. `written` gives the object of a revision if this process wrote it.
    pub(crate) fn apply(&self, event: &Event, written: &mut dyn FnMut(u64) -> Option<Arc<Object>>) {
        let mut state = self.state.lock();
        let phase = self.phase.get();
        match phase {
            Phase::Cold => {}
            Phase::Loading => state.pending.push(event.clone()),
            Phase::Ready => self.apply_one(&mut state, event, written),
        }
    }

    fn apply_one(
        &self,
        state: &mut State,
        event: &Event,
        written: &mut dyn FnMut(u64) -> Option<Arc<Object>>,
    ) {
        let (key, revision) = (&event.entry.key, event.entry.mod_revision);
        // Not `state.revision`: one revision may change several objects.
        if revision <= state.loaded {
            return;
        }
        let new = match event.kind {
            EventKind::Delete => None,
            EventKind::Put => match written(revision) {
                Some(object) => Some(object),
                None => decode(key, &event.entry.value, revision),
            },
        };
        let new = new.map(|object| self.item(object));
        let old = match &new {
            Some(item) => state.objects.insert(key.clone(), item.clone()),
            None => state.objects.remove(key),
        };
        state.revision = revision;
        state.index(key, old.as_ref(), new.as_ref());
        let change = Arc::new(Change::new(revision, old, new));
        state.watchers.tell(&change);
        if state.window.len() == WINDOW_MAX
            && let Some(oldest) = state.window.pop_front()
        {
            state.window_start = oldest.revision;
        }
        state.window.push_back(change);
    }

    /// The object under a key, if it is cached at exactly this revision.
    pub(crate) fn at(&self, key: &[u8], revision: u64) -> Option<Arc<Object>> {
        let state = self.state.lock();
        let item = state.objects.get(key)?;
        (item.object.revision() == Some(revision)).then(|| item.object.clone())
    }

    /// What the cache holds now; `None` if it has to be read again. `seen` is the revision that
    /// the feed has reached.
    pub(crate) fn snapshot(&self, filter: &Filter, seen: u64) -> Option<Snapshot> {
        let state = self.state.lock();
        self.is_ready().then(|| state.snapshot(filter, seen))
    }

    /// Everything, and the revision of its last change; no objects if that is `known` already, and
    /// nothing if it has to be read again.
    pub(crate) fn newer_than(&self, known: Option<u64>) -> Option<(u64, Option<Vec<Arc<Object>>>)> {
        let state = self.state.lock();
        if !self.is_ready() {
            return None;
        }
        let objects = (known != Some(state.revision))
            .then(|| state.objects.values().map(|item| item.object.clone()).collect());
        Some((state.revision, objects))
    }

    /// Whether nothing has changed since a revision that somebody knows everything of.
    pub(crate) fn is_at(&self, known: Option<u64>) -> bool {
        let state = self.state.lock();
        self.is_ready() && known == Some(state.revision)
    }

    fn is_ready(&self) -> bool {
        self.phase.get() == Phase::Ready
    }

    /// Opens a watch after `from`, or with what exists for `None`.
    pub(crate) fn watch(
        &self,
        filter: &Arc<Filter>,
        from: Option<u64>,
        seen: impl Fn() -> u64,
    ) -> Result<Opened, NotOpened> {
        let mut state = self.state.lock();
        if !self.is_ready() {
            return Err(NotOpened::Reloading);
        }
        let revision = state.revision.max(seen());
        let first = match from {
            None => First::Objects(state.snapshot(filter, revision)),
            Some(from) if from < state.window_start => return Err(NotOpened::TooOld),
            Some(from) => First::Changes(
                state.window.iter().filter(|change| change.revision > from).cloned().collect(),
            ),
        };
        let (id, events) = state.watchers.add(filter.clone());
        Ok(Opened { id, first, events, revision })
    }

    pub(crate) fn unwatch(&self, id: u64) {
        self.state.lock().watchers.remove(id);
    }
}

impl State {
    /// Ends every watch and drops everything, for a new generation.
    fn forget(&mut self) {
        self.watchers.end_all();
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }

    fn snapshot(&self, filter: &Filter, seen: u64) -> Snapshot {
        let keys = filter.node.as_ref().map(|node| {
            self.by_node.get(node).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
        });
        Snapshot { objects: self.objects.clone(), keys, revision: self.revision.max(seen) }
    }

    fn index(&mut self, key: &Bytes, old: Option<&Item>, new: Option<&Item>) {
        let (old, new) = (old.and_then(Item::node), new.and_then(Item::node));
        if old == new {
            return;
        }
        if let Some(old) = old
            && let Some(keys) = self.by_node.get_mut(old)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_node.remove(old);
            }
        }
        if let Some(new) = new {
            self.by_node.entry(new.to_owned()).or_default().insert(key.clone());
        }
    }
}

impl Snapshot {
    /// The selected objects from `start` on, in the order of their keys.
    pub(crate) fn select<'a>(
        &'a self,
        filter: &'a Filter,
        prefix: &'a [u8],
    ) -> Box<dyn Iterator<Item = (&'a Bytes, &'a Item)> + Send + 'a> {
        if let Some(keys) = &self.keys {
            let items = keys.iter().filter_map(|key| self.objects.get_key_value(key));
            return Box::new(items.filter(|(_, item)| filter.matches(item)));
        }
        let everything = filter.is_everything();
        let from = std::ops::Bound::Included(prefix);
        let items = self
            .objects
            .range::<_, [u8]>((from, std::ops::Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix));
        Box::new(items.filter(move |(_, item)| everything || filter.matches(item)))
    }
}

/// Decodes what the store holds; what is no object is left out, loudly, instead of taking the
/// whole resource down.
pub(crate) fn decode(key: &Bytes, value: &Bytes, revision: u64) -> Option<Arc<Object>> {
    match Object::from_stored(value.clone(), revision) {
        Ok(object) => Some(Arc::new(object)),
        Err(error) => {
            let key = String::from_utf8_lossy(key);
            tracing::error!(%key, revision, %error, "a stored object cannot be decoded");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use orch_store::Entry;

    use super::*;
    use crate::catalog::{ApiVersions, Catalog};

    fn collection() -> Arc<Collection> {
        let catalog = Catalog::built_in(ApiVersions::Stable);
        Arc::new(Collection::new(catalog.find("", "v1", "configmaps").unwrap()))
    }

    fn added(name: &str, revision: u64) -> Event {
        let value = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}}}}"
        );
        let entry = Entry {
            key: format!("/registry/configmaps/default/{name}").into(),
            value: value.into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: None,
        };
        Event { kind: EventKind::Put, entry, previous: None }
    }

    fn everything() -> Filter {
        let catalog = Catalog::built_in(ApiVersions::Stable);
        let resource = catalog.find("", "v1", "configmaps").unwrap();
        Filter::parse(resource, resource.behaviour(), None, None, None).unwrap()
    }

    fn held(collection: &Collection) -> Option<usize> {
        let snapshot = collection.snapshot(&everything(), 0)?;
        Some(snapshot.objects.len())
    }

    #[test]
    fn one_revision_may_change_several_objects() {
        let collection = collection();
        collection.start_loading().unwrap().finish(4, imbl::OrdMap::new());
        for (name, revision) in [("a", 4), ("b", 5), ("c", 5)] {
            collection.apply(&added(name, revision), &mut |_| None);
        }
        assert_eq!(held(&collection), Some(2), "the first is older than the range");
        let filter = Arc::new(everything());
        let opened = collection.watch(&filter, Some(4), || 5).ok().unwrap();
        assert!(matches!(opened.first, First::Changes(changes) if changes.len() == 2));
    }

    #[test]
    fn a_range_from_before_a_gap_is_not_the_present() {
        let collection = collection();
        let stale = collection.start_loading().unwrap();
        assert!(collection.start_loading().is_none(), "one reads for all");
        collection.reset();
        let fresh = collection.start_loading().unwrap();
        stale.finish(4, imbl::OrdMap::new());
        assert_eq!(held(&collection), None);
        let filter = Arc::new(everything());
        let opened = collection.watch(&filter, Some(9), || 9);
        assert_eq!(opened.err(), Some(NotOpened::Reloading));
        fresh.finish(9, imbl::OrdMap::new());
        assert_eq!(held(&collection), Some(0));
    }

    #[test]
    fn who_gives_up_reading_lets_others_try() {
        let collection = collection();
        collection.apply(&added("a", 3), &mut |_| None);
        drop(collection.start_loading().unwrap());
        assert!(collection.start_loading().is_some());
    }
}
