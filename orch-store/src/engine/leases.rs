//! Leases: which exist, until when, and which keys hang on them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use orch_core::{Environment, random::Random};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::Engine;
use crate::{
    StoreError,
    store::{LeaseId, LeaseStatus},
};

/// The longest time to live in seconds, as etcd has it.
pub(crate) const TTL_S_MAX: i64 = 9_000_000_000;

/// One lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) ttl_s: i64,
    deadline: Instant,
    keys: OrdSet<Bytes>,
}

/// The leases of a store. A clone takes constant time.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaseTable {
    leases: OrdMap<LeaseId, Lease>,
    deadlines: OrdSet<(Instant, LeaseId)>,
}

fn deadline(ttl_s: i64) -> Instant {
    // Centuries saturate: tokio's instants cannot be added to without limit.
    let ttl = Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0));
    let now = Instant::now();
    now.checked_add(ttl).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30))
}

/// Refuses a time to live that no lease can have.
pub(crate) fn check_ttl(ttl_s: i64) -> Result<(), StoreError> {
    if (1..=TTL_S_MAX).contains(&ttl_s) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("a time to live of {ttl_s} s is not within 1..={TTL_S_MAX}")))
}

/// The id for a new lease: the one asked for, or a free positive one.
pub(crate) fn choose(
    table: &LeaseTable,
    id: Option<LeaseId>,
    random: &dyn Random,
) -> Result<LeaseId, StoreError> {
    match id {
        Some(id) if id <= 0 => {
            Err(StoreError::Invalid(format!("a lease's id must be positive, not {id}")))
        }
        Some(id) if table.contains(id) => Err(StoreError::LeaseExists(id)),
        Some(id) => Ok(id),
        None => loop {
            let id = (random.next_u64() >> 1) as LeaseId;
            if id > 0 && !table.contains(id) {
                return Ok(id);
            }
        },
    }
}

impl LeaseTable {
    /// Whether there is such a lease.
    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Adds a lease, its time starting now.
    pub(crate) fn grant(&mut self, id: LeaseId, ttl_s: i64) {
        let lease = Lease { ttl_s, deadline: deadline(ttl_s), keys: OrdSet::new() };
        self.deadlines.insert((lease.deadline, id));
        self.leases.insert(id, lease);
    }

    /// Starts a lease's time anew; gives its time to live.
    pub(crate) fn keep_alive(&mut self, id: LeaseId) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = deadline(lease.ttl_s);
        self.deadlines.insert((lease.deadline, id));
        Some(lease.ttl_s)
    }

    /// Removes a lease; gives the keys that hang on it.
    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<OrdSet<Bytes>> {
        let lease = self.leases.remove(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        Some(lease.keys)
    }

    /// The keys that hang on a lease.
    pub(crate) fn keys(&self, id: LeaseId) -> Option<&OrdSet<Bytes>> {
        self.leases.get(&id).map(|lease| &lease.keys)
    }

    /// A lease as it stands.
    pub(crate) fn status(&self, id: LeaseId) -> Option<LeaseStatus> {
        let lease = self.leases.get(&id)?;
        Some(LeaseStatus {
            granted_ttl_s: lease.ttl_s,
            remaining: lease.deadline.saturating_duration_since(Instant::now()),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// The ids of all leases, in order.
    pub(crate) fn ids(&self) -> Vec<LeaseId> {
        self.leases.keys().copied().collect()
    }

    /// Every lease with its time to live in seconds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_s))
    }

    /// Moves a key from one lease to another.
    pub(crate) fn attach(&mut self, key: &Bytes, from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(lease) = from.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = to.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
    }

    /// Whether a lease's time is over.
    pub(crate) fn is_expired(&self, id: LeaseId) -> bool {
        self.leases.get(&id).is_some_and(|lease| lease.deadline <= Instant::now())
    }

    /// The lease that ends next.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, LeaseId)> {
        self.deadlines.get_min().copied()
    }
}

/// What the expiry task needs of a store. It must not keep the store open.
#[async_trait]
pub(crate) trait Expire: Send + Sync + 'static {
    /// The engine, as long as the store is open.
    fn engine(&self) -> Option<Arc<Engine>>;

    /// Revokes a lease if its time is still over. An error ends the task.
    async fn expire(&self, id: LeaseId) -> Result<(), StoreError>;
}

/// The task that ends leases in time. It runs on the runtime that granted the first lease, and is
/// started anew if that runtime is gone; it stops with its store.
#[derive(Debug, Default)]
pub(crate) struct Expirer {
    changed: Arc<Notify>,
    task: Mutex<Option<AbortHandle>>,
}

impl Expirer {
    /// Makes sure that the task runs and looks at the deadlines again.
    pub(crate) fn wake(&self, store: impl Expire, environment: &Environment) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let run = run(store, self.changed.clone(), environment.clone());
            *task = Some(tokio::spawn(run).abort_handle());
        }
        self.changed.notify_one();
    }
}

impl Drop for Expirer {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

async fn run(store: impl Expire, changed: Arc<Notify>, environment: Environment) {
    loop {
        let next = store.engine().map(|engine| engine.state.read().leases.next_deadline());
        let Some(next) = next else { return };
        let Some((deadline, id)) = next else {
            changed.notified().await;
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            tokio::select! {
                () = environment.clock.sleep(left) => {}
                () = changed.notified() => {}
            }
            continue;
        }
        if let Err(error) = store.expire(id).await {
            tracing::warn!(lease = id, %error, "a lease could not be ended");
            return;
        }
    }
}
