//! APIServices: group versions, and who serves them.
//!
//! Source: `k8s.io/kube-aggregator/pkg/registry/apiservice/strategy.go`,
//! `pkg/apis/apiregistration/validation/validation.go`.

use jiff::Timestamp;
use orch_core::status::FieldError;
use serde_json::{Value, json};

use super::field::{Errors, Field, child_opt, default_to, spec_of};
use crate::{
    names, printers,
    strategy::{Column, Strategy, carry},
};

/// The kind of APIServices.
#[derive(Debug)]
pub(super) struct ApiService;

impl Strategy for ApiService {
    fn set_defaults(&self, object: &mut Value) {
        let service = spec_of(object).and_then(|spec| child_opt(spec, "service"));
        if let Some(service) = service {
            default_to(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
        // What is served here is available at once.
        if object["spec"]["service"].is_null() {
            let since = object["metadata"]["creationTimestamp"].clone();
            object["status"]["conditions"] = json!([{
                "type": "Available", "status": "True", "lastTransitionTime": since,
                "reason": "Local", "message": "Local APIServices are always available",
            }]);
        }
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        carry(new, old, "spec");
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            carry(&mut new["metadata"], &old["metadata"], field);
        }
    }

    fn validate(&self, object: &Value) -> Errors {
        check(object)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Errors {
        let mut errors = Vec::new();
        for condition in Field::new(&new["status"], "status").items("conditions") {
            let words = ["True", "False", "Unknown"];
            if !words.contains(&condition.str("status")) {
                let found = condition.str("status");
                errors.push(FieldError::not_supported(condition.at("status"), found, &words));
            }
        }
        errors
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn columns(&self) -> &'static [Column] {
        &printers::policy::API_SERVICES
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        printers::policy::api_service(object, now)
    }
}

fn check(object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Field::new(&object["spec"], "spec");
    let (group, version) = (spec.str("group"), spec.str("version"));
    let (name, wanted) = (Field::root(object).get("metadata"), format!("{version}.{group}"));
    if name.str("name") != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(name.invalid("name", why));
    }
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.push(spec.required("group", why));
    }
    if !group.is_empty() {
        errors
            .extend(names::dns_subdomain(group).into_iter().map(|why| spec.invalid("group", why)));
    }
    errors
        .extend(names::dns1035_label(version).into_iter().map(|why| spec.invalid("version", why)));
    for (field, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let number = spec.int(field).unwrap_or(0);
        if !(1..=max).contains(&number) {
            let why = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(spec.at(field), number, why));
        }
    }
    check_service(&spec, &mut errors);
    errors
}

fn check_service(spec: &Field<'_>, errors: &mut Errors) {
    let bundle = spec.str("caBundle");
    let Some(service) = spec.opt("service") else {
        if !bundle.is_empty() {
            let told = format!("{} bytes", bundle.len() * 3 / 4);
            let why = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(spec.at("caBundle"), told, why));
        }
        if spec.bool("insecureSkipTLSVerify") {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(spec.invalid("insecureSkipTLSVerify", why));
        }
        return;
    };
    service.not_empty("namespace", errors);
    service.not_empty("name", errors);
    if !service.int("port").is_none_or(|port| (1..=65535).contains(&port)) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(service.invalid("port", why));
    }
    if spec.bool("insecureSkipTLSVerify") && !bundle.is_empty() {
        errors
            .push(spec.invalid("insecureSkipTLSVerify", "may not be true if caBundle is present"));
    }
}
