//! The Kubernetes API server as a tower `Service` over a store.
//!
#![doc = include_str!("../README.md")]

pub mod admission;
mod aggregation;
pub mod allocator;
pub mod audit;
pub mod auth;
mod bootstrap;
mod cache;
mod catalog;
pub mod connect;
mod custom;
pub mod flow;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod health;
mod http;
mod in_process;
pub mod kinds;
mod local;
pub mod metrics;
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
pub use http::request_info::RequestInfo;
pub use server::{ApiServer, ApiServerBuilder, ServerOptions};
