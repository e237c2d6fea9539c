//! Asking one webhook.

use std::sync::Arc;

use orch_core::ApiError;

use super::{
    super::{AdmissionRequest, matching::picked},
    config::Hook,
    review::{self, Answer},
};
use crate::{
    catalog::{Catalog, Resource},
    outbound::{Json, send_json},
    registry::Versioned,
    server::Inner,
};

/// Why a webhook lets no request through.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be asked, or did not answer as it should; the webhook's policy decides.
    Calling(String),
    /// It said no, or the server may not ask it.
    Refused(ApiError),
}

impl Failure {
    /// The failure of a call, as upstream words it.
    pub(super) fn calling(hook: &Hook, why: impl std::fmt::Display) -> Self {
        Self::Calling(format!("failed calling webhook {:?}: {why}", hook.name))
    }
}

/// What a webhook is to be asked about a request, if it is: the resource in the version that one
/// of its rules names.
pub(super) async fn asked(
    server: &Inner,
    hook: &Hook,
    request: &AdmissionRequest,
    catalog: &Catalog,
) -> Result<Option<Arc<Resource>>, ApiError> {
    let Some(seen_as) = picked(&hook.rules, hook.equivalent, request, catalog) else {
        return Ok(None);
    };
    if !hook.selectors.select_object(request)
        || !hook.selectors.select_namespace(server, request).await?
    {
        return Ok(None);
    }
    Ok(Some(seen_as))
}

/// Asks a webhook, and notes what it tells besides.
pub(super) async fn ask(
    server: &Inner,
    hook: &Hook,
    request: &AdmissionRequest,
    (seen_as, versioned): (&Resource, &Versioned),
    mutating: bool,
) -> Result<Answer, Failure> {
    if request.dry_run && !hook.dry_runs {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Refused(ApiError::bad_request(why)));
    }
    let Some(version) = hook.review else {
        let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::calling(hook, why));
    };
    let Some(endpoint) = &hook.endpoint else {
        let why =
            "could not get REST client: webhook configuration must have either service or URL";
        return Err(Failure::calling(hook, why));
    };
    let uid = server.environment.random.uuid();
    let body = review::question(version, &uid, request, (&seen_as.of, versioned));
    let call = Json { endpoint, body: &body, timeout: Some(hook.timeout) };
    let answered = send_json(&*server.outbound, &*server.environment.clock, call).await;
    let answer = answered
        .map_err(|why| Failure::calling(hook, format_args!("failed to call webhook: {why}")))?;
    let answer = review::check(version, &uid, mutating, answer).map_err(|why| {
        Failure::calling(hook, format_args!("received invalid webhook response: {why}"))
    })?;
    for (key, value) in &answer.annotations {
        request.notes.annotate(format!("{}/{key}", hook.name), value);
    }
    answer.warnings.iter().for_each(|warning| request.notes.warn(warning));
    if answer.allowed {
        return Ok(answer);
    }
    Err(Failure::Refused(review::denial(&hook.name, answer.result)))
}
