//! What proves a store, ours and yours.
//!
//! - [`conformance`] and [`lease_conformance`] go through the whole contract; [`parts`] has each
//!   part of them alone. They panic, saying which rule was broken.
//! - [`linearizability`] drives several clients at once and judges what they saw; [`history`]
//!   has the recorder and the judge, for courses of your own.
//! - [`Model`] is a store so naive that it can be believed, to compare others with.
//!
//! The conformance suite works in a key space of its own (`/conformance/`), so that a store that
//! holds something, such as a shared etcd, can be examined; but it compacts it, and nobody else
//! may write meanwhile. It needs a tokio runtime with time, and gives up on a watch that has been
//! silent for a minute; a paused runtime suits only stores that work wholly inside it.

pub mod history;
mod linearizable;
mod model;
pub mod parts;
mod space;
mod watcher;

use std::sync::Arc;

pub use self::{
    linearizable::{Workload, linearizability},
    model::Model,
};
use crate::store::{LeasedStore, Store};

/// Every part of the suite for [`Store`].
///
/// # Panics
/// If the store does not keep the contract.
pub async fn conformance(store: Arc<dyn Store>) {
    let store = &*store;
    parts::writes(store).await;
    parts::comparisons(store).await;
    parts::transactions(store).await;
    parts::refusals(store).await;
    parts::ranges(store).await;
    parts::watches(store).await;
    parts::slow_watches(store).await;
    parts::progress(store).await;
    parts::compaction(store).await;
    parts::concurrency(store).await;
    space::Space::cleared(store).await;
}

/// The suite for [`Leases`](crate::Leases). One lease is left to expire: a second or two on the
/// store's clock.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn lease_conformance(store: &dyn LeasedStore) {
    parts::leases(store).await;
    parts::lease_transactions(store).await;
    parts::lease_expiry(store).await;
    space::Space::cleared(store).await;
}
