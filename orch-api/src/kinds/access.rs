//! Who may do what: RBAC, service accounts and certificate requests.
//!
//! Source: `pkg/apis/rbac/validation`, `pkg/apis/rbac/v1/defaults.go`,
//! `pkg/registry/certificates/certificates/strategy.go`.

use std::borrow::Cow;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
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
        keep_verdicts(new, old);
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Errors {
        conditions(new, old)
    }

    fn validate_subresource_update(&self, _name: &str, new: &Value, old: &Value) -> Errors {
        conditions(new, old)
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        if !is_request(spec.str("request")) {
            errors.push(spec.invalid("request", "PEM block type must be CERTIFICATE REQUEST"));
        }
        usages(&spec, &mut errors);
        let signer = spec.str("signerName");
        if signer.is_empty() {
            errors.push(spec.required("signerName", ""));
        } else if !is_signer(signer) {
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

/// What a certificate may be used for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn usages(spec: &Field<'_>, errors: &mut Errors) {
    if spec.len("usages") == 0 {
        errors.push(spec.required("usages", "usages must be specified"));
    }
    let mut seen = Vec::new();
    for (at, usage) in spec.strs("usages").enumerate() {
        let path = format!("{}[{at}]", spec.at("usages"));
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(path, usage, &USAGES));
        } else if seen.contains(&usage) {
            errors.push(FieldError::duplicate(path, usage));
        }
        seen.push(usage);
    }
}

/// Whether a text is a request for a certificate: PEM, encoded once more.
fn is_request(text: &str) -> bool {
    let Ok(pem) = STANDARD.decode(text) else { return false };
    x509_parser::pem::parse_x509_pem(&pem).is_ok_and(|(_, pem)| pem.label == "CERTIFICATE REQUEST")
}

/// A signer is a domain and a path of one segment behind it.
fn is_signer(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, path)| {
        domain.contains('.')
            && names::dns_subdomain(domain).is_empty()
            && path.split('.').all(|part| names::dns_subdomain(part).is_empty())
    })
}

/// The conditions that decide, of which a status has its own and an approval others.
const VERDICTS: [&str; 2] = ["Approved", "Denied"];

fn is_verdict(condition: &Value) -> bool {
    condition["type"].as_str().is_some_and(|kind| VERDICTS.contains(&kind))
}

fn conditions_of(object: &Value) -> Vec<Value> {
    object["status"]["conditions"].as_array().cloned().unwrap_or_default()
}

/// Whoever writes the status neither approves nor denies, and takes no verdict back.
fn keep_verdicts(new: &mut Value, old: &Value) {
    let mut before: Vec<Value> = conditions_of(old).into_iter().filter(is_verdict).collect();
    let mut after = Vec::new();
    for condition in conditions_of(new) {
        let same = |one: &Value| one["type"] == condition["type"];
        match before.iter().position(same) {
            _ if !is_verdict(&condition) => after.push(condition),
            Some(at) => after.push(before.remove(at)),
            None => {}
        }
    }
    after.append(&mut before);
    if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
        if after.is_empty() {
            status.remove("conditions");
        } else {
            status.insert("conditions".into(), after.into());
        }
    }
}

/// Checks the conditions of a request, of which verdicts and failures are final.
///
/// Source: `pkg/apis/certificates/validation`.
fn conditions(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let status = Field::new(&new["status"], "status");
    let mut seen: Vec<&str> = Vec::new();
    for condition in status.items("conditions") {
        let kind = condition.str("type");
        condition.not_empty("type", &mut errors);
        let verdict = VERDICTS.contains(&kind) || kind == "Failed";
        match condition.str("status") {
            "" => errors.push(condition.required("status", "")),
            "True" => {}
            other if verdict => {
                let path = condition.at("status");
                errors.push(FieldError::not_supported(path, other, &["True"]));
            }
            other => {
                if !matches!(other, "False" | "Unknown") {
                    let known = ["True", "False", "Unknown"];
                    errors.push(FieldError::not_supported(condition.at("status"), other, &known));
                }
            }
        }
        let opposite = |one: &&str| VERDICTS.contains(one) && **one != *kind;
        if VERDICTS.contains(&kind) && seen.iter().any(opposite) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(condition.invalid("type", why));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(condition.at("type"), kind));
        }
        seen.push(kind);
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions_of(old).iter().any(|one| one["type"] == kind) && !seen.contains(&kind) {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.push(status.forbidden("conditions", why));
        }
    }
    errors
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
