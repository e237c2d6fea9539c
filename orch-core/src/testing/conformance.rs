//! What every [`Client`] must do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Namespace},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

use crate::{
    client::{
        Client, DeleteOptions, ListOptions, PatchKind, Read, ReadReply, Resources, WatchEvent,
        WatchOptions, WatchStream, Write, WriteOptions,
    },
    resource::{ResourceType, Target},
    status::Reason,
};

const NAMESPACE: &str = "client-conformance";
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the suite against a client of an otherwise idle cluster. It works in the namespace
/// `client-conformance`, which it creates and leaves behind, emptied of what it made.
///
/// # Panics
/// At the first deviation from the contract, saying which.
pub async fn client_conformance(client: Arc<dyn Client>) {
    let namespaces: Resources<Namespace> = Resources::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.into()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    match namespaces.create(&namespace).await {
        Ok(_) => {}
        Err(error) => assert!(error.is_already_exists(), "creating a namespace: {error}"),
    }
    cleanup(&client).await;
    create_get_update_delete(&client).await;
    optimistic_concurrency(&client).await;
    patches(&client).await;
    lists(&client).await;
    watches(&client).await;
    watch_lists(&client).await;
    status_scale_and_generation(&client).await;
    finalizers(&client).await;
    errors(&client).await;
    cleanup(&client).await;
}

fn maps(client: &Arc<dyn Client>) -> Resources<ConfigMap> {
    Resources::namespaced(client.clone(), NAMESPACE)
}

fn map(name: &str, labels: &[(&str, &str)]) -> ConfigMap {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])),
        ..ConfigMap::default()
    }
}

async fn cleanup(client: &Arc<dyn Client>) {
    for resource in [ResourceType::of::<ConfigMap>(), ResourceType::of::<Deployment>()] {
        let target = Target::collection(resource, Some(NAMESPACE));
        let selection = ListOptions {
            label_selector: Some("suite=conformance".into()),
            ..ListOptions::default()
        };
        let write = Write::DeleteCollection(target, DeleteOptions::default(), selection);
        client.write(write).await.expect("deletecollection");
    }
}

async fn create_get_update_delete(client: &Arc<dyn Client>) {
    let maps = maps(client);
    let created = maps.create(&map("one", &[("suite", "conformance")])).await.expect("create");
    assert!(created.metadata.uid.is_some(), "a created object has a uid");
    assert!(created.metadata.creation_timestamp.is_some(), "and a creation timestamp");
    assert!(created.metadata.resource_version.is_some(), "and a resource version");
    let again = maps.create(&map("one", &[])).await.expect_err("the name is taken");
    assert!(again.is_already_exists(), "creating twice: {again}");
    let got = maps.get("one").await.expect("get");
    assert_eq!(got.metadata.resource_version, created.metadata.resource_version);

    let mut changed = (*got).clone();
    changed.data = Some(BTreeMap::from([("key".to_owned(), "other".to_owned())]));
    let updated = maps.update(&changed).await.expect("update");
    assert_ne!(updated.metadata.resource_version, created.metadata.resource_version);
    assert_eq!(updated.metadata.uid, created.metadata.uid, "the uid is kept");
    let same = maps.update(&updated).await.expect("update without a change");
    assert_eq!(
        same.metadata.resource_version, updated.metadata.resource_version,
        "an update that changes nothing makes no revision"
    );

    maps.delete("one", DeleteOptions::default()).await.expect("delete");
    assert!(maps.get_opt("one").await.expect("get").is_none(), "deleted objects are gone");
    let gone = maps.delete("one", DeleteOptions::default()).await.expect_err("deleted before");
    assert!(gone.is_not_found(), "deleting twice: {gone}");

    let mut generated = map("", &[("suite", "conformance")]);
    generated.metadata.name = None;
    generated.metadata.generate_name = Some("gen-".into());
    let generated = maps.create(&generated).await.expect("create by generateName");
    let name = generated.metadata.name.as_deref().unwrap_or_default();
    assert!(name.starts_with("gen-") && name.len() == 9, "generated name {name:?}");
}

async fn optimistic_concurrency(client: &Arc<dyn Client>) {
    let maps = maps(client);
    let first = maps.create(&map("race", &[("suite", "conformance")])).await.expect("create");
    let mut winner = (*first).clone();
    winner.data = Some(BTreeMap::from([("by".to_owned(), "winner".to_owned())]));
    maps.update(&winner).await.expect("the first update wins");
    let mut loser = (*first).clone();
    loser.data = Some(BTreeMap::from([("by".to_owned(), "loser".to_owned())]));
    let lost = maps.update(&loser).await.expect_err("the resource version is stale");
    assert!(lost.is_conflict(), "a stale update: {lost}");
    let unguarded = ConfigMap {
        metadata: ObjectMeta { resource_version: None, ..loser.metadata.clone() },
        ..loser
    };
    maps.update(&unguarded).await.expect("an update without a resource version is unguarded");
    let wrong = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
    let wrong = maps.delete("race", wrong).await.expect_err("another object's uid");
    assert!(wrong.is_conflict(), "delete with a wrong uid: {wrong}");
}

async fn patches(client: &Arc<dyn Client>) {
    let maps = maps(client);
    maps.create(&map("patched", &[("suite", "conformance")])).await.expect("create");
    for (kind, patch, key) in [
        (PatchKind::Merge, json!({"data": {"merge": "1"}}), "merge"),
        (PatchKind::Strategic, json!({"data": {"strategic": "1"}}), "strategic"),
        (PatchKind::Json, json!([{"op": "add", "path": "/data/json", "value": "1"}]), "json"),
    ] {
        let patched = maps.patch("patched", kind, patch).await;
        let patched = patched.unwrap_or_else(|error| panic!("{kind:?} patch: {error}"));
        let data = patched.data.clone().unwrap_or_default();
        assert!(data.contains_key(key) && data.contains_key("key"), "{kind:?} patch: {data:?}");
    }
    let removed = maps.patch("patched", PatchKind::Merge, json!({"data": {"key": null}})).await;
    let data = removed.expect("merge patch").data.clone().unwrap_or_default();
    assert!(!data.contains_key("key"), "null removes: {data:?}");
    let missing = maps.patch("missing", PatchKind::Merge, json!({})).await;
    assert!(missing.expect_err("no such object").is_not_found());
}

async fn lists(client: &Arc<dyn Client>) {
    let maps = maps(client);
    for (name, tier) in [("list-a", "x"), ("list-b", "y"), ("list-c", "x")] {
        let map = map(name, &[("suite", "conformance"), ("tier", tier)]);
        maps.create(&map).await.expect("create");
    }
    let names = |list: Vec<Arc<ConfigMap>>| -> Vec<String> {
        list.iter().filter_map(|map| map.metadata.name.clone()).collect()
    };
    let by_label =
        ListOptions { label_selector: Some("tier in (x)".into()), ..ListOptions::default() };
    assert_eq!(names(maps.list(by_label).await.expect("list")), ["list-a", "list-c"]);
    let by_field = ListOptions {
        field_selector: Some("metadata.name=list-b".into()),
        ..ListOptions::default()
    };
    assert_eq!(names(maps.list(by_field).await.expect("list")), ["list-b"]);

    let paged = |token| ListOptions {
        label_selector: Some("tier".into()),
        limit: Some(2),
        continue_token: token,
        ..ListOptions::default()
    };
    let first = maps.list_objects(paged(None)).await.expect("first page");
    assert_eq!((first.items.len(), first.continue_token.is_some()), (2, true), "a page of two");
    maps.create(&map("list-d", &[("suite", "conformance"), ("tier", "z")])).await.expect("create");
    let second = maps.list_objects(paged(first.continue_token)).await.expect("second page");
    assert_eq!(second.items.len(), 1, "pages are of one revision");
    assert!(second.continue_token.is_none(), "the last page has no token");
    assert_eq!(first.resource_version, second.resource_version);
}

async fn next(stream: &mut WatchStream) -> WatchEvent {
    let item = tokio::time::timeout(PATIENCE, stream.next()).await;
    let item = item.expect("an event arrives").expect("the stream goes on");
    item.expect("the watch works")
}

/// What kind of event, and about which object.
fn describe(event: &WatchEvent) -> (&'static str, String) {
    match event {
        WatchEvent::Added(object) => ("ADDED", object.key().name),
        WatchEvent::Modified(object) => ("MODIFIED", object.key().name),
        WatchEvent::Deleted(object) => ("DELETED", object.key().name),
        WatchEvent::Bookmark { .. } => ("BOOKMARK", String::new()),
    }
}

async fn watches(client: &Arc<dyn Client>) {
    let maps = maps(client);
    let start = maps.list_objects(ListOptions::default()).await.expect("list").resource_version;
    maps.create(&map("seen", &[("suite", "conformance"), ("see", "yes")])).await.expect("create");
    let from_start = |selector: Option<&str>| WatchOptions {
        resource_version: Some(start.clone()),
        label_selector: selector.map(Into::into),
        ..WatchOptions::default()
    };
    let mut all = maps.watch(from_start(None)).await.expect("watch");
    let mut some = maps.watch(from_start(Some("see=yes"))).await.expect("watch");
    let relabel = |to: &str| json!({"metadata": {"labels": {"see": to}}});
    maps.patch("seen", PatchKind::Merge, relabel("no")).await.expect("patch");
    maps.patch("seen", PatchKind::Merge, relabel("yes")).await.expect("patch");
    let last = maps.delete("seen", DeleteOptions::default()).await.expect("delete");
    drop(last);
    let mut versions: Vec<u64> = Vec::new();
    for expected in ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] {
        let event = next(&mut all).await;
        assert_eq!(describe(&event), (expected, "seen".to_owned()), "events in commit order");
        if let WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) = &event {
            versions.push(o.resource_version().parse().expect("a numeric resource version"));
        }
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "resource versions grow: {versions:?}");
    for expected in ["ADDED", "DELETED", "ADDED", "DELETED"] {
        let event = next(&mut some).await;
        let seen = (expected, "seen".to_owned());
        assert_eq!(describe(&event), seen, "leaving the selection is a deletion");
    }
    let resumed =
        WatchOptions { resource_version: Some(versions[1].to_string()), ..WatchOptions::default() };
    let mut resumed = maps.watch(resumed).await.expect("watch from the middle");
    assert_eq!(describe(&next(&mut resumed).await).0, "MODIFIED", "resumed without a repetition");
    assert_eq!(describe(&next(&mut resumed).await).0, "DELETED");
}

async fn watch_lists(client: &Arc<dyn Client>) {
    let maps = maps(client);
    maps.create(&map("present", &[("suite", "conformance"), ("list", "1")])).await.expect("create");
    let options = WatchOptions {
        label_selector: Some("list=1".into()),
        send_initial_events: true,
        bookmarks: true,
        ..WatchOptions::default()
    };
    let mut stream = maps.watch(options).await.expect("watch");
    assert_eq!(describe(&next(&mut stream).await), ("ADDED", "present".to_owned()));
    let end = next(&mut stream).await;
    assert!(
        matches!(end, WatchEvent::Bookmark { initial_events_end: true, .. }),
        "initial events end with a bookmark, not {end:?}"
    );
    let options = WatchOptions { timeout_s: Some(1), ..WatchOptions::default() };
    let stream = maps.watch(options).await.expect("watch");
    let rest = tokio::time::timeout(PATIENCE, stream.collect::<Vec<_>>()).await;
    let rest = rest.expect("a watch with a timeout ends");
    assert!(rest.iter().all(Result::is_ok), "and ends without an error");
}

fn deployment() -> Value {
    let labels = json!({"app": "conformance"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "scaled", "namespace": NAMESPACE, "labels": {"suite": "conformance"}},
        "spec": {
            "replicas": 0, "paused": true, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [{"name": "c", "image": "registry.example/none"}],
            }},
        },
    })
}

async fn status_scale_and_generation(client: &Arc<dyn Client>) {
    let resource = ResourceType::of::<Deployment>();
    let deployments: Resources<Deployment> = Resources::namespaced(client.clone(), NAMESPACE);
    let target = Target::collection(resource.clone(), Some(NAMESPACE));
    let create = Write::Create(target, deployment(), WriteOptions::default());
    client.write(create).await.expect("create");
    let object = Target::object(resource, Some(NAMESPACE), "scaled");

    let status = json!({"status": {"collisionCount": 7}, "spec": {"replicas": 9}});
    let patched = deployments.patch_status("scaled", PatchKind::Merge, status).await;
    let patched = patched.expect("patch of status");
    let replicas = patched.spec.as_ref().and_then(|spec| spec.replicas);
    assert_eq!(replicas, Some(0), "a status write leaves the spec");
    let collisions = |d: &Deployment| d.status.as_ref().and_then(|s| s.collision_count);
    assert_eq!(collisions(&patched), Some(7), "and writes the status");
    let generation = patched.metadata.generation;

    let both = json!({"status": {"collisionCount": 8}, "spec": {"minReadySeconds": 3}});
    let patched = deployments.patch("scaled", PatchKind::Merge, both).await.expect("patch");
    assert_eq!(collisions(&patched), Some(7), "a write of the object leaves the status");
    assert!(patched.metadata.generation > generation, "a change of the spec counts");

    let scale = Write::Patch(
        object.clone().subresource("scale"),
        PatchKind::Merge,
        json!({"spec": {"replicas": 3}}),
        WriteOptions::default(),
    );
    let scale = client.write(scale).await.expect("patch of scale");
    assert_eq!(scale.kind(), "Scale");
    let ReadReply::Object(read) =
        client.read(Read::Get(object.subresource("scale"))).await.expect("get of scale")
    else {
        panic!("a get gives an object");
    };
    assert_eq!(read.to_value().pointer("/spec/replicas"), Some(&json!(3)));
    deployments.delete("scaled", DeleteOptions::default()).await.expect("delete");
}

async fn finalizers(client: &Arc<dyn Client>) {
    let maps = maps(client);
    let mut held = map("held", &[("suite", "conformance")]);
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&held).await.expect("create");
    maps.delete("held", DeleteOptions::default()).await.expect("delete");
    let waiting = maps.get("held").await.expect("a finalizer holds the object");
    assert!(waiting.metadata.deletion_timestamp.is_some(), "which is marked");
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("held", PatchKind::Merge, release).await.expect("release");
    assert!(maps.get_opt("held").await.expect("get").is_none(), "released, it goes");
}

async fn errors(client: &Arc<dyn Client>) {
    let maps = maps(client);
    let check = async |options: ListOptions, reason: Reason, what: &str| {
        let error = maps.list(options).await.expect_err(what);
        assert_eq!(error.reason(), reason, "{what}: {error}");
    };
    let labels = ListOptions { label_selector: Some("a b c".into()), ..ListOptions::default() };
    check(labels, Reason::BadRequest, "a malformed label selector").await;
    let fields =
        ListOptions { field_selector: Some("data.key=1".into()), ..ListOptions::default() };
    check(fields, Reason::BadRequest, "an unsupported field").await;
    let nameless = ConfigMap {
        metadata: ObjectMeta { namespace: Some(NAMESPACE.into()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    };
    let error = maps.create(&nameless).await.expect_err("an object without a name");
    assert_eq!(error.reason(), Reason::Invalid, "{error}");
    let missing = maps.get("missing").await.expect_err("no such object");
    assert_eq!(missing.to_string(), "configmaps \"missing\" not found");
}
