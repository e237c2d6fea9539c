//! Admission webhooks: what is configured, who is asked, and what their answers do.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook`.

mod config;
mod dispatch;
mod mutating;
mod review;
mod rounds;
mod validating;

use async_trait::async_trait;
use orch_core::ApiError;

pub(crate) use config::Webhooks;
pub(crate) use rounds::Rounds;

use super::{Admission, AdmissionRequest};

/// Asks the webhooks of `MutatingWebhookConfiguration`s, one after the other, ordered by the names
/// of the configurations.
///
/// `Differs:` a configuration counts for the very next write to the server that stored it, and for
/// other servers over the store once they learn of it; upstream's counts a moment later.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutatingAdmissionWebhook;

#[async_trait]
impl Admission for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let Some(server) = request.origin.server.upgrade() else { return Ok(()) };
        if request.is_exempt() {
            return Ok(());
        }
        let hooks = server.mutating_webhooks().await?;
        if hooks.is_empty() {
            return Ok(());
        }
        mutating::dispatch(&server, request, &hooks).await
    }
}

/// Asks the webhooks of `ValidatingWebhookConfiguration`s, all at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidatingAdmissionWebhook;

#[async_trait]
impl Admission for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let Some(server) = request.origin.server.upgrade() else { return Ok(()) };
        if request.is_exempt() {
            return Ok(());
        }
        let hooks = server.validating_webhooks().await?;
        if hooks.is_empty() {
            return Ok(());
        }
        validating::dispatch(&server, request, &hooks).await
    }
}
