//! Definitions: their status, what they make the server serve, and how they go.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams,
};
use orch_store::MemoryStore;
use serde_json::{Value, json};

use super::support::{
    call, define, definitions, objects, over, plain, refusal, resource, server, typed, widget,
};

fn condition(definition: &CustomResourceDefinition, kind: &str) -> (String, String) {
    let conditions = definition.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone().unwrap())
}

fn named(plural: &str, kind: &str) -> Value {
    let mut definition = plain();
    definition["metadata"]["name"] = format!("{plural}.example.com").into();
    definition["spec"]["names"] = json!({"plural": plural, "kind": kind});
    definition
}

async fn create(
    client: &kube::Client,
    definition: Value,
) -> Result<CustomResourceDefinition, kube::Error> {
    definitions(client).create(&PostParams::default(), &typed(definition)).await
}

#[tokio::test]
async fn a_definition_is_established_with_its_names() {
    let (_server, client) = server().await;
    let made = define(&client, plain()).await;
    assert_eq!(condition(&made, "NamesAccepted"), ("True".into(), "NoConflicts".into()));
    assert_eq!(condition(&made, "Established"), ("True".into(), "InitialNamesAccepted".into()));
    let status = made.status.unwrap();
    assert_eq!(status.stored_versions.unwrap(), ["v1"]);
    let names = status.accepted_names.unwrap();
    assert_eq!(
        (names.singular.as_deref(), names.list_kind.as_deref()),
        (Some("widget"), Some("WidgetList"))
    );
    assert_eq!(made.spec.conversion.unwrap().strategy, "None");
    assert_eq!(made.metadata.generation, Some(1));
}

#[tokio::test]
async fn discovery_tells_of_what_is_defined() {
    let (_server, client) = server().await;
    assert_eq!(refusal(call(&client, "GET", "/apis/example.com/v1", "*/*").await).0, 404);
    let mut definition = plain();
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    define(&client, definition).await;
    let list = call(&client, "GET", "/apis/example.com/v1", "*/*").await.unwrap();
    let found = &list["resources"][0];
    assert_eq!((&found["name"], &found["singularName"]), (&json!("widgets"), &json!("widget")));
    assert_eq!((&found["shortNames"], &found["categories"]), (&json!(["wd"]), &json!(["all"])));
    assert_eq!(list["resources"][1]["name"], "widgets/status");
    let group = call(&client, "GET", "/apis/example.com", "*/*").await.unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = call(&client, "GET", "/apis", accept).await.unwrap();
    let items = all["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["metadata"]["name"] == "example.com").unwrap();
    assert_eq!(item["versions"][0]["resources"][0]["resource"], "widgets");
}

#[tokio::test]
async fn a_name_that_is_taken_waits_until_it_is_free() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let second = create(&client, named("gadgets", "Widget")).await.unwrap();
    assert_eq!(condition(&second, "NamesAccepted"), ("False".into(), "ListKindConflict".into()));
    assert_eq!(condition(&second, "Established"), ("False".into(), "NotAccepted".into()));
    assert_eq!(refusal(call(&client, "GET", "/apis/example.com/v1/gadgets", "*/*").await).0, 404);
    let all = definitions(&client);
    let mut changes = all.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    all.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    let established = async {
        while changes.next().await.is_some() {
            let second = all.get("gadgets.example.com").await.unwrap();
            if condition(&second, "Established").0 == "True" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), established).await.unwrap();
    call(&client, "GET", "/apis/example.com/v1/gadgets", "*/*").await.unwrap();
}

#[tokio::test]
async fn definitions_that_are_wrong_are_refused_in_upstreams_words() {
    let (_server, client) = server().await;
    let check = async |change: fn(&mut Value), expected: &str| {
        let mut definition = plain();
        change(&mut definition);
        let (code, message) = refusal(create(&client, definition).await);
        assert!(code == 422 && message.contains(expected), "{code} {message}");
    };
    check(
        |d| d["metadata"]["name"] = "other.example.com".into(),
        "must be spec.names.plural+\".\"+spec.group",
    )
    .await;
    check(|d| d["spec"]["scope"] = "Here".into(), "spec.scope: Unsupported value: \"Here\"").await;
    check(
        |d| d["spec"]["versions"][0]["storage"] = false.into(),
        "must have exactly one version marked as storage version",
    )
    .await;
    check(|d| d["spec"]["preserveUnknownFields"] = true.into(), "cannot set to true").await;
    check(
        |d| d["spec"]["versions"][0]["schema"] = json!({}),
        "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
    )
    .await;
    check(
        |d| root(d)["properties"]["spec"] = json!({"properties": {}}),
        "properties[spec].type: Required value: must not be empty for specified object fields",
    )
    .await;
    check(
        |d| root(d)["properties"]["spec"] = json!({"type": "array"}),
        "properties[spec].items: Required value: must be specified",
    )
    .await;
    check(
        |d| root(d)["properties"]["spec"] = json!({"type": "integer", "default": "x"}),
        "properties[spec].default in body must be of type integer",
    )
    .await;
    check(
        |d| root(d)["x-kubernetes-validations"] = json!([{"rule": "other"}]),
        "undeclared reference to 'other' (in container '')",
    )
    .await;
    check(
        |d| {
            d["spec"]["conversion"] =
                json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}});
        },
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
    )
    .await;
    assert!(definitions(&client).list(&ListParams::default()).await.unwrap().items.is_empty());
}

fn root(definition: &mut Value) -> &mut Value {
    &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[tokio::test]
async fn what_names_and_places_objects_does_not_change() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let all = definitions(&client);
    let patch = Patch::Merge(json!({"spec": {"scope": "Cluster", "names": {"kind": "Other"}}}));
    let refused = all.patch("widgets.example.com", &PatchParams::default(), &patch).await;
    let (code, message) = refusal(refused);
    assert_eq!(code, 422);
    assert!(
        message.contains("spec.scope: Invalid value: \"Cluster\": field is immutable"),
        "{message}"
    );
    assert!(message.contains("spec.names.kind"), "{message}");
}

#[tokio::test]
async fn a_changed_schema_counts_at_once() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let widgets = objects(&client);
    let lost = widget("a", json!({"color": "red"}));
    let lost = widgets.create(&PostParams::default(), &lost).await.unwrap();
    assert_eq!(lost.data["spec"], json!({}));
    let mut changed = plain();
    root(&mut changed)["properties"]["spec"]["properties"]["color"] =
        json!({"type": "string", "default": "blue"});
    let patch = Patch::Merge(json!({"spec": {"versions": changed["spec"]["versions"]}}));
    definitions(&client)
        .patch("widgets.example.com", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let kept = widget("b", json!({"color": "red"}));
    let kept = widgets.create(&PostParams::default(), &kept).await.unwrap();
    assert_eq!(kept.data["spec"], json!({"color": "red"}));
    // What was stored before has the default when it is read, one by one and in lists.
    assert_eq!(widgets.get("a").await.unwrap().data["spec"], json!({"color": "blue"}));
    let list = widgets.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items[0].data["spec"], json!({"color": "blue"}));
}

#[tokio::test]
async fn versions_come_and_go() {
    let (_server, client) = server().await;
    let mut definition = plain();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["deprecated"] = true.into();
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    define(&client, definition.clone()).await;
    let group = call(&client, "GET", "/apis/example.com", "*/*").await.unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v2");
    objects(&client)
        .create(&PostParams::default(), &widget("a", json!({"size": 1})))
        .await
        .unwrap();
    let newer: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource("v2"));
    let found = newer.get("a").await.unwrap();
    assert_eq!(found.types.as_ref().unwrap().api_version, "example.com/v2");
    assert_eq!(found.data["spec"]["size"], 1);
    let patch = Patch::Merge(json!({"spec": {"size": 2}}));
    newer.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(objects(&client).get("a").await.unwrap().data["spec"]["size"], 2);

    let mut watch = newer.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    watch.next().await.unwrap().unwrap();
    definition["spec"]["versions"][1]["served"] = false.into();
    let patch = Patch::Merge(json!({"spec": {"versions": definition["spec"]["versions"]}}));
    definitions(&client)
        .patch("widgets.example.com", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(refusal(newer.get("a").await).0, 404);
    assert!(objects(&client).get("a").await.is_ok());
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    assert!(ended.unwrap().is_none(), "a watch of a version that is served no more ends");
}

#[tokio::test]
async fn a_definition_goes_when_its_objects_are_gone() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let widgets = objects(&client);
    let mut held = widget("held", json!({}));
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    widgets.create(&PostParams::default(), &held).await.unwrap();
    widgets.create(&PostParams::default(), &widget("free", json!({}))).await.unwrap();
    let mut watch = widgets.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let all = definitions(&client);
    let mut changes = all.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    all.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();

    let going = all.get("widgets.example.com").await.unwrap();
    let finalizers = going.metadata.finalizers.clone().unwrap();
    assert_eq!(finalizers, ["customresourcecleanup.apiextensions.k8s.io"]);
    assert_eq!(condition(&going, "Terminating").0, "True");
    let late = widgets.create(&PostParams::default(), &widget("late", json!({}))).await;
    assert_eq!(refusal(late).0, 405);

    let gone = async {
        use kube::api::WatchEvent::{Deleted, Modified};
        while let Some(Ok(event)) = watch.next().await {
            let marked = |one: &DynamicObject| one.metadata.deletion_timestamp.is_some();
            match event {
                Modified(one) if marked(&one) => {
                    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                    widgets.patch("held", &PatchParams::default(), &patch).await.unwrap();
                }
                Deleted(_) | Modified(_) => {}
                _ => {}
            }
        }
        while let Some(Ok(event)) = changes.next().await {
            if matches!(event, Deleted(_)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    assert!(all.get_opt("widgets.example.com").await.unwrap().is_none());
    assert_eq!(refusal(widgets.list(&ListParams::default()).await).0, 404);
    define(&client, plain()).await;
    assert!(widgets.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn openapi_publishes_the_schema() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let index = call(&client, "GET", "/openapi/v3", "*/*").await.unwrap();
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = call(&client, "GET", url, "application/json").await.unwrap();
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
    let kind = json!([{"group": "example.com", "version": "v1", "kind": "Widget"}]);
    assert_eq!(schema["x-kubernetes-group-version-kind"], kind);
    let path = "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}";
    let patch = &document["paths"][path]["patch"]["requestBody"]["content"];
    assert!(patch["application/strategic-merge-patch+json"].is_null());
    assert!(patch["application/merge-patch+json"].is_object());
    let all = call(&client, "GET", "/openapi/v2", "application/json").await.unwrap();
    let schema = &all["definitions"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["type"], "integer");
}

#[tokio::test]
async fn objects_that_no_version_serves_go_with_their_definition() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    objects(&client).create(&PostParams::default(), &widget("a", json!({}))).await.unwrap();
    let all = definitions(&client);
    let mut versions = plain()["spec"]["versions"].clone();
    versions[0]["served"] = false.into();
    let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
    all.patch("widgets.example.com", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(refusal(objects(&client).get("a").await).0, 404);
    let mut changes = all.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    all.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    let gone = async {
        while let Some(Ok(event)) = changes.next().await {
            if matches!(event, kube::api::WatchEvent::Deleted(_)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    define(&client, plain()).await;
    assert!(objects(&client).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn controllers_learn_of_what_is_defined() {
    let (server, client) = server().await;
    define(&client, plain()).await;
    let types = server.newest_resource_types().await.unwrap();
    let found: Vec<_> = types.iter().filter(|of| of.group == "example.com").collect();
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].plural, &*found[0].version), ("widgets", "v1"));
    assert_eq!(types, server.resource_types());
}

#[tokio::test]
async fn another_server_goes_on_with_a_deletion() {
    let store = Arc::new(MemoryStore::default());
    let first = over(store.clone()).await;
    define(&first, plain()).await;
    let mut held = widget("held", json!({}));
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    objects(&first).create(&PostParams::default(), &held).await.unwrap();
    definitions(&first).delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    drop(first);

    let second = over(store).await;
    let all = definitions(&second);
    let mut changes = all.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let widgets = objects(&second);
    // The first server may not have asked it to go before it ended.
    let deleted = widgets.delete("held", &DeleteParams::default()).await;
    deleted.unwrap();
    widgets.patch("held", &PatchParams::default(), &patch).await.unwrap();
    let gone = async {
        while let Some(Ok(event)) = changes.next().await {
            if matches!(event, kube::api::WatchEvent::Deleted(_)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test]
async fn who_uses_a_deprecated_version_is_warned() {
    let (server, client) = server().await;
    let mut definition = plain();
    definition["spec"]["versions"][0]["deprecated"] = true.into();
    define(&client, definition).await;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let request = http::Request::builder().uri(path).body(http_body_util::Full::default()).unwrap();
    let request: http::Request<http_body_util::Full<bytes::Bytes>> = request;
    let response = tower::Service::call(&mut server.clone(), request).await.unwrap();
    let warning = response.headers()["warning"].to_str().unwrap();
    assert!(warning.contains("example.com/v1 Widget is deprecated"), "{warning}");
}

#[tokio::test]
async fn lists_are_of_the_kind_that_the_definition_says() {
    let (_server, client) = server().await;
    let mut definition = plain();
    definition["spec"]["names"]["listKind"] = "Widgetry".into();
    define(&client, definition).await;
    let list = call(&client, "GET", "/apis/example.com/v1/widgets", "*/*").await.unwrap();
    assert_eq!((&list["kind"], &list["items"]), (&json!("Widgetry"), &json!([])));
}
