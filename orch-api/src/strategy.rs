//! What differs from kind to kind: defaults, validation, what a client may set, what is printed.

use std::{borrow::Cow, fmt, sync::Arc};

use async_trait::async_trait;
use orch_core::{ApiError, Client, Environment, Object, Target, status::FieldError};
use serde_json::Value;

use crate::auth::UserInfo;

/// The behaviour of one kind. Every method has a default that fits a kind with `spec`, `status`
/// and nothing special. Works on JSON values, because what a typed struct does not know must not
/// be lost. Pure: no I/O, no clock; what needs the cluster is a [`Hook`].
///
/// Source: `k8s.io/kubernetes/pkg/registry/*/*/strategy.go`, `pkg/apis/*/v1/defaults.go`,
/// `pkg/apis/*/validation`, `pkg/printers/internalversion`.
pub trait Strategy: Send + Sync + fmt::Debug + 'static {
    /// Fills in what the client left out. Idempotent. Runs on create, update and patch.
    fn set_defaults(&self, _object: &mut Value) {}

    /// Takes out what a client may not set on creation (usually `status`), and derives what only
    /// the server may. Name, uid and creation time are set already.
    fn prepare_for_create(&self, object: &mut Value) {
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
    }

    /// Restores what an update of the main resource may not touch (usually `status`).
    /// `metadata.generation` is raised by the registry when [`Strategy::generation_changes`].
    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "status");
    }

    /// Restores what an update of `status` may not touch: everything but `status` (and, in
    /// metadata, what upstream lets through).
    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "spec");
    }

    /// Restores what an update of another subresource may not touch: `finalize` and `approval`,
    /// `ephemeralcontainers` and `resize` change parts of `spec` or `status` of their own.
    /// Unless a kind says otherwise nothing but metadata changes.
    fn prepare_for_subresource_update(&self, _subresource: &str, new: &mut Value, old: &Value) {
        carry(new, old, "spec");
        carry(new, old, "status");
    }

    /// Whether the difference between two revisions raises `metadata.generation` (for kinds that
    /// have one; see [`Strategy::has_generation`]).
    fn generation_changes(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// Whether `metadata.generation` is kept: 1 on creation.
    fn has_generation(&self) -> bool {
        false
    }

    /// What is wrong with a new object, beyond its metadata.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with an update, beyond its metadata: includes what [`Strategy::validate`]
    /// finds and immutable fields.
    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate(new)
    }

    /// What is wrong with an update of `status`.
    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with an update of another subresource; see
    /// [`Strategy::prepare_for_subresource_update`].
    fn validate_subresource_update(
        &self,
        _subresource: &str,
        _new: &Value,
        _old: &Value,
    ) -> Vec<FieldError> {
        Vec::new()
    }

    /// How names are checked; gives what is wrong with one.
    fn validate_name(&self, name: &str) -> Vec<String> {
        crate::names::dns_subdomain(name)
    }

    /// Warnings for the client, as upstream words them.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether a PUT to a name that does not exist creates it.
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resource version is taken as unconditional.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// The grace period that a deletion gives the object in seconds, or `None` if the kind is
    /// deleted at once. Pods: what was asked for, else their own period.
    fn grace_period_s(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// What happens to dependents if the client does not say: `true` orphans them.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// The value of a selectable field other than `metadata.name` and `metadata.namespace`;
    /// `None` if the kind does not have it (the request is refused).
    fn selectable_field<'a>(&self, _object: &'a Value, _field: &str) -> Option<Cow<'a, str>> {
        None
    }

    /// The fields that [`Strategy::selectable_field`] knows.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the kind may be selected by a field in the versions of a group. Where two groups
    /// have a kind in common, each has names of its own for the fields.
    fn selects_in(&self, _group: &str, field: &str) -> bool {
        self.selectable_fields().contains(&field)
    }

    /// How `scale` reads and writes this kind; `None` if it has no such subresource.
    fn scale(&self) -> Option<ScaleFields> {
        None
    }

    /// The columns of the kind's table.
    fn columns(&self) -> &'static [Column] {
        &crate::printers::NAME_AND_AGE
    }

    /// The cells of an object's row, one a column, in order. `now` is the time that ages count to.
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        crate::printers::name_and_age(object, now)
    }
}

/// Puts a field of the old object into the new one, or takes it out.
pub fn carry(new: &mut Value, old: &Value, field: &str) {
    let Some(fields) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => {
            fields.insert(field.to_owned(), value.clone());
        }
        None => {
            fields.remove(field);
        }
    }
}

/// Where the `scale` subresource finds its numbers, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleFields {
    /// The wanted number.
    pub spec_replicas: Cow<'static, str>,
    /// The observed number.
    pub status_replicas: Cow<'static, str>,
    /// The label selector: a `LabelSelector`, a plain map of labels, or its text.
    pub selector: Cow<'static, str>,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub kind: &'static str,
    /// OpenAPI format: `name` for the first column, else empty.
    pub format: &'static str,
    /// What it means.
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// What a write may use besides the object: handed to hooks and virtual resources.
#[derive(Clone, Debug)]
pub struct WriteContext {
    /// Who writes.
    pub user: Arc<UserInfo>,
    /// The cluster, with all rights and without admission of reads.
    pub client: Arc<dyn Client>,
    /// Clock and randomness.
    pub environment: Environment,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// Work around the storing of a kind that touches more than the object: cluster IPs and node
/// ports of Services, for example. Runs after defaulting, before validation.
#[async_trait]
pub trait Hook: Send + Sync + fmt::Debug + 'static {
    /// Before a create is validated and stored. What it reserves, it gives back in
    /// [`Hook::failed`].
    async fn before_create(&self, _ctx: &WriteContext, _new: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Before an update is validated and stored.
    async fn before_update(
        &self,
        _ctx: &WriteContext,
        _new: &mut Value,
        _old: &Value,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// After an update was stored: give back what the object no longer holds. Not called for a
    /// dry run.
    async fn after_update(&self, _ctx: &WriteContext, _new: &Value, _old: &Value) {}

    /// The write did not take place after all: give back what `before_*` reserved.
    async fn failed(&self, _ctx: &WriteContext, _new: &Value, _old: Option<&Value>) {}

    /// After the object was asked to go, while something still holds it (finalizers, its period).
    async fn after_mark(&self, _ctx: &WriteContext, _marked: &Value) {}

    /// After the object was deleted from the store.
    async fn after_delete(&self, _ctx: &WriteContext, _old: &Value) {}
}

/// A resource or subresource that stores nothing of its own: its answer to a POST is computed
/// (`bindings`, `eviction`, `token`, access reviews).
#[async_trait]
pub trait VirtualResource: Send + Sync + fmt::Debug + 'static {
    /// Answers a POST. `body` has been defaulted and checked against its schema.
    async fn create(
        &self,
        ctx: &WriteContext,
        target: &Target,
        body: Value,
    ) -> Result<Value, ApiError>;
}

/// A subresource that a POST changes its object through (`binding`). Whoever stores the object
/// reads it, applies the change and writes it, again if somebody else was faster; a client could
/// not, because the kind's own rules forbid the change. Pure, like a [`Strategy`].
pub trait Action: Send + Sync + fmt::Debug + 'static {
    /// The object that the POST to `target` changes.
    fn object(&self, target: &Target, body: &Value) -> Target;

    /// Changes the object, or refuses to.
    fn apply(&self, body: &Value, object: &mut Value, now: jiff::Timestamp)
    -> Result<(), ApiError>;

    /// What the client is told when the object is stored.
    fn answer(&self) -> Value {
        serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        })
    }
}
