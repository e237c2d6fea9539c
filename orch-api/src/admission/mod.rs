//! Admission: what may still change or refuse a write after it was authorized.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use orch_core::{ApiError, Object, Target};
use serde_json::Value;

use crate::auth::UserInfo;

/// What a request does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Create an object, or post to a subresource.
    Create,
    /// Replace or patch an object.
    Update,
    /// Delete an object.
    Delete,
    /// Open a connection (`exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// A write on its way to the store.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// Who writes.
    pub user: Arc<UserInfo>,
    /// What it does.
    pub operation: Operation,
    /// What it addresses. The name is empty while a generated one is not known yet.
    pub target: Target,
    /// The new object; `None` for deletions. Mutating plugins change it in place.
    pub object: Option<Value>,
    /// The object as it is; `None` for creations.
    pub old: Option<Arc<Object>>,
    /// Nothing will be stored: no side effects outside the request.
    pub dry_run: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

impl AdmissionRequest {
    /// Whether the request is about this resource itself (not a subresource).
    pub fn is_for(&self, group: &str, plural: &str) -> bool {
        self.target.subresource.is_none()
            && self.target.resource.group == group
            && self.target.resource.plural == plural
    }

    /// The refusal of this request, worded as upstream words it.
    pub fn refuse(&self, why: &str) -> ApiError {
        let object_name = self.object.as_ref().and_then(|o| o["metadata"]["name"].as_str());
        let name = self.target.name.as_deref().or(object_name).unwrap_or_default();
        let resource = &self.target.resource;
        ApiError::forbidden(&resource.group, &resource.plural, name, why)
    }
}

/// One step of the admission chain. Both methods default to letting everything pass.
///
/// `mutate` runs first for every plugin in order, then defaulting and the kind's own validation,
/// then `validate` for every plugin. Both must be idempotent: a request that loses an optimistic
/// race is admitted again against the newer object. Object-safe.
#[async_trait]
pub trait Admission: Send + Sync + fmt::Debug + 'static {
    /// The name under which the plugin is switched on and off, for example `LimitRanger`.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses the request.
    async fn mutate(&self, _request: &mut AdmissionRequest) -> Result<(), ApiError> {
        Ok(())
    }

    /// Refuses the request, or lets it pass. Must not change the object.
    async fn validate(&self, _request: &AdmissionRequest) -> Result<(), ApiError> {
        Ok(())
    }
}
