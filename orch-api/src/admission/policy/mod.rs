//! Admission policies: rules and changes that are written in the API itself.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy`.

pub(crate) mod authorize;
pub(crate) mod conditions;
mod config;
pub(crate) mod expression;
mod mutating;
mod params;
mod request;
mod type_check;
mod validating;

use async_trait::async_trait;
use orch_core::ApiError;

pub(crate) use config::Policies;
pub(crate) use request::Asked;
pub(crate) use type_check::TypeCheck;

use super::{Admission, AdmissionRequest};

/// Lets the validations of `ValidatingAdmissionPolicy`s decide, as their bindings say.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidatingAdmissionPolicy;

#[async_trait]
impl Admission for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), ApiError> {
        let Some(server) = request.origin.server.upgrade() else { return Ok(()) };
        if request.is_exempt() {
            return Ok(());
        }
        let policies = server.validating_policies().await?;
        if policies.is_empty() {
            return Ok(());
        }
        validating::dispatch(&server, request, &policies).await
    }
}

/// Lets the mutations of `MutatingAdmissionPolicy`s change the object, as their bindings say.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutatingAdmissionPolicy;

#[async_trait]
impl Admission for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), ApiError> {
        let Some(server) = request.origin.server.upgrade() else { return Ok(()) };
        if request.is_exempt() {
            return Ok(());
        }
        let policies = server.mutating_policies().await?;
        if policies.is_empty() {
            return Ok(());
        }
        mutating::dispatch(&server, request, &policies).await
    }
}
