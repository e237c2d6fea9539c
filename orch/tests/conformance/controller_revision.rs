//! Source: `test/e2e/apps/controller_revision.go`.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::{
    daemon_set::{daemon_set, runs_on},
    running::selected,
    world::{MINUTE, World, eventually, patch, update},
};

const NAME: &str = "e2e-daemon-set";
const SELECTOR: &str = "daemonset-name=e2e-daemon-set";

async fn counted(revisions: &Api<ControllerRevision>, wanted: usize) -> Vec<ControllerRevision> {
    eventually(&format!("{wanted} revisions"), MINUTE, async || {
        let found = selected(revisions, SELECTOR).await;
        (found.len() == wanted).then_some(found)
    })
    .await
}

fn label<'a>(revision: &'a ControllerRevision, key: &str) -> Option<&'a str> {
    revision.labels().get(key).map(String::as_str)
}

#[tokio::test(start_paused = true)]
async fn should_manage_the_lifecycle_of_a_controllerrevision() {
    let world = World::start(2).await;
    let nodes = world.schedulable_nodes().await;
    let sets: Api<DaemonSet> = world.api();
    let mut wanted = daemon_set(NAME);
    wanted["metadata"]["labels"] = json!({"daemonset-name": NAME});
    world.create::<DaemonSet>(wanted).await;
    runs_on(&world, NAME, &nodes).await;
    let everywhere: Api<DaemonSet> = Api::all(world.client.clone());
    assert_eq!(selected(&everywhere, SELECTOR).await.len(), 1);
    let set = sets.get(NAME).await.expect("there");

    let revisions: Api<ControllerRevision> = world.api();
    let all: Api<ControllerRevision> = Api::all(world.client.clone());
    let found = selected(&all, SELECTOR).await;
    assert_eq!(found.len(), 1);
    let owner = &found[0].owner_references()[0];
    assert_eq!((owner.kind.as_str(), Some(&owner.uid)), ("DaemonSet", set.uid().as_ref()));
    let initial = revisions.get(&found[0].name_any()).await.expect("there");
    let first = initial.name_any();
    let patched =
        patch(&revisions, &first, json!({"metadata": {"labels": {&first: "patched"}}})).await;
    assert_eq!(label(&patched, &first), Some("patched"));

    // Another one with the same template, under a name and a hash that the controller would not
    // choose for it.
    let hash = "5bd9f6c9d6";
    let mut labels = json!({"daemonset-name": NAME});
    labels["controller-revision-hash"] = json!(hash);
    let mut another = initial.clone();
    another.metadata = serde_json::from_value(json!({
        "name": format!("{NAME}-{hash}"), "labels": labels,
        "ownerReferences": [set.controller_owner_ref(&()).expect("a reference")],
    }))
    .expect("metadata");
    another.revision = initial.revision + 1;
    revisions.create(&PostParams::default(), &another).await.expect("it is created");
    counted(&revisions, 2).await;
    revisions.delete(&first, &DeleteParams::default()).await.expect("it is deleted");
    let current = counted(&revisions, 1).await.remove(0).name_any();
    let updated = update(&revisions, &current, |revision: &mut ControllerRevision| {
        revision.labels_mut().insert(current.clone(), "updated".to_owned());
    })
    .await;
    assert_eq!(label(&updated, &current), Some("updated"));

    // What stands beside the spec is no field, and is passed over.
    let template = json!({"spec": {"terminationGracePeriodSeconds": 1}});
    patch(
        &sets,
        NAME,
        json!({"spec": {"template": template}, "updateStrategy": {"type": "RollingUpdate"}}),
    )
    .await;
    counted(&revisions, 2).await;
    let only = ListParams::default().labels(&format!("{current}=updated"));
    revisions.delete_collection(&DeleteParams::default(), &only).await.expect("gone");
    let last = counted(&revisions, 1).await;
    assert_eq!(last[0].revision, 3);
    world.shutdown().await;
}
