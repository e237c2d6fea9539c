//! Revisioned key-value stores with etcd's semantics.

mod engine;
pub mod memory;
pub mod store;

pub use memory::{MemoryOptions, MemoryStore};
pub use store::*;
