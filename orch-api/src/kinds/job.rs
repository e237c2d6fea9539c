//! Jobs.
//!
//! Source: `pkg/apis/batch/validation`, `pkg/apis/batch/v1/defaults.go`,
//! `pkg/registry/batch/job/strategy.go`.

use std::borrow::Cow;

use orch_core::status::FieldError;
use serde_json::{Map, Value, json};

use super::{
    field::{Errors, Field, child, child_opt, children, default_to, same, spec_of},
    metadata, pod_spec,
    workloads::template_warnings,
};
use crate::{
    printers,
    strategy::{Column, Strategy, carry},
};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The labels' names before they had a prefix; pods carry both.
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";
const RETRIES: i64 = 6;

/// The strategy of `jobs`.
#[derive(Debug)]
pub(crate) struct Job;

impl Strategy for Job {
    fn set_defaults(&self, object: &mut Value) {
        metadata::inherit_template_labels(object);
        if let Some(spec) = spec_of(object) {
            defaults(spec);
        }
        if let Some(fields) = object.as_object_mut() {
            child(fields, "status");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
        generate_selector(object);
        // Upstream takes a template's labels over whenever it reads a job that has none: from the
        // store too, and by then the template has the generated ones.
        metadata::inherit_template_labels(object);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Errors {
        let mut errors = Vec::new();
        let spec = Field::root(object).get("spec");
        generated_selector(object, &mut errors);
        selector(&spec, &mut errors);
        validate_spec(&spec, &mut errors);
        let labels = spec.value.pointer("/template/metadata/labels").cloned().unwrap_or(json!({}));
        let selector = spec.raw("selector");
        if !selector.is_null() && !metadata::selector_matches(selector, &labels) {
            errors.push(FieldError::invalid(
                "spec.template.metadata.labels",
                labels,
                "`selector` does not match template `labels`",
            ));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = Vec::new();
        let (spec, before) = (Field::new(&new["spec"], "spec"), &old["spec"]);
        selector(&spec, &mut errors);
        validate_spec(&spec, &mut errors);
        let elastic = spec.str("completionMode") == "Indexed"
            && spec.int("completions") == spec.int("parallelism");
        if !elastic {
            spec.immutable(before, "completions", &mut errors);
        }
        for name in [
            "selector",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ] {
            spec.immutable(before, name, &mut errors);
        }
        template_immutable(&spec, new, old, &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Errors {
        let mut errors = Vec::new();
        let status = Field::new(&new["status"], "status");
        let names = ["active", "succeeded", "failed", "ready", "terminating"];
        metadata::non_negative_all(&status, &names, &mut errors);
        let finished = |object: &Value, kind: &str| {
            let status = Field::root(&object["status"]);
            status.items("conditions").any(|c| c.str("type") == kind && c.str("status") == "True")
        };
        for kind in ["Complete", "Failed"] {
            if finished(old, kind) && !finished(new, kind) {
                let value = status.raw("conditions").clone();
                let why = format!("cannot disable the terminal {kind}=True condition");
                errors.push(FieldError::invalid("status.conditions", value, why));
            }
        }
        if finished(new, "Complete") && finished(new, "Failed") {
            let value = status.raw("conditions").clone();
            let why = "cannot set Complete=True and Failed=true conditions";
            errors.push(FieldError::invalid("status.conditions", value, why));
        }
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(new, old)
    }

    // Jobs orphan their pods when an old client does not say: `batch/v1` kept what it did first.
    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable_field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        (field == "status.successful").then(|| {
            let count = object.pointer("/status/succeeded").and_then(Value::as_i64);
            Cow::Owned(count.unwrap_or_default().to_string())
        })
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn columns(&self) -> &'static [Column] {
        &printers::batch::JOBS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        printers::batch::job(object, now)
    }
}

fn defaults(spec: &mut Map<String, Value>) {
    pod_spec::template_defaults(spec);
    let missing = |spec: &Map<String, Value>, name: &str| spec.get(name).is_none_or(Value::is_null);
    // Without either number there is one pod; a work queue says only how many run at a time.
    if missing(spec, "completions") && missing(spec, "parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    default_to(spec, "parallelism", 1);
    let per_index = !missing(spec, "backoffLimitPerIndex");
    default_to(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { RETRIES });
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    default_to(spec, "manualSelector", false);
    let policy = !missing(spec, "podFailurePolicy");
    default_to(spec, "podReplacementPolicy", if policy { "Failed" } else { "TerminatingOrFailed" });
    if let Some(policy) = child_opt(spec, "podFailurePolicy") {
        for rule in children(policy, "rules") {
            for pattern in children(rule, "onPodConditions") {
                default_to(pattern, "status", "True");
            }
        }
    }
}

/// Unless the client manages the selector, it is the job's uid.
fn generate_selector(object: &mut Value) {
    if object["spec"]["manualSelector"] == json!(true) {
        return;
    }
    let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
    let Some(spec) = spec_of(object) else { return };
    if let Some(labels) = child(spec, "template")
        .and_then(|template| child(template, "metadata"))
        .and_then(|meta| child(meta, "labels"))
    {
        for (label, value) in
            [(UID_LABEL, &uid), (NAME_LABEL, &name), (OLD_UID_LABEL, &uid), (OLD_NAME_LABEL, &name)]
        {
            default_to(labels, label, value.clone());
        }
    }
    if let Some(labels) = child(spec, "selector").and_then(|s| child(s, "matchLabels")) {
        default_to(labels, UID_LABEL, uid);
    }
}

fn generated_selector(object: &Value, errors: &mut Errors) {
    if object["spec"]["manualSelector"] == json!(true) {
        return;
    }
    let uid = &object["metadata"]["uid"];
    let wanted = json!({"matchLabels": {UID_LABEL: uid}});
    let selector = &object["spec"]["selector"];
    if !selector.is_null() && !uid.is_null() && !same(selector, &wanted) {
        let why = "`selector` not auto-generated";
        errors.push(FieldError::invalid("spec.selector", selector.clone(), why));
    }
}

/// Who manages the selector must give one: a job that selects no pods would make them for ever.
fn selector(spec: &Field<'_>, errors: &mut Errors) {
    if !spec.has("selector") {
        errors.push(spec.required("selector", ""));
    }
}

/// Checks a JobSpec, but for whether there is a selector.
pub(super) fn validate_spec(spec: &Field<'_>, errors: &mut Errors) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    metadata::non_negative_all(spec, &numbers, errors);
    spec.one_of("completionMode", &["Indexed", "NonIndexed"], true, errors);
    if spec.str("completionMode") == "Indexed" && !spec.has("completions") {
        errors.push(spec.required("completions", "when completion mode is Indexed"));
    }
    if spec.has("backoffLimitPerIndex") && spec.str("completionMode") != "Indexed" {
        let why = "requires indexed completion mode";
        errors.push(spec.invalid("backoffLimitPerIndex", why));
    }
    metadata::label_selector(&spec.get("selector"), errors);
    let template = spec.get("template");
    pod_spec::template(&template, errors);
    let pods = template.get("spec");
    match pods.str("restartPolicy") {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            errors.push(pods.required("restartPolicy", "valid values: \"OnFailure\", \"Never\""));
        }
        other => {
            let path = pods.at("restartPolicy");
            errors.push(FieldError::not_supported(path, other, &["OnFailure", "Never"]));
        }
    }
    if spec.has("podFailurePolicy") && pods.str("restartPolicy") != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(pods.invalid("restartPolicy", why));
    }
}

/// The template may change only where a suspended job has not run yet: where its pods go.
fn template_immutable(spec: &Field<'_>, new: &Value, old: &Value, errors: &mut Errors) {
    let mut munged = new["spec"]["template"].clone();
    let template = &old["spec"]["template"];
    let suspended = old["spec"]["suspend"] == json!(true);
    let started = !old["status"]["startTime"].is_null();
    if suspended && !started {
        let pods = &template["spec"];
        for name in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
            carry(&mut munged["spec"], pods, name);
        }
        for name in ["annotations", "labels"] {
            carry(&mut munged["metadata"], &template["metadata"], name);
        }
    }
    if !same(&munged, template) {
        let value = new["spec"]["template"].clone();
        let path = spec.at("template");
        errors.push(FieldError::invalid(path, value, super::field::IMMUTABLE));
    }
}
