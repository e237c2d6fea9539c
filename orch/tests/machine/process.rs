//! The demo application on the process runtime.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use orch_core::testing::require::Requirement;

use crate::{
    cluster::{Cluster, demo_manifest, eventually, http_get, images},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let kubectl = [Requirement::Kubectl];
    vec![trial("process::the_demo_application_answers", &kubectl, the_demo_application_answers)]
}

/// A cluster with one node that runs processes.
fn up(more: &[&str]) -> Cluster {
    let images = images();
    let mut arguments = vec!["--runtime", "process", "--images", images.to_str().expect("UTF-8")];
    arguments.extend(more);
    Cluster::up(&arguments)
}

/// Applies the demo application, and waits until it is available.
fn apply_demo(cluster: &Cluster) {
    cluster.kubectl(&["apply", "-f", demo_manifest().to_str().expect("UTF-8")]);
    cluster.kubectl(&["rollout", "status", "deployment/demo", "--timeout=60s"]);
}

fn the_demo_application_answers() {
    let mut cluster = up(&[]);
    assert!(cluster.ready.starts_with("orch: ready after "), "{}", cluster.ready);
    apply_demo(&cluster);
    let node_port = "127.0.0.1:30080".parse().expect("an address");
    let (status, body) = http_get(node_port, "localhost", "/").expect("the node port answers");
    assert_eq!((status, body.starts_with("hello from demo-")), (200, true), "{body}");
    let through_ingress = eventually("the ingress answers", || {
        http_get(cluster.ingress, "demo.localhost", "/").ok().filter(|answer| answer.0 == 200)
    });
    assert!(through_ingress.1.starts_with("hello from demo-"), "{}", through_ingress.1);
    assert_eq!(http_get(cluster.ingress, "other.localhost", "/").expect("an answer").0, 404);
    assert_eq!(cluster.stop(Signal::SIGTERM), 0);
}
