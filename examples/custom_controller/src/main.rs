//! Runs the operator against a cluster in this process and shows what it does. Ends by itself.

use std::error::Error;

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = orch::Cluster::builder().simulated_nodes(1).start().await?;
    let client = cluster.client();
    let operator = tokio::spawn(custom_controller::run(client.clone()));

    let config_maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let wish: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "hello", "labels": {custom_controller::LABEL: "true"}},
        "data": {"replicas": "2"},
    }))?;
    config_maps.create(&PostParams::default(), &wish).await?;
    println!("A ConfigMap asks for two greeters.");
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    available(&deployments, 2).await?;
    println!("The operator made a Deployment of two, and they run.");

    let more = json!({"data": {"replicas": "4"}});
    config_maps.patch("hello", &PatchParams::default(), &Patch::Merge(more)).await?;
    available(&deployments, 4).await?;
    println!("The ConfigMap asked for four, and four run.");

    operator.abort();
    cluster.shutdown().await;
    Ok(())
}

async fn available(deployments: &Api<Deployment>, replicas: i32) -> Result<(), Box<dyn Error>> {
    let changes = watcher(deployments.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    pin_mut!(changes);
    while let Some(deployment) = changes.try_next().await? {
        if deployment.status.is_some_and(|s| s.available_replicas == Some(replicas)) {
            return Ok(());
        }
    }
    Err("the watch ended".into())
}
