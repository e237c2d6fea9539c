//! Source: `test/e2e/apps/cronjob.go`.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::world::{MINUTE, World, consistently, eventually};

/// Every minute, a job that takes five.
fn cron_job(name: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "schedule": "*/1 * * * ?",
            "concurrencyPolicy": policy,
            "jobTemplate": {"spec": {
                "parallelism": 1, "completions": 1,
                "template": {
                    "metadata": {"annotations": {
                        "simulation.orch.io/run-for": "300s", "simulation.orch.io/exit-code": "0",
                    }},
                    "spec": {
                        "restartPolicy": "OnFailure",
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{"name": "c", "image": "registry.example/busybox:v1"}],
                    },
                },
            }},
        },
    })
}

async fn active(world: &World, name: &str) -> usize {
    let cron = world.api::<CronJob>().get(name).await.expect("there");
    cron.status.and_then(|status| status.active).map_or(0, |active| active.len())
}

async fn waits_for_active(world: &World, name: &str, wanted: usize) {
    eventually(&format!("{wanted} jobs are active"), 5 * MINUTE, async || {
        (active(world, name).await >= wanted).then_some(())
    })
    .await;
}

async fn jobs(world: &World) -> Vec<Job> {
    world.api::<Job>().list(&ListParams::default()).await.expect("a list").items
}

/// The jobs that are not over.
async fn running(world: &World) -> Vec<Job> {
    let mut jobs = jobs(world).await;
    jobs.retain(|job| {
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
        !conditions
            .into_iter()
            .flatten()
            .any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
    });
    jobs
}

async fn remove(world: World, name: &str) {
    let crons: Api<CronJob> = world.api();
    crons.delete(name, &DeleteParams::background()).await.expect("it is deleted");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_schedule_multiple_jobs_concurrently() {
    let world = World::start(1).await;
    world.create::<CronJob>(cron_job("concurrent", "Allow")).await;
    waits_for_active(&world, "concurrent", 2).await;
    assert!(running(&world).await.len() >= 2);
    remove(world, "concurrent").await;
}

#[tokio::test(start_paused = true)]
async fn should_not_schedule_jobs_when_suspended() {
    let world = World::start(1).await;
    let mut cron = cron_job("suspended", "Allow");
    cron["spec"]["suspend"] = json!(true);
    world.create::<CronJob>(cron).await;
    consistently("no job is active", 5 * MINUTE, async || active(&world, "suspended").await == 0)
        .await;
    assert_eq!(jobs(&world).await.len(), 0);
    remove(world, "suspended").await;
}

#[tokio::test(start_paused = true)]
async fn should_not_schedule_new_jobs_when_forbidconcurrent() {
    let world = World::start(1).await;
    world.create::<CronJob>(cron_job("forbid", "Forbid")).await;
    waits_for_active(&world, "forbid", 1).await;
    assert_eq!(active(&world, "forbid").await, 1);
    assert_eq!(running(&world).await.len(), 1);
    // Four more minutes begin while the first job runs.
    consistently("one job at most is active", 5 * MINUTE, async || {
        active(&world, "forbid").await < 2 && running(&world).await.len() < 2
    })
    .await;
    remove(world, "forbid").await;
}

#[tokio::test(start_paused = true)]
async fn should_replace_jobs_when_replaceconcurrent() {
    let world = World::start(1).await;
    world.create::<CronJob>(cron_job("replace", "Replace")).await;
    waits_for_active(&world, "replace", 1).await;
    assert_eq!(active(&world, "replace").await, 1);
    let first = running(&world).await;
    assert_eq!(first.len(), 1);
    eventually("the job is replaced", 5 * MINUTE, async || {
        let jobs = jobs(&world).await;
        // The old one may still be going while the new one is there.
        let replaced = jobs.iter().all(|job| job.name_any() != first[0].name_any());
        assert!(jobs.len() <= 2, "one job for another: {}", jobs.len());
        (replaced && jobs.len() == 1).then_some(())
    })
    .await;
    remove(world, "replace").await;
}
