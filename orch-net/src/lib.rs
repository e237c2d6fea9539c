#![doc = include_str!("../README.md")]
//!
//! The modules: [`service`] is the contract of service proxies, with its controller and two
//! implementations; [`dns`] answers for the names of services and pods; [`ingress`] routes HTTP by
//! host and path; [`testing`] has the fakes and the conformance suite.

mod backends;
mod changed_keys;
pub mod dns;
pub mod ingress;
pub mod service;
pub mod testing;

pub use dns::{DnsOptions, DnsServer};
pub use ingress::{IngressController, IngressOptions};
pub use service::{
    NftablesOptions, NftablesProxy, ProxyController, ProxyOptions, ServiceProxy, UserspaceOptions,
    UserspaceProxy,
};
