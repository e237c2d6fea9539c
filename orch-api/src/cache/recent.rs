//! Objects that are read again and again without being listed or watched: the namespace of every
//! write, for example. A read tells their revision; only what has changed is decoded again.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use orch_core::Object;
use orch_store::Entry;
use parking_lot::Mutex;

use super::decode;

/// How many objects are kept, and how long one may be.
const SLOTS: usize = 64;
const BYTES_MAX: usize = 64 << 10;

type Slot = Mutex<Option<(Bytes, Arc<Object>)>>;

/// The objects that were read last, by a hash of their keys.
#[derive(Default)]
pub(super) struct Recent {
    slots: OnceLock<(RandomState, Box<[Slot]>)>,
}

impl Recent {
    /// The object of an entry.
    pub(super) fn object(&self, entry: &Entry) -> Option<Arc<Object>> {
        let (hasher, slots) = self
            .slots
            .get_or_init(|| (RandomState::new(), (0..SLOTS).map(|_| Mutex::new(None)).collect()));
        let slot = &slots[(hasher.hash_one(&entry.key) % SLOTS as u64) as usize];
        let known = slot.lock().clone();
        if let Some((key, object)) = known
            && key == entry.key
            && object.revision() == Some(entry.mod_revision)
        {
            return Some(object);
        }
        let object = decode(&entry.key, &entry.value, entry.mod_revision)?;
        if entry.value.len() <= BYTES_MAX {
            *slot.lock() = Some((entry.key.clone(), object.clone()));
        }
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_shared() {
        let entry = |revision| Entry {
            key: "/registry/namespaces/a".into(),
            value: r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}}"#.into(),
            create_revision: 1,
            mod_revision: revision,
            version: 1,
            lease: None,
        };
        let recent = Recent::default();
        let first = recent.object(&entry(7)).unwrap();
        assert!(Arc::ptr_eq(&first, &recent.object(&entry(7)).unwrap()));
        let newer = recent.object(&entry(8)).unwrap();
        assert_eq!(newer.revision(), Some(8));
        assert!(!Arc::ptr_eq(&newer, &recent.object(&entry(7)).unwrap()));
    }
}
