//! Who manages which fields, and server-side apply.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager`.

use std::sync::LazyLock;

use orch_core::{
    ApiError, Object, ResourceType,
    client::WriteOptions,
    clock::to_seconds,
    patch::{self, FieldSet, Writer},
    schema::{self, Model},
    status::FieldError,
};
use serde_json::Value;

use super::{Addressed, Caller, convert};
use crate::server::Inner;

static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_names(&["status"]));
static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_names(&["spec"]));
static NOTHING: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_names(&[]));

/// The fields that an endpoint leaves alone, so that its writers never own them.
fn ignored(at: &Addressed) -> &'static FieldSet {
    match at.target.subresource.as_deref() {
        None if at.resource.subresource("status").is_some() => &STATUS,
        Some("status") => &SPEC,
        _ => &NOTHING,
    }
}

/// What is known of the fields of a kind in a version.
pub(super) fn model<'a>(at: &'a Addressed, of: &ResourceType) -> Model<'a> {
    match &at.resource.custom {
        Some(version) => version.structural().into(),
        None => schema::of(&of.group, &of.version, &of.kind).into(),
    }
}

impl Inner {
    /// Notes what a new or changed object's writer owns. An apply has noted it already.
    pub(super) fn manage(
        &self,
        caller: &Caller,
        at: &Addressed,
        new: &mut Value,
        old: Option<&Value>,
        options: &WriteOptions,
    ) {
        if !self.options.managed_fields {
            return;
        }
        let (of, api_version) = at.resource.worked_on();
        let writer = Writer {
            manager: options.field_manager.as_deref().unwrap_or(&caller.manager),
            api_version,
            subresource: at.target.subresource.as_deref(),
            time: to_seconds(self.environment.clock.now()),
            ignored: ignored(at),
        };
        patch::update(model(at, of), old, new, &writer);
    }

    /// Merges an applied configuration into the object as it is served; `None` makes a new one.
    pub(super) fn apply_server_side(
        &self,
        at: &Addressed,
        old: Option<&Object>,
        config: &Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        let Some(manager) = options.field_manager.as_deref() else {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
        };
        let writer = Writer {
            manager,
            api_version: &at.resource.api_version,
            subresource: at.target.subresource.as_deref(),
            time: to_seconds(self.environment.clock.now()),
            ignored: ignored(at),
        };
        let live = old.map(|object| {
            let mut live = object.to_value();
            convert::to_served(&at.resource, &mut live);
            live
        });
        Ok(patch::apply(model(at, at.of()), live.as_ref(), config, &writer, options.force)?)
    }
}
