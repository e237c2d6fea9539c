//! Waiting for a cluster to be ready.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use orch_core::{Key, informer::Informers};
use tokio::sync::Notify;

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Waits until all of these nodes are Ready.
pub(super) async fn nodes_ready(informers: &Informers, names: &[String]) {
    let nodes = informers.of::<Node>();
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    // One handler more for the informer's life: this is called once, at the start.
    nodes.on_change(move |_| wake.notify_one());
    let all_ready = || {
        let ready = |name: &String| nodes.get(&Key::cluster(name)).is_some_and(|n| is_ready(&n));
        names.iter().all(ready)
    };
    while !all_ready() {
        changed.notified().await;
    }
}
