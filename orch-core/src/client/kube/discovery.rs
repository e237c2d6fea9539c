//! Which resources a cluster has, by its aggregated discovery.
//!
//! Source: `k8s.io/api/apidiscovery/v2`.

use std::collections::HashSet;

use http::{Method, Request, header};
use kube::client::Body;
use serde::Deserialize;

use super::{call, transport};
use crate::{
    client::ClientError,
    object::DecodeError,
    resource::{ResourceType, Scope},
};

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

#[derive(Deserialize)]
struct Groups {
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Option<Kind>,
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// Every resource that can be listed, watched and deleted, in the version that its group prefers.
pub(super) async fn resource_types(
    client: &kube::Client,
) -> Result<Vec<ResourceType>, ClientError> {
    let mut types = Vec::new();
    for path in ["/api", "/apis"] {
        let request = Request::builder().method(Method::GET).uri(path);
        let request = request.header(header::ACCEPT, ACCEPT).body(Body::empty());
        let request = request.map_err(|error| transport(kube::Error::HttpError(error)))?;
        let groups = decode(&call(client, request).await?)?;
        groups.items.into_iter().for_each(|group| add(group, &mut types));
    }
    Ok(types)
}

fn decode(body: &[u8]) -> Result<Groups, ClientError> {
    let groups: Groups = serde_json::from_slice(body).map_err(DecodeError::Shape)?;
    // A server that does not aggregate answers with a list of another kind.
    if groups.kind == "APIGroupDiscoveryList" {
        return Ok(groups);
    }
    let why = format!("expected aggregated discovery, got {}", groups.kind);
    Err(DecodeError::Shape(serde::de::Error::custom(why)).into())
}

fn add(group: Group, types: &mut Vec<ResourceType>) {
    let mut known = HashSet::new();
    for version in group.versions {
        for resource in version.resources {
            let has = |verb: &str| resource.verbs.iter().any(|known| known == verb);
            let Some(kind) = resource.response_kind.filter(|kind| !kind.kind.is_empty()) else {
                continue;
            };
            if !["list", "watch", "delete"].into_iter().all(has) {
                continue;
            }
            // Versions come in the order of preference.
            if known.insert(resource.resource.clone()) {
                types.push(ResourceType {
                    group: group.metadata.name.clone().into(),
                    version: version.version.clone().into(),
                    plural: resource.resource.into(),
                    kind: kind.kind.into(),
                    scope: if resource.scope == "Cluster" {
                        Scope::Cluster
                    } else {
                        Scope::Namespaced
                    },
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_resource_comes_once_in_the_preferred_version() {
        let resource = |name: &str, verbs: &[&str]| {
            json!({"resource": name, "scope": "Namespaced", "verbs": verbs,
                "responseKind": {"group": "", "version": "", "kind": "Widget"}})
        };
        let all = ["create", "delete", "list", "watch"];
        let body = json!({"kind": "APIGroupDiscoveryList", "items": [{
            "metadata": {"name": "example.com"},
            "versions": [
                {"version": "v1", "resources": [resource("widgets", &all)]},
                {"version": "v1beta1", "resources": [
                    resource("widgets", &all), resource("gadgets", &all),
                    resource("reviews", &["create"]),
                ]},
            ],
        }]});
        let mut types = Vec::new();
        let groups = decode(&serde_json::to_vec(&body).unwrap()).unwrap();
        groups.items.into_iter().for_each(|group| add(group, &mut types));
        let names: Vec<String> =
            types.iter().map(|of| format!("{}/{}", of.api_version(), of.plural)).collect();
        assert_eq!(names, ["example.com/v1/widgets", "example.com/v1beta1/gadgets"]);
    }

    #[test]
    fn a_server_that_does_not_aggregate_is_told_apart() {
        let body = json!({"kind": "APIGroupList", "items": []});
        assert!(decode(&serde_json::to_vec(&body).unwrap()).is_err());
    }
}
