//! Who did what, when, and how it ended: upstream's audit events.
//!
//! A policy says which requests are noted and how much of them; sinks take the events. A server
//! without [`Audit`] pays nothing. In-process clients (`ApiServer::client`) send no requests, so
//! the policy does not see them.
//!
//! Source: `k8s.io/apiserver/pkg/audit`, `pkg/endpoints/filters/audit.go`.
//!
//! ```
//! use orch_api::audit::{Level, Policy};
//!
//! let policy = Policy::from_yaml("
//! apiVersion: audit.k8s.io/v1
//! kind: Policy
//! omitStages: [RequestReceived]
//! rules:
//! - level: None
//!   nonResourceURLs: ['/healthz*', /version]
//! - level: Metadata
//!   resources: [{group: '', resources: [secrets]}]
//! - level: RequestResponse
//! ")?;
//! assert_eq!(policy.rules.len(), 3);
//! assert_eq!(policy.rules[2].level, Level::RequestResponse);
//! # Ok::<(), orch_api::audit::PolicyError>(())
//! ```

mod event;
mod log;
mod policy;
mod queue;
mod record;
mod webhook;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

pub use event::{Event, ObjectReference, Stage, User};
pub use log::{LogFile, LogFileOptions};
pub use policy::{GroupResources, Level, Policy, PolicyError, Rule};
pub use queue::{QueueOptions, Queued};
pub(crate) use record::{Received, Record};
pub use webhook::Webhook;

/// Takes events to where they are kept. Object-safe.
///
/// It is called for every event on the way of its request, which waits: what takes long belongs
/// behind a [`Queued`].
#[async_trait]
pub trait Sink: Send + Sync + fmt::Debug + 'static {
    /// Keeps events, in their order.
    ///
    /// # Errors
    /// Why they are lost. It is logged and counted; the request goes on.
    async fn keep(&self, events: Vec<Arc<Event>>) -> Result<(), SinkError>;
}

/// Events that are lost, and why.
#[derive(Debug, thiserror::Error)]
#[error("{lost} audit events are lost: {why}")]
pub struct SinkError {
    /// How many.
    pub lost: usize,
    /// Why.
    pub why: String,
}

/// The audit of a server: a policy, and the sinks that every event goes to.
#[derive(Clone, Debug)]
pub struct Audit {
    policy: Arc<Policy>,
    sinks: Arc<[Arc<dyn Sink>]>,
}

impl Audit {
    /// Notes what the policy says, in these places.
    pub fn new(policy: Policy, sinks: impl Into<Vec<Arc<dyn Sink>>>) -> Self {
        Self { policy: Arc::new(policy), sinks: sinks.into().into() }
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) async fn keep(&self, event: Event) {
        let event = Arc::new(event);
        for sink in &*self.sinks {
            if let Err(error) = sink.keep(vec![event.clone()]).await {
                tracing::error!(%error, "the audit has a gap");
            }
        }
    }
}
