//! Revisioned key-value stores with etcd's semantics.

pub mod durable;
mod engine;
pub mod memory;
pub mod store;

pub use durable::{Durability, DurableOptions, DurableStore};
pub use memory::{MemoryOptions, MemoryStore};
pub use store::*;
