//! The mutating webhooks: one after the other, each sees what those before it did.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`.

use orch_core::{ApiError, patch};
use serde_json::{Value, json};

use super::{
    super::AdmissionRequest,
    config::Hook,
    dispatch::{Failure, ask, asked},
    review::Answer,
};
use crate::{catalog::Resource, registry::Versioned, server::Inner};

const FAILED_OPEN: &str = "failed-open.mutation.webhook.admission.k8s.io/";
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";

/// Asks everybody whom the request concerns.
pub(super) async fn dispatch(
    server: &Inner,
    request: &mut AdmissionRequest,
    hooks: &[Hook],
) -> Result<(), ApiError> {
    let catalog = server.catalog().await?;
    request.origin.webhooks.enter(request.object.as_ref());
    for (index, hook) in hooks.iter().enumerate() {
        let Some(seen_as) = asked(server, hook, request, &catalog).await? else { continue };
        if !request.origin.webhooks.asks(&hook.uid) {
            continue;
        }
        let place = format!("round_{}_index_{index}", request.origin.webhooks.number());
        let changed = match one(server, request, hook, &seen_as, &place).await {
            Ok(changed) => changed,
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Calling(why)) if hook.ignores_failures => {
                tracing::warn!(%why, "a webhook failed, and is passed over");
                request.notes.annotate(format!("{FAILED_OPEN}{place}"), &hook.name);
                false
            }
            Err(Failure::Calling(why)) => return Err(ApiError::internal(why)),
        };
        request.origin.webhooks.note(&hook.uid, changed, hook.reinvoked);
    }
    prune(request);
    request.origin.webhooks.leave(request.object.as_ref());
    Ok(())
}

/// Takes out what a custom resource has no fields for. Built-in kinds lose it at each patch.
fn prune(request: &mut AdmissionRequest) {
    let custom = request.origin.resource.as_ref().and_then(|resource| resource.custom.clone());
    if let (Some(version), Some(object)) = (custom, &mut request.object) {
        version.structural().prune(object);
    }
}

/// Asks one webhook; tells whether it changed the object.
async fn one(
    server: &Inner,
    request: &mut AdmissionRequest,
    hook: &Hook,
    seen_as: &Resource,
    place: &str,
) -> Result<bool, Failure> {
    let versioned = server.versioned(request, seen_as).await.map_err(Failure::Refused)?;
    let answer = ask(server, hook, request, (seen_as, &versioned), true).await;
    let changed = match answer {
        Ok(answer) => apply(server, request, hook, (seen_as, versioned), &answer, place).await,
        Err(failure) => Err(failure),
    };
    let mutated = matches!(changed, Ok(true));
    let told = json!({
        "configuration": hook.configuration, "webhook": hook.name, "mutated": mutated,
    });
    request.notes.annotate(format!("{MUTATION}{place}"), told.to_string());
    changed
}

async fn apply(
    server: &Inner,
    request: &mut AdmissionRequest,
    hook: &Hook,
    (seen_as, versioned): (&Resource, Versioned),
    answer: &Answer,
    place: &str,
) -> Result<bool, Failure> {
    if answer.patch.is_empty() {
        return Ok(false);
    }
    let undecodable = |error: serde_json::Error| {
        Failure::calling(
            hook,
            format_args!("received undecodable patch in webhook response: {error}"),
        )
    };
    let operations: Value = serde_json::from_slice(&answer.patch).map_err(undecodable)?;
    if operations.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    if versioned.object.is_null() {
        return Err(Failure::Refused(ApiError::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        ))));
    }
    if answer.patch_type != "JSONPatch" {
        let why = format_args!("unsupported patch type {:?}", answer.patch_type);
        return Err(Failure::calling(hook, why));
    }
    let mut object = versioned.object;
    patch::json_patch(&mut object, &operations)
        .map_err(|error| Failure::Refused(ApiError::internal(error)))?;
    let told = json!({
        "configuration": hook.configuration, "webhook": hook.name, "patch": operations,
        "patchType": "JSONPatch",
    });
    request.notes.annotate(format!("{PATCH}{place}"), told.to_string());
    server.take_back(request, seen_as, object).await.map_err(Failure::Refused)
}
