//! Containers of every sort.

use std::collections::BTreeSet;

use orch_core::status::FieldError;

use super::{environment, named, probes, resources, security, volumes::Volumes};
use crate::{
    kinds::field::{Errors, Field},
    names,
};

/// The pull policy of an image: `Always` for `latest`, spelled out or not, else `IfNotPresent`.
pub(crate) fn image_pull_policy(image: &str) -> &'static str {
    let digest = image.contains('@');
    let last = image.rsplit('/').next().unwrap_or_default();
    let tag = last.split('@').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    match tag {
        None if digest => "IfNotPresent",
        None | Some("latest" | "") => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Checks `containers`, `initContainers` and `ephemeralContainers`.
pub(super) fn validate(spec: &Field<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let grace_s = spec.int("terminationGracePeriodSeconds").unwrap_or(30);
    let claims: Vec<&str> = spec.items("resourceClaims").map(|claim| claim.str("name")).collect();
    if spec.len("containers") == 0 {
        errors.push(spec.required("containers", ""));
    }
    let mut seen = BTreeSet::new();
    for container in spec.items("containers") {
        common(&container, volumes, &claims, errors);
        unique_name(&container, &mut seen, errors);
        probes::validate(&container, grace_s, errors);
    }
    host_port_conflicts(spec, "containers", errors);
    for container in spec.items("initContainers") {
        common(&container, volumes, &claims, errors);
        unique_name(&container, &mut seen, errors);
        init(&container, grace_s, errors);
    }
    ephemeral(spec, volumes, &claims, &mut seen, errors);
}

/// Checks the ephemeral containers of a pod that is otherwise as it was.
pub(crate) fn ephemeral_containers(spec: &Field<'_>, errors: &mut Errors) {
    let volumes = super::volumes::names_of(spec);
    let claims: Vec<&str> = spec.items("resourceClaims").map(|claim| claim.str("name")).collect();
    let mut seen: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.items(list))
        .map(|container| container.str("name"))
        .collect();
    ephemeral(spec, &volumes, &claims, &mut seen, errors);
}

fn unique_name<'a>(container: &Field<'a>, seen: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let name = container.str("name");
    if !name.is_empty() && !seen.insert(name) {
        errors.push(FieldError::duplicate(container.at("name"), name));
    }
}

fn init(container: &Field<'_>, grace_s: i64, errors: &mut Errors) {
    if container.str("restartPolicy") == "Always" {
        probes::validate(container, grace_s, errors);
        return;
    }
    if !container.str("restartPolicy").is_empty() {
        container.one_of("restartPolicy", &["Always", "Never", "OnFailure"], true, errors);
    }
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.has(name) {
            let why = "may not be set for init containers without restartPolicy=Always";
            errors.push(container.forbidden(name, why));
        }
    }
}

fn ephemeral<'a>(
    spec: &Field<'a>,
    volumes: &Volumes<'_>,
    claims: &[&str],
    seen: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    const NOT_ALLOWED: [&str; 6] =
        ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"];
    for container in spec.items("ephemeralContainers") {
        common(&container, volumes, claims, errors);
        unique_name(&container, seen, errors);
        for name in NOT_ALLOWED {
            if container.has(name) {
                let why = "cannot be set for an Ephemeral Container";
                errors.push(container.forbidden(name, why));
            }
        }
        let resources = container.raw("resources").as_object();
        if resources.is_some_and(|r| !r.is_empty()) {
            let why = "cannot be set for an Ephemeral Container";
            errors.push(container.forbidden("resources", why));
        }
        let target = container.str("targetContainerName");
        let known = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec.items(list))
            .any(|c| c.str("name") == target);
        if !target.is_empty() && !known {
            errors.push(FieldError::not_found(container.at("targetContainerName"), target));
        }
    }
}

fn common(container: &Field<'_>, volumes: &Volumes<'_>, claims: &[&str], errors: &mut Errors) {
    if container.str("name").is_empty() {
        errors.push(container.required("name", ""));
    } else {
        named(container, "name", names::dns_label, errors);
    }
    let image = container.str("image");
    if image.is_empty() {
        errors.push(container.required("image", ""));
    } else if image.trim() != image {
        errors.push(container.invalid("image", "must not have leading or trailing whitespace"));
    }
    let policies = ["File", "FallbackToLogsOnError"];
    container.one_of("terminationMessagePolicy", &policies, false, errors);
    ports(container, errors);
    environment::variables(container, errors);
    environment::mounts(container, volumes, errors);
    let pulls = ["Always", "IfNotPresent", "Never"];
    container.one_of("imagePullPolicy", &pulls, false, errors);
    resources::requirements(&container.get("resources"), claims, errors);
    security::container(container, errors);
}

fn ports(container: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in container.items("ports") {
        let name = port.str("name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && seen.contains(&name) {
                errors.push(FieldError::duplicate(port.at("name"), name));
            }
            errors.extend(wrong.into_iter().map(|why| port.invalid("name", why)));
            seen.insert(name);
        }
        if port.int("containerPort").unwrap_or_default() == 0 {
            errors.push(port.required("containerPort", ""));
        } else {
            crate::kinds::metadata::port_number(&port, "containerPort", errors);
        }
        if port.int("hostPort").is_some_and(|n| n != 0) {
            crate::kinds::metadata::port_number(&port, "hostPort", errors);
        }
        port.one_of("protocol", &["SCTP", "TCP", "UDP"], false, errors);
        if !port.str("hostIP").is_empty() {
            named(&port, "hostIP", names::ip_address, errors);
        }
    }
}

fn host_port_conflicts(spec: &Field<'_>, list: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in spec.items(list).flat_map(|container| container.items("ports")) {
        let Some(number) = port.int("hostPort").filter(|n| *n != 0) else { continue };
        let taken = format!("{}/{}/{number}", port.str("protocol"), port.str("hostIP"));
        if !seen.insert(taken.clone()) {
            errors.push(FieldError::duplicate(port.at("hostPort"), taken));
        }
    }
}
