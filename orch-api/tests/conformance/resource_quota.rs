//! ResourceQuotas as objects.
//!
//! Source: `test/e2e/apimachinery/resource_quota.go`.

use serde_json::{Value, json};

use super::{
    objects::{STRATEGIC, name},
    world::World,
};

fn quota(cpu: &str, memory: &str) -> Value {
    json!({
        "metadata": {"name": "test-quota", "labels": {"e2e-rq-label": "created"}},
        "spec": {"hard": {"cpu": cpu, "memory": memory}},
    })
}

/// Limits are changed by an update, read as they were written, and gone with the quota.
pub(super) async fn should_be_able_to_update_and_delete_resourcequota() {
    let world = World::with_namespace("quota").await;
    let quotas = world.of("v1", "ResourceQuota", "quota").await;
    let made = quotas.create(quota("1", "500Mi")).await;
    assert_eq!(made["spec"]["hard"], json!({"cpu": "1", "memory": "500Mi"}));
    assert_eq!(quotas.get("test-quota").await["spec"], made["spec"]);
    let mut changed = made;
    changed["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    quotas.replace(changed).await;
    let read = quotas.get("test-quota").await;
    assert_eq!(read["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    quotas.delete("test-quota").await;
    quotas.gone("test-quota").await;
}

/// A quota is found over all namespaces by its label, patched, and deleted with what has the
/// label that the patch gave it.
pub(super) async fn should_manage_the_lifecycle_of_a_resourcequota() {
    let world = World::with_namespace("quota").await;
    let quotas = world.of("v1", "ResourceQuota", "quota").await;
    let made = quotas.create(quota("500m", "500Mi")).await;
    let read = quotas.get(name(&made)).await;
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    let everywhere = world.all("v1", "ResourceQuota").await;
    let found = everywhere.list("e2e-rq-label=created").await;
    assert_eq!(found.len(), 1);
    let patch = json!({"metadata": {"labels": {"e2e-rq-label": "patched"}},
        "spec": {"hard": {"memory": "750Mi"}}});
    let patched = quotas.patch(name(&made), STRATEGIC, patch).await;
    assert_eq!(patched["metadata"]["labels"]["e2e-rq-label"], "patched");
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "500m", "memory": "750Mi"}));
    quotas.delete_all("e2e-rq-label=patched").await;
    assert_eq!(everywhere.list("e2e-rq-label=patched").await.len(), 0);
    quotas.gone(name(&made)).await;
}
