//! Assembles an orchestrator in this process, and shows what it does: deploy, heal, update, scale.
//!
//! Nodes are simulated, so that nothing is needed but this program. Ends by itself.

use std::error::Error;

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let cluster = orch::Cluster::builder().simulated_nodes(3).start().await?;
    let client: kube::Client = cluster.client();
    println!("A cluster with three nodes runs in this process.");

    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    deployments.create(&PostParams::default(), &deployment()?).await?;
    rolled_out(&deployments, 3).await?;
    println!("Deployed: {}", describe(&pods).await?);

    let victim = pods.list(&ListParams::default().labels("app=web")).await?.items.remove(0);
    pods.delete(&victim.name_any(), &DeleteParams::default().grace_period(0)).await?;
    println!("Deleted {} behind the Deployment's back.", victim.name_any());
    gone(&pods, &victim).await?;
    rolled_out(&deployments, 3).await?;
    println!("Healed: {}", describe(&pods).await?);

    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "registry.example/web:v2"}
    ]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(image)).await?;
    rolled_out(&deployments, 3).await?;
    println!("Updated to v2, a pod at a time: {}", describe(&pods).await?);

    let scale = json!({"spec": {"replicas": 6}});
    deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(scale)).await?;
    rolled_out(&deployments, 6).await?;
    println!("Scaled to six: {}", describe(&pods).await?);

    cluster.shutdown().await;
    println!("Done.");
    Ok(())
}

fn deployment() -> serde_json::Result<Deployment> {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example/web:v1"}]},
            },
        },
    }))
}

/// Waits until the newest generation of the Deployment runs in full, and nothing else does.
async fn rolled_out(deployments: &Api<Deployment>, replicas: i32) -> Outcome<()> {
    let only_web = watcher::Config::default().fields("metadata.name=web");
    let changes = watcher(deployments.clone(), only_web).default_backoff().applied_objects();
    pin_mut!(changes);
    while let Some(deployment) = changes.try_next().await? {
        let generation = deployment.metadata.generation;
        let Some(status) = deployment.status else { continue };
        let all = |count: Option<i32>| count == Some(replicas);
        if status.observed_generation == generation
            && all(status.replicas)
            && all(status.updated_replicas)
            && all(status.available_replicas)
        {
            return Ok(());
        }
    }
    Err("the watch ended".into())
}

/// Waits until this very pod is gone.
async fn gone(pods: &Api<Pod>, victim: &Pod) -> Outcome<()> {
    let events = watcher(pods.clone(), watcher::Config::default()).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event? {
            watcher::Event::Delete(pod) if pod.uid() == victim.uid() => return Ok(()),
            watcher::Event::InitDone => {
                let current = pods.get_opt(&victim.name_any()).await?;
                if current.is_none_or(|pod| pod.uid() != victim.uid()) {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
    Err("the watch ended".into())
}

async fn describe(pods: &Api<Pod>) -> Outcome<String> {
    let pods = pods.list(&ListParams::default().labels("app=web")).await?;
    let placed = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        format!("{} on {}", pod.name_any(), node.unwrap_or("no node"))
    });
    Ok(placed.collect::<Vec<_>>().join(", "))
}
