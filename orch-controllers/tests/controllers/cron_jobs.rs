//! CronJobs.

use std::sync::Arc;

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Event,
};
use orch_controllers::cron_job::cron_job;
use orch_core::client::PatchKind;
use serde_json::{Value, json};

use crate::world::{World, template};

fn world() -> World {
    World::start(|informers| vec![cron_job(informers)])
}

async fn create(world: &World, schedule: &str, more: Value) {
    let mut value = json!({
        "metadata": {"name": "tick", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "schedule": schedule,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": {"from": "tick"}},
                "spec": {"template": template("tick", "v1")},
            },
        },
    });
    json_patch::merge(&mut value, &more);
    world.create::<CronJob>(value).await;
}

fn name(job: &Job) -> String {
    job.metadata.name.clone().unwrap()
}

async fn jobs(world: &World) -> Vec<Arc<Job>> {
    world.list::<Job>().await
}

async fn end(world: &World, job: &str, condition: &str) {
    let now = world.informers.environment().clock.now();
    let now = orch_core::clock::to_seconds(now).to_string();
    let patch = json!({"status": {
        "startTime": now, "completionTime": now,
        "conditions": [{"type": condition, "status": "True"}],
    }});
    world.resources::<Job>().patch_status(job, PatchKind::Merge, patch).await.unwrap();
}

/// The reasons of the events so far, and the message of the last one of this reason.
async fn told(world: &World, reason: &str) -> Option<String> {
    let events = world.list::<Event>().await;
    let found = events.iter().rev().find(|event| event.reason.as_deref() == Some(reason));
    found.and_then(|event| event.message.clone())
}

async fn says(world: &World, reason: &str, message: &str) {
    let found = world.eventually(reason, async |world| told(world, reason).await).await;
    assert_eq!(found, message);
}

async fn status(world: &World) -> k8s_openapi::api::batch::v1::CronJobStatus {
    world.get::<CronJob>("tick").await.unwrap().status.clone().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn jobs_start_by_the_clock_and_bear_its_mark() {
    let world = world();
    create(&world, "*/5 * * * *", json!({"spec": {"timeZone": "Asia/Kolkata"}})).await;
    world.pass(299).await;
    assert_eq!(jobs(&world).await.len(), 0);
    world.pass(2).await;
    let all = jobs(&world).await;
    // The minutes since 1970.
    assert_eq!(all.iter().map(|job| name(job)).collect::<Vec<_>>(), ["tick-29453765"]);
    let meta = &all[0].metadata;
    let mark =
        &meta.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(mark, "2026-01-01T05:35:00+05:30");
    assert_eq!(meta.labels.as_ref().unwrap()["from"], "tick");
    assert_eq!(meta.owner_references.as_ref().unwrap()[0].kind, "CronJob");
    says(&world, "SuccessfulCreate", "Created job tick-29453765").await;
    let status = status(&world).await;
    assert_eq!(status.last_schedule_time.unwrap().0.to_string(), "2026-01-01T00:05:00Z");
    assert_eq!(status.active.unwrap()[0].name.as_deref(), Some("tick-29453765"));
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_noted_and_the_oldest_go() {
    let world = world();
    create(&world, "* * * * *", json!({"spec": {"successfulJobsHistoryLimit": 2}})).await;
    world.pass(1).await;
    for minute in 1..=4 {
        world.pass(60).await;
        let job = format!("tick-{}", 29_453_760 + minute);
        end(&world, &job, "Complete").await;
    }
    world.pass(10).await;
    let names: Vec<String> = jobs(&world).await.iter().map(|job| name(job)).collect();
    assert_eq!(names, ["tick-29453763", "tick-29453764"]);
    says(&world, "SawCompletedJob", "Saw completed job: tick-29453764, condition: Complete").await;
    says(&world, "SuccessfulDelete", "Deleted job tick-29453762").await;
    let status = status(&world).await;
    assert_eq!(status.active, None);
    assert_eq!(status.last_successful_time.unwrap().0.to_string(), "2026-01-01T00:04:01Z");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_gone_is_active_no_more() {
    let world = world();
    create(&world, "0 * * * *", json!({"spec": {"concurrencyPolicy": "Forbid"}})).await;
    world.pass(3601).await;
    let first = name(&jobs(&world).await[0]);
    world.pass(3600).await;
    assert_eq!(jobs(&world).await.len(), 1, "the first one still runs");
    let message =
        "Not starting job because prior execution is running and concurrency policy is Forbid";
    says(&world, "JobAlreadyActive", message).await;
    world.delete::<Job>(&first).await;
    world.pass(1).await;
    says(&world, "MissingJob", &format!("Active job went missing: {first}")).await;
    // The start that was held up is made up for: it has not been missed yet.
    let names: Vec<String> = jobs(&world).await.iter().map(|job| name(job)).collect();
    assert_eq!(names, ["tick-29453880"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_only_the_last_start_is_made_up_for() {
    let world = world();
    create(&world, "* * * * *", json!({"spec": {"suspend": true}})).await;
    world.pass(9000).await;
    assert_eq!(jobs(&world).await.len(), 0);
    world.patch::<CronJob>("tick", json!({"spec": {"suspend": false}})).await;
    world.pass(1).await;
    assert_eq!(name(&jobs(&world).await[0]), "tick-29453910");
    let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or \
                   check clock skew";
    says(&world, "TooManyMissedTimes", message).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_too_late_is_missed() {
    let world = world();
    let spec = json!({"spec": {"startingDeadlineSeconds": 30, "suspend": true}});
    create(&world, "0 * * * *", spec).await;
    world.pass(3620).await;
    world.patch::<CronJob>("tick", json!({"spec": {"suspend": false}})).await;
    world.pass(1).await;
    assert_eq!(jobs(&world).await.len(), 1, "within the deadline");
    world.patch::<CronJob>("tick", json!({"spec": {"suspend": true}})).await;
    world.pass(3700).await;
    world.patch::<CronJob>("tick", json!({"spec": {"suspend": false}})).await;
    world.pass(60).await;
    assert_eq!(jobs(&world).await.len(), 1, "past the deadline");
}

#[tokio::test(start_paused = true)]
async fn schedules_that_cannot_be_kept_are_told_once_and_left_alone() {
    let check = async |schedule: &str, more: Value, reason: &str, message: &str| {
        let world = world();
        create(&world, schedule, more).await;
        says(&world, reason, message).await;
        world.pass(10).await;
        let writes = world.writes();
        world.pass(7200).await;
        assert_eq!((jobs(&world).await.len(), world.writes()), (0, writes), "{schedule}");
    };
    check(
        "59 23 31 2 *",
        json!({"metadata": {"creationTimestamp": "2025-01-01T00:00:00Z"}}),
        "InvalidSchedule",
        "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 \
         second",
    )
    .await;
    check(
        "every day",
        json!({}),
        "UnparseableSchedule",
        "unparseable schedule: \"every day\" : expected exactly 5 fields, found 2: [every day]",
    )
    .await;
    check(
        "* * * * *",
        json!({"spec": {"timeZone": "Moon/Base"}}),
        "UnknownTimeZone",
        "invalid timeZone: \"Moon/Base\": unknown time zone Moon/Base",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_schedule_makes_up_for_nothing() {
    let world = world();
    create(&world, "0 0 1 1 *", json!({})).await;
    world.pass(1830).await;
    world.patch::<CronJob>("tick", json!({"spec": {"schedule": "*/10 * * * *"}})).await;
    world.pass(500).await;
    assert_eq!(jobs(&world).await.len(), 0, "the starts before the change are no concern");
    world.pass(100).await;
    assert_eq!(name(&jobs(&world).await[0]), "tick-29453800");
}
