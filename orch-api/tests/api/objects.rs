//! The verbs on objects.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orch_core::Resources;
use serde_json::json;

use super::support::{call, client, json, kube, with_namespace};

fn config(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}})).unwrap()
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = with_namespace().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(kube(&server));
    let created = maps.create(&PostParams::default(), &config("a", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());

    let mut changed = maps.get("a").await.unwrap();
    assert_eq!(changed, created);
    changed.data.as_mut().unwrap().insert("key".into(), "2".into());
    let updated = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(updated.metadata.resource_version, created.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &created).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 409));

    let patch = Patch::Merge(json!({"data": {"more": "x"}}));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn the_local_client_and_http_see_the_same_objects() {
    let server = with_namespace().await;
    let local: Resources<ConfigMap> = Resources::namespaced(client(&server), "default");
    local.create(&config("a", "1")).await.unwrap();
    let (code, found) = json(&server, "GET", "/api/v1/namespaces/default/configmaps/a", None).await;
    assert_eq!((code, &found["data"]["key"]), (200, &json!("1")));
    assert_eq!(found["kind"], "ConfigMap");
    assert!(local.create(&config("a", "1")).await.unwrap_err().is_already_exists());
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_write() {
    let server = with_namespace().await;
    let local: Resources<ConfigMap> = Resources::namespaced(client(&server), "default");
    let created = local.create(&config("a", "1")).await.unwrap();
    assert_eq!(local.update(&created).await.unwrap(), created);
    assert_eq!(local.update(&config("a", "1")).await.unwrap(), created);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = with_namespace().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(kube(&server));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(maps.create(&dry, &config("a", "1")).await.unwrap().metadata.uid.is_some());
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn generated_names_differ() {
    let server = with_namespace().await;
    let local: Resources<ConfigMap> = Resources::namespaced(client(&server), "default");
    let draft: ConfigMap =
        serde_json::from_value(json!({"metadata": {"generateName": "web-"}})).unwrap();
    let (a, b) = (local.create(&draft).await.unwrap(), local.create(&draft).await.unwrap());
    let (a, b) = (a.metadata.name.clone().unwrap(), b.metadata.name.clone().unwrap());
    assert!(a.starts_with("web-") && a.len() == 9 && a != b, "{a} {b}");
}

#[tokio::test]
async fn a_finalizer_holds_a_deleted_object_until_it_is_taken() {
    let server = with_namespace().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(kube(&server));
    let mut held = config("a", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let waiting = maps.get("a").await.unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn lists_page_consistently() {
    let server = with_namespace().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(kube(&server));
    for at in 0..5 {
        maps.create(&PostParams::default(), &config(&format!("m{at}"), "1")).await.unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(3)));
    // What is deleted behind the page is still part of the list that has begun.
    maps.delete("m4", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let rest = maps.list(&ListParams::default().continue_token(&token)).await.unwrap();
    let names: Vec<_> = rest.items.iter().map(|m| m.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
}

#[tokio::test]
async fn selectors_select() {
    let server = with_namespace().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(kube(&server));
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "back")] {
        let mut map = config(name, "1");
        map.metadata.labels = Some([("tier".to_owned(), tier.to_owned())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let count = async |params: ListParams| maps.list(&params).await.map(|list| list.items.len());
    assert_eq!(count(ListParams::default().labels("tier=back")).await.unwrap(), 2);
    assert_eq!(count(ListParams::default().labels("tier notin (back)")).await.unwrap(), 1);
    assert_eq!(count(ListParams::default().fields("metadata.name=b")).await.unwrap(), 1);
    assert!(count(ListParams::default().fields("data.key=1")).await.is_err());
}

#[tokio::test]
async fn bad_bodies_are_refused_and_nothing_is_stored() {
    let server = with_namespace().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let post = async |body: &str| {
        let kind = [("content-type", "application/json")];
        call(&server, "POST", path, &kind, body.to_owned()).await.0
    };
    assert_eq!(post("{").await, 400);
    assert_eq!(post("[]").await, 400);
    assert_eq!(post("").await, 400);
    assert_eq!(post(&"[".repeat(10_000)).await, 400);
    assert_eq!(post(r#"{"kind":"Secret","metadata":{"name":"a"}}"#).await, 400);
    assert_eq!(post(r#"{"metadata":{"name":"a","namespace":"other"}}"#).await, 400);
    assert_eq!(post(r#"{"metadata":{"name":"a"},"data":7}"#).await, 400);
    assert_eq!(post(r#"{"metadata":{"name":"UPPER"}}"#).await, 422);
    assert_eq!(post(&format!("{{\"x\":\"{}\"}}", "y".repeat(4 << 20))).await, 413);
    let (code, _, _) = call(&server, "POST", path, &[("content-type", "text/html")], "{}").await;
    assert_eq!(code, 415);
    let (_, list) = json(&server, "GET", path, None).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_warned_of_or_refused() {
    let server = with_namespace().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let body = r#"{"metadata":{"name":"a"},"novel":1,"data":{"k":"1","k":"2"}}"#;
    let post = async |query: &str| {
        call(&server, "POST", &format!("{path}{query}"), &[], body.to_owned()).await
    };
    let (code, _, answer) = post("?fieldValidation=Strict").await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(code == 400 && answer.contains("strict decoding error"), "{answer}");
    let (code, headers, answer) = post("").await;
    let warnings: Vec<_> = headers.get_all("warning").iter().collect();
    assert_eq!((code, warnings.len()), (201, 2), "{warnings:?}");
    assert!(!String::from_utf8_lossy(&answer).contains("novel"));
}
