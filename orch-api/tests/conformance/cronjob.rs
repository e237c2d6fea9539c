//! CronJobs as objects.
//!
//! Source: `test/e2e/apps/cronjob.go`.

use serde_json::json;

use super::{
    objects::{MERGE, call, name},
    operations::every_verb,
    world::World,
};

/// All verbs of cron jobs, in a namespace and over all, and of their status.
pub(super) async fn should_support_cronjob_api_operations() {
    let world = World::with_namespace("cron").await;
    world.discover("batch", "v1", &["cronjobs", "cronjobs/status"]).await;
    let jobs = world.of("batch/v1", "CronJob", "cron").await;
    let everywhere = world.all("batch/v1", "CronJob").await;
    let make = |_| {
        let pod = json!({"containers": [{"name": "c", "image": "busybox"}],
            "restartPolicy": "OnFailure"});
        json!({
            "metadata": {"generateName": "e2e-example-cj-"},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}},
        })
    };
    every_verb(&jobs, Some(&everywhere), make, async |jobs, first| {
        assert_eq!(first["spec"]["concurrencyPolicy"], "Allow");
        let at = format!("{}/status", name(&first));
        let time = "2026-01-02T03:04:05Z";
        let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
            "status": {"lastScheduleTime": time}});
        let mut patched = jobs.patch(&at, MERGE, patch).await;
        assert_eq!(patched["status"]["lastScheduleTime"], time);
        assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
        let later = "2026-01-02T04:04:05Z";
        patched["status"]["lastScheduleTime"] = json!(later);
        patched["spec"]["schedule"] = json!("1 1 1 1 *");
        let updated = jobs.replace_status(patched).await;
        assert_eq!(updated["status"]["lastScheduleTime"], later);
        assert_eq!(updated["spec"], first["spec"]);
        let path = format!("{}/{at}", jobs.path);
        let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
        assert_eq!(
            (&read["kind"], &read["metadata"]["uid"]),
            (&json!("CronJob"), &first["metadata"]["uid"])
        );
        assert_eq!(read["status"]["lastScheduleTime"], later);
    })
    .await;
}
