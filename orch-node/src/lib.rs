//! The node agent: runs the pods that are bound to a node.
//!
//! - [`agent`]: [`NodeAgent`] registers the node and runs its pods.
//! - [`runtime`]: the [`Runtime`] contract, in CRI's shape, and its implementations.
//! - [`addresses`]: addresses for pods where the runtime gives none.
//! - [`machine`]: the machine that a node stands for.
//! - [`logs`]: container output on disk.
//! - [`pods`]: what the agent's HTTP server asks the agent.
//! - [`usage`]: what a node and its containers use.
//! - [`resource_metrics`]: the same served as `metrics.k8s.io`.
//! - [`server`]: the agent's HTTP server.
//! - [`shim`]: the process beside each container of the process runtime.

pub mod addresses;
pub mod agent;
mod downward;
pub mod logs;
pub mod machine;
pub mod pods;
pub mod resource_metrics;
pub mod runtime;
pub mod server;
pub mod shim;
#[cfg(feature = "testing")]
pub mod testing;
pub mod usage;
mod volume;

pub use agent::{AgentOptions, NodeAgent, NodeFolders};
pub use runtime::Runtime;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
