//! Keys of objects that may have changed, until somebody has looked at them.

use std::collections::BTreeSet;

use orch_core::Key;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A set of keys to look at, for one taker. Bounded by the number of objects there are: a key that
/// is marked again before it is taken is taken once.
#[derive(Debug, Default)]
pub(crate) struct ChangedKeys {
    keys: Mutex<BTreeSet<Key>>,
    changed: Notify,
}

impl ChangedKeys {
    /// Adds a key, and wakes the taker.
    pub(crate) fn mark(&self, key: Key) {
        self.keys.lock().insert(key);
        self.changed.notify_one();
    }

    /// Waits until keys were marked since this last returned. Safe to cancel.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All keys that wait, which may be none.
    pub(crate) fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut *self.keys.lock())
    }
}
