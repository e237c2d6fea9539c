//! The reconciler contract, the work queue, and the standard controllers of Kubernetes.
//!
//! - [`reconciler`]: one method, a key in, done or again out.
//! - [`queue`], [`expectations`]: what keeps reconcilers from doing too much, too often or twice.
//! - [`controller`], [`manager`]: a reconciler with what feeds it, and a set of them.
//! - [`metrics`]: what they do, in numbers.
//! - everything else: the standard controllers, one module each.
#![doc = include_str!("../README.md")]

pub mod bootstrap_token;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod controller;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod device_taint_eviction;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoints;
pub mod expectations;
pub mod garbage;
pub mod job;
pub mod load_balancer;
pub mod manager;
pub mod metrics;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod ownership;
pub mod pod_autoscaler;
pub mod pod_gc;
pub mod pod_group_protection;
pub mod queue;
pub mod reconciler;
pub mod replicas;
pub mod resource_claim;
pub mod resource_quota;
pub mod resource_types;
pub mod service_account;
pub mod standard;
pub mod stateful_set;
pub mod storage_version;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod volumes;

mod context;
mod dependents;
mod follower;
mod history;
mod pods;

pub use controller::{Controller, ControllerBuilder};
pub use expectations::Expectations;
pub use manager::{Manager, Runnable};
pub use metrics::Metrics;
pub use pods::slow_start_batch;
pub use queue::WorkQueue;
pub use reconciler::{Action, ReconcileError, Reconciler};
