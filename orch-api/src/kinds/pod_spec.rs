//! What a pod's spec must look like, in a pod and in every template of one.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `ValidatePodSpec`.

use orch_core::status::FieldError;
use serde_json::Value;

use super::{
    field::{Errors, Field},
    metadata,
};
use crate::names;

mod containers;
mod defaults;
mod environment;
mod probes;
pub(crate) mod resources;
mod scheduling;
mod security;
pub(crate) mod volumes;

pub(crate) use containers::{ephemeral_containers, image_pull_policy};
pub(crate) use defaults::{
    pod_defaults, source_defaults as volume_source_defaults, template_defaults,
};
pub(crate) use scheduling::{node_selector, taint_effects};

/// Where the spec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    Pod,
    Template,
}

/// Checks a `PodTemplateSpec`: labels, annotations and spec.
pub(crate) fn template(template: &Field<'_>, errors: &mut Errors) {
    let meta = template.get("metadata");
    metadata::labels(&meta, "labels", errors);
    metadata::annotations(&meta, "annotations", errors);
    let spec = template.get("spec");
    validate(&spec, Within::Template, errors);
    if spec.len("ephemeralContainers") > 0 {
        errors.push(
            spec.forbidden(
                "ephemeralContainers",
                "ephemeral containers not allowed in pod template",
            ),
        );
    }
}

/// Checks a `PodSpec`.
pub(crate) fn validate(spec: &Field<'_>, within: Within, errors: &mut Errors) {
    let volumes = volumes::validate(spec, errors);
    resource_claims(spec, errors);
    containers::validate(spec, &volumes, errors);
    host_network(spec, within, errors);
    restart_and_dns_policy(spec, errors);
    metadata::labels(spec, "nodeSelector", errors);
    security::pod(spec, errors);
    for secret in spec.items("imagePullSecrets") {
        secret.not_empty("name", errors);
    }
    scheduling::affinity(spec, errors);
    dns_config(spec, errors);
    gates(spec, errors);
    scheduling::topology_spread(spec, errors);
    identity(spec, errors);
    scheduling::tolerations(spec, "tolerations", errors);
    host_aliases(spec, errors);
    if !spec.str("priorityClassName").is_empty() {
        named(spec, "priorityClassName", names::dns_subdomain, errors);
    }
    if spec.has("runtimeClassName") {
        named(spec, "runtimeClassName", names::dns_subdomain, errors);
    }
    spec.one_of("preemptionPolicy", &["PreemptLowerPriority", "Never"], true, errors);
    resources::quantities(&spec.get("overhead"), errors);
    resources::requirements(&spec.get("resources"), &[], errors);
    os(spec, errors);
}

/// Checks a name by a rule.
pub(crate) fn named(
    parent: &Field<'_>,
    name: &str,
    rule: fn(&str) -> Vec<String>,
    errors: &mut Errors,
) {
    errors.extend(rule(parent.str(name)).into_iter().map(|why| parent.invalid(name, why)));
}

fn resource_claims(spec: &Field<'_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for claim in spec.items("resourceClaims") {
        let name = claim.str("name");
        if name.is_empty() {
            errors.push(claim.required("name", ""));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(claim.at("name"), name));
        }
        seen.insert(name);
        match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName")) {
            (true, true) => errors.push(FieldError::invalid(
                claim.path,
                claim.value.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            )),
            (false, false) => errors.push(FieldError::invalid(
                claim.path,
                claim.value.clone(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            )),
            _ => {}
        }
    }
}

fn host_network(spec: &Field<'_>, within: Within, errors: &mut Errors) {
    if !spec.bool("hostNetwork") {
        return;
    }
    for container in spec.items("containers") {
        for port in container.items("ports") {
            let host = port.int("hostPort").unwrap_or_default();
            let own = port.int("containerPort").unwrap_or_default();
            if (within == Within::Pod || host != 0) && host != own {
                errors.push(FieldError::invalid(
                    port.at("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

fn restart_and_dns_policy(spec: &Field<'_>, errors: &mut Errors) {
    spec.one_of("restartPolicy", &["Always", "OnFailure", "Never"], false, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    spec.one_of("dnsPolicy", &policies, false, errors);
}

fn dns_config(spec: &Field<'_>, errors: &mut Errors) {
    const NAMESERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    let config = spec.get("dnsConfig");
    if spec.str("dnsPolicy") == "None" {
        if !config.is_set() {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(&config.path, why));
            return;
        }
        if config.len("nameservers") == 0 {
            errors.push(config.required(
                "nameservers",
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ));
            return;
        }
    }
    let too_many = |name: &str, max: usize| {
        let why = format!("must not have more than {max} {name}");
        FieldError::invalid(config.at(name), config.raw(name).clone(), why)
    };
    if config.len("nameservers") > NAMESERVERS_MAX {
        errors.push(too_many("nameservers", NAMESERVERS_MAX));
    }
    for (i, server) in config.strs("nameservers").enumerate() {
        let path = format!("{}[{i}]", config.at("nameservers"));
        let wrong = names::ip_address(server);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, server, why)));
    }
    if config.len("searches") > SEARCHES_MAX {
        errors.push(too_many("searches", SEARCHES_MAX));
    }
    for (i, search) in config.strs("searches").enumerate() {
        let path = format!("{}[{i}]", config.at("searches"));
        // A search path may be `.`, end in a dot, and hold underscores.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "-");
        if search != "." {
            let wrong = names::dns_subdomain(&plain);
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, search, why)));
        }
    }
    for option in config.items("options") {
        if option.str("name").is_empty() {
            errors.push(FieldError::required(option.path, "must not be empty"));
        }
    }
}

fn gates(spec: &Field<'_>, errors: &mut Errors) {
    for gate in spec.items("readinessGates") {
        named(&gate, "conditionType", names::qualified_name, errors);
    }
    let mut seen = std::collections::BTreeSet::new();
    for gate in spec.items("schedulingGates") {
        let name = gate.str("name");
        let wrong = names::qualified_name(name);
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&gate.path, name, why)));
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&gate.path, name));
        }
        seen.insert(name);
    }
}

fn identity(spec: &Field<'_>, errors: &mut Errors) {
    for (name, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
    ] {
        if !spec.str(name).is_empty() {
            named(spec, name, rule, errors);
        }
    }
    if let Some(seconds) = spec.int("activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(spec.invalid("activeDeadlineSeconds", DEADLINE_RANGE));
    }
    for name in ["hostname", "subdomain"] {
        if !spec.str(name).is_empty() {
            named(spec, name, names::dns_label, errors);
        }
    }
}

/// Upstream's words for a deadline out of range.
pub(crate) const DEADLINE_RANGE: &str = "must be between 1 and 2147483647, inclusive";

fn host_aliases(spec: &Field<'_>, errors: &mut Errors) {
    for alias in spec.items("hostAliases") {
        named(&alias, "ip", names::ip_address, errors);
        for (i, name) in alias.strs("hostnames").enumerate() {
            let path = format!("{}[{i}]", alias.at("hostnames"));
            let wrong = names::dns_subdomain(name);
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(&path, name, why)));
        }
    }
}

fn os(spec: &Field<'_>, errors: &mut Errors) {
    let Some(os) = spec.opt("os") else { return };
    if os.str("name").is_empty() {
        errors.push(os.required("name", "cannot be empty"));
    } else {
        os.one_of("name", &["linux", "windows"], false, errors);
    }
}

/// The complaint about a restart policy other than `Always` in the template of something that
/// keeps pods running.
pub(crate) fn must_restart_always(template: &Field<'_>, kind: &str, errors: &mut Errors) {
    let spec = template.get("spec");
    if spec.str("restartPolicy") != "Always" {
        let value = Value::from(spec.str("restartPolicy"));
        errors.push(FieldError::not_supported(spec.at("restartPolicy"), value, &["Always"]));
    }
    if spec.has("activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(spec.forbidden("activeDeadlineSeconds", why));
    }
}
