//! The built-in definitions of Kubernetes 1.36 as one model.
//!
//! What a field is called and holds, how its list or map merges, how it is numbered in protobuf:
//! unknown-field detection, type checks, patches, server-side apply, protobuf and OpenAPI all read
//! it here. The data is `schema/kubernetes-1.36.txt`, parsed once per process on first use.
//!
//! ```
//! use orch_core::schema;
//!
//! let deployment = schema::of("apps", "v1", "Deployment").unwrap();
//! let object = serde_json::json!({"spec": {"replicaz": 3}});
//! assert_eq!(schema::unknown_fields(deployment, &object), ["unknown field \"spec.replicaz\""]);
//! ```

mod check;
mod clean;
mod parse;
mod structural;
mod types;

use std::{collections::HashMap, sync::LazyLock};

pub use check::{TypeError, check_types, prune, unknown_fields};
pub use clean::is_clean;
pub use structural::{Structural, StructuralList};
pub use types::{
    Definition, Field, GroupVersionKind, ListType, MapType, PatchStrategy, Reference, Shape, Type,
};

/// What is known of an object's fields.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Model<'a> {
    /// Nothing: types are deduced from values.
    Deduced,
    /// A built-in kind's definition.
    BuiltIn(&'a Definition),
    /// A custom resource's structure.
    Custom(&'a Structural),
}

impl<'a> From<Option<&'a Definition>> for Model<'a> {
    fn from(definition: Option<&'a Definition>) -> Self {
        definition.map_or(Self::Deduced, Self::BuiltIn)
    }
}

impl<'a> From<&'a Structural> for Model<'a> {
    fn from(structure: &'a Structural) -> Self {
        Self::Custom(structure)
    }
}

struct Schema {
    definitions: Vec<Definition>,
    by_name: HashMap<&'static str, usize>,
    by_kind: HashMap<GroupVersionKind<'static>, usize>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let definitions = parse::parse(text());
    let by_name = definitions.iter().enumerate().map(|(at, d)| (d.name, at)).collect();
    let by_kind = definitions
        .iter()
        .enumerate()
        .flat_map(|(at, d)| d.kinds.iter().map(move |gvk| (*gvk, at)))
        .collect();
    Schema { definitions, by_name, by_kind }
});

/// The text that the model is read from. Its header states its format.
pub fn text() -> &'static str {
    include_str!("../schema/kubernetes-1.36.txt")
}

/// Every definition, by name.
pub fn definitions() -> &'static [Definition] {
    &SCHEMA.definitions
}

/// The definition of that full name, for example `io.k8s.api.core.v1.Pod`.
pub fn definition(name: &str) -> Option<&'static Definition> {
    SCHEMA.by_name.get(name).map(|at| &SCHEMA.definitions[*at])
}

/// The definition of a kind; the core group is the empty string.
///
/// Kinds that every group has (`DeleteOptions`, `WatchEvent`) are found in each group.
pub fn of(group: &str, version: &str, kind: &str) -> Option<&'static Definition> {
    // The map's keys live forever and a lookup's do not: covariance lets the two meet.
    let by_kind: &HashMap<GroupVersionKind<'_>, usize> = &SCHEMA.by_kind;
    by_kind.get(&GroupVersionKind { group, version, kind }).map(|at| &SCHEMA.definitions[*at])
}

/// The definition of an object by its `apiVersion` and `kind`.
pub fn of_api_version(api_version: &str, kind: &str) -> Option<&'static Definition> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    of(group, version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_every_reference_is_found() {
        assert!(definitions().len() > 750);
        for definition in definitions() {
            for gvk in &definition.kinds {
                assert!(of(gvk.group, gvk.version, gvk.kind).is_some(), "{gvk:?}");
            }
        }
        let pod = of("", "v1", "Pod").unwrap();
        assert_eq!(pod.name, "io.k8s.api.core.v1.Pod");
        assert_eq!(of_api_version("v1", "Pod").unwrap().name, pod.name);
        assert!(of("", "v1", "Nothing").is_none());
    }

    #[test]
    fn fields_carry_their_merge_and_wire_facts() {
        let spec = definition("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.list, ListType::Map(vec!["name"]));
        assert_eq!((containers.patch.merge, containers.patch.key), (true, Some("name")));
        assert_eq!(containers.path, [2]);
        assert!(containers.required);
        let volumes = definition("io.k8s.api.core.v1.Volume").unwrap();
        assert_eq!(volumes.field("emptyDir").unwrap().path, [2, 2]);
        let ports = definition("io.k8s.api.core.v1.ContainerPort").unwrap();
        assert_eq!(ports.field("protocol").unwrap().default, Some("TCP"));
    }
}
