//! Configurations of admission webhooks, and what they have in common with other configurations
//! that name somebody to be called.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/admissionregistration/validation/validation.go`,
//! `pkg/apis/admissionregistration/v1/defaults.go`,
//! `k8s.io/apiserver/pkg/util/webhook/validation.go`.

use orch_core::status::FieldError;
use serde_json::Value;

use super::{
    Field,
    field::{Errors, child, child_opt, children, default_to},
    metadata,
    plain::Plain,
};
use crate::{names, printers};

const FORM: &str = "; desired format: https://host[/path]";
/// The versions of reviews that the server speaks.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub(super) static MUTATING_WEBHOOKS: Plain = Plain {
    defaults: |object| defaults(object, true),
    validate: |object| validate(object, true),
    generation: true,
    columns: &printers::policy::WEBHOOKS,
    row: printers::policy::webhooks,
    ..Plain::DATA
};

pub(super) static VALIDATING_WEBHOOKS: Plain = Plain {
    defaults: |object| defaults(object, false),
    validate: |object| validate(object, false),
    generation: true,
    columns: &printers::policy::WEBHOOKS,
    row: printers::policy::webhooks,
    ..Plain::DATA
};

fn defaults(object: &mut Value, mutating: bool) {
    let Some(object) = object.as_object_mut() else { return };
    for hook in children(object, "webhooks") {
        default_to(hook, "failurePolicy", "Fail");
        default_to(hook, "matchPolicy", "Equivalent");
        default_to(hook, "timeoutSeconds", 10);
        child(hook, "namespaceSelector");
        child(hook, "objectSelector");
        if mutating {
            default_to(hook, "reinvocationPolicy", "Never");
        }
        for rule in children(hook, "rules") {
            default_to(rule, "scope", "*");
        }
        if let Some(config) = child_opt(hook, "clientConfig")
            && let Some(service) = child_opt(config, "service")
        {
            default_to(service, "port", 443);
        }
    }
}

fn validate(object: &Value, mutating: bool) -> Errors {
    let mut errors = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for hook in Field::root(object).items("webhooks") {
        check_hook(&hook, mutating, &mut errors);
        let name = hook.str("name");
        if !name.is_empty() && seen.contains(&name) {
            errors.push(FieldError::duplicate(hook.at("name"), name));
        }
        seen.insert(name);
    }
    errors
}

fn check_hook(hook: &Field<'_>, mutating: bool, errors: &mut Errors) {
    check_name(hook, errors);
    hook.items("rules").for_each(|rule| rule_with_operations(&rule, errors));
    hook.one_of("failurePolicy", &["Fail", "Ignore"], true, errors);
    hook.one_of("matchPolicy", &["Equivalent", "Exact"], true, errors);
    if hook.str("sideEffects").is_empty() {
        errors.push(hook.required("sideEffects", "must specify one of None, NoneOnDryRun"));
    } else {
        hook.one_of("sideEffects", &["None", "NoneOnDryRun"], false, errors);
    }
    if hook.int("timeoutSeconds").is_some_and(|s| !(1..=30).contains(&s)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(hook.invalid("timeoutSeconds", why));
    }
    metadata::label_selector(&hook.get("namespaceSelector"), errors);
    metadata::label_selector(&hook.get("objectSelector"), errors);
    if mutating {
        hook.one_of("reinvocationPolicy", &["IfNeeded", "Never"], true, errors);
    }
    client_config(hook, "clientConfig", errors);
    match_conditions(hook, errors);
    let required = "must specify one of v1, v1beta1";
    review_versions(hook, "admissionReviewVersions", required, errors);
}

fn check_name(hook: &Field<'_>, errors: &mut Errors) {
    let name = hook.str("name");
    let wrong = names::dns_subdomain(name);
    if name.is_empty() {
        errors.push(hook.required("name", ""));
    } else if !wrong.is_empty() {
        errors.push(hook.invalid("name", wrong.join(",")));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(hook.invalid("name", why));
    }
}

/// Nothing evaluates conditions yet.
fn match_conditions(hook: &Field<'_>, errors: &mut Errors) {
    if hook.len("matchConditions") > 0 {
        let why = "match conditions are not supported by this server yet";
        errors.push(hook.forbidden("matchConditions", why));
    }
}

/// The versions of reviews that somebody takes: at least one that the server speaks.
pub(crate) fn review_versions(of: &Field<'_>, name: &str, required: &str, errors: &mut Errors) {
    let versions: Vec<&str> = of.strs(name).collect();
    if versions.is_empty() {
        errors.push(of.required(name, required));
        return;
    }
    for (at, version) in versions.iter().enumerate() {
        let path = format!("{}[{at}]", of.at(name));
        if versions[..at].contains(version) {
            errors.push(FieldError::invalid(path, *version, "duplicate version"));
            continue;
        }
        for why in names::dns1035_label(version) {
            errors.push(FieldError::invalid(path.clone(), *version, why));
        }
    }
    if !versions.iter().any(|version| REVIEWS.contains(version)) {
        errors.push(of.invalid(name, "must include at least one of v1, v1beta1"));
    }
}

/// Somebody to be called: a URL or a Service.
pub(crate) fn client_config(of: &Field<'_>, name: &str, errors: &mut Errors) {
    let config = of.get(name);
    match (config.has("url"), config.has("service")) {
        (true, false) => url(&config, errors),
        (false, true) => service(&config.get("service"), errors),
        _ => {
            let why = "exactly one of url or service is required";
            errors.push(FieldError::required(config.path, why));
        }
    }
}

fn url(config: &Field<'_>, errors: &mut Errors) {
    let text = config.str("url");
    let mut wrong = |value: &str, why: &str| {
        errors.push(FieldError::invalid(config.at("url"), value, why));
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        wrong(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let rest = if scheme.is_empty() { "" } else { rest };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        wrong(host, &format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        wrong(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        wrong(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        wrong(query, "query parameters are not permitted in the URL");
    }
}

fn service(service: &Field<'_>, errors: &mut Errors) {
    service.not_empty("name", errors);
    service.not_empty("namespace", errors);
    if !service.int("port").is_none_or(|port| (1..=65535).contains(&port)) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(service.invalid("port", why));
    }
    let path = service.str("path");
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        errors.push(service.invalid("path", "segment[0] may not be empty"));
        return;
    }
    if !path.starts_with('/') {
        errors.push(service.invalid("path", "must start with a '/'"));
    }
    let steps = path.get(1..).unwrap_or_default();
    for (at, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.push(service.invalid("path", format!("segment[{at}] may not be empty")));
            continue;
        }
        for why in names::dns_subdomain(step) {
            errors.push(service.invalid("path", format!("segment[{at}]: {why}")));
        }
    }
}

/// A rule that picks requests.
pub(crate) fn rule_with_operations(rule: &Field<'_>, errors: &mut Errors) {
    let operations: Vec<&str> = rule.strs("operations").collect();
    if operations.is_empty() {
        errors.push(rule.required("operations", ""));
    }
    if operations.len() > 1 && operations.contains(&"*") {
        let why = "if '*' is present, must not specify other operations";
        errors.push(rule.invalid("operations", why));
    }
    for (at, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(operation) {
            let path = format!("{}[{at}]", rule.at("operations"));
            errors.push(FieldError::not_supported(path, *operation, &OPERATIONS));
        }
    }
    for (list, others) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        if rule.len(list) == 0 {
            errors.push(rule.required(list, ""));
        }
        if rule.len(list) > 1 && rule.strs(list).any(|item| item == "*") {
            let why = format!("if '*' is present, must not specify other {others}");
            errors.push(rule.invalid(list, why));
        }
    }
    for (at, version) in rule.strs("apiVersions").enumerate() {
        if version.is_empty() {
            let path = format!("{}[{at}]", rule.at("apiVersions"));
            errors.push(FieldError::required(path, ""));
        }
    }
    resources(rule, errors);
    rule.one_of("scope", &["*", "Cluster", "Namespaced"], true, errors);
}

fn resources(rule: &Field<'_>, errors: &mut Errors) {
    let all: Vec<&str> = rule.strs("resources").collect();
    if all.is_empty() {
        errors.push(rule.required("resources", ""));
    }
    let (mut whole, mut subs) = (Vec::new(), Vec::new());
    for (at, text) in all.iter().enumerate() {
        let path = format!("{}[{at}]", rule.at("resources"));
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else { continue };
        if whole.contains(&resource) {
            let why = format!("if '{resource}/*' is present, must not specify {text}");
            errors.push(FieldError::invalid(path.clone(), *text, why));
        }
        if subs.contains(&sub) {
            let why = format!("if '*/{sub}' is present, must not specify {text}");
            errors.push(FieldError::invalid(path, *text, why));
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            subs.push(sub);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(rule.invalid("resources", why));
    }
    if all.contains(&"*") && all.iter().any(|text| *text != "*" && !text.contains('/')) {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(rule.invalid("resources", why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_are_checked_as_upstream_does() {
        let check = |change: &[(&str, Value)], expected: &[&str]| {
            let mut hook = json!({
                "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://h/x"},
            });
            for (pointer, value) in change {
                hook[*pointer] = value.clone();
            }
            let errors = validate(&json!({"webhooks": [hook]}), true);
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected, "{change:?}");
        };
        check(&[], &[]);
        check(
            &[("name", json!("a.b"))],
            &[
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ],
        );
        check(
            &[("clientConfig", json!({"url": "http://u@h/?a=b"}))],
            &[
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"a=b\": query parameters are not permitted in the URL",
            ],
        );
        let service = json!({"namespace": "a", "name": "b", "path": "x//y", "port": 0});
        check(
            &[("clientConfig", json!({"service": service}))],
            &[
                "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": must start with a '/'",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": segment[0] may not be empty",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": segment[1] may not be empty",
            ],
        );
        check(
            &[("admissionReviewVersions", json!(["v2"]))],
            &[
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        let rule = json!({
            "operations": ["*", "READ"], "apiGroups": ["*"], "apiVersions": ["v1"],
            "resources": ["pods/*", "pods/status", "*", "services"],
        });
        check(
            &[("rules", json!([rule]))],
            &[
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
                "webhooks[0].rules[0].operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
                "webhooks[0].rules[0].resources: Invalid value: [\"pods/*\",\"pods/status\",\"*\",\"services\"]: if '*' is present, must not specify other resources without subresources",
            ],
        );
    }
}
