//! Reads the table of resources.

use std::{borrow::Cow, sync::Arc};

use orch_core::{ResourceType, Scope};

use super::{GroupVersion, Resource, Subresource, Verbs};

const TABLE: &str = include_str!("kubernetes-1.36.txt");

/// Where upstream stores a resource under another name than its plural.
///
/// Source: `k8s.io/kubernetes/pkg/kubeapiserver/default_storage_factory_builder.go`.
const PREFIXES: [(&str, &str); 7] = [
    ("endpoints", "services/endpoints"),
    ("services", "services/specs"),
    ("nodes", "minions"),
    ("replicationcontrollers", "controllers"),
    ("ingresses", "ingress"),
    ("customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions"),
    ("apiservices", "apiregistration.k8s.io/apiservices"),
];

/// Every group version of the table, in its order.
///
/// # Panics
/// If the table is malformed, which a unit test rules out.
pub(super) fn read() -> Vec<GroupVersion> {
    let mut group_versions: Vec<Draft> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(name) = line.strip_prefix('@') {
            let (group, version) = name.split_once('/').unwrap_or(("", name));
            group_versions.push(Draft { group, version, resources: Vec::new() });
            continue;
        }
        let open = group_versions.last_mut().expect("a resource stands below its group version");
        match line.strip_prefix("  ") {
            Some(line) => {
                let parent = open.resources.last_mut().expect("a subresource has a parent");
                parent.subresources.push(subresource(line));
            }
            None => {
                let resource = resource(open.group, open.version, line);
                open.resources.push(resource);
            }
        }
    }
    settle_storage(&mut group_versions);
    group_versions.into_iter().map(Draft::finish).collect()
}

struct Draft {
    group: &'static str,
    version: &'static str,
    resources: Vec<Resource>,
}

impl Draft {
    fn finish(self) -> GroupVersion {
        let resources = self.resources.into_iter().map(Arc::new).collect();
        let (group, version) = (Cow::Borrowed(self.group), Cow::Borrowed(self.version));
        GroupVersion { group, version, resources }
    }
}

/// A resource is stored in the most preferred version that has it. Events are one resource in two
/// groups, and are stored as the core group's.
fn settle_storage(group_versions: &mut [Draft]) {
    let preferred: Vec<ResourceType> =
        group_versions.iter().flat_map(|gv| &gv.resources).map(|r| r.of.clone()).collect();
    for resource in group_versions.iter_mut().flat_map(|gv| &mut gv.resources) {
        let group = if resource.of.plural == "events" { "" } else { &*resource.of.group };
        let stored =
            preferred.iter().find(|of| of.group == group && of.plural == resource.of.plural);
        if let Some(stored) = stored {
            resource.stored = stored.clone();
            resource.stored_api_version = stored.api_version();
        }
    }
}

fn verbs(letters: &str) -> Verbs {
    if letters == "*" { Verbs::all() } else { Verbs::of(letters) }
}

fn resource(group: &'static str, version: &'static str, line: &'static str) -> Resource {
    let mut words = line.split(' ');
    let mut next = || words.next().expect("a resource has five words");
    let (plural, singular, kind) = (next(), next(), next());
    let scope = if next() == "n" { Scope::Namespaced } else { Scope::Cluster };
    let verbs = verbs(next());
    let of = ResourceType {
        group: Cow::Borrowed(group),
        version: Cow::Borrowed(version),
        plural: Cow::Borrowed(plural),
        kind: Cow::Borrowed(kind),
        scope,
    };
    let place = PREFIXES.iter().find(|(name, _)| *name == plural).map_or(plural, |(_, p)| p);
    let mut resource = Resource {
        stored: of.clone(),
        api_version: of.api_version(),
        stored_api_version: of.api_version(),
        of,
        singular: Cow::Borrowed(singular),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs,
        storage_hash: None,
        subresources: Vec::new(),
        prefix: format!("/registry/{place}/"),
        custom: None,
    };
    for word in words {
        let (mark, rest) = word.split_at(1);
        match mark {
            "+" => resource.short_names = rest.split(',').map(Cow::Borrowed).collect(),
            "=" => resource.categories = rest.split(',').map(Cow::Borrowed).collect(),
            _ => resource.storage_hash = Some(Cow::Borrowed(rest)),
        }
    }
    resource
}

fn subresource(line: &'static str) -> Subresource {
    let mut words = line.split(' ');
    let mut next = || words.next().expect("a subresource has three words");
    let (name, kind, verbs) = (next(), next(), verbs(next()));
    let group_version = words.next().and_then(|word| word.split_once('/'));
    Subresource { name, kind: Cow::Borrowed(kind), verbs, group_version }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        let all = read();
        let find = |group: &str, version: &str, plural: &str| {
            let gv = all.iter().find(|gv| gv.group == group && gv.version == version).unwrap();
            gv.resources.iter().find(|r| r.of.plural == plural).unwrap().clone()
        };
        assert_eq!(find("autoscaling", "v1", "horizontalpodautoscalers").stored.version, "v2");
        assert_eq!(find("events.k8s.io", "v1", "events").stored.group, "");
        assert_eq!(find("", "v1", "nodes").prefix, "/registry/minions/");
        let scale = find("apps", "v1", "deployments");
        let scale = scale.subresource("scale").unwrap();
        assert_eq!(scale.group_version, Some(("autoscaling", "v1")));
        assert!(scale.verbs.has("patch") && !scale.verbs.has("create"));
    }
}
