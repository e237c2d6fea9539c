//! The Kubernetes API server as a tower `Service` over a store.

pub mod admission;
pub mod allocator;
pub mod auth;
pub mod connect;
pub mod kinds;
pub mod names;
pub mod openapi;
pub mod printers;
pub mod proxy;
pub mod serve;
pub mod strategy;
pub mod subresources;
