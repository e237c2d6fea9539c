//! The `status` of a workload, read, replaced and patched by somebody else than its controller.
//!
//! Source: the tests of status endpoints in `test/e2e/apps`, which take the same steps.

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    watching::Watching,
    world::{Kind, MINUTE, object},
};

/// Whether an object has a condition with these fields.
fn has_condition<K: Kind>(object: &K, fields: &[(&str, &str)]) -> bool {
    let object = serde_json::to_value(object).expect("JSON");
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice);
    let same = |condition: &Value| fields.iter().all(|(key, value)| condition[*key] == *value);
    conditions.unwrap_or_default().iter().any(same)
}

/// Adds a condition to the status, again if the controller was faster.
async fn add_condition<K: Kind>(api: &Api<K>, name: &str, condition: &Value) -> K {
    loop {
        let current = api.get_status(name).await.expect("the status is read");
        let mut changed = serde_json::to_value(&current).expect("JSON");
        let conditions = &mut changed["status"]["conditions"];
        if conditions.is_null() {
            *conditions = json!([]);
        }
        conditions.as_array_mut().expect("a list").push(condition.clone());
        match api.replace_status(name, &PostParams::default(), &object(changed)).await {
            Ok(updated) => return updated,
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("not updated: {error}"),
        }
    }
}

/// Reads the status, replaces and patches it, and sees each change in a watch of the objects with
/// these labels since the version.
pub(crate) async fn check<K: Kind>(api: &Api<K>, name: &str, selector: &str, version: &str) {
    let own = |object: &K| object.meta().name.as_deref() == Some(name);
    let condition = json!({
        "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
    });
    add_condition(api, name, &condition).await;
    let fields = [("type", "StatusUpdate"), ("reason", "E2E"), ("message", "Set from e2e test")];
    let mut watching = Watching::labelled(api, selector, version).await;
    watching
        .until("the updated status", 5 * MINUTE, |_, seen| {
            own(seen) && has_condition(seen, &fields)
        })
        .await;

    let status = json!({"conditions": [{"type": "StatusPatched", "status": "True"}]});
    let patch = Patch::Merge(json!({"status": status}));
    let patched = api.patch_status(name, &PatchParams::default(), &patch).await;
    let fields = [("type", "StatusPatched"), ("status", "True")];
    assert!(has_condition(&patched.expect("it is patched"), &fields));
    let mut watching = Watching::labelled(api, selector, version).await;
    watching
        .until("the patched status", 5 * MINUTE, |_, seen| {
            own(seen) && has_condition(seen, &fields)
        })
        .await;
}
