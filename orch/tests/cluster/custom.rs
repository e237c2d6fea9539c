//! Custom resources among the controllers that work on every kind.

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::json;

use crate::world::{create_global, seeded, until};

/// A kind that is defined while the cluster runs: what an object of it owns goes with it, and a
/// namespace is not gone before its objects of that kind are.
#[tokio::test(start_paused = true)]
async fn custom_resources_own_and_are_emptied() {
    let cluster = seeded(7).start().await.expect("it starts");
    create_global::<Namespace>(&cluster, json!({"metadata": {"name": "team"}})).await;
    create_global::<CustomResourceDefinition>(
        &cluster,
        json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }],
            },
        }),
    )
    .await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    let widgets: Api<DynamicObject> = Api::namespaced_with(cluster.client(), "team", &kind);
    let mut owners = Vec::new();
    for name in ["one", "two"] {
        let widget = DynamicObject::new(name, &kind).within("team");
        owners.push(widgets.create(&PostParams::default(), &widget).await.expect("a widget"));
    }
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "team");
    for (name, owner) in [("of-one", &owners[0]), ("of-two", &owners[1])] {
        let owned = json!({
            "metadata": {"name": name, "ownerReferences": [{
                "apiVersion": "example.com/v1", "kind": "Widget",
                "name": owner.name_any(), "uid": owner.uid(),
            }]},
        });
        let owned: ConfigMap = serde_json::from_value(owned).expect("a ConfigMap");
        maps.create(&PostParams::default(), &owned).await.expect("a ConfigMap");
    }
    let named = |maps: &[std::sync::Arc<ConfigMap>]| -> Vec<String> {
        let names = maps.iter().map(|map| map.name_any());
        names.filter(|name| name.starts_with("of-")).collect()
    };
    widgets.delete("one", &DeleteParams::default()).await.expect("it is deleted");
    until::<ConfigMap>(&cluster, |maps| named(maps) == ["of-two"]).await;

    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete("team", &DeleteParams::default()).await.expect("it is deleted");
    until::<Namespace>(&cluster, |all| all.iter().all(|ns| ns.name_any() != "team")).await;
    assert_eq!(widgets.list(&Default::default()).await.expect("a list").items.len(), 0);
    cluster.shutdown().await;
}
