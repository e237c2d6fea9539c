//! Two controllers of one's own, which run unchanged inside a test, beside `orch up`, and against
//! any other Kubernetes cluster.
//!
//! - [`greeting`]: a kind of our own, with its definition.
//! - [`controller`]: its controller, by the contract of `orch::controllers`.
//! - [`operator`]: another one over ConfigMaps, written with `kube::runtime` and nothing of orch.
//!
//! Both stand in one [`manager`].
#![doc = include_str!("../README.md")]

pub mod controller;
pub mod greeting;
pub mod operator;

use orch::{
    controllers::{Manager, Runnable},
    core::informer::Informers,
};

/// Both controllers. The informers may be those of a cluster in this process, or one's own over a
/// `kube::Client`; the operator over ConfigMaps knows nothing of them.
pub fn manager(informers: &Informers, client: kube::Client) -> Manager {
    let operator = Runnable::new("config-map-operator", |stop| async move {
        stop.run_until_cancelled(operator::run(client)).await;
    });
    Manager::new().with(controller::greetings(informers)).with(operator)
}
