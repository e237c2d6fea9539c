//! The Kubernetes API server as a tower `Service` over a store.
//!
#![doc = include_str!("../README.md")]

pub mod admission;
mod aggregation;
pub mod allocator;
pub mod auth;
mod bootstrap;
mod cache;
mod catalog;
pub mod connect;
mod custom;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod in_process;
pub mod kinds;
mod local;
pub mod names;
pub mod openapi;
pub mod outbound;
pub mod printers;
pub mod proxy;
mod registry;
pub mod serve;
pub mod server;
pub mod strategy;
pub mod subresources;

pub use bootstrap::{Bootstrap, FRONT_PROXY};
pub use catalog::ApiVersions;
pub use server::{ApiServer, ApiServerBuilder, ServerOptions};
