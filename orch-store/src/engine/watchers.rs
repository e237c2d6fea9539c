//! Who watches what, found from a key without visiting everybody.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::version::Version;
use crate::store::{Event, KeyRange, Revision, WatchItem};

/// A watcher's number, unique in its store.
pub(crate) type WatcherId = u64;

type Fast<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

#[derive(Debug)]
struct Watcher {
    id: WatcherId,
    range: KeyRange,
    /// Changes below are not wanted (the watch starts in the future).
    from: Revision,
    sender: mpsc::Sender<WatchItem>,
    lagged: Arc<AtomicBool>,
}

impl Watcher {
    /// Hands over an item; `false` if the watcher is gone or has fallen behind.
    fn send(&self, item: WatchItem) -> bool {
        match self.sender.try_send(item) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// Where a watcher is kept, so that a key leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Key(Bytes),
    Prefix(Bytes),
    Other,
}

impl Place {
    fn of(range: &KeyRange) -> Self {
        if *range == KeyRange::prefix(range.start.clone()) {
            Self::Prefix(range.start.clone())
        } else if *range == KeyRange::key(range.start.clone()) {
            Self::Key(range.start.clone())
        } else {
            Self::Other
        }
    }
}

/// The watchers of a store. A key's are found by one look-up for the key itself and one for each
/// length of prefix that anybody watches; only ranges of other shapes are visited one by one.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    next_id: WatcherId,
    places: HashMap<WatcherId, Place>,
    keys: Fast<Bytes, Vec<Watcher>>,
    prefixes: BTreeMap<usize, Fast<Bytes, Vec<Watcher>>>,
    others: Vec<Watcher>,
    /// How often progress was asked for.
    pub(crate) progress_requests: u64,
}

/// The receiving side of a registration.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: WatcherId,
    pub(crate) receiver: mpsc::Receiver<WatchItem>,
    /// Set before the channel is closed on a watcher that did not keep up.
    lagged: Arc<AtomicBool>,
    /// How often progress had been asked for when the watcher was added.
    pub(crate) progress_requests: u64,
}

impl Registration {
    /// Whether the channel was closed because it was full.
    pub(crate) fn has_lagged(&self) -> bool {
        self.lagged.load(Ordering::Acquire)
    }
}

impl Watchers {
    /// Adds a watcher of `range` from revision `from` on, with room for `buffer` items.
    pub(crate) fn add(&mut self, range: &KeyRange, from: Revision, buffer: usize) -> Registration {
        self.next_id += 1;
        let id = self.next_id;
        let (sender, receiver) = mpsc::channel(buffer.max(1));
        let lagged = Arc::new(AtomicBool::new(false));
        let watcher = Watcher { id, range: range.clone(), from, sender, lagged: lagged.clone() };
        let place = Place::of(range);
        match &place {
            Place::Key(key) => self.keys.entry(key.clone()).or_default().push(watcher),
            Place::Prefix(prefix) => {
                let same_length = self.prefixes.entry(prefix.len()).or_default();
                same_length.entry(prefix.clone()).or_default().push(watcher);
            }
            Place::Other => self.others.push(watcher),
        }
        self.places.insert(id, place);
        Registration { id, receiver, lagged, progress_requests: self.progress_requests }
    }

    /// Removes a watcher; nothing happens if it is gone already.
    pub(crate) fn remove(&mut self, id: WatcherId) {
        match self.places.remove(&id) {
            None => {}
            Some(Place::Other) => self.others.retain(|watcher| watcher.id != id),
            Some(Place::Key(key)) => {
                if let Some(list) = self.keys.get_mut(&key) {
                    list.retain(|watcher| watcher.id != id);
                    if list.is_empty() {
                        self.keys.remove(&key);
                    }
                }
            }
            Some(Place::Prefix(prefix)) => self.remove_prefix(&prefix, id),
        }
    }

    fn remove_prefix(&mut self, prefix: &Bytes, id: WatcherId) {
        let Some(same_length) = self.prefixes.get_mut(&prefix.len()) else { return };
        if let Some(list) = same_length.get_mut(prefix) {
            list.retain(|watcher| watcher.id != id);
            if list.is_empty() {
                same_length.remove(prefix);
            }
        }
        if same_length.is_empty() {
            self.prefixes.remove(&prefix.len());
        }
    }

    /// Whether nobody watches anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Delivers the changes of one revision.
    pub(crate) fn notify(&mut self, revision: Revision, versions: &[Arc<Version>]) {
        let gone = match versions {
            [version] => self.notify_one(revision, version),
            _ => self.notify_many(revision, versions),
        };
        gone.into_iter().for_each(|id| self.remove(id));
    }

    /// The common case: one batch, shared by every watcher, made only if there is one.
    fn notify_one(&self, revision: Revision, version: &Version) -> Vec<WatcherId> {
        let mut gone = Vec::new();
        let mut batch: Option<Arc<[Event]>> = None;
        self.visit(&version.entry.key, &mut |watcher| {
            if revision < watcher.from {
                return;
            }
            let batch = batch.get_or_insert_with(|| Arc::new([version.event()]));
            if !watcher.send(WatchItem::Events(batch.clone())) {
                gone.push(watcher.id);
            }
        });
        gone
    }

    fn notify_many(&self, revision: Revision, versions: &[Arc<Version>]) -> Vec<WatcherId> {
        let mut interested: BTreeMap<WatcherId, &Watcher> = BTreeMap::new();
        for version in versions {
            self.visit(&version.entry.key, &mut |watcher| {
                interested.insert(watcher.id, watcher);
            });
        }
        let behind = |watcher: &&&Watcher| {
            let wanted = versions.iter().filter(|v| watcher.range.contains(&v.entry.key));
            !watcher.send(WatchItem::Events(wanted.map(|version| version.event()).collect()))
        };
        let interested = interested.values().filter(|watcher| revision >= watcher.from);
        interested.filter(behind).map(|watcher| watcher.id).collect()
    }

    fn visit<'a>(&'a self, key: &[u8], each: &mut dyn FnMut(&'a Watcher)) {
        self.keys.get(key).into_iter().flatten().for_each(&mut *each);
        for (length, same_length) in self.prefixes.range(..=key.len()) {
            same_length.get(&key[..*length]).into_iter().flatten().for_each(&mut *each);
        }
        let others = self.others.iter().filter(|watcher| watcher.range.contains(key));
        others.for_each(each);
    }

    /// Tells everybody who has room that all changes up to `revision` have been sent.
    pub(crate) fn progress(&mut self, revision: Revision) {
        self.progress_requests += 1;
        let prefixes = self.prefixes.values().flat_map(HashMap::values);
        let lists = self.keys.values().chain(prefixes).chain([&self.others]);
        for watcher in lists.flatten() {
            // A full buffer is not a reason to end a watch here: no change is lost.
            let _ = watcher.sender.try_send(WatchItem::Progress(revision));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_watchers_only() {
        let mut watchers = Watchers::default();
        let ranges = [
            KeyRange::prefix("/pods/a/"),
            KeyRange::prefix("/pods/"),
            KeyRange::prefix(""),
            KeyRange::key("/pods/a/x"),
            KeyRange { start: "/pods/a".into(), end: Some("/pods/b".into()) },
            KeyRange::prefix("/pods/b/"),
            KeyRange::key("/pods/a/y"),
            KeyRange { start: "/q".into(), end: None },
        ];
        let registrations: Vec<_> =
            ranges.iter().map(|range| watchers.add(range, 0, 4).id).collect();
        let mut found = Vec::new();
        watchers.visit(b"/pods/a/x", &mut |watcher| found.push(watcher.id));
        found.sort_unstable();
        assert_eq!(found, registrations[..5]);
        registrations.into_iter().for_each(|id| watchers.remove(id));
        assert!(watchers.is_empty() && watchers.keys.is_empty() && watchers.prefixes.is_empty());
    }
}
