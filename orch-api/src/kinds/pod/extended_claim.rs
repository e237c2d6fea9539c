//! What a pod's status tells of the claim for its extended resources.
//!
//! Source: `pkg/apis/core/validation/validation.go`, `validatePodExtendedResourceClaimStatus`.

use std::collections::HashSet;

use orch_core::status::FieldError;

use crate::{
    kinds::{
        field::{Errors, Field},
        pod_spec,
    },
    names,
};

const CONTAINER: &str =
    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
const RESOURCE: &str = "must match the extended resource name of an entry in \
                        spec.initContainers.resources.requests or \
                        spec.containers.resources.requests";

/// Checks what the status of a pod with this spec says.
pub(super) fn validate(status: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    let Some(told) = status.opt("extendedResourceClaimStatus") else { return };
    if told.len("requestMappings") == 0 {
        errors.push(told.required("requestMappings", "at least one request mapping is required"));
    }
    let mut seen = HashSet::new();
    for mapping in told.items("requestMappings") {
        let fields = ["containerName", "resourceName", "requestName"];
        let [container, resource, request] = fields.map(|field| mapping.str(field));
        let mut all = spec.items("initContainers").chain(spec.items("containers"));
        match all.find(|one| one.str("name") == container) {
            None => errors.push(mapping.invalid("containerName", CONTAINER)),
            Some(one) if one.get("resources").get("requests").raw(resource).is_null() => {
                errors.push(mapping.invalid("resourceName", RESOURCE));
            }
            Some(_) => {}
        }
        let wrong = names::dns_label(request).into_iter();
        // Upstream leaves the mapping out of the path.
        let at = told.at("requestName");
        errors.extend(wrong.map(|why| FieldError::invalid(at.as_str(), request, why)));
        if !seen.insert([container, resource, request]) {
            let twice = |field| FieldError::duplicate(mapping.at(field), mapping.str(field));
            errors.extend(fields.map(twice));
        }
    }
    if told.str("resourceClaimName").is_empty() {
        errors.push(told.required("resourceClaimName", ""));
    } else {
        pod_spec::named(&told, "resourceClaimName", names::dns_subdomain, errors);
    }
}
