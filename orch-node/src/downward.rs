//! The downward API: a pod's own fields as text, for environment variables and volumes.
//!
//! Source: `pkg/fieldpath/fieldpath.go`, `k8s.io/component-helpers/.../resource`.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};
use orch_core::quantity::Amount;

/// A pod with what its agent knows before its status is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodFields<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [IpAddr],
    pub(crate) host_ips: &'a [IpAddr],
    /// The node's allocatable resources: what a container without a limit may use.
    pub(crate) allocatable: &'a BTreeMap<String, Amount>,
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `key="value"` per line, escaped as Go's `%q` does for what keys and values may hold.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{key}={value:?}");
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")
}

impl PodFields<'_> {
    /// The field's text, or an explanation.
    pub(crate) fn field(&self, path: &str) -> Result<String, String> {
        let (meta, spec) = (&self.pod.metadata, super::agent::spec::spec(self.pod));
        let of = |text: &Option<String>| Ok(text.clone().unwrap_or_default());
        let first = |ips: &[IpAddr]| Ok(ips.first().map(ToString::to_string).unwrap_or_default());
        let entry = |map: &Option<BTreeMap<String, String>>, key| {
            Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default())
        };
        if let Some(key) = subscript(path, "metadata.labels") {
            return entry(&meta.labels, key);
        }
        if let Some(key) = subscript(path, "metadata.annotations") {
            return entry(&meta.annotations, key);
        }
        match path {
            "metadata.name" => of(&meta.name),
            "metadata.namespace" => of(&meta.namespace),
            "metadata.uid" => of(&meta.uid),
            "metadata.labels" => Ok(format_map(meta.labels.as_ref())),
            "metadata.annotations" => Ok(format_map(meta.annotations.as_ref())),
            "spec.nodeName" => of(&spec.node_name),
            "spec.serviceAccountName" => of(&spec.service_account_name),
            "status.hostIP" => first(self.host_ips),
            "status.hostIPs" => Ok(joined(self.host_ips)),
            "status.podIP" => first(self.pod_ips),
            "status.podIPs" => Ok(joined(self.pod_ips)),
            _ => Err(format!("unsupported fieldPath: {path}")),
        }
    }

    /// A container's resource as a whole number of divisors, rounded up.
    pub(crate) fn resource(
        &self,
        selector: &ResourceFieldSelector,
        own_container: &str,
    ) -> Result<String, String> {
        let name = selector.container_name.as_deref().filter(|n| !n.is_empty());
        let name = name.unwrap_or(own_container);
        let containers = super::agent::spec::all_containers(self.pod);
        let container = containers.map(|(_, c)| c).find(|c| c.name == name);
        let container = container.ok_or_else(|| format!("container {name} not found"))?;
        let (kind, resource) =
            selector.resource.split_once('.').ok_or_else(|| unsupported(selector))?;
        let resources = container.resources.as_ref();
        let (limits, requests) = (
            resources.and_then(|r| r.limits.as_ref()),
            resources.and_then(|r| r.requests.as_ref()),
        );
        let amount = |list: Option<&BTreeMap<String, _>>| {
            list.and_then(|l| l.get(resource)).and_then(|q| Amount::try_from(q).ok())
        };
        let amount = match kind {
            "limits" => amount(limits).or_else(|| self.allocatable.get(resource).copied()),
            "requests" => amount(requests).or_else(|| amount(limits)),
            _ => return Err(unsupported(selector)),
        };
        let divisor = selector.divisor.as_ref().and_then(|d| Amount::try_from(d).ok());
        let in_milli = resource == "cpu";
        let unit = |a: Amount| i128::from(if in_milli { a.milli_value() } else { a.value() });
        let divisor = divisor.map(unit).filter(|d| *d > 0);
        let divisor = divisor.unwrap_or(if in_milli { 1000 } else { 1 });
        let value = amount.map_or(0, unit);
        Ok(((value + divisor - 1) / divisor).to_string())
    }
}

fn unsupported(selector: &ResourceFieldSelector) -> String {
    format!("unsupported container resource : {}", selector.resource)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources_as_text() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "labels": { "a": "x", "b": "say \"hi\"" } },
            "spec": { "containers": [{ "name": "c", "resources": {
                "limits": { "cpu": "1500m", "memory": "1Mi" } } }] }
        }))
        .unwrap();
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let allocatable = [("ephemeral-storage".to_owned(), "10".parse().unwrap())].into();
        let fields =
            PodFields { pod: &pod, pod_ips: &ips, host_ips: &[], allocatable: &allocatable };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels['a']", "x"),
            ("metadata.labels['z']", ""),
            ("metadata.labels", "a=\"x\"\nb=\"say \\\"hi\\\"\""),
            ("status.podIP", "10.0.0.1"),
            ("status.podIPs", "10.0.0.1,fd00::1"),
            ("status.hostIP", ""),
        ] {
            assert_eq!(fields.field(path).unwrap(), expected, "{path}");
        }
        assert!(fields.field("spec.nope").is_err());
        for (resource, divisor, expected) in [
            ("limits.cpu", "1", "2"),
            ("limits.cpu", "1m", "1500"),
            ("requests.memory", "1Ki", "1024"),
            ("limits.ephemeral-storage", "0", "10"),
        ] {
            let selector = serde_json::from_value(json!({
                "resource": resource, "divisor": divisor }))
            .unwrap();
            assert_eq!(fields.resource(&selector, "c").unwrap(), expected, "{resource}");
        }
    }
}
