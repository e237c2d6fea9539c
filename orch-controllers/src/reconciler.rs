//! The contract of everything that drives objects towards what they ask for.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use orch_core::{ClientError, Key, object::DecodeError};

/// What the queue does with a key that was reconciled without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Done,
    /// Reconcile again after this time, even if nothing changes. The back-off of the key is reset.
    RequeueAfter(Duration),
}

/// Why a key could not be reconciled. Whatever it is, the key is tried again with back-off: a
/// controller never gives up, because the world may change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// A call to the cluster failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl ReconcileError {
    /// An error that is only a message.
    pub fn message(text: impl fmt::Display) -> Self {
        Self::Other(text.to_string().into())
    }

    /// Whether the reconciler worked with an outdated copy: expected, and not worth a warning.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_conflict())
    }
}

impl From<DecodeError> for ReconcileError {
    fn from(error: DecodeError) -> Self {
        Self::Client(error.into())
    }
}

/// What [`Reconciler::reconcile`] gives.
pub type Reconciled = Result<Action, ReconcileError>;

/// Brings one object, named by its key, from what it is to what it asks for.
///
/// - **Level-triggered.** A key says *that* something changed, not *what*: read the current state
///   and compare it with the wanted one. Many changes may be one call, and a call may find nothing
///   to do. The object may be gone by now.
/// - **Concurrency.** Different keys are reconciled at the same time, one key never is: a change
///   that arrives meanwhile leads to another call afterwards.
/// - **Idempotence.** What was done before may be done again: after an error, a restart, or because
///   the local copy lags behind one's own writes. Guard against the last with resource versions,
///   deterministic names or [`Expectations`](crate::Expectations).
/// - **Cancellation.** The future may be dropped at any await and must leave nothing behind that the
///   next call cannot repair.
/// - **Errors.** The key comes back after 5 ms, then twice that each time, up to 1000 s.
///
/// Object-safe. A closure from a key to a future is a reconciler:
///
/// ```
/// use orch_controllers::{Action, Reconciler};
/// use orch_core::Key;
///
/// fn assert_reconciler(_: impl Reconciler) {}
/// assert_reconciler(|key: Key| async move {
///     println!("{key} changed");
///     Ok(Action::Done)
/// });
/// ```
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// Reconciles one key.
    async fn reconcile(&self, key: Key) -> Reconciled;
}

#[async_trait]
impl<F, Fut> Reconciler for F
where
    F: Fn(Key) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reconciled> + Send + 'static,
{
    async fn reconcile(&self, key: Key) -> Reconciled {
        self(key).await
    }
}

/// A reconciler chosen at run time.
pub type SharedReconciler = Arc<dyn Reconciler>;
