#![doc = include_str!("../README.md")]
//!
//! The crates under their short names: [`api`], [`controllers`], [`core`], [`net`], [`node`],
//! [`sched`], [`store`]. [`Cluster`] puts them together.

pub use orch_api as api;
pub use orch_controllers as controllers;
pub use orch_core as core;
pub use orch_net as net;
pub use orch_node as node;
pub use orch_sched as sched;
pub use orch_store as store;

pub mod cluster;
#[cfg(feature = "testing")]
pub mod sim;
#[cfg(feature = "testing")]
pub mod testing;

pub use cluster::{Cluster, ClusterBuilder, StartError};

/// The examples of the repository's README compile, too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
