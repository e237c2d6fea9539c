//! Source: `test/e2e/storage/volumeattributesclass.go`.

use std::time::Duration;

use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::world::{World, eventually, object, patch, update};

async fn create(api: &Api<VolumeAttributesClass>, prefix: &str) -> String {
    let class = object(json!({
        "metadata": {"generateName": prefix},
        "driverName": "e2e-fake-csi-driver",
        "parameters": {"foo": "bar"},
    }));
    let created = api.create(&PostParams::default(), &class).await.expect("it is created");
    let read = api.get(&created.name_any()).await.expect("there");
    assert_eq!(read.uid(), created.uid());
    created.name_any()
}

#[tokio::test(start_paused = true)]
async fn should_run_through_the_lifecycle_of_a_volumeattributesclass() {
    let world = World::start(0).await;
    let api: Api<VolumeAttributesClass> = Api::all(world.client.clone());
    let gone = async |selected: &ListParams| {
        eventually("the class is gone", Duration::from_secs(30), async || {
            api.list(selected).await.expect("a list").items.is_empty().then_some(())
        })
        .await;
    };
    let name = create(&api, "e2e-").await;
    let patched = patch(&api, &name, json!({"metadata": {"labels": {&name: "patched"}}})).await;
    assert_eq!(patched.labels().get(&name).map(String::as_str), Some("patched"));
    api.delete(&name, &DeleteParams::default()).await.expect("it is deleted");
    gone(&ListParams::default().labels(&format!("{name}=patched"))).await;

    let name = create(&api, "e2e-v2-").await;
    let updated = update(&api, &name, |class: &mut VolumeAttributesClass| {
        class.metadata.labels = Some([(name.clone(), "updated".to_owned())].into());
    })
    .await;
    assert_eq!(updated.labels().get(&name).map(String::as_str), Some("updated"));
    let selected = ListParams::default().labels(&format!("{name}=updated"));
    assert_eq!(api.list(&selected).await.expect("a list").items.len(), 1);
    api.delete_collection(&DeleteParams::default(), &selected).await.expect("it is deleted");
    gone(&selected).await;
    world.shutdown().await;
}
