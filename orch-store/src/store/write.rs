//! Writes of one key.

use bytes::Bytes;

use super::{Entry, LeaseId, Revision};

/// What must be true of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key does not exist.
    Absent,
    /// The key exists and this is its mod revision. 0 is as [`Precondition::Absent`].
    ModRevision(Revision),
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value.
    Put {
        /// The value.
        value: Bytes,
        /// The lease to attach the key to.
        lease: Option<LeaseId>,
    },
    /// Removes the key.
    Delete,
}

/// A change of one key, guarded by a precondition. Atomic: it happens wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key; not empty.
    pub key: Bytes,
    /// The guard.
    pub precondition: Precondition,
    /// The change.
    pub operation: Operation,
}

impl Write {
    /// Sets a key, whatever is there.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let operation = Operation::Put { value: value.into(), lease: None };
        Self { key: key.into(), precondition: Precondition::None, operation }
    }

    /// Sets a key that must not exist yet.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { precondition: Precondition::Absent, ..Self::put(key, value) }
    }

    /// Sets a key that must be as `revision` left it.
    pub fn update(key: impl Into<Bytes>, revision: Revision, value: impl Into<Bytes>) -> Self {
        Self { precondition: Precondition::ModRevision(revision), ..Self::put(key, value) }
    }

    /// Removes a key under a precondition.
    pub fn delete(key: impl Into<Bytes>, precondition: Precondition) -> Self {
        Self { key: key.into(), precondition, operation: Operation::Delete }
    }
}

/// How a write ended. A failed precondition is an outcome, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The change was committed as `revision` (deleting an absent key changes nothing and gives
    /// the store's current revision). `previous` is what it replaced.
    Committed {
        /// The revision of the change.
        revision: Revision,
        /// The entry before.
        previous: Option<Entry>,
    },
    /// The precondition did not hold; `current` is the key as it is.
    PreconditionFailed {
        /// The entry as it is.
        current: Option<Entry>,
        /// The store's revision at which that was seen.
        revision: Revision,
    },
}
