//! Which resource's objects a quota's names count.

use std::borrow::Cow;

use crate::extended_resource::may_be_devices;

/// Core resources that are counted by their bare name too.
pub(super) const ALIASES: [&str; 4] =
    ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// What stands before the resource where its objects are counted.
pub(super) const COUNT: &str = "count/";

/// What stands between a storage class and what is counted of it.
pub(super) const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// What stands behind a device class where devices are counted.
pub(super) const DEVICES_OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";

const OF_PODS: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

const OF_SERVICES: [&str; 3] = ["services", "services.nodeports", "services.loadbalancers"];
const OF_CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];

/// The name that counts the objects of a resource.
pub(super) fn object_count(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("{COUNT}{plural}") } else { format!("{COUNT}{plural}.{group}") }
}

/// The resource whose objects use what a quota limits under this name, as group and plural. `None`
/// if nothing does.
pub fn counted(name: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    if let Some(resource) = name.strip_prefix(COUNT) {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        return (!plural.is_empty()).then_some((group.into(), plural.into()));
    }
    if name.strip_suffix(DEVICES_OF_CLASS).is_some_and(|class| !class.is_empty()) {
        return Some(("resource.k8s.io".into(), "resourceclaims".into()));
    }
    let of_claims = |name: &str| OF_CLAIMS.contains(&name);
    let plural = if ALIASES.contains(&name) {
        name
    } else if OF_SERVICES.contains(&name) {
        "services"
    } else if of_claims(name) || name.split_once(OF_CLASS).is_some_and(|(_, of)| of_claims(of)) {
        "persistentvolumeclaims"
    } else if OF_PODS.contains(&name) || is_of_pods_by_prefix(name) {
        "pods"
    } else {
        return None;
    };
    Some(("".into(), plural.into()))
}

/// Huge pages, and extended resources, which only requests of count.
fn is_of_pods_by_prefix(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    name.starts_with("hugepages-")
        || requested.is_some_and(|name| name.starts_with("hugepages-") || may_be_devices(name))
}

/// Whether an update of such an object may change what it uses: of others it only counts that they
/// are there.
///
/// Source: `Handles` of the evaluators in `k8s.io/kubernetes/pkg/quota/v1/evaluator/core`.
pub fn is_measured(group: &str, plural: &str) -> bool {
    match group {
        "" => matches!(plural, "pods" | "persistentvolumeclaims" | "services"),
        "resource.k8s.io" => plural == "resourceclaims",
        _ => false,
    }
}

/// Whether quotas count the objects of a resource at all.
///
/// Source: `DefaultIgnoredResources` of `k8s.io/kubernetes/pkg/quota/v1/install`.
pub fn is_counted(group: &str, plural: &str) -> bool {
    let ignored = match group {
        "" => matches!(plural, "bindings" | "componentstatuses" | "events"),
        "events.k8s.io" => plural == "events",
        "authentication.k8s.io" | "authorization.k8s.io" => plural.ends_with("reviews"),
        _ => false,
    };
    !ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_resources() {
        let check = |name: &str, expected: &str| {
            let found = counted(name).map(|(group, plural)| format!("{plural}/{group}"));
            assert_eq!(found.unwrap_or_default(), expected, "{name}");
        };
        check("pods", "pods/");
        check("limits.memory", "pods/");
        check("requests.hugepages-2Mi", "pods/");
        check("requests.example.com/gpu", "pods/");
        check("requests.deviceclass.resource.kubernetes.io/gpu", "pods/");
        check("requests.kubernetes.io/gpu", "");
        check("example.com/gpu", "");
        check("requests.storage", "persistentvolumeclaims/");
        check("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims/");
        check("gpu.deviceclass.resource.k8s.io/devices", "resourceclaims/resource.k8s.io");
        check(".deviceclass.resource.k8s.io/devices", "");
        check("services.nodeports", "services/");
        check("secrets", "secrets/");
        check("count/deployments.apps", "deployments/apps");
        check("count/widgets.example.com", "widgets/example.com");
        check("count/configmaps", "configmaps/");
        check("deployments", "");
    }
}
