//! Revisioned key-value stores with etcd's semantics.

pub mod store;

pub use store::*;
