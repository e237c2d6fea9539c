//! Who may do what: RBAC, service accounts and certificate requests.
//!
//! Source: `pkg/apis/rbac/validation`, `pkg/apis/rbac/v1/defaults.go`,
//! `pkg/registry/certificates/certificates/strategy.go`.

use std::borrow::Cow;

use async_trait::async_trait;
use orch_core::{ApiError, status::FieldError};
use serde_json::{Value, json};

use super::{
    field::{Errors, Field, child, children, default_to, same},
    plain::Plain,
    select,
};
use crate::{
    names, printers,
    strategy::{Column, Hook, Strategy, WriteContext, carry},
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) static SERVICE_ACCOUNTS: Plain = Plain {
    columns: &printers::config::SERVICE_ACCOUNTS,
    row: printers::config::service_account,
    ..Plain::DATA
};

pub(super) static ROLES: Plain = Plain {
    defaults: rules_default,
    validate: |object| rules(object, true),
    name: names::path_segment,
    columns: &printers::policy::CREATED,
    row: printers::policy::created,
    create_on_update: true,
    ..Plain::DATA
};

pub(super) static CLUSTER_ROLES: Plain = Plain {
    validate: |object| rules(object, false),
    ..Plain {
        columns: &printers::policy::CREATED,
        row: printers::policy::created,
        defaults: rules_default,
        name: names::path_segment,
        create_on_update: true,
        ..Plain::DATA
    }
};

/// Upstream's type prints a missing list of rules as `null`; kubectl wants the field there.
fn rules_default(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("rules").or_insert(Value::Null);
    }
}

fn rules(object: &Value, namespaced: bool) -> Errors {
    let mut errors = Vec::new();
    for rule in Field::root(object).items("rules") {
        if rule.len("verbs") == 0 {
            errors.push(rule.required("verbs", "verbs must contain at least one value"));
        }
        if rule.len("nonResourceURLs") > 0 {
            let mut refuse = |why: &str| {
                let value = rule.raw("nonResourceURLs").clone();
                errors.push(FieldError::invalid(rule.at("nonResourceURLs"), value, why));
            };
            if namespaced {
                refuse("namespaced rules cannot apply to non-resource URLs");
            }
            let resources = ["apiGroups", "resources", "resourceNames"];
            if resources.iter().any(|name| rule.len(name) > 0) {
                refuse("rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if rule.len("apiGroups") == 0 {
            let why = "resource rules must supply at least one api group";
            errors.push(rule.required("apiGroups", why));
        }
        if rule.len("resources") == 0 {
            let why = "resource rules must supply at least one resource";
            errors.push(rule.required("resources", why));
        }
    }
    errors
}

const BINDINGS: Plain = Plain {
    defaults: binding_defaults,
    name: names::path_segment,
    update: |new, old| {
        let mut errors = Vec::new();
        if !same(&new["roleRef"], &old["roleRef"]) {
            let why = "cannot change roleRef";
            errors.push(FieldError::invalid("roleRef", new["roleRef"].clone(), why));
        }
        errors
    },
    create_on_update: true,
    ..Plain::DATA
};

pub(super) static ROLE_BINDINGS: Plain = Plain {
    validate: |object| binding(object, &["Role", "ClusterRole"]),
    columns: &printers::policy::BINDINGS,
    row: printers::policy::binding,
    ..BINDINGS
};

pub(super) static CLUSTER_ROLE_BINDINGS: Plain = Plain {
    validate: |object| binding(object, &["ClusterRole"]),
    columns: &printers::policy::BINDINGS,
    row: printers::policy::binding,
    ..BINDINGS
};

fn binding_defaults(object: &mut Value) {
    let Some(object) = object.as_object_mut() else { return };
    if let Some(role) = child(object, "roleRef") {
        default_to(role, "apiGroup", GROUP);
    }
    for subject in children(object, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            default_to(subject, "apiGroup", GROUP);
        }
    }
}

fn binding(object: &Value, kinds: &[&str]) -> Errors {
    let mut errors = Vec::new();
    let root = Field::root(object);
    let role = root.get("roleRef");
    if role.str("apiGroup") != GROUP {
        let path = role.at("apiGroup");
        errors.push(FieldError::not_supported(path, role.str("apiGroup"), &[GROUP]));
    }
    if !kinds.contains(&role.str("kind")) {
        errors.push(FieldError::not_supported(role.at("kind"), role.str("kind"), kinds));
    }
    if role.str("name").is_empty() {
        errors.push(role.required("name", ""));
    } else {
        let wrong = names::path_segment(role.str("name"));
        errors.extend(wrong.into_iter().map(|why| role.invalid("name", why)));
    }
    for subject in root.items("subjects") {
        if subject.str("name").is_empty() {
            errors.push(subject.required("name", ""));
        }
        let group = match subject.str("kind") {
            "ServiceAccount" => {
                if subject.str("namespace").is_empty() {
                    errors.push(subject.required("namespace", ""));
                }
                ""
            }
            "User" | "Group" => GROUP,
            other => {
                let path = subject.at("kind");
                let known = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(path, other, &known));
                continue;
            }
        };
        if subject.str("apiGroup") != group {
            let path = subject.at("apiGroup");
            errors.push(FieldError::not_supported(path, subject.str("apiGroup"), &[group]));
        }
    }
    errors
}

/// The strategy of `certificatesigningrequests`.
#[derive(Debug)]
pub(crate) struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        // What was asked for, and by whom, stays as it is.
        for name in ["spec", "status"] {
            carry(new, old, name);
        }
    }

    fn prepare_for_subresource_update(&self, _subresource: &str, new: &mut Value, old: &Value) {
        // An approval writes conditions and nothing else.
        let conditions = new["status"].get("conditions").cloned();
        for name in ["spec", "status"] {
            carry(new, old, name);
        }
        if let Some(conditions) = conditions {
            new["status"]["conditions"] = conditions;
        }
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "spec");
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        if spec.str("request").is_empty() {
            errors.push(spec.invalid("request", "PEM block type must be CERTIFICATE REQUEST"));
        }
        if spec.len("usages") == 0 {
            errors.push(spec.required("usages", "usages must be specified"));
        }
        let signer = spec.str("signerName");
        if signer.is_empty() {
            errors.push(spec.required("signerName", ""));
        } else if !signer.contains('/') {
            let why =
                "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(spec.invalid("signerName", why));
        }
        if spec.int("expirationSeconds").is_some_and(|seconds| seconds < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(spec.invalid("expirationSeconds", why));
        }
        errors
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        select(object, field, &["spec.signerName"])
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn columns(&self) -> &'static [Column] {
        &printers::policy::CERTIFICATE_REQUESTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::policy::certificate_request(object, now)
    }
}

/// Writes into a new CertificateSigningRequest who asks. Install it as the hook of
/// `certificatesigningrequests`.
#[derive(Debug)]
pub struct Requester;

#[async_trait]
impl Hook for Requester {
    async fn before_create(&self, ctx: &WriteContext, new: &mut Value) -> Result<(), ApiError> {
        let user = &ctx.user;
        let Some(spec) = super::field::spec_of(new) else { return Ok(()) };
        spec.insert("username".into(), user.name.as_str().into());
        spec.insert("groups".into(), json!(user.groups));
        for name in ["uid", "extra"] {
            spec.remove(name);
        }
        if let Some(uid) = &user.uid {
            spec.insert("uid".into(), uid.as_str().into());
        }
        if !user.extra.is_empty() {
            spec.insert("extra".into(), json!(user.extra));
        }
        Ok(())
    }
}
