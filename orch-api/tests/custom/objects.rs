//! The verbs on custom objects.

use futures::StreamExt;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::json;

use super::support::{call, define, objects, plain, refusal, server, widget, widgets};

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let widgets = objects(&client);
    let draft = widget("a", json!({"size": 1}));
    let created = widgets.create(&PostParams::default(), &draft).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    assert_eq!(created.data["spec"]["size"], 1);
    assert_eq!(widgets.get("a").await.unwrap(), created);

    let mut changed = created.clone();
    changed.data["spec"]["size"] = 2.into();
    let updated = widgets.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(updated.metadata.generation, Some(2));
    let stale = widgets.replace("a", &PostParams::default(), &created).await;
    assert_eq!(refusal(stale).0, 409);
    let labelled = Patch::Merge(json!({"metadata": {"labels": {"tier": "front"}}}));
    let labelled = widgets.patch("a", &PatchParams::default(), &labelled).await.unwrap();
    assert_eq!(labelled.metadata.generation, Some(2), "metadata is no part of the wish");

    assert_eq!(
        widgets.list(&ListParams::default().labels("tier=front")).await.unwrap().items.len(),
        1
    );
    assert_eq!(
        widgets.list(&ListParams::default().labels("tier=back")).await.unwrap().items.len(),
        0
    );
    widgets.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(widgets.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn changes_are_watched() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let widgets = objects(&client);
    widgets.create(&PostParams::default(), &widget("a", json!({"size": 1}))).await.unwrap();
    let events = widgets.watch(&WatchParams::default(), "0").await.unwrap();
    let mut events = events.boxed();
    let mut next = async || events.next().await.unwrap().unwrap();
    assert!(matches!(next().await, WatchEvent::Added(one) if one.data["spec"]["size"] == 1));
    let patch = Patch::Merge(json!({"spec": {"size": 2}}));
    widgets.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert!(matches!(next().await, WatchEvent::Modified(one) if one.data["spec"]["size"] == 2));
    widgets.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(next().await, WatchEvent::Deleted(_)));
}

#[tokio::test]
async fn a_collection_is_deleted_as_a_whole() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let widgets = objects(&client);
    for name in ["a", "b", "c"] {
        widgets.create(&PostParams::default(), &widget(name, json!({}))).await.unwrap();
    }
    widgets.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert!(widgets.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn patches_are_json_merge_and_apply_but_not_strategic() {
    let (_server, client) = server().await;
    define(&client, plain()).await;
    let widgets = objects(&client);
    let apply = |manager: &str| PatchParams::apply(manager);
    let one = Patch::Apply(widget("a", json!({"size": 1, "note": "x"})));
    widgets.patch("a", &apply("one"), &one).await.unwrap();
    let other = Patch::Apply(widget("a", json!({"size": 2})));
    let (code, message) = refusal(widgets.patch("a", &apply("two"), &other).await);
    assert_eq!(code, 409, "{message}");
    assert!(message.contains("conflict with \"one\": .spec.size"), "{message}");
    let forced = widgets.patch("a", &apply("two").force(), &other).await.unwrap();
    assert_eq!(forced.data["spec"], json!({"size": 2, "note": "x"}));
    // What its manager applies no more goes.
    let less = Patch::Apply(widget("a", json!({})));
    let less = widgets.patch("a", &apply("one"), &less).await.unwrap();
    assert_eq!(less.data["spec"], json!({"size": 2}));

    let path = "/apis/example.com/v1/namespaces/default/widgets/a";
    let patch = json!([{"op": "replace", "path": "/spec/size", "value": 5}]);
    let request = http::Request::builder().method("PATCH").uri(path);
    let request = request.header("content-type", "application/json-patch+json");
    let request = request.body(patch.to_string().into_bytes()).unwrap();
    let patched: serde_json::Value = client.request(request).await.unwrap();
    assert_eq!(patched["spec"]["size"], 5);
    let strategic = Patch::Strategic(json!({"spec": {"size": 6}}));
    let (code, _) = refusal(widgets.patch("a", &PatchParams::default(), &strategic).await);
    assert_eq!(code, 415);
}

#[tokio::test]
async fn the_status_is_written_apart() {
    let (_server, client) = server().await;
    let mut definition = plain();
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    define(&client, definition).await;
    let widgets = objects(&client);
    let mut draft = widget("a", json!({"size": 1}));
    draft.data["status"] = json!({"ready": true});
    let mut object = widgets.create(&PostParams::default(), &draft).await.unwrap();
    assert_eq!(object.data.get("status"), None, "a status is not created");

    object.data["status"] = json!({"ready": true});
    object.data["spec"] = json!({"size": 7});
    object.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let told = widgets.replace_status("a", &PostParams::default(), &object).await.unwrap();
    assert_eq!(told.data["status"]["ready"], true);
    assert_eq!(told.data["spec"]["size"], 1);
    assert_eq!((told.metadata.generation, &told.metadata.labels), (Some(1), &None));

    let mut wish = told.clone();
    wish.data["status"] = json!({"ready": false});
    wish.data["spec"] = json!({"size": 7});
    let wished = widgets.replace("a", &PostParams::default(), &wish).await.unwrap();
    assert_eq!(wished.data["status"]["ready"], true);
    assert_eq!((wished.metadata.generation, &wished.data["spec"]["size"]), (Some(2), &json!(7)));
    let patch = Patch::Merge(json!({"status": {"ready": "yes"}}));
    let (code, message) = refusal(widgets.patch_status("a", &PatchParams::default(), &patch).await);
    assert_eq!(code, 422);
    assert!(message.contains("status.ready in body must be of type boolean"), "{message}");
}

#[tokio::test]
async fn the_scale_reads_and_writes_the_paths_of_the_definition() {
    let (_server, client) = server().await;
    let mut definition = widgets(json!({"count": {"type": "integer"}}));
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {
        "specReplicasPath": ".spec.count", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }});
    define(&client, definition).await;
    let widgets = objects(&client);
    widgets.create(&PostParams::default(), &widget("a", json!({"count": 2}))).await.unwrap();
    let status = Patch::Merge(json!({"status": {"replicas": 1, "selector": "app=a"}}));
    widgets.patch_status("a", &PatchParams::default(), &status).await.unwrap();
    let scale = widgets.get_scale("a").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    let status = scale.status.unwrap();
    assert_eq!((status.replicas, status.selector.as_deref()), (1, Some("app=a")));
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    widgets.patch_scale("a", &PatchParams::default(), &patch).await.unwrap();
    let scaled = widgets.get("a").await.unwrap();
    assert_eq!((&scaled.data["spec"]["count"], scaled.metadata.generation), (&json!(5), Some(2)));
}

#[tokio::test]
async fn tables_have_the_columns_of_the_definition() {
    let (_server, client) = server().await;
    let mut definition = plain();
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Note", "type": "string", "jsonPath": ".spec.note", "priority": 1},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    define(&client, definition).await;
    let draft = widget("a", json!({"size": 3}));
    objects(&client).create(&PostParams::default(), &draft).await.unwrap();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let table = call(&client, "GET", path, accept).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> =
        columns.iter().map(|c| (c["name"].clone(), c["priority"].clone())).collect();
    let expected = [("Name", 0), ("Size", 0), ("Note", 1), ("Since", 0)];
    assert_eq!(names, expected.map(|(name, priority)| (json!(name), json!(priority))));
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("a"), json!(3), json!(null)]);
    assert!(cells[3].as_str().unwrap().ends_with('s'), "{cells:?}");
}

#[tokio::test]
async fn objects_are_selected_by_the_fields_of_the_definition() {
    let (_server, client) = server().await;
    let mut definition = plain();
    definition["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.note"}]);
    define(&client, definition).await;
    let widgets = objects(&client);
    for (name, note) in [("a", "x"), ("b", "y")] {
        let draft = widget(name, json!({"note": note}));
        widgets.create(&PostParams::default(), &draft).await.unwrap();
    }
    let found = widgets.list(&ListParams::default().fields("spec.note=y")).await.unwrap();
    let names: Vec<_> = found.items.iter().map(|one| one.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["b"]);
    let unknown = widgets.list(&ListParams::default().fields("spec.size=1")).await;
    assert_eq!(refusal(unknown).0, 400);
}

#[tokio::test]
async fn lists_with_keys_are_applied_item_by_item() {
    let (_server, client) = server().await;
    let list = json!({"list": {"type": "array", "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "value": {"type": "string"},
    }}}});
    define(&client, widgets(list)).await;
    let widgets = objects(&client);
    for (manager, item) in [("one", "a"), ("two", "b")] {
        let config = widget("w", json!({"list": [{"name": item, "value": manager}]}));
        widgets.patch("w", &PatchParams::apply(manager), &Patch::Apply(config)).await.unwrap();
    }
    let both = widgets.get("w").await.unwrap();
    let expected = json!([{"name": "a", "value": "one"}, {"name": "b", "value": "two"}]);
    assert_eq!(both.data["spec"]["list"], expected);
    let nothing = Patch::Apply(widget("w", json!({})));
    let less = widgets.patch("w", &PatchParams::apply("one"), &nothing).await.unwrap();
    assert_eq!(less.data["spec"]["list"], json!([{"name": "b", "value": "two"}]));
}
