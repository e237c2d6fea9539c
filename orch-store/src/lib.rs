#![doc = include_str!("../README.md")]
//!
//! The modules: [`store`] is the contract; [`memory`], [`durable`] and [`etcd`] keep it;
//! [`faulty`] breaks it on purpose; [`testing`] proves it; [`serve`] offers any of them
//! to etcd's clients. The memory and the durable store share one engine, so they cannot differ in
//! what they mean.

pub mod durable;
mod engine;
mod error;
pub mod etcd;
pub mod faulty;
pub mod memory;
mod protocol;
pub mod serve;
mod snapshot;
pub mod store;
pub mod testing;

pub use durable::{Durability, DurableOptions, DurableStore};
pub use error::StoreError;
pub use etcd::{EtcdCredentials, EtcdIdentity, EtcdOptions, EtcdStore, EtcdTls};
pub use faulty::{Control, Failure, Faults, FaultyStore, Struck};
pub use memory::{MemoryOptions, MemoryStore};
pub use snapshot::Snapshot;
pub use store::*;
