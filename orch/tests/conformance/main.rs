//! Upstream's conformance behaviours that need the controllers, the scheduler or simulated nodes,
//! one test each, through a real `kube::Client` in process and in virtual time.
//!
//! A module restates what one file of upstream's end-to-end tests checks, step by step; a test
//! bears its behaviour's name. Where upstream's containers do something, the simulated runtime's
//! script stands in. [`complete`] holds the names together; those of `kubectl` are beside the other
//! tests that drive it, in `tests/machine`.

mod architecture;
mod complete;
mod controller_revision;
mod cronjob;
mod daemon_set;
mod deployment;
mod deployment_lifecycle;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod garbage_collector;
mod job;
mod namespace;
mod persistent_volumes;
mod pod_generation;
mod pods;
mod predicates;
mod preemption;
mod rc;
mod replica_set;
mod resource_quota;
mod running;
mod runtimeclass;
mod service_accounts;
mod service_latency;
mod statefulset;
mod status_endpoints;
mod taints;
mod volumeattributesclass;
mod watching;
mod world;
