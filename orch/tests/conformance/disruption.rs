//! Source: `test/e2e/apps/disruption.go`.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::{MINUTE, World, eventually, gone, object, update};

fn min_available(budget: &PodDisruptionBudget) -> Value {
    json!(budget.spec.as_ref().and_then(|spec| spec.min_available.clone()))
}

/// Waits until the controller has seen the newest generation.
async fn processed(api: &Api<PodDisruptionBudget>, name: &str) {
    eventually(&format!("{name} is processed"), MINUTE, async || {
        let budget = api.get(name).await.expect("there");
        let seen = budget.status.as_ref().and_then(|status| status.observed_generation);
        (seen >= budget.metadata.generation).then_some(())
    })
    .await;
}

async fn create(api: &Api<PodDisruptionBudget>, name: &str, available: Value, labels: Value) {
    let budget = object(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "minAvailable": available},
    }));
    api.create(&PostParams::default(), &budget).await.expect("it is created");
    processed(api, name).await;
}

#[tokio::test(start_paused = true)]
async fn should_list_and_delete_a_collection_of_poddisruptionbudgets() {
    let world = World::start(0).await;
    let (own, labels) = (world.api::<PodDisruptionBudget>(), json!({"foo_pdb": "bar_pdb"}));
    create(&own, "foo", json!(2), labels.clone()).await;
    create(&own, "foo2", json!("1%"), labels.clone()).await;
    let elsewhere = world.new_namespace().await;
    let other: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), &elsewhere);
    create(&other, "foo3", json!(2), labels).await;

    let selected = ListParams::default().labels("foo_pdb=bar_pdb");
    let everywhere: Api<PodDisruptionBudget> = Api::all(world.client.clone());
    let names = async |api: &Api<PodDisruptionBudget>| -> Vec<String> {
        let listed = api.list(&selected).await.expect("a list").items;
        let mut names: Vec<String> = listed.iter().map(|budget| budget.name_any()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&everywhere).await, ["foo", "foo2", "foo3"]);
    assert_eq!(names(&own).await, ["foo", "foo2"]);
    own.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("gone");
    eventually("the collection is gone", MINUTE, async || {
        names(&own).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(names(&everywhere).await, ["foo3"]);
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn should_create_a_poddisruptionbudget() {
    let world = World::start(0).await;
    let api = world.api::<PodDisruptionBudget>();
    create(&api, "foo", json!("1%"), json!({"foo": "bar"})).await;
    let updated = update(&api, "foo", |budget: &mut PodDisruptionBudget| {
        let spec = budget.spec.as_mut().expect("a spec");
        spec.min_available = object(json!("2%"));
    })
    .await;
    assert_eq!(min_available(&updated), "2%");
    processed(&api, "foo").await;
    let patch = Patch::Merge(json!({"spec": {"minAvailable": "3%"}}));
    let patched = api.patch("foo", &PatchParams::default(), &patch).await.expect("it is patched");
    assert_eq!(min_available(&patched), "3%");
    processed(&api, "foo").await;
    api.delete("foo", &DeleteParams::default()).await.expect("it is deleted");
    gone(&api, "foo", MINUTE).await;
    world.shutdown().await;
}
