//! The node agent: runs the pods that are bound to a node.
//!
//! - [`runtime`]: the [`runtime::Runtime`] contract, in CRI's shape.
//! - [`logs`]: container output on disk.
//! - [`pods`]: what the agent's HTTP server asks the agent.

pub mod logs;
pub mod pods;
pub mod runtime;
pub mod server;

pub use runtime::Runtime;
