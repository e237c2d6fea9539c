//! Source: `test/e2e/apps/job.go`.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::{phase, runs, selected},
    world::{MINUTE, World, eventually, gone, object, update},
};

/// How long upstream's tests wait for a job.
const JOB: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// A job of four pods, two at a time, that do not end by themselves.
fn endless(name: &str) -> Value {
    let container = json!({
        "name": "c", "image": "registry.example/busybox:v1",
        "volumeMounts": [{"mountPath": "/data", "name": "data"}],
    });
    json!({
        "metadata": {"name": name},
        "spec": {
            "parallelism": 2, "completions": 4, "backoffLimit": 6, "manualSelector": false,
            "template": {
                "metadata": {"labels": {"job": name}},
                "spec": {
                    "restartPolicy": "Never",
                    "volumes": [{"name": "data", "emptyDir": {}}],
                    "containers": [container],
                },
            },
        },
    })
}

/// Creates the job and waits until its two pods run.
async fn started(world: &World, name: &str) -> (Job, Vec<Pod>) {
    let job = world.create(endless(name)).await;
    let pods: Api<Pod> = world.api();
    let running = eventually("two pods run", JOB, async || {
        let found = selected(&pods, &format!("job={name}")).await;
        let running = found.iter().filter(|pod| phase(pod) == "Running").count();
        (running == 2).then_some(found)
    })
    .await;
    assert_eq!(running.len(), 2);
    (job, running)
}

#[tokio::test(start_paused = true)]
async fn should_delete_a_job() {
    let world = World::start(1).await;
    started(&world, "foo").await;
    let jobs: Api<Job> = world.api();
    jobs.delete("foo", &DeleteParams::background()).await.expect("it is deleted");
    gone(&jobs, "foo", MINUTE).await;
    eventually("its pods are gone", 5 * MINUTE, async || {
        selected(&world.api::<Pod>(), "job=foo").await.is_empty().then_some(())
    })
    .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_adopt_matching_orphans_and_release_non_matching_pods() {
    let (world, name) = (World::start(1).await, "adopt-release");
    let (job, running) = started(&world, name).await;
    let pods: Api<Pod> = world.api();
    let pod = running[0].name_any();
    update(&pods, &pod, |pod: &mut Pod| pod.metadata.owner_references = None).await;
    let controller = async || {
        let pod = pods.get(&pod).await.expect("there");
        pod.owner_references().iter().find(|owner| owner.controller == Some(true)).cloned()
    };
    let owner = eventually("the pod is adopted again", JOB, controller).await;
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Job", name));
    assert_eq!(Some(owner.uid), job.uid());
    update(&pods, &pod, |pod: &mut Pod| pod.metadata.labels = None).await;
    eventually("the pod is released", JOB, async || controller().await.is_none().then_some(()))
        .await;
    runs(&pods, &pod).await;
    world.shutdown().await;
}

/// When the custom condition last changed.
fn transition(job: &Job) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let custom = conditions.iter().find(|condition| condition.type_ == "CustomConditionType")?;
    custom.last_transition_time.as_ref().map(|time| time.0.to_string())
}

#[tokio::test(start_paused = true)]
async fn should_apply_changes_to_a_job_status() {
    let (world, name) = (World::start(1).await, "suspend-false-to-true");
    let (job, _) = started(&world, name).await;
    let jobs: Api<Job> = world.api();
    let (first, second) = ("2023-11-14T22:20:00Z", "2023-11-14T22:21:00Z");
    let condition = |at: &str| json!({"type": "CustomConditionType", "status": "True", "lastTransitionTime": at});
    let patch = Patch::Merge(json!({
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"conditions": [condition(first)]},
    }));
    let patched = jobs.patch_status(name, &PatchParams::default(), &patch).await.expect("patched");
    assert_eq!(transition(&patched).as_deref(), Some(first));
    assert_eq!(patched.annotations().get("patchedstatus").map(String::as_str), Some("true"));
    let updated = loop {
        let mut job = jobs.get(name).await.expect("there");
        let conditions = job.status.as_mut().and_then(|status| status.conditions.as_mut());
        *conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "CustomConditionType")
            .expect("the condition is there") = object(condition(second));
        match jobs.replace_status(name, &PostParams::default(), &job).await {
            Ok(updated) => break updated,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("not updated: {error}"),
        }
    };
    assert_eq!(transition(&updated).as_deref(), Some(second));
    assert_eq!(jobs.get_status(name).await.expect("the status is read").uid(), job.uid());
    world.shutdown().await;
}
