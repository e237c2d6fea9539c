//! Who watches a collection, indexed so that a change costs only those who may care.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use orch_core::{Object, client::WatchEvent};
use tokio::sync::mpsc;

use super::filter::{Filter, Item};

/// How many events a watcher may be behind before it is ended; it then watches again from the
/// last revision it saw. Memory is used only as far as the queue is filled.
const QUEUE_MAX: usize = 16_384;

/// One change of one object, as the cache keeps it for those who watch from an older revision.
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) old: Option<Item>,
    pub(crate) new: Option<Item>,
    /// The old object as those see it for whom this is a deletion.
    last: OnceLock<Arc<Object>>,
}

impl Change {
    pub(crate) fn new(revision: u64, old: Option<Item>, new: Option<Item>) -> Self {
        Self { revision, old, new, last: OnceLock::new() }
    }

    /// What the change is to somebody who sees only a selection.
    pub(crate) fn through(&self, filter: &Filter) -> Option<WatchEvent> {
        let is_in = |item: &Option<Item>| item.as_ref().filter(|i| filter.matches(i)).cloned();
        match (is_in(&self.old), is_in(&self.new)) {
            (None, Some(new)) => Some(WatchEvent::Added(new.object.clone())),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new.object.clone())),
            (Some(old), None) => {
                let last = self.last.get_or_init(|| {
                    let last = old.object.at_revision(self.revision).map(Arc::new);
                    last.unwrap_or_else(|_| old.object.clone())
                });
                Some(WatchEvent::Deleted(last.clone()))
            }
            (None, None) => None,
        }
    }
}

struct Watcher {
    filter: Arc<Filter>,
    queue: mpsc::Sender<WatchEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    All,
    Namespace(String),
    Name(String),
    Node(String),
}

impl Place {
    fn of(filter: &Filter) -> Self {
        if let Some(name) = &filter.name {
            Self::Name(name.clone())
        } else if let Some(node) = &filter.node {
            Self::Node(node.clone())
        } else if let Some(namespace) = &filter.namespace {
            Self::Namespace(namespace.clone())
        } else {
            Self::All
        }
    }
}

/// The watchers of one resource.
#[derive(Default)]
pub(crate) struct Watchers {
    next: u64,
    all: HashMap<u64, Watcher>,
    places: HashMap<Place, Vec<u64>>,
}

impl Watchers {
    pub(crate) fn add(&mut self, filter: Arc<Filter>) -> (u64, mpsc::Receiver<WatchEvent>) {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        self.next += 1;
        self.places.entry(Place::of(&filter)).or_default().push(self.next);
        self.all.insert(self.next, Watcher { filter, queue });
        (self.next, events)
    }

    pub(crate) fn remove(&mut self, id: u64) {
        let Some(watcher) = self.all.remove(&id) else { return };
        let place = Place::of(&watcher.filter);
        if let Some(ids) = self.places.get_mut(&place) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.places.remove(&place);
            }
        }
    }

    /// Ends every watch: what they were told can no longer be continued.
    pub(crate) fn end_all(&mut self) {
        self.all.clear();
        self.places.clear();
    }

    pub(crate) fn tell(&mut self, change: &Change) {
        if self.all.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for place in places_of(change) {
            for id in self.places.get(&place).into_iter().flatten() {
                let Some(watcher) = self.all.get(id) else { continue };
                let Some(event) = change.through(&watcher.filter) else { continue };
                // A full queue ends the watch as a gone reader does: silence would be a gap.
                if watcher.queue.try_send(event).is_err() {
                    gone.push(*id);
                }
            }
        }
        for id in gone {
            self.remove(id);
        }
    }
}

fn places_of(change: &Change) -> Vec<Place> {
    let mut places = Vec::with_capacity(4);
    places.push(Place::All);
    if let Some(item) = change.new.as_ref().or(change.old.as_ref()) {
        let (namespace, name) = (item.object.namespace(), item.object.name());
        if !namespace.is_empty() {
            places.push(Place::Namespace(namespace.to_owned()));
        }
        places.push(Place::Name(name.to_owned()));
    }
    let node = |item: &Option<Item>| item.as_ref().and_then(|item| item.node().map(str::to_owned));
    let (old, new) = (node(&change.old), node(&change.new));
    if let Some(old) = old.clone().filter(|old| Some(old) != new.as_ref()) {
        places.push(Place::Node(old));
    }
    places.extend(new.map(Place::Node));
    places
}
