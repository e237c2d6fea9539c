//! Deletes a pod that nobody asked to be deleted, and says so before.

use k8s_openapi::api::core::v1::Pod;
use orch_core::{
    ClientError, Key,
    client::{DeleteOptions, PatchKind},
};
use serde_json::json;

use crate::context::Context;

/// Gives a pod the condition `DisruptionTarget` with this reason and message, and deletes it. One
/// that is gone needs neither.
pub(crate) async fn disrupt(
    context: &Context,
    pod: &Pod,
    (reason, message): (&str, &str),
) -> Result<(), ClientError> {
    let key = Key::of(&pod.metadata);
    let resources = context.resources::<Pod>(&key.namespace);
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": context.time(),
    }]}});
    let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..DeleteOptions::default() };
    match resources.patch_status(&key.name, PatchKind::Strategic, patch).await {
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    match resources.delete(&key.name, options).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
