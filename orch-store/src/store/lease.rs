//! Leases: keys with a time to live.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::StoreError;

/// A lease's id.
pub type LeaseId = i64;

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The time to live that was granted, in seconds.
    pub granted_ttl_s: i64,
    /// What is left of it.
    pub remaining: Duration,
    /// The keys that hang on it, in order.
    pub keys: Vec<Bytes>,
}

/// Reads leases.
#[async_trait]
pub trait LeaseReader: Send + Sync + fmt::Debug + 'static {
    /// A lease as it stands; `None` if there is none of this id.
    async fn lease(&self, id: LeaseId) -> Result<Option<LeaseStatus>, StoreError>;

    /// The ids of all leases, in order.
    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError>;
}

/// Keys with a time to live. A part of the contract of its own, because not every user of a store
/// needs it.
#[async_trait]
pub trait Leases: LeaseReader {
    /// Grants a lease of `ttl_s` seconds (at least 1); `id` of `None` lets the store choose.
    ///
    /// # Errors
    /// [`StoreError::LeaseExists`] for an id in use.
    async fn grant(&self, id: Option<LeaseId>, ttl_s: i64) -> Result<LeaseId, StoreError>;

    /// Starts the time to live anew; gives the seconds granted, or `None` if the lease is gone.
    async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>, StoreError>;

    /// Ends a lease and deletes its keys; `false` if there was no such lease.
    async fn revoke(&self, id: LeaseId) -> Result<bool, StoreError>;
}
