//! Keeps the objects that every cluster has, and tells which schemas lead nowhere.
//!
//! Source: `pkg/registry/flowcontrol/ensurer`, `pkg/registry/flowcontrol/rest/storage_flowcontrol.go`,
//! and `presyncFlowSchemaStatus` of `k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use k8s_openapi::{
    Metadata,
    api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orch_core::{
    Client, ClientError, Resources,
    client::{PatchKind, Write, WriteOptions},
    informer::Watchable,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Inner, objects};

/// How often objects are looked after without a change.
const PERIOD: Duration = Duration::from_secs(60);
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Follows every change, for as long as somebody has the flow control.
pub(super) async fn run(inner: Weak<Inner>, client: Arc<dyn Client>) {
    let changed = Arc::new(Notify::new());
    {
        let Some(inner) = inner.upgrade() else { return };
        let (schemas, priorities) = (changed.clone(), changed.clone());
        inner.schemas.on_change(move |_| schemas.notify_one());
        inner.priorities.on_change(move |_| priorities.notify_one());
        let (schemas, priorities) = (inner.schemas.clone(), inner.priorities.clone());
        drop(inner);
        schemas.synced().await;
        priorities.synced().await;
    }
    loop {
        let clock = {
            let Some(inner) = inner.upgrade() else { return };
            inner.digest();
            if let Err(error) = look_after(&inner, &client).await {
                tracing::warn!(%error, "the objects of priority and fairness are not kept");
            }
            inner.environment.clock.clone()
        };
        tokio::select! {
            () = changed.notified() => {}
            () = clock.sleep(PERIOD) => {}
        }
    }
}

async fn look_after(inner: &Inner, client: &Arc<dyn Client>) -> Result<(), ClientError> {
    let priorities: Vec<PriorityLevelConfiguration> = objects::levels().collect();
    keep(client, &priorities, &inner.priorities.list()).await?;
    let schemas: Vec<FlowSchema> = objects::schemas().collect();
    keep(client, &schemas, &inner.schemas.list()).await?;
    let levels: Vec<_> = inner.priorities.list();
    for schema in inner.schemas.list() {
        tell(inner, client, &schema, &levels).await?;
    }
    Ok(())
}

/// Makes what is not there, and mends what was changed: always what is mandatory, else unless its
/// annotation says that somebody has taken it over.
async fn keep<K>(
    client: &Arc<dyn Client>,
    wanted: &[K],
    there: &[Arc<K>],
) -> Result<(), ClientError>
where
    K: Watchable + Metadata<Ty = ObjectMeta> + serde::Serialize,
{
    let resources: Resources<K> = Resources::all(client.clone());
    for object in wanted {
        let name = object.metadata().name.as_deref();
        let found = there.iter().find(|known| known.metadata().name.as_deref() == name);
        let done = match found {
            None => resources.create(object).await.map(drop),
            Some(known) if differs(object, known) => mend(&resources, object).await,
            Some(_) => Ok(()),
        };
        match done {
            // Another server on the same store was first.
            Err(error) if error.is_already_exists() || error.is_not_found() => {}
            other => other?,
        }
    }
    Ok(())
}

fn differs<K: Metadata<Ty = ObjectMeta> + serde::Serialize>(wanted: &K, known: &K) -> bool {
    let value = |object: &K| serde_json::to_value(object).unwrap_or_default();
    let (wanted_value, known_value) = (value(wanted), value(known));
    let annotated = known_value["metadata"]["annotations"][objects::AUTO_UPDATE].as_str();
    if objects::is_mandatory(wanted) {
        return annotated != Some("true") || wanted_value["spec"] != known_value["spec"];
    }
    let ours = match annotated {
        Some(said) => said == "true",
        // Who has never changed it has not taken it over.
        None => known.metadata().generation == Some(1),
    };
    ours && (annotated.is_none() || wanted_value["spec"] != known_value["spec"])
}

async fn mend<K>(resources: &Resources<K>, object: &K) -> Result<(), ClientError>
where
    K: Watchable + Metadata<Ty = ObjectMeta> + serde::Serialize,
{
    let value = serde_json::to_value(object).unwrap_or_default();
    let patch = json!([
        {"op": "add", "path": "/spec", "value": value["spec"]},
        {"op": "add", "path": "/metadata/annotations", "value": {objects::AUTO_UPDATE: "true"}},
    ]);
    let name = object.metadata().name.as_deref().unwrap_or_default();
    resources.patch(name, PatchKind::Json, patch).await.map(drop)
}

/// Tells in a schema's status whether its level exists.
async fn tell(
    inner: &Inner,
    client: &Arc<dyn Client>,
    schema: &FlowSchema,
    levels: &[Arc<PriorityLevelConfiguration>],
) -> Result<(), ClientError> {
    let Some(spec) = &schema.spec else { return Ok(()) };
    let level = &spec.priority_level_configuration.name;
    let exists = levels.iter().any(|one| one.metadata.name.as_deref() == Some(level));
    let about =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if exists {
        ("False", "Found", format!("{about} and it exists"))
    } else {
        ("True", "NotFound", format!("{about} but there is no such object"))
    };
    let conditions = schema.status.iter().filter_map(|status| status.conditions.as_ref());
    let known = conditions.flatten().find(|one| one.type_.as_deref() == Some("Dangling"));
    let same = known.is_some_and(|one| {
        one.status.as_deref() == Some(status)
            && one.reason.as_deref() == Some(reason)
            && one.message.as_deref() == Some(&*message)
    });
    if same {
        return Ok(());
    }
    let name = schema.metadata.name.as_deref().unwrap_or_default();
    let now = orch_core::clock::to_seconds(inner.environment.clock.now()).to_string();
    let patch: Value = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Dangling", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": now}]},
    });
    let target = orch_core::Target::object(orch_core::ResourceType::of::<FlowSchema>(), None, name)
        .subresource("status");
    let options = WriteOptions {
        field_manager: Some(MANAGER.into()),
        force: true,
        ..WriteOptions::default()
    };
    match client.write(Write::Patch(target, PatchKind::Apply, patch, options)).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
