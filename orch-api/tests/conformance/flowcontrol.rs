//! FlowSchemas and PriorityLevelConfigurations as objects.
//!
//! Source: `test/e2e/apimachinery/flowcontrol.go`.

use serde_json::{Value, json};

use super::{
    objects::{MERGE, Objects, call, name},
    operations::every_verb,
    world::World,
};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Reads, patches and replaces the status of the first object through its subresource.
async fn status(world: &World, objects: &Objects, first: Value) {
    let at = format!("{}/status", name(&first));
    let path = format!("{}/{at}", objects.path);
    let read = call(&world.client, "GET", &path, &[], None).await.unwrap();
    assert_eq!(read["metadata"]["uid"], first["metadata"]["uid"]);
    let condition = |kind: &str| json!({"type": kind, "status": "False", "reason": "e2e"});
    let patch = json!({"status": {"conditions": [condition("PatchStatusFailed")]}});
    let mut patched = objects.patch(&at, MERGE, patch).await;
    let kinds = |object: &Value| -> Vec<Value> {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().map(|one| one["type"].clone()).collect()
    };
    assert_eq!(kinds(&patched), ["PatchStatusFailed"]);
    let conditions = patched["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition("UpdateStatusFailed"));
    let updated = objects.replace_status(patched).await;
    assert_eq!(kinds(&updated), ["PatchStatusFailed", "UpdateStatusFailed"]);
    assert_eq!(updated["spec"], first["spec"]);
}

/// All verbs of flow schemas, under generated names, their status, and a field of their
/// specification that an update changes.
pub(super) async fn should_support_flowschema_api_operations() {
    let world = World::start().await;
    world.discover(GROUP, "v1", &["flowschemas", "flowschemas/status"]).await;
    let schemas = world.all(&format!("{GROUP}/v1"), "FlowSchema").await;
    let make = |_| {
        json!({
            "metadata": {"generateName": "e2e-example-fs-"},
            "spec": {
                "matchingPrecedence": 9999, "priorityLevelConfiguration": {"name": "global-default"},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                }],
            },
        })
    };
    every_verb(&schemas, None, make, async |schemas, mut first| {
        assert!(name(&first).starts_with("e2e-example-fs-"));
        first["spec"]["matchingPrecedence"] = json!(9998);
        let updated = schemas.replace(first).await;
        assert_eq!(updated["spec"]["matchingPrecedence"], 9998);
        assert_eq!(updated["metadata"]["generation"], 2);
        status(&world, schemas, updated).await;
    })
    .await;
}

/// The same for priority levels.
pub(super) async fn should_support_prioritylevelconfiguration_api_operations() {
    let world = World::start().await;
    let resources = ["prioritylevelconfigurations", "prioritylevelconfigurations/status"];
    world.discover(GROUP, "v1", &resources).await;
    let levels = world.all(&format!("{GROUP}/v1"), "PriorityLevelConfiguration").await;
    let make = |_| {
        json!({
            "metadata": {"generateName": "e2e-example-pl-"},
            "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}},
        })
    };
    every_verb(&levels, None, make, async |levels, mut first| {
        first["spec"]["limited"]["nominalConcurrencyShares"] = json!(4);
        let updated = levels.replace(first).await;
        assert_eq!(updated["spec"]["limited"]["nominalConcurrencyShares"], 4);
        status(&world, levels, updated).await;
    })
    .await;
}
