//! Adds a rule to the scheduler: pods that are labelled `power=green` run on nodes with green
//! power only. Ends by itself.

use std::error::Error;

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use orch::sched::{CycleState, Fault, Filter, NodeInfo, Plugin, PodInfo, Verdict};
use serde_json::json;

#[derive(Debug)]
struct GreenPower;

impl Plugin for GreenPower {
    fn name(&self) -> &str {
        "GreenPower"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for GreenPower {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<Verdict, Fault> {
        let wants_green = pod.pod().labels().get("power").is_some_and(|power| power == "green");
        let is_green = node.label("power") == Some("green");
        Ok(Verdict::success_if(!wants_green || is_green, "node(s) had no green power"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster =
        orch::Cluster::builder().simulated_nodes(3).scheduler_plugin(GreenPower).start().await?;
    let client = cluster.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let nodes: Api<Node> = Api::all(client);

    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "turbine-watcher", "labels": {"power": "green"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/watcher:v1"}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let changes = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
    pin_mut!(changes);
    while let Some(pod) = changes.try_next().await? {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
        let scheduled = conditions.unwrap_or_default().iter().find(|c| c.type_ == "PodScheduled");
        let Some(scheduled) = scheduled else { continue };
        if scheduled.status == "True" {
            let node = pod.spec.and_then(|spec| spec.node_name).unwrap_or_default();
            println!("The pod runs on {node}.");
            cluster.shutdown().await;
            return Ok(());
        }
        println!("Not yet: {}", scheduled.message.as_deref().unwrap_or_default());
        let node = nodes.list(&kube::api::ListParams::default()).await?.items.remove(1);
        println!("{} gets green power.", node.name_any());
        let label = json!({"metadata": {"labels": {"power": "green"}}});
        let patch = PatchParams::default();
        nodes.patch(&node.name_any(), &patch, &Patch::Merge(label)).await?;
    }
    Err("the watch ended".into())
}
