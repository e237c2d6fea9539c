//! The node agent on a cluster in memory and a simulated runtime, in virtual time.

#[path = "node/cluster.rs"]
mod cluster;
#[path = "node/conformance.rs"]
mod conformance;
#[path = "node/lifecycle.rs"]
mod lifecycle;
#[path = "node/registration.rs"]
mod registration;
