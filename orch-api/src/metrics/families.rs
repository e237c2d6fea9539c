//! Series by their labels, found without a lock.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Values by labels. Looking one up takes no lock; the first time that labels are seen, the table
/// is copied, which is rare: there are as many series as kinds of requests.
#[derive(Debug)]
pub(super) struct Families<const N: usize, V> {
    table: ArcSwap<HashMap<u64, Entries<N, V>>>,
    grows: Mutex<()>,
    hasher: RandomState,
}

/// Those whose labels have one hash.
type Entries<const N: usize, V> = Vec<(Arc<[String; N]>, Arc<V>)>;

impl<const N: usize, V> Default for Families<N, V> {
    fn default() -> Self {
        let table = ArcSwap::default();
        Self { table, grows: Mutex::default(), hasher: RandomState::new() }
    }
}

impl<const N: usize, V> Families<N, V> {
    /// The value of these labels, made if it is new.
    pub(super) fn get(&self, labels: [&str; N], new: impl FnOnce() -> V) -> Arc<V> {
        let hash = self.hasher.hash_one(HashedLabels(labels));
        let find = |table: &HashMap<u64, Entries<N, V>>| {
            let same = |known: &[String; N]| known.iter().zip(labels).all(|(a, b)| a == b);
            let found = table.get(&hash)?.iter().find(|(known, _)| same(known))?;
            Some(found.1.clone())
        };
        if let Some(found) = find(&self.table.load()) {
            return found;
        }
        let _grows = self.grows.lock();
        let old = self.table.load();
        if let Some(found) = find(&old) {
            return found;
        }
        let value = Arc::new(new());
        let mut table = HashMap::clone(&old);
        let labels = Arc::new(labels.map(str::to_owned));
        table.entry(hash).or_default().push((labels, value.clone()));
        self.table.store(Arc::new(table));
        value
    }

    /// Every series, in the order of the labels.
    pub(super) fn all(&self) -> Vec<(Arc<[String; N]>, Arc<V>)> {
        let table = self.table.load();
        let mut all: Vec<_> = table.values().flatten().cloned().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

struct HashedLabels<'a, const N: usize>([&'a str; N]);

impl<const N: usize> Hash for HashedLabels<'_, N> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|label| label.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    #[test]
    fn series_are_told_apart_by_all_their_labels() {
        let families: Families<2, AtomicU64> = Families::default();
        for labels in [["a", "b"], ["ab", ""], ["a", "b"], ["b", "a"]] {
            families.get(labels, Default::default).fetch_add(1, Relaxed);
        }
        let all = families.all().into_iter();
        let all: Vec<_> = all.map(|(labels, n)| (labels.join("-"), n.load(Relaxed))).collect();
        assert_eq!(all, [("a-b".into(), 2), ("ab-".into(), 1), ("b-a".into(), 1)]);
    }
}
