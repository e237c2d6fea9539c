//! Source: `test/e2e/apps/deployment.go`, the test of the whole life of a Deployment.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    running::selected,
    watching::{Change, Watching, version},
    world::{MINUTE, World, code, object, patch},
};

const NAME: &str = "test-deployment";
const SELECTOR: &str = "test-deployment-static=true";
const HALF: Duration = Duration::from_secs(30);
const INITIAL: &str = "registry.example/agnhost:v2";
const PATCHED: &str = "registry.example/pause:v3";
const UPDATED: &str = "registry.example/httpd:v2";

fn deployment() -> Value {
    let labels = json!({"test-deployment-static": "true"});
    json!({
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": NAME, "image": INITIAL}],
                },
            },
        },
    })
}

fn ready(deployment: &Deployment) -> i32 {
    let status = deployment.status.as_ref();
    status.and_then(|status| status.ready_replicas).unwrap_or_default()
}

fn image(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.first()?.image.as_deref()
}

fn label(deployment: &Deployment) -> Option<&str> {
    deployment.labels().get("test-deployment").map(String::as_str)
}

/// A collection, and the version from which its changes are looked through, each time anew.
struct Life {
    api: Api<Deployment>,
    since: String,
}

impl Life {
    async fn sees(
        &self,
        what: &str,
        at_most: Duration,
        check: impl FnMut(Change, &Deployment) -> bool,
    ) -> Deployment {
        let mut watching = Watching::labelled(&self.api, SELECTOR, &self.since).await;
        let seen = watching.until(what, at_most, check).await;
        assert_eq!(seen.name_any(), NAME);
        seen
    }

    async fn sees_modified(&self) {
        self.sees("a change", HALF, |change, _| change == Change::Modified).await;
    }
}

#[tokio::test(start_paused = true)]
async fn should_run_the_lifecycle_of_a_deployment() {
    let world = World::start(1).await;
    let api: Api<Deployment> = world.api();
    let mut life = Life { since: version(&api).await, api: api.clone() };
    world.create::<Deployment>(deployment()).await;
    life.sees("it is created", HALF, |change, _| change == Change::Added).await;
    life.sees("two replicas are Ready", MINUTE, |_, seen| ready(seen) == 2).await;

    // A field in the wrong case is none, and is passed over.
    let container = json!({"name": NAME, "image": PATCHED, "command": ["/bin/sleep", "100000"]});
    let spec = json!({"TerminationGracePeriodSeconds": 0, "containers": [container]});
    let changes = json!({
        "metadata": {"labels": {"test-deployment": "patched"}},
        "spec": {"replicas": 1, "template": {"spec": spec}},
    });
    patch(&api, NAME, changes).await;
    life.sees_modified().await;
    life.sees("one replica is Ready", MINUTE, |_, seen| {
        ready(seen) == 1 && image(seen) == Some(PATCHED)
    })
    .await;
    let everywhere: Api<Deployment> = Api::all(world.client.clone());
    let found = selected(&everywhere, SELECTOR).await;
    assert!(found.iter().any(|d| d.name_any() == NAME && d.namespace() == api_namespace(&world)));
    life.since = version(&api).await;

    // As it was created, without a version, with another image.
    let mut whole = deployment();
    whole["metadata"]["labels"]["test-deployment"] = json!("updated");
    whole["spec"]["template"]["spec"]["containers"][0]["image"] = json!(UPDATED);
    api.replace(NAME, &PostParams::default(), &object(whole)).await.expect("it is replaced");
    life.sees_modified().await;
    let current = api.get_status(NAME).await.expect("the status is read");
    assert_eq!((image(&current), label(&current)), (Some(UPDATED), Some("updated")));
    life.sees("two replicas are Ready", HALF, |_, seen| ready(seen) == 2).await;

    let changes = Patch::Strategic(json!({
        "metadata": {"labels": {"test-deployment": "patched-status"}},
        "status": {"readyReplicas": 0},
    }));
    // More available than Ready replicas are none that there could be; upstream's test does not
    // look at the answer.
    assert_eq!(code(api.patch_status(NAME, &PatchParams::default(), &changes).await), 422);
    life.sees_modified().await;
    let current = api.get_status(NAME).await.expect("the status is read");
    assert_eq!((image(&current), label(&current)), (Some(UPDATED), Some("updated")));
    life.sees("two replicas are Ready", HALF, |_, seen| {
        ready(seen) == 2 && image(seen) == Some(UPDATED)
    })
    .await;

    let params = DeleteParams::default().grace_period(0);
    let own = ListParams::default().labels(SELECTOR);
    api.delete_collection(&params, &own).await.expect("they are deleted");
    life.sees("it is deleted", MINUTE, |change, _| change == Change::Deleted).await;
    world.shutdown().await;
}

fn api_namespace(world: &World) -> Option<String> {
    Some(world.namespace.clone())
}
