//! What an informer holds, and what it is found by.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
};

use crate::{object::Object, resource::Key};

pub(super) type IndexFn<K> = fn(&K) -> Vec<String>;

pub(super) struct Index<K> {
    pub(super) of: IndexFn<K>,
    pub(super) keys: HashMap<String, BTreeSet<Key>>,
}

impl<K> Index<K> {
    pub(super) fn put(&mut self, values: Vec<String>, key: &Key) {
        for value in values {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn take(&mut self, values: Vec<String>, key: &Key) {
        for value in values {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

/// What is here of an object: its typed view, and what that was made from.
pub(super) struct Held<K> {
    pub(super) typed: Arc<K>,
    /// Weak: without others that hold it, nobody needs the bytes.
    pub(super) object: Weak<Object>,
}

impl<K> Held<K> {
    /// Another revision has taken its place.
    pub(super) fn replaced(self) -> Arc<K> {
        if let Some(object) = self.object.upgrade() {
            object.forget_typed();
        }
        self.typed
    }
}

pub(super) struct State<K> {
    pub(super) objects: BTreeMap<Key, Held<K>>,
    pub(super) indexes: BTreeMap<&'static str, Index<K>>,
}

impl<K> State<K> {
    pub(super) fn insert(&mut self, key: Key, held: Held<K>) -> Option<Held<K>> {
        let Some(known) = self.objects.get_mut(&key) else {
            for index in self.indexes.values_mut() {
                index.put((index.of)(&held.typed), &key);
            }
            self.objects.insert(key, held);
            return None;
        };
        for index in self.indexes.values_mut() {
            let (before, after) = ((index.of)(&known.typed), (index.of)(&held.typed));
            // Most changes are of something else.
            if before != after {
                index.take(before, &key);
                index.put(after, &key);
            }
        }
        Some(std::mem::replace(known, held))
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Held<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.take((index.of)(&old.typed), key);
        }
        Some(old)
    }

    pub(super) fn typed(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values().map(|held| &held.typed)
    }
}
