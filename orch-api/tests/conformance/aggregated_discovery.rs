//! One document that tells every group, version and resource.
//!
//! Source: `test/e2e/apimachinery/aggregated_discovery.go`.

use kube::{
    client::Client,
    core::discovery::v2::{APIGroupDiscovery, APIVersionDiscovery},
};
use serde_json::Value;

use super::{
    definitions::{anything, definition},
    objects::call,
    world::World,
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A resource of each group that every cluster has.
pub(super) const EVERYWHERE: [(&str, &str, &str); 18] = [
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "v1", "apiservices"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
];

/// A document with all groups, asked for by its media type.
async fn raw(world: &World, path: &str) -> Value {
    call(&world.client, "GET", path, &[("accept", AGGREGATED)], None).await.unwrap()
}

fn tells(document: &Value, (group, version, resource): (&str, &str, &str)) -> bool {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of_core = |one: &Value| one["metadata"]["name"].as_str().unwrap_or_default() == group;
    all(&document["items"]).iter().filter(|one| of_core(one)).any(|one| {
        let versions = all(&one["versions"]);
        versions
            .iter()
            .filter(|one| one["version"] == version)
            .any(|one| all(&one["resources"]).iter().any(|one| one["resource"] == resource))
    })
}

/// The documents of `/apis` and `/api` are given in their newest form to who asks for it, and
/// have what every cluster has.
pub(super) async fn should_support_raw_aggregated_discovery_endpoint_accept_headers() {
    let world = World::start().await;
    let groups = raw(&world, "/apis").await;
    assert_eq!(
        (&groups["kind"], &groups["apiVersion"]),
        (&"APIGroupDiscoveryList".into(), &"apidiscovery.k8s.io/v2".into())
    );
    for one in EVERYWHERE {
        assert!(tells(&groups, one), "{one:?}");
    }
    assert!(tells(&raw(&world, "/api").await, ("", "v1", "namespaces")));
}

/// A definition of a custom resource puts it into the document.
pub(super) async fn should_support_raw_aggregated_discovery_request_for_crds() {
    let world = World::start().await;
    let of = ("raw.example.com", "v1", "testcrds");
    assert!(!tells(&raw(&world, "/apis").await, of));
    world.define(definition(of.0, "TestCrd", "Namespaced", &[of.1], &anything())).await;
    assert!(tells(&raw(&world, "/apis").await, of));
}

/// What a client's own call for aggregated discovery gives.
async fn by_client(client: &Client) -> Vec<APIGroupDiscovery> {
    let mut groups = client.list_core_api_versions_aggregated().await.unwrap().items;
    groups.extend(client.list_api_groups_aggregated().await.unwrap().items);
    groups
}

fn has(groups: &[APIGroupDiscovery], (group, version, resource): (&str, &str, &str)) -> bool {
    let named = |one: &&APIGroupDiscovery| {
        one.metadata.as_ref().and_then(|meta| meta.name.as_deref()).unwrap_or_default() == group
    };
    let of = |one: &&APIVersionDiscovery| one.version.as_deref() == Some(version);
    groups
        .iter()
        .filter(named)
        .flat_map(|one| &one.versions)
        .filter(of)
        .any(|one| one.resources.iter().any(|one| one.resource.as_deref() == Some(resource)))
}

/// A client's discovery finds every group and resource in one call for each root.
pub(super) async fn should_support_aggregated_discovery_interface() {
    let world = World::start().await;
    let groups = by_client(&world.client).await;
    assert!(has(&groups, ("", "v1", "namespaces")));
    for one in EVERYWHERE {
        assert!(has(&groups, one), "{one:?}");
    }
}

/// And it finds a custom resource as soon as that is defined.
pub(super) async fn should_support_aggregated_discovery_interface_for_crds() {
    let world = World::start().await;
    let of = ("client.example.com", "v1", "testcrds");
    world.define(definition(of.0, "TestCrd", "Namespaced", &[of.1], &anything())).await;
    assert!(has(&by_client(&world.client).await, of));
}
