//! Services that are to be reached from outside: the contract of what balances their load, and the
//! controller that keeps it.
//!
//! [`LoadBalancer`] is the contract; [`AddressPool`] is the default, which gives every Service
//! addresses of its own. [`service_load_balancer`] is the controller.
//!
//! Source: `k8s.io/cloud-provider/cloud.go`, `k8s.io/cloud-provider/controllers/service`.

mod changes;
mod controller;
mod pool;
mod range;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Node, Service};

pub use controller::{ServiceOptions, service_load_balancer};
pub use pool::AddressPool;
pub use range::{InvalidRange, PoolRange};

/// What stays on a Service until its load balancer is gone.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// Why a load balancer is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BalancerError {
    /// Somebody else sees to the load balancers of this Service: nothing is done, and that is no
    /// failure.
    #[error("implemented by alternate to cloud provider")]
    ImplementedElsewhere,
    /// It is being made: ask again after this time, without a back-off that grows.
    #[error("{message}")]
    NotYet {
        /// When to ask again.
        after: Duration,
        /// What is missing, for the Service's events.
        message: String,
    },
    /// It failed; tried again with back-off. The text stands in the Service's events.
    #[error("{0}")]
    Failed(String),
}

/// Makes, changes and removes what balances the load of Services. Object-safe.
///
/// - **Order.** For one Service no two calls are made at the same time; for several they are.
/// - **Idempotence.** Every method may be called again with the same Service, also after a restart:
///   what a load balancer must know it reads from the Service or from what it made.
/// - **Cancellation.** A future that is dropped may leave behind only what the next call repairs.
/// - **Blocking.** A call may take minutes; it holds up other Services only if many do.
/// - **Nodes** are those that may take traffic: not about to go, not excluded by the label
///   `node.kubernetes.io/exclude-from-external-load-balancers`.
#[async_trait]
pub trait LoadBalancer: Send + Sync + 'static {
    /// The status of a Service's load balancer, `None` if it has none.
    ///
    /// # Errors
    /// [`BalancerError`] if that is not known.
    async fn find(&self, service: &Service) -> Result<Option<LoadBalancerStatus>, BalancerError>;

    /// Makes the load balancer of a Service, or brings the one that it has up to date. What is
    /// given becomes `status.loadBalancer`.
    ///
    /// # Errors
    /// [`BalancerError`]; the Service keeps the status that it has.
    async fn ensure(
        &self,
        service: &Service,
        nodes: &[Arc<Node>],
    ) -> Result<LoadBalancerStatus, BalancerError>;

    /// Tells a load balancer that exists of other nodes. The default has nothing to do.
    ///
    /// # Errors
    /// [`BalancerError`]; [`ensure`](Self::ensure) is then called with back-off.
    async fn update(&self, service: &Service, nodes: &[Arc<Node>]) -> Result<(), BalancerError> {
        let _unused_by_default = (service, nodes);
        Ok(())
    }

    /// Removes a Service's load balancer; succeeds if there is none.
    ///
    /// # Errors
    /// [`BalancerError`]; the Service stays until it succeeds.
    async fn remove(&self, service: &Service) -> Result<(), BalancerError>;
}

impl fmt::Debug for dyn LoadBalancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadBalancer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_object_safe() {
        fn takes(_: Option<Arc<dyn LoadBalancer>>) {}
        takes(None);
    }
}
