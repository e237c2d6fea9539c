//! Source: `test/e2e/node/pods.go`, the tests of generations.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use serde_json::json;

use crate::{
    running::{POD_START, pause_pod, ready, runs},
    world::{World, eventually, update},
};

const NAME: &str = "pod-generation";

async fn observes(pods: &Api<Pod>, generation: i64, at_most: Duration) {
    eventually(&format!("generation {generation} is observed"), at_most, async || {
        let status = pods.get(NAME).await.expect("there").status?;
        (status.observed_generation == Some(generation)).then_some(())
    })
    .await;
}

/// One change of a pod, and whether it is one of its spec.
type Step = (&'static str, fn(&mut Pod), bool);

const STEPS: &[Step] = &[
    ("nothing", |_| {}, false),
    (
        "its tolerations",
        |pod| {
            // What every pod tolerates is added again.
            spec(pod).tolerations = Some(vec![Toleration {
                key: Some("foo".to_owned()),
                operator: Some("Equal".to_owned()),
                value: Some("bar".to_owned()),
                effect: Some("NoSchedule".to_owned()),
                ..Toleration::default()
            }]);
        },
        true,
    ),
    ("its deadline", |pod| spec(pod).active_deadline_seconds = Some(5000), true),
    (
        "a container's image",
        |pod| spec(pod).containers[0].image = Some("registry.example/nginx:v1".to_owned()),
        true,
    ),
    (
        "an init container's image",
        |pod| {
            let inits = spec(pod).init_containers.as_mut().expect("an init container");
            inits[0].image = Some("registry.example/pause:v2".to_owned());
        },
        true,
    ),
    (
        "its annotations",
        |pod| {
            pod.annotations_mut().insert("key".to_owned(), "value".to_owned());
        },
        false,
    ),
    ("its generation", |pod| pod.metadata.generation = Some(1), false),
];

fn spec(pod: &mut Pod) -> &mut k8s_openapi::api::core::v1::PodSpec {
    pod.spec.as_mut().expect("a spec")
}

#[tokio::test(start_paused = true)]
async fn pod_generation_should_start_at_1_and_increment_per_update() {
    let world = World::start(1).await;
    let pods: Api<Pod> = world.api();
    let init = json!({"name": "init-container", "image": "registry.example/busybox:v1"});
    world.create::<Pod>(pause_pod(NAME, json!({"initContainers": [init]}))).await;
    let mut generation = 1;
    assert_eq!(ready(&pods, NAME).await.metadata.generation, Some(generation));
    for (what, change, counts) in STEPS {
        update(&pods, NAME, change).await;
        generation += i64::from(*counts);
        let seen = pods.get(NAME).await.expect("there").metadata.generation;
        assert_eq!(seen, Some(generation), "after a change of {what}");
        observes(&pods, generation, Duration::from_secs(20)).await;
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn custom_set_generation_on_new_pods_and_graceful_delete() {
    let world = World::start(1).await;
    let pods: Api<Pod> = world.api();
    // Slower to stop than this test looks.
    let mut pod = pause_pod(NAME, json!({}));
    pod["metadata"]["generation"] = json!(100);
    pod["metadata"]["annotations"] = json!({"simulation.orch.io/stop-delay": "1h"});
    world.create::<Pod>(pod).await;
    assert_eq!(ready(&pods, NAME).await.metadata.generation, Some(1));
    runs(&pods, NAME).await;
    let params = DeleteParams::default().grace_period(60);
    let deleted = pods.delete(NAME, &params).await.expect("it is deleted").left();
    assert_eq!(deleted.and_then(|pod| pod.metadata.generation), Some(2));
    let pod = pods.get(NAME).await.expect("it is still going");
    assert_eq!((pod.metadata.generation, pod.name_any().as_str()), (Some(2), NAME));
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn issue_500_podspec_updates_and_verify_generation_and_observedgeneration_eventually_converge()
 {
    let world = World::start(1).await;
    let pods: Api<Pod> = world.api();
    world.create::<Pod>(pause_pod(NAME, json!({"activeDeadlineSeconds": 5000}))).await;
    ready(&pods, NAME).await;
    for _ in 0..499 {
        update(&pods, NAME, |pod: &mut Pod| {
            let deadline = spec(pod).active_deadline_seconds.as_mut();
            *deadline.expect("a deadline") -= 1;
        })
        .await;
    }
    observes(&pods, 500, POD_START).await;
    assert_eq!(pods.get(NAME).await.expect("there").metadata.generation, Some(500));
    world.shutdown().await;
}
