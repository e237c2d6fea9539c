//! Jobs.

use std::sync::Arc;

use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::Pod,
};
use orch_controllers::{
    job::{TRACKING, job},
    ttl_after_finished::ttl_after_finished,
};
use orch_core::client::PatchKind;
use serde_json::{Value, json};

use crate::world::{World, template};

fn world() -> World {
    World::start(|informers| vec![job(informers), ttl_after_finished(informers)])
}

async fn create(world: &World, spec: Value) {
    let mut value = json!({
        "metadata": {"name": "work"},
        "spec": {"selector": {"matchLabels": {"app": "work"}}, "template": template("work", "v1")},
    });
    for (field, wanted) in spec.as_object().unwrap() {
        value["spec"][field] = wanted.clone();
    }
    world.create::<Job>(value).await;
}

fn condition(job: &Job, type_: &str) -> Option<JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == type_ && c.status == "True").cloned()
}

async fn running(world: &World, count: usize) -> Vec<Arc<Pod>> {
    world
        .eventually("so many pods run", async |world| {
            let mut pods = world.list::<Pod>().await;
            pods.retain(|pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
            });
            (pods.len() == count).then_some(pods)
        })
        .await
}

async fn end(world: &World, pod: &Pod, phase: &str, code: i32) {
    let now = world.informers.environment().clock.now();
    let now = orch_core::clock::to_seconds(now).to_string();
    let patch = json!({"status": {"phase": phase, "containerStatuses": [{
        "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": now}}}]}});
    let name = pod.metadata.name.as_deref().unwrap();
    world.resources::<Pod>().patch_status(name, PatchKind::Merge, patch).await.unwrap();
}

async fn finished(world: &World, type_: &str) -> Arc<Job> {
    world
        .eventually(type_, async |world| {
            let job = world.get::<Job>("work").await?;
            condition(&job, type_).map(|_| job.clone())
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_job_completes_after_so_many_successes() {
    let world = world();
    create(&world, json!({"completions": 3, "parallelism": 2})).await;
    for left in [2, 2, 1] {
        let pods = running(&world, left).await;
        assert!(pods[0].metadata.finalizers.as_ref().unwrap().contains(&TRACKING.to_owned()));
        end(&world, &pods[0], "Succeeded", 0).await;
    }
    let job = finished(&world, "Complete").await;
    let status = job.status.as_ref().unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), None, None));
    assert!(status.completion_time.is_some());
    assert!(condition(&job, "SuccessCriteriaMet").is_some());
    for pod in world.list::<Pod>().await {
        assert!(pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty), "still held");
    }
    let writes = world.writes();
    world.pass(3600).await;
    assert_eq!(world.writes(), writes, "a finished job causes no writes");
}

/// A pod that is over and counted is looked at when it changes, and only then.
#[tokio::test(start_paused = true)]
async fn a_counted_pod_that_is_selected_no_more_is_let_go() {
    let world = world();
    create(&world, json!({"completions": 2, "parallelism": 1})).await;
    let first = running(&world, 1).await.remove(0);
    end(&world, &first, "Succeeded", 0).await;
    let name = first.metadata.name.as_deref().unwrap();
    let own = async |world: &World| {
        let pod = world.get::<Pod>(name).await?;
        let held = pod.metadata.finalizers.as_ref().is_some_and(|held| !held.is_empty());
        let owned = pod.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        Some((held, owned))
    };
    world
        .eventually("it is counted", async |world| {
            (own(world).await == Some((false, true))).then_some(())
        })
        .await;
    world.patch::<Pod>(name, json!({"metadata": {"labels": {"app": "other"}}})).await;
    world
        .eventually("it is let go", async |world| {
            (own(world).await == Some((false, false))).then_some(())
        })
        .await;
    // What it did counts.
    let second = running(&world, 1).await.remove(0);
    end(&world, &second, "Succeeded", 0).await;
    let job = finished(&world, "Complete").await;
    assert_eq!(job.status.as_ref().unwrap().succeeded, Some(2));
}

/// The wait grows with failures that are counted and long settled.
#[tokio::test(start_paused = true)]
async fn counted_failures_delay_the_next_pod() {
    let world = world();
    create(&world, json!({"completions": 1, "backoffLimit": 6})).await;
    for _ in 0..3 {
        let pod = running(&world, 1).await.remove(0);
        end(&world, &pod, "Failed", 1).await;
        world
            .eventually("it is counted", async |world| {
                let pod = world.get::<Pod>(pod.metadata.name.as_deref()?).await?;
                pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty).then_some(())
            })
            .await;
    }
    world.pass(35).await;
    assert_eq!(world.list::<Pod>().await.len(), 3, "no retry before forty seconds have passed");
    world.pass(10).await;
    running(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_with_back_off_until_the_limit() {
    let world = world();
    create(&world, json!({"completions": 1, "backoffLimit": 1})).await;
    let pods = running(&world, 1).await;
    end(&world, &pods[0], "Failed", 1).await;
    world.pass(8).await;
    assert_eq!(world.list::<Pod>().await.len(), 1, "no retry before ten seconds have passed");
    let pods = running(&world, 1).await;
    end(&world, &pods[0], "Failed", 1).await;
    let job = finished(&world, "Failed").await;
    let failed = condition(&job, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(job.status.as_ref().unwrap().failed, Some(2));
    assert!(condition(&job, "FailureTarget").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_indexed_job_runs_each_index_once() {
    let world = world();
    let spec = json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed"});
    create(&world, spec).await;
    let pods = running(&world, 5).await;
    let mut hostnames: Vec<String> =
        pods.iter().map(|pod| pod.spec.as_ref().unwrap().hostname.clone().unwrap()).collect();
    hostnames.sort();
    assert_eq!(hostnames, ["work-0", "work-1", "work-2", "work-3", "work-4"]);
    let index = |pod: &Pod| {
        pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"]
            .clone()
    };
    for pod in &pods {
        let phase = if index(pod) == "3" { "Failed" } else { "Succeeded" };
        end(&world, pod, phase, i32::from(phase == "Failed")).await;
    }
    let retried = running(&world, 1).await;
    assert_eq!(index(&retried[0]), "3");
    let job = world.get::<Job>("work").await.unwrap();
    assert_eq!(job.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0-2,4"));
    end(&world, &retried[0], "Succeeded", 0).await;
    let job = finished(&world, "Complete").await;
    assert_eq!(job.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0-4"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stops_everything() {
    let world = world();
    create(&world, json!({"completions": 2, "parallelism": 2, "activeDeadlineSeconds": 60})).await;
    running(&world, 2).await;
    world.pass(61).await;
    let job = finished(&world, "Failed").await;
    assert_eq!(condition(&job, "Failed").unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    running(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_runs_nothing_until_it_is_resumed() {
    let world = world();
    create(&world, json!({"completions": 1})).await;
    running(&world, 1).await;
    world.patch::<Job>("work", json!({"spec": {"suspend": true}})).await;
    running(&world, 0).await;
    let job = finished(&world, "Suspended").await;
    assert!(job.status.as_ref().unwrap().start_time.is_none());
    world.patch::<Job>("work", json!({"spec": {"suspend": false}})).await;
    let pods = running(&world, 1).await;
    end(&world, &pods[0], "Succeeded", 0).await;
    finished(&world, "Complete").await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_policy_ignores_or_fails() {
    let world = world();
    let policy = json!({"rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}},
    ]});
    create(&world, json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": policy})).await;
    let pods = running(&world, 1).await;
    end(&world, &pods[0], "Failed", 42).await;
    let pods = running(&world, 1).await;
    end(&world, &pods[0], "Failed", 7).await;
    let job = finished(&world, "Failed").await;
    let failed = condition(&job, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("PodFailurePolicy"));
    assert!(
        failed
            .message
            .unwrap()
            .contains("failed with exit code 7 matching FailJob rule at index 1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_deleted_when_its_time_has_come() {
    let world = world();
    create(&world, json!({"completions": 1, "ttlSecondsAfterFinished": 100})).await;
    let pods = running(&world, 1).await;
    end(&world, &pods[0], "Succeeded", 0).await;
    finished(&world, "Complete").await;
    world.pass(90).await;
    assert!(world.get::<Job>("work").await.unwrap().metadata.deletion_timestamp.is_none());
    world.pass(11).await;
    let going = world.get::<Job>("work").await;
    assert!(going.is_none_or(|job| job.metadata.deletion_timestamp.is_some()));
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_job_that_is_gone_are_let_go() {
    let world = world();
    create(&world, json!({"completions": 2, "parallelism": 2})).await;
    let pods = running(&world, 2).await;
    // One of them was orphaned before.
    let freed = json!({"metadata": {"ownerReferences": null, "labels": null}});
    world.patch::<Pod>(pods[0].metadata.name.as_deref().unwrap(), freed).await;
    world.delete::<Job>("work").await;
    world
        .eventually("no pod is held any more", async |world| {
            let pods = world.list::<Pod>().await;
            let held =
                |pod: &Arc<Pod>| pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
            (pods.len() >= 2 && !pods.iter().any(held)).then_some(())
        })
        .await;
}

fn index_of(pod: &Pod) -> String {
    pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-completion-index"].clone()
}

fn failures_of(pod: &Pod) -> String {
    pod.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/job-index-failure-count"]
        .clone()
}

#[tokio::test(start_paused = true)]
async fn each_index_fails_on_its_own() {
    let world = world();
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1});
    create(&world, spec).await;
    for pod in running(&world, 3).await {
        assert_eq!(failures_of(&pod), "0");
        match index_of(&pod).as_str() {
            "0" => end(&world, &pod, "Failed", 1).await,
            _ => end(&world, &pod, "Succeeded", 0).await,
        }
    }
    world.pass(8).await;
    let held = world.list::<Pod>().await;
    let held = held.iter().find(|pod| index_of(pod) == "0").unwrap().clone();
    assert!(held.metadata.finalizers.is_some(), "it bears the count until it is replaced");
    let again = running(&world, 1).await;
    assert_eq!((index_of(&again[0]).as_str(), failures_of(&again[0]).as_str()), ("0", "1"));
    end(&world, &again[0], "Failed", 1).await;
    let job = finished(&world, "Failed").await;
    let failed = condition(&job, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("FailedIndexes"));
    assert_eq!(failed.message.as_deref(), Some("Job has failed indexes"));
    let status = job.status.as_ref().unwrap();
    assert_eq!(status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(status.completed_indexes.as_deref(), Some("1,2"));
    assert_eq!((status.failed, status.succeeded), (Some(2), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn too_many_failed_indexes_end_a_job() {
    let world = world();
    let policy = json!({"rules": [
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}},
    ]});
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 6, "maxFailedIndexes": 1,
        "podFailurePolicy": policy});
    create(&world, spec).await;
    for pod in running(&world, 4).await {
        if matches!(index_of(&pod).as_str(), "1" | "2") {
            end(&world, &pod, "Failed", 42).await;
        }
    }
    let job = finished(&world, "Failed").await;
    let failed = condition(&job, "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("MaxFailedIndexesExceeded"));
    assert_eq!(job.status.as_ref().unwrap().failed_indexes.as_deref(), Some("1,2"));
    running(&world, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_success_policy_ends_a_job_early() {
    let world = world();
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}});
    create(&world, spec).await;
    for pod in running(&world, 4).await {
        if index_of(&pod) == "1" {
            end(&world, &pod, "Succeeded", 0).await;
        }
    }
    let job = finished(&world, "Complete").await;
    for type_ in ["SuccessCriteriaMet", "Complete"] {
        let condition = condition(&job, type_).unwrap();
        assert_eq!(condition.reason.as_deref(), Some("SuccessPolicy"));
        assert_eq!(condition.message.as_deref(), Some("Matched rules at index 0"));
    }
    assert_eq!(job.status.as_ref().unwrap().completed_indexes.as_deref(), Some("1"));
    running(&world, 0).await;
}
