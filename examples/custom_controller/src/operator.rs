//! An operator without a kind of its own, written with `kube::runtime` and nothing of orch: for
//! every ConfigMap that is labelled `greeter.example/enabled=true` it keeps a Deployment with the
//! ConfigMap's number of replicas.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        controller::{Action, Controller},
        watcher,
    },
};
use serde_json::json;

/// The label that switches the operator on for a ConfigMap.
pub const LABEL: &str = "greeter.example/enabled";
const MANAGER: &str = "greeter-operator";

/// Runs the operator until its future is dropped.
pub async fn run(client: Client) {
    let config_maps: Api<ConfigMap> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    let enabled = watcher::Config::default().labels(&format!("{LABEL}=true"));
    Controller::new(config_maps, enabled)
        .owns(deployments, watcher::Config::default())
        .run(reconcile, on_error, Arc::new(client))
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::warn!(%error, "reconciling failed");
            }
        })
        .await;
}

async fn reconcile(config_map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = config_map.namespace().unwrap_or_default();
    let name = config_map.name_any();
    let data = config_map.data.clone().unwrap_or_default();
    let replicas = data.get("replicas").and_then(|n| n.parse::<i32>().ok()).unwrap_or(1);
    let image = data.get("image").map_or("registry.example/greeter:v1", String::as_str);
    let labels = json!({"app": name});
    let wanted = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "ownerReferences": config_map.controller_owner_ref(&()).map(|owner| vec![owner]),
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "greeter", "image": image}]},
            },
        },
    });
    let deployments: Api<Deployment> = Api::namespaced((*client).clone(), &namespace);
    let apply = PatchParams::apply(MANAGER).force();
    deployments.patch(&name, &apply, &Patch::Apply(&wanted)).await?;
    Ok(Action::await_change())
}

fn on_error(_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Client>) -> Action {
    Action::requeue(Duration::from_secs(1))
}
