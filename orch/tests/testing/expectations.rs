//! Waiting for what a cluster does, and being told what it did instead.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orch::testing::{self, conditions};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    objects::create,
    world::{config_map, deployment, job, pods},
};

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_available_and_goes_with_its_pods() {
    let cluster = testing::cluster().nodes(2).await;
    let deployments = deployment(&cluster, 3).await;
    let web = cluster.expect(&deployments, "web").to("be available", conditions::is_available);
    assert_eq!(web.await.status.unwrap().ready_replicas, Some(3));
    let ready = |pods: &[_]| pods.len() == 3 && pods.iter().all(|p| conditions::is_ready(Some(p)));
    cluster.expect_all(&pods(&cluster)).to("be three, and Ready", ready).await;
    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    cluster.expect(&deployments, "web").to_be_gone().await;
    cluster.expect_all(&pods(&cluster)).to("be gone", |pods| pods.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_end_as_their_script_says() {
    let cluster = testing::cluster().nodes(1).await;
    let before = Instant::now();
    let jobs = job(&cluster, &json!({"simulation.orch.io/run-for": "2h"})).await;
    let work = cluster.expect(&jobs, "work").within(Duration::from_secs(3 * 3600));
    work.to("complete", conditions::is_complete).await;
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(7200) && took < Duration::from_secs(7300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn jobs_fail_after_their_back_off() {
    let cluster = testing::cluster().nodes(1).await;
    let jobs = job(&cluster, &json!({"simulation.orch.io/exit-code": "3"})).await;
    let failed = cluster.expect(&jobs, "work").to("fail", conditions::is_job_failed).await;
    assert_eq!(failed.status.unwrap().failed, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_terminates_with_what_is_in_it() {
    let cluster = testing::cluster().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &shop).await.unwrap();
    let map = json!({"metadata": {"name": "prices", "namespace": "shop"}});
    let map: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(map).unwrap();
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(cluster.client(), "shop");
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    cluster.expect(&namespaces, "shop").to_be_gone().await;
    cluster.expect_all(&maps).to("be gone", |maps| maps.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_what_there_was_instead() {
    let cluster = testing::cluster().seed(5).await;
    let maps = config_map(&cluster, "settings", "old").await;
    let is_new = |map: Option<&k8s_openapi::api::core::v1::ConfigMap>| {
        map.and_then(|map| map.data.as_ref()?.get("key")).is_some_and(|value| value == "new")
    };
    let expected = cluster.expect(&maps, "settings").within(Duration::from_secs(30));
    let told = AssertUnwindSafe(expected.to("have the new key", is_new)).catch_unwind().await;
    let told = *told.unwrap_err().downcast::<String>().unwrap();
    for part in [
        "expected ConfigMap settings to have the new key within 30s; seen instead",
        "\"key\": \"old\"",
        "what happened last (seed 5)",
        "ConfigMap default/settings created",
    ] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
    let nothing = cluster.expect(&maps, "other").within(Duration::from_secs(1));
    let told = AssertUnwindSafe(nothing.to("be", |map| map.is_some())).catch_unwind().await;
    let told = *told.unwrap_err().downcast::<String>().unwrap();
    assert!(told.contains("seen instead: there is none"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_settles_when_nothing_is_left_to_do() {
    let cluster = testing::cluster().nodes(3).await;
    let deployments = deployment(&cluster, 5).await;
    cluster.settle().await;
    let web = deployments.get("web").await.unwrap();
    assert!(conditions::is_available(Some(&web)), "{web:?}");
    let took = cluster.settle().await;
    assert_eq!(took, Duration::ZERO, "it is at rest already");
    let more = Patch::Merge(json!({"spec": {"replicas": 7}}));
    deployments.patch("web", &PatchParams::default(), &more).await.unwrap();
    cluster.settle().await;
    assert_eq!(deployments.get("web").await.unwrap().status.unwrap().available_replicas, Some(7));
}

#[tokio::test(start_paused = true)]
async fn time_passes_only_when_it_is_let() {
    let cluster = testing::cluster().nodes(1).await;
    create::<k8s_openapi::api::batch::v1::CronJob>(
        &cluster,
        json!({"metadata": {"name": "hourly"}, "spec": {
            "schedule": "0 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "main:1"}],
            }}}},
        }}),
    )
    .await;
    cluster.advance(Duration::from_secs(3 * 3600)).await;
    let cron: Api<k8s_openapi::api::batch::v1::CronJob> = Api::default_namespaced(cluster.client());
    let last = cron.get("hourly").await.unwrap().status.unwrap().last_schedule_time.unwrap().0;
    let now = cluster.environment().clock.now();
    assert!(now.duration_since(last).as_secs() < 3600, "{last} at {now}");
}
