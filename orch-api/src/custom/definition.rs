//! What is served because of one CustomResourceDefinition.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/customresource_discovery_controller.go`.

use std::{borrow::Cow, cmp::Ordering, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use orch_core::{Object, ResourceType, Scope};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{FINALIZER, version::CustomVersion};
use crate::catalog::{Resource, Subresource, Verbs};

/// A definition that is established, compiled.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) revision: u64,
    /// Where its objects lie in the store.
    pub(super) prefix: String,
    /// It is being deleted, and its objects have to go before.
    pub(super) waits: bool,
    /// Its versions that are served, the most preferred one first.
    pub(super) resources: Vec<Arc<Resource>>,
}

impl Definition {
    /// Compiles a stored definition; `None` until it is established.
    pub(super) fn of(object: &Object) -> Option<Self> {
        let value = object.to_value();
        if !super::status::is_true(&value, "Established") {
            return None;
        }
        let spec = &value["spec"];
        let terminating = !value["metadata"]["deletionTimestamp"].is_null();
        let versions = spec["versions"].as_array()?;
        let storage = versions.iter().find(|version| version["storage"] == true)?;
        let stored = resource_type(&value, storage)?;
        let served = versions.iter().filter(|version| version["served"] == true);
        let mut resources: Vec<Arc<Resource>> = served
            .filter_map(|version| resource(&value, version, &stored, terminating).map(Arc::new))
            .collect();
        resources.sort_by(|a, b| by_preference(&a.of.version, &b.of.version));
        Some(Self {
            name: value["metadata"]["name"].as_str()?.to_owned(),
            revision: object.revision()?,
            prefix: prefix(&stored),
            waits: terminating && is_held(&value),
            resources,
        })
    }

    /// The names of the versions that are served.
    pub(super) fn versions(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(|resource| &*resource.of.version)
    }
}

/// Whether a definition is held until its objects are gone.
fn is_held(definition: &Value) -> bool {
    let finalizers = definition["metadata"]["finalizers"].as_array().into_iter().flatten();
    finalizers.filter_map(Value::as_str).any(|name| name == FINALIZER)
}

fn prefix(of: &ResourceType) -> String {
    format!("{}{}/{}/", crate::cache::ROOT, of.group, of.plural)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn texts(value: &Value) -> Vec<Cow<'static, str>> {
    value.as_array().into_iter().flatten().filter_map(text).map(Cow::Owned).collect()
}

fn resource_type(definition: &Value, version: &Value) -> Option<ResourceType> {
    let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
    Some(ResourceType {
        group: text(&spec["group"])?.into(),
        version: text(&version["name"])?.into(),
        plural: text(&names["plural"])?.into(),
        kind: text(&names["kind"])?.into(),
        scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
    })
}

fn resource(
    definition: &Value,
    version: &Value,
    stored: &ResourceType,
    terminating: bool,
) -> Option<Resource> {
    let of = resource_type(definition, version)?;
    let names = &definition["status"]["acceptedNames"];
    Some(Resource {
        api_version: of.api_version(),
        stored_api_version: stored.api_version(),
        singular: text(&names["singular"]).unwrap_or_default().into(),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        verbs: Verbs::all(),
        storage_hash: Some(storage_hash(stored).into()),
        subresources: subresources(&of, &version["subresources"]),
        prefix: prefix(stored),
        custom: Some(Arc::new(CustomVersion::of(definition, version, terminating))),
        stored: stored.clone(),
        of,
    })
}

fn subresources(of: &ResourceType, asked: &Value) -> Vec<Subresource> {
    let verbs = Verbs::of("gpu");
    let mut subresources = Vec::new();
    if asked["status"].is_object() {
        let kind = of.kind.clone();
        subresources.push(Subresource { name: "status", kind, verbs, group_version: None });
    }
    if asked["scale"].is_object() {
        let group_version = Some(("autoscaling", "v1"));
        let kind = Cow::Borrowed("Scale");
        subresources.push(Subresource { name: "scale", kind, verbs, group_version });
    }
    subresources
}

/// Source: `k8s.io/apiserver/pkg/endpoints/discovery/storageversionhash.go`.
fn storage_hash(of: &ResourceType) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", of.group, of.version, of.kind));
    STANDARD.encode(&digest[..8])
}

/// Stable versions before beta ones before alpha ones, newer ones first, others last by name.
///
/// Source: `k8s.io/apimachinery/pkg/version`, `CompareKubeAwareVersionStrings`.
pub(super) fn by_preference(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor version; `None` for what is no version as Kubernetes names them.
pub(crate) fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (major, rest) = rest.split_at(digits);
    let major: u64 = major.parse().ok().filter(|major| *major > 0)?;
    let (stability, minor) = match rest {
        "" => return Some((2, major, 0)),
        rest => rest
            .strip_prefix("beta")
            .map(|minor| (1, minor))
            .or_else(|| rest.strip_prefix("alpha").map(|minor| (0, minor)))?,
    };
    Some((stability, major, minor.parse().ok().filter(|minor: &u64| *minor > 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_upstream_does() {
        let expected = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "foo1"];
        let mut versions = expected;
        versions.reverse();
        versions.sort_by(|a, b| by_preference(a, b));
        assert_eq!(versions, expected);
    }
}
