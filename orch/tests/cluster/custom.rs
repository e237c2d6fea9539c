//! Custom resources among the controllers that work on every kind. Their kinds are defined while
//! the cluster runs.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use orch::{
    Cluster,
    controllers::resource_types::ResourceTypes,
    core::{Client, ResourceType},
};
use serde_json::{Value, json};

use crate::world::{create_global, seeded, until};

/// A kind of `example.com/v1`.
fn kind(name: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", name))
}

async fn define(cluster: &Cluster, kind: &str, scope: &str) {
    let plural = format!("{}s", kind.to_lowercase());
    let definition = json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": scope, "names": {"plural": plural, "kind": kind},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        },
    });
    create_global::<CustomResourceDefinition>(cluster, definition).await;
}

async fn create(
    api: &Api<DynamicObject>,
    of: &ApiResource,
    name: &str,
    owner: Option<Value>,
) -> Value {
    let mut object = DynamicObject::new(name, of);
    if let Some(owner) = owner {
        object.metadata.owner_references = serde_json::from_value(json!([owner])).expect("owners");
    }
    let created = api.create(&PostParams::default(), &object).await.expect("it is created");
    json!({"apiVersion": "example.com/v1", "kind": of.kind, "name": name, "uid": created.uid()})
}

async fn create_map(api: &Api<ConfigMap>, name: &str, owner: Option<&Value>) -> Value {
    let owners: Vec<&Value> = owner.into_iter().collect();
    let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
    let map = serde_json::from_value(map).expect("a ConfigMap");
    let created = api.create(&PostParams::default(), &map).await.expect("it is created");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": created.uid()})
}

async fn until_gone(api: &Api<DynamicObject>, name: &str) {
    for _ in 0..600 {
        if api.get_opt(name).await.expect("an answer").is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{name} never went");
}

/// The names of the maps that these tests make.
fn named(maps: &[Arc<ConfigMap>]) -> Vec<String> {
    let names = maps.iter().map(|map| map.name_any());
    names.filter(|name| name.starts_with("of-")).collect()
}

#[tokio::test(start_paused = true)]
async fn what_custom_resources_own_goes_with_them() {
    let cluster = seeded(7).start().await.expect("it starts");
    define(&cluster, "Widget", "Namespaced").await;
    let widget = kind("Widget");
    let widgets: Api<DynamicObject> = Api::default_namespaced_with(cluster.client(), &widget);
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    for name in ["one", "two"] {
        let owner = create(&widgets, &widget, name, None).await;
        create_map(&maps, &format!("of-{name}"), Some(&owner)).await;
    }
    // Nobody knows the kind yet, and when it is known its owner has long been gone.
    widgets.delete("one", &DeleteParams::default()).await.expect("it is deleted");
    until::<ConfigMap>(&cluster, |maps| named(maps) == ["of-two"]).await;
    widgets.delete("two", &DeleteParams::foreground()).await.expect("it is deleted");
    until_gone(&widgets, "two").await;
    until::<ConfigMap>(&cluster, |maps| named(maps).is_empty()).await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn custom_resources_go_with_what_owns_them() {
    let cluster = seeded(8).start().await.expect("it starts");
    define(&cluster, "Widget", "Namespaced").await;
    let widget = kind("Widget");
    let widgets: Api<DynamicObject> = Api::default_namespaced_with(cluster.client(), &widget);
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let owner = create_map(&maps, "owner", None).await;
    create(&widgets, &widget, "owned", Some(owner)).await;
    create(&widgets, &widget, "free", None).await;
    maps.delete("owner", &DeleteParams::default()).await.expect("it is deleted");
    until_gone(&widgets, "owned").await;
    assert!(widgets.get_opt("free").await.expect("an answer").is_some());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn cluster_scoped_custom_resources_own_and_are_owned() {
    let cluster = seeded(9).start().await.expect("it starts");
    define(&cluster, "Realm", "Cluster").await;
    let realm = kind("Realm");
    let realms: Api<DynamicObject> = Api::all_with(cluster.client(), &realm);
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let owner = create(&realms, &realm, "owner", None).await;
    create(&realms, &realm, "dependent", Some(owner.clone())).await;
    create_map(&maps, "of-owner", Some(&owner)).await;
    // Orphans keep what their owner leaves behind, also where nobody knew the kind.
    let left = create(&realms, &realm, "leaving", None).await;
    create_map(&maps, "of-leaving", Some(&left)).await;
    realms.delete("leaving", &DeleteParams::orphan()).await.expect("it is deleted");
    realms.delete("owner", &DeleteParams::default()).await.expect("it is deleted");
    until_gone(&realms, "dependent").await;
    until_gone(&realms, "leaving").await;
    until::<ConfigMap>(&cluster, |maps| named(maps) == ["of-leaving"]).await;
    let kept = maps.get("of-leaving").await.expect("it is kept");
    assert!(kept.owner_references().is_empty());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_emptied_of_custom_resources() {
    let cluster = seeded(10).start().await.expect("it starts");
    create_global::<Namespace>(&cluster, json!({"metadata": {"name": "team"}})).await;
    define(&cluster, "Widget", "Namespaced").await;
    let widget = kind("Widget");
    let widgets: Api<DynamicObject> = Api::namespaced_with(cluster.client(), "team", &widget);
    for name in ["one", "two"] {
        create(&widgets, &widget, name, None).await;
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete("team", &DeleteParams::default()).await.expect("it is deleted");
    until::<Namespace>(&cluster, |all| all.iter().all(|ns| ns.name_any() != "team")).await;
    assert_eq!(widgets.list(&Default::default()).await.expect("a list").items.len(), 0);
    cluster.shutdown().await;
}

/// Through any client: in process by the server's own list, over HTTP by discovery.
#[tokio::test(start_paused = true)]
async fn every_client_tells_the_kinds_that_are_served() {
    let cluster = seeded(11).start().await.expect("it starts");
    let in_process: Arc<dyn Client> = cluster.core_client();
    let over_http: Arc<dyn Client> = Arc::new(cluster.client());
    let told = async |client: &Arc<dyn Client>| -> Vec<ResourceType> {
        let mut types = ResourceTypes::resource_types(client).await.expect("the kinds");
        types.sort();
        types
    };
    let before = told(&over_http).await;
    assert!(before.contains(&ResourceType::of::<ConfigMap>()));
    define(&cluster, "Widget", "Namespaced").await;
    for client in [&in_process, &over_http] {
        let types = told(client).await;
        let widgets = types.iter().filter(|of| of.group == "example.com").collect::<Vec<_>>();
        assert_eq!(widgets.len(), 1, "{widgets:?}");
        assert_eq!((&*widgets[0].kind, &*widgets[0].plural), ("Widget", "widgets"));
        // Events are in two groups, and in process they come in one of them.
        for known in before.iter().filter(|known| known.plural != "events") {
            let same = |of: &ResourceType| (&of.group, &of.plural) == (&known.group, &known.plural);
            assert!(types.iter().any(same), "{known} is not among {types:?}");
        }
    }
    cluster.shutdown().await;
}
