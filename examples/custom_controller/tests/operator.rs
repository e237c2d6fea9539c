//! The operator, tested against a whole API server in this process.

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

fn wish(name: &str, enabled: &str, replicas: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {custom_controller::operator::LABEL: enabled}},
        "data": {"replicas": replicas},
    }))
    .unwrap()
}

#[tokio::test]
async fn it_deploys_what_is_enabled_and_cleans_up_behind_it() {
    let cluster = orch::Cluster::builder().start().await.unwrap();
    let client = cluster.client();
    let operator = tokio::spawn(custom_controller::operator::run(client.clone()));
    let config_maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let changes = watcher(deployments.clone(), watcher::Config::default()).default_backoff();
    pin_mut!(changes);

    let post = PostParams::default();
    config_maps.create(&post, &wish("off", "false", "1")).await.unwrap();
    config_maps.create(&post, &wish("on", "true", "3")).await.unwrap();
    let made = loop {
        match changes.try_next().await.unwrap().unwrap() {
            watcher::Event::Apply(made) | watcher::Event::InitApply(made) => break made,
            _ => {}
        }
    };
    assert_eq!(made.metadata.name.as_deref(), Some("on"));
    assert_eq!(made.spec.unwrap().replicas, Some(3));

    // The garbage collector removes the Deployment with its owner.
    config_maps.delete("on", &DeleteParams::default()).await.unwrap();
    while let Some(event) = changes.next().await {
        if let watcher::Event::Delete(gone) = event.unwrap() {
            assert_eq!(gone.metadata.name.as_deref(), Some("on"));
            break;
        }
    }
    operator.abort();
    cluster.shutdown().await;
}
