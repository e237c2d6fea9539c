//! What an informer holds, and what it is found by.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::{object::Object, resource::Key};

pub(super) type IndexFn<K> = fn(&K) -> Vec<String>;

/// The objects under one value. Most values have one, for which a tree would be a waste.
enum Keys {
    One(Key),
    Many(BTreeSet<Key>),
}

impl Keys {
    fn insert(&mut self, key: &Key) {
        match self {
            Self::One(only) if only == key => {}
            Self::One(first) => {
                *self = Self::Many(BTreeSet::from([std::mem::take(first), key.clone()]));
            }
            Self::Many(keys) => drop(keys.insert(key.clone())),
        }
    }

    /// Gives whether there is none left.
    fn remove(&mut self, key: &Key) -> bool {
        match self {
            Self::One(only) => only == key,
            Self::Many(keys) => {
                keys.remove(key);
                keys.is_empty()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(keys) => keys.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Key> {
        let (one, many) = match self {
            Self::One(key) => (Some(key), None),
            Self::Many(keys) => (None, Some(keys)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

pub(super) struct Index<K> {
    of: IndexFn<K>,
    keys: HashMap<String, Keys>,
}

impl<K> Index<K> {
    pub(super) fn new(of: IndexFn<K>) -> Self {
        Self { of, keys: HashMap::new() }
    }

    fn put(&mut self, values: Vec<String>, key: &Key) {
        for value in values {
            match self.keys.entry(value) {
                Entry::Occupied(mut keys) => keys.get_mut().insert(key),
                Entry::Vacant(place) => drop(place.insert(Keys::One(key.clone()))),
            }
        }
    }

    pub(super) fn add(&mut self, object: &K, key: &Key) {
        self.put((self.of)(object), key);
    }

    fn take(&mut self, values: Vec<String>, key: &Key) {
        for value in values {
            if self.keys.get_mut(&value).is_some_and(|keys| keys.remove(key)) {
                self.keys.remove(&value);
            }
        }
    }

    pub(super) fn count(&self, value: &str) -> usize {
        self.keys.get(value).map_or(0, Keys::len)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &String> {
        self.keys.keys()
    }
}

/// An object's typed view, while it is used: it takes several times what the bytes take.
struct View<K> {
    typed: Option<Arc<K>>,
    /// Since the last [`State::cool`].
    used: bool,
}

/// One object that is here.
pub(super) struct Held<K> {
    object: Arc<Object>,
    view: Mutex<View<K>>,
}

impl<K: DeserializeOwned + Send + Sync + 'static> Held<K> {
    /// An object and its typed view.
    pub(super) fn new(object: Arc<Object>, typed: Arc<K>) -> Self {
        Self { object, view: Mutex::new(View { typed: Some(typed), used: true }) }
    }

    /// The typed view, made again if it was let go.
    pub(super) fn typed(&self) -> Option<Arc<K>> {
        let mut view = self.view.lock();
        view.used = true;
        if view.typed.is_none() {
            let made = self.object.decode::<K>();
            view.typed = made
                .inspect_err(|error| {
                    tracing::error!(object = ?self.object, %error, "was decoded before, and cannot");
                })
                .ok();
        }
        view.typed.clone()
    }

    /// Another revision has taken its place.
    pub(super) fn replaced(self) -> Option<Arc<K>> {
        let typed = self.typed();
        self.object.forget_typed();
        typed
    }

    /// Lets go of a view that was not used for a while; gives whether there still is one.
    fn cool(&mut self) -> bool {
        let view = self.view.get_mut();
        if !std::mem::take(&mut view.used) && view.typed.take().is_some() {
            self.object.forget_typed();
        }
        view.typed.is_some()
    }
}

pub(super) struct State<K> {
    pub(super) objects: BTreeMap<Key, Held<K>>,
    pub(super) indexes: BTreeMap<&'static str, Index<K>>,
    /// Some object may have a view.
    warm: AtomicBool,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        let (objects, indexes, warm) = Default::default();
        Self { objects, indexes, warm }
    }
}

impl<K: DeserializeOwned + Send + Sync + 'static> State<K> {
    /// Puts an object in the place of its last revision, which is given back.
    pub(super) fn insert(
        &mut self,
        key: Key,
        object: Arc<Object>,
        typed: &Arc<K>,
    ) -> Option<Arc<K>> {
        self.touch();
        let held = Held::new(object, typed.clone());
        let Some(known) = self.objects.get_mut(&key) else {
            for index in self.indexes.values_mut() {
                index.add(typed, &key);
            }
            self.objects.insert(key, held);
            return None;
        };
        let old = std::mem::replace(known, held).replaced()?;
        for index in self.indexes.values_mut() {
            let (before, after) = ((index.of)(&old), (index.of)(typed));
            // Most changes are of something else.
            if before != after {
                index.take(before, &key);
                index.put(after, &key);
            }
        }
        Some(old)
    }

    /// Takes an object out, and gives its last revision.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?.replaced()?;
        for index in self.indexes.values_mut() {
            index.take((index.of)(&old), key);
        }
        Some(old)
    }

    /// Whether this very revision is here already.
    pub(super) fn holds(&self, key: &Key, object: &Object) -> bool {
        self.objects.get(key).is_some_and(|held| held.object.is_revision_of(object))
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.touch();
        self.objects.get(key)?.typed()
    }

    pub(super) fn typed(&self) -> impl Iterator<Item = Arc<K>> {
        self.touch();
        self.objects.values().filter_map(Held::typed)
    }

    /// The objects under a value of an index.
    pub(super) fn by_index(&self, name: &str, value: &str) -> impl Iterator<Item = Arc<K>> {
        let keys = self.indexes.get(name).and_then(|index| index.keys.get(value));
        keys.into_iter().flat_map(Keys::iter).filter_map(|key| self.get(key))
    }

    /// Notes that a view is used. Read first: all readers would write to one place.
    pub(super) fn touch(&self) {
        if !self.warm.load(Ordering::Relaxed) {
            self.warm.store(true, Ordering::Relaxed);
        }
    }

    /// Lets go of the views that were not used since the last time. Costs nothing once there is
    /// none.
    pub(super) fn cool(&mut self) {
        if std::mem::take(self.warm.get_mut()) {
            let left = self.objects.values_mut().map(Held::cool).filter(|warm| *warm).count();
            *self.warm.get_mut() = left > 0;
        }
    }
}
