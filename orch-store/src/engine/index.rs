//! The keys in order: a persistent B+ tree that knows how many live keys each part of it has.
//!
//! A clone takes constant time and shares everything; a change copies only the nodes on its way
//! that somebody else still holds. Counting a range takes logarithmic time, which a list that is
//! read page by page needs on every page. Keys in order are packed tightly, as when a store is
//! opened.

mod node;
mod search;

use std::sync::Arc;

use bytes::Bytes;

use self::node::{Node, Removed};
use super::version::Version;
use crate::store::KeyRange;

/// The newest version of every key, tombstones included, in the order of keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    root: Arc<Node>,
}

impl Index {
    /// The newest version of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Version>> {
        self.root.get(key)
    }

    /// Sets the newest version of its key; gives the one before.
    pub(crate) fn insert(&mut self, version: Arc<Version>) -> Option<Arc<Version>> {
        let (replaced, right) = Arc::make_mut(&mut self.root).insert(version);
        if let Some(right) = right {
            let left = std::mem::take(&mut self.root);
            self.root = Arc::new(Node::parent(left, right));
        }
        replaced
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Arc<Version>> {
        // A miss must not copy anything.
        self.get(key)?;
        let Removed { version, .. } = Arc::make_mut(&mut self.root).remove(key)?;
        while let Some(only) = self.root.only_child() {
            self.root = only;
        }
        Some(version)
    }

    /// How many keys of a range are live.
    pub(crate) fn count(&self, range: &KeyRange) -> usize {
        let below_end = match &range.end {
            Some(end) => self.root.live_below(end),
            None => self.root.live(),
        };
        below_end.saturating_sub(self.root.live_below(&range.start))
    }

    /// The newest versions in a range, tombstones included.
    pub(crate) fn range<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Arc<Version>> + use<'a> {
        let reversed = range.end.as_ref().is_some_and(|end| *end <= range.start);
        let root = (!reversed).then_some(&*self.root);
        root.into_iter()
            .flat_map(|root| root.leaves(&range.start, range.end.as_ref().map(Bytes::as_ref)))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn version(key: &[u8], live: bool) -> Arc<Version> {
        let head = Version::put(Bytes::copy_from_slice(key), Bytes::new(), None, 2, None);
        if live { head } else { Version::tombstone(3, &head) }
    }

    fn check(index: &Index, model: &BTreeMap<Vec<u8>, bool>, range: &KeyRange) {
        let wanted = model.iter().filter(|(key, _)| range.contains(key));
        let keys: Vec<_> = wanted.clone().map(|(key, _)| key.clone()).collect();
        let found: Vec<_> = index.range(range).map(|head| head.entry.key.to_vec()).collect();
        assert_eq!(found, keys, "{range:?}");
        assert_eq!(index.count(range), wanted.filter(|(_, live)| **live).count(), "{range:?}");
        for (key, live) in model {
            assert_eq!(index.get(key).map(|head| head.live().is_some()), Some(*live));
        }
    }

    /// Keys that share long prefixes, are prefixes of each other, or hold zero bytes.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = proptest::sample::select(&[0, b'a', b'b', 255][..]);
        let tail = proptest::collection::vec(byte, 0..10);
        let heads: &[&[u8]] = &[b"/registry/pods/default/", b"/registry/", b""];
        (proptest::sample::select(heads), tail).prop_map(|(head, tail)| [head, &tail].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: orch_core::testing::rounds(64), failure_persistence: None, ..<_>::default()
        })]

        #[test]
        fn index_is_an_ordered_map_that_counts(
            changes in proptest::collection::vec((key(), 0u8..4), 1..800),
            bounds in proptest::collection::vec((key(), proptest::option::of(key())), 1..8),
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            let mut forks = Vec::new();
            for (number, (key, change)) in changes.into_iter().enumerate() {
                if number % 100 == 50 {
                    forks.push((index.clone(), model.clone()));
                }
                if change == 0 {
                    assert_eq!(index.remove(&key).is_some(), model.remove(&key).is_some());
                } else {
                    let replaced = index.insert(version(&key, change > 1));
                    assert_eq!(replaced.is_some(), model.insert(key, change > 1).is_some());
                }
            }
            forks.push((index, model));
            for (start, end) in bounds {
                let end = end.map(Bytes::from);
                let range = KeyRange { start: start.into(), end };
                forks.iter().for_each(|(index, model)| check(index, model, &range));
            }
        }
    }

    #[test]
    fn order_packs_tightly_and_everything_can_go() {
        let key = |number: u32| format!("/registry/pods/{number:08}");
        let mut index = Index::default();
        for number in 0..10_000 {
            index.insert(version(key(number).as_bytes(), true));
        }
        let all = KeyRange::prefix("");
        let leaves = index.root.leaves(b"", None).count();
        assert!(leaves <= 10_000 / 60, "{leaves} leaves");
        for number in (0..10_000).rev().chain([3]) {
            index.remove(key(number).as_bytes());
        }
        assert_eq!((index.count(&all), index.range(&all).count()), (0, 0));
        assert_eq!(index.root.leaves(b"", None).count(), 1);
    }
}
