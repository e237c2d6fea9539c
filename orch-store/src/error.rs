//! What goes wrong with a store.

use crate::store::{LeaseId, Revision};

/// Why a store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The revision has been compacted away. `compacted` is the oldest one that can be read, or
    /// 0 where the store does not tell.
    #[error("required revision {requested} has been compacted (compaction revision {compacted})")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The compaction revision.
        compacted: Revision,
    },
    /// The revision has not been reached yet.
    #[error("required revision {requested} is a future revision (current is {current})")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision, or 0 where the store does not tell.
        current: Revision,
    },
    /// Whether the write took place is unknown: the connection broke or the deadline passed
    /// after it was sent.
    #[error("the outcome of the write is unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be reached or is shut down. Nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is on disk is damaged. The store refuses to serve it.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The request makes no sense: an empty key, a time to live out of range. Nothing was written.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// A put that was to keep the value or the lease of a key found no such key. Nothing was
    /// written.
    #[error("the key to keep a part of does not exist")]
    NothingToKeep,
    /// There is no such lease; the write that wanted it did not take place.
    #[error("lease {0} does not exist")]
    LeaseNotFound(LeaseId),
    /// A lease with that id exists already.
    #[error("lease {0} exists already")]
    LeaseExists(LeaseId),
    /// Another process holds the folder.
    #[error("{0} is in use by another process")]
    Locked(String),
    /// The disk is full: there is no room for the write at this path, and nothing was written. The
    /// store goes on, and the same write succeeds when there is room again.
    #[error("no space is left on the disk for {0}")]
    NoSpace(String),
    /// Reading or writing the folder failed. The store takes no more writes; whether the write
    /// that met the failure is there after the next start is unknown.
    #[error("storage input/output failed: {0}")]
    Io(String, #[source] std::io::Error),
}

impl StoreError {
    /// Whether the same call may succeed later. After [`StoreError::Unknown`] a retried write must
    /// be guarded by the revision that it expects.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Unavailable(_) | Self::NoSpace(_))
    }
}
