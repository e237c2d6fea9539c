//! What happened, what was before, and what would be otherwise.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::api::{DeleteParams, Patch, PatchParams};
use orch::{
    core::Key,
    testing::{self, conditions},
};
use serde_json::json;

use crate::world::{config_map, deployment, pods};

#[tokio::test(start_paused = true)]
async fn the_timeline_tells_what_happened() {
    let cluster = testing::cluster().nodes(1).await;
    let deployments = deployment(&cluster, 1).await;
    cluster.expect(&deployments, "web").to("be available", conditions::is_available).await;
    let timeline = cluster.timeline().await.unwrap();
    let told = timeline.to_string();
    for part in [
        "Deployment default/web created",
        "ScalingReplicaSet (Deployment default/web): Scaled up replica set web-",
        "+spec.nodeName: \"node-1\"",
        "Started (Pod default/web-",
        "status.phase: \"Pending\" → \"Running\"",
    ] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
    assert!(!told.contains("Lease"), "{told}");
    let about = timeline.clone().about("Deployment");
    assert!(!about.is_empty() && about.len() < timeline.len());
    assert!(timeline.last(1).to_string().contains("lines before"));
}

#[tokio::test(start_paused = true)]
async fn a_diff_says_what_changed_between_two_revisions() {
    let cluster = testing::cluster().api_only().await;
    let maps = config_map(&cluster, "a", "1").await;
    config_map(&cluster, "b", "1").await;
    let from = cluster.revision();
    let two = Patch::Merge(json!({"data": {"key": "2"}}));
    maps.patch("a", &PatchParams::default(), &two).await.unwrap();
    maps.delete("b", &DeleteParams::default()).await.unwrap();
    config_map(&cluster, "c", "1").await;
    let diff = cluster.diff(from, cluster.revision()).await.unwrap();
    let expected = "+ ConfigMap default/c\n- ConfigMap default/b\n~ ConfigMap default/a\n    \
                    data.key: \"1\" → \"2\"\n";
    assert_eq!(diff.to_string(), expected);
    assert!(cluster.diff(from, from).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_revision_can_be_looked_at() {
    let cluster = testing::cluster().api_only().await;
    let maps = config_map(&cluster, "a", "1").await;
    let then = cluster.revision();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let key = Key::new("default", "a");
    let before = cluster.at(then).await.unwrap();
    assert_eq!(before.get::<ConfigMap>(&key).unwrap().data.as_ref().unwrap()["key"], "1");
    assert!(cluster.at(cluster.revision()).await.unwrap().get::<ConfigMap>(&key).is_none());
    assert!(cluster.at(cluster.revision() + 1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_first_bad_revision_is_found() {
    let cluster = testing::cluster().nodes(2).await;
    let deployments = deployment(&cluster, 2).await;
    cluster.expect(&deployments, "web").to("be available", conditions::is_available).await;
    let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
    deployments.patch("web", &PatchParams::default(), &three).await.unwrap();
    let culprit = cluster.revision();
    cluster.settle().await;
    let key = Key::new("default", "web");
    let holds = |view: &orch::sim::View| {
        let web = view.get::<Deployment>(&key);
        web.is_none_or(|web| web.spec.as_ref().unwrap().replicas != Some(3))
    };
    assert_eq!(cluster.bisect(holds).await.unwrap(), Some(culprit));
    assert_eq!(cluster.bisect(|_| true).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_fork_goes_its_own_way() {
    let cluster = testing::cluster().nodes(2).await;
    let deployments = deployment(&cluster, 2).await;
    cluster.expect(&deployments, "web").to("be available", conditions::is_available).await;
    let names = |pods: Vec<k8s_openapi::api::core::v1::Pod>| -> Vec<(String, i32)> {
        let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count
        };
        pods.iter().map(|pod| (pod.metadata.name.clone().unwrap(), restarts(pod))).collect()
    };
    let before = names(pods(&cluster).list(&Default::default()).await.unwrap().items);

    let fork = cluster.fork().await;
    fork.settle().await;
    let kept = names(pods(&fork).list(&Default::default()).await.unwrap().items);
    assert_eq!(kept, before, "the containers of the fork run on");
    let forked: kube::Api<Deployment> = kube::Api::default_namespaced(fork.client());
    forked.delete("web", &DeleteParams::default()).await.unwrap();
    fork.expect_all(&pods(&fork)).to("be gone", |pods| pods.is_empty()).await;

    cluster.settle().await;
    let after = names(pods(&cluster).list(&Default::default()).await.unwrap().items);
    assert_eq!(after, before, "the original does not notice");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_clusters_live_side_by_side() {
    let mut clusters = Vec::new();
    for seed in 0..100 {
        let cluster = testing::cluster().seed(seed).nodes(1).await;
        deployment(&cluster, 1).await;
        clusters.push(cluster);
    }
    for cluster in &clusters {
        let deployments = kube::Api::default_namespaced(cluster.client());
        cluster.expect(&deployments, "web").to("be available", conditions::is_available).await;
    }
}
