//! The validating webhooks: all are asked at once, and each may say no.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/validating/dispatcher.go`.

use std::sync::Arc;

use futures::future::join_all;
use orch_core::ApiError;

use super::{
    super::AdmissionRequest,
    config::Hook,
    dispatch::{Failure, ask, asked},
};
use crate::{catalog::Resource, server::Inner};

const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// Asks everybody whom the request concerns; the first refusal in their order counts.
pub(super) async fn dispatch(
    server: &Inner,
    request: &AdmissionRequest,
    hooks: &[Hook],
) -> Result<(), ApiError> {
    let catalog = server.catalog().await?;
    let mut concerned = Vec::new();
    for hook in hooks {
        if let Some(seen_as) = asked(server, hook, request, &catalog).await? {
            concerned.push((hook, seen_as));
        }
    }
    let mut asked = Vec::with_capacity(concerned.len());
    for (index, (hook, seen_as)) in concerned.iter().enumerate() {
        asked.push(one(server, request, index, hook, seen_as));
    }
    join_all(asked).await.into_iter().collect()
}

async fn one(
    server: &Inner,
    request: &AdmissionRequest,
    index: usize,
    hook: &Hook,
    seen_as: &Arc<Resource>,
) -> Result<(), ApiError> {
    let versioned = server.versioned(request, seen_as).await?;
    match ask(server, hook, request, (seen_as, &versioned), false).await {
        Ok(_) => Ok(()),
        Err(Failure::Refused(error)) => Err(error),
        Err(Failure::Calling(why)) if hook.ignores_failures => {
            tracing::warn!(%why, "a webhook failed, and is passed over");
            let key = format!("{FAILED_OPEN}round_0_index_{index}");
            request.notes.annotate(key, &hook.name);
            Ok(())
        }
        Err(Failure::Calling(why)) => Err(ApiError::internal(why)),
    }
}
