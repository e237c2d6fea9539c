//! Upstream's conformance behaviours that need the controllers, one test each, through a real
//! `kube::Client` in process and in virtual time.
//!
//! A module restates what one file of upstream's end-to-end tests checks, step by step; a test
//! bears its behaviour's name. [`complete`] holds the names together.

mod complete;
mod cronjob;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod garbage_collector;
mod namespace;
mod persistent_volumes;
mod rc;
mod resource_quota;
mod service_accounts;
mod volumeattributesclass;
mod world;
