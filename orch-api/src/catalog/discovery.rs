//! Discovery documents.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/discovery`.

use serde_json::{Map, Value, json};

use super::{Catalog, GroupVersion, Resource, Subresource, Verbs};

/// A discovery document as upstream answers it.
pub(crate) struct Discovery<'a>(pub(crate) &'a Catalog);

impl Discovery<'_> {
    /// `/api`. `address` is where the server is reached, as the client sees it.
    pub(crate) fn core_versions(&self, address: &str) -> Value {
        json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [
                {"clientCIDR": "0.0.0.0/0", "serverAddress": address},
            ],
        })
    }

    /// `/apis`.
    pub(crate) fn groups(&self) -> Value {
        let mut groups: Vec<Value> = Vec::new();
        for group in self.group_names() {
            let mut value = self.group_body(group);
            value.remove("kind");
            value.remove("apiVersion");
            groups.push(Value::Object(value));
        }
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// `/apis/GROUP`.
    pub(crate) fn group(&self, group: &str) -> Option<Value> {
        let known = !group.is_empty() && self.group_names().contains(&group);
        known.then(|| Value::Object(self.group_body(group)))
    }

    /// `/api/v1`, `/apis/GROUP/VERSION`.
    pub(crate) fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let of = |gv: &&GroupVersion| gv.group == group && gv.version == version;
        let gv = self.0.group_versions().iter().find(of)?;
        let mut resources: Vec<Value> = Vec::new();
        for resource in &gv.resources {
            resources.push(resource_entry(resource));
            resources.extend(resource.subresources.iter().map(|s| subresource_entry(resource, s)));
        }
        let mut list = json!({
            "kind": "APIResourceList", "groupVersion": gv.name(), "resources": resources,
        });
        // The core group's list has no apiVersion: upstream never set it there.
        if !group.is_empty() {
            list["apiVersion"] = "v1".into();
        }
        Some(list)
    }

    /// Aggregated discovery of `/api` (the core group) or `/apis` (the others).
    ///
    /// Source: `k8s.io/apiserver/pkg/endpoints/discovery/aggregated`, KEP-3352.
    pub(crate) fn aggregated(&self, core: bool) -> Value {
        let names = if core { vec![""] } else { self.group_names() };
        let items: Vec<Value> = names.into_iter().map(|name| self.aggregated_group(name)).collect();
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        })
    }

    fn group_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for gv in self.0.group_versions().iter().filter(|gv| !gv.group.is_empty()) {
            if !names.contains(&&*gv.group) {
                names.push(&gv.group);
            }
        }
        names
    }

    fn versions_of(&self, group: &str) -> impl Iterator<Item = &GroupVersion> {
        self.0.group_versions().iter().filter(move |gv| gv.group == group)
    }

    fn group_body(&self, group: &str) -> Map<String, Value> {
        let versions: Vec<Value> = self
            .versions_of(group)
            .map(|gv| json!({"groupVersion": gv.name(), "version": gv.version}))
            .collect();
        let mut body = Map::new();
        body.insert("kind".into(), "APIGroup".into());
        body.insert("apiVersion".into(), "v1".into());
        body.insert("name".into(), group.into());
        body.insert("preferredVersion".into(), versions.first().cloned().unwrap_or_default());
        body.insert("versions".into(), Value::Array(versions));
        body
    }

    fn aggregated_group(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .versions_of(group)
            .map(|gv| {
                let resources: Vec<Value> =
                    gv.resources.iter().map(|r| aggregated_resource(r)).collect();
                json!({"version": gv.version, "freshness": "Current", "resources": resources})
            })
            .collect();
        // The core group's name is empty, and left out.
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        json!({"metadata": metadata, "versions": versions})
    }
}

fn verbs(verbs: Verbs) -> Value {
    verbs.names().collect()
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.of.plural,
        "singularName": resource.singular,
        "namespaced": resource.is_namespaced(),
        "kind": resource.of.kind,
        "verbs": verbs(resource.verbs),
    });
    names_into(resource, &mut entry);
    if let Some(hash) = &resource.storage_hash {
        entry["storageVersionHash"] = hash.as_ref().into();
    }
    entry
}

fn names_into(resource: &Resource, entry: &mut Value) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.iter().map(|name| &**name).collect();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.iter().map(|name| &**name).collect();
    }
}

fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.of.plural, sub.name),
        "singularName": "",
        "namespaced": resource.is_namespaced(),
        "kind": sub.kind,
        "verbs": verbs(sub.verbs),
    });
    if let Some((group, version)) = sub.group_version {
        entry["group"] = group.into();
        entry["version"] = version.into();
    }
    entry
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.of.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.of.kind},
        "scope": if resource.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource.verbs),
    });
    names_into(resource, &mut entry);
    if !resource.subresources.is_empty() {
        entry["subresources"] = resource.subresources.iter().map(aggregated_subresource).collect();
    }
    entry
}

fn aggregated_subresource(sub: &Subresource) -> Value {
    let (group, version) = sub.group_version.unwrap_or(("", ""));
    json!({
        "subresource": sub.name,
        "responseKind": {"group": group, "version": version, "kind": sub.kind},
        "verbs": verbs(sub.verbs),
    })
}
