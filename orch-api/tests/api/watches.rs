//! Watches.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use orch_core::{
    Client, ResourceType, Resources, Target,
    client::{PatchKind, WatchEvent, WatchOptions, WatchStream},
};
use serde_json::json;

use super::support::{client, with_namespace};

fn config(name: &str, tier: &str) -> ConfigMap {
    let value = json!({"metadata": {"name": name, "labels": {"tier": tier}}});
    serde_json::from_value(value).unwrap()
}

fn target() -> Target {
    Target::collection(ResourceType::of::<ConfigMap>(), Some("default"))
}

async fn next(events: &mut WatchStream) -> String {
    match events.next().await.unwrap().unwrap() {
        WatchEvent::Added(o) => format!("added {}", o.key().name),
        WatchEvent::Modified(o) => format!("modified {}", o.key().name),
        WatchEvent::Deleted(o) => format!("deleted {}", o.key().name),
        WatchEvent::Bookmark { initial_events_end: true, .. } => "synced".into(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_tells_what_exists_and_then_what_changes() {
    let server = with_namespace().await;
    let client = client(&server);
    let maps: Resources<ConfigMap> = Resources::namespaced(client.clone(), "default");
    maps.create(&config("a", "x")).await.unwrap();
    let options =
        WatchOptions { bookmarks: true, send_initial_events: true, ..WatchOptions::default() };
    let mut events = client.watch(target(), options).await.unwrap();
    assert_eq!(next(&mut events).await, "added a");
    assert_eq!(next(&mut events).await, "synced");
    maps.create(&config("b", "x")).await.unwrap();
    maps.update(&config("b", "y")).await.unwrap();
    maps.delete("a", Default::default()).await.unwrap();
    for expected in ["added b", "modified b", "deleted a"] {
        assert_eq!(next(&mut events).await, expected);
    }
}

#[tokio::test]
async fn entering_and_leaving_a_selection_are_additions_and_deletions() {
    let server = with_namespace().await;
    let client = client(&server);
    let maps: Resources<ConfigMap> = Resources::namespaced(client.clone(), "default");
    let options = WatchOptions { label_selector: Some("tier=x".into()), ..WatchOptions::default() };
    let mut events = client.watch(target(), options).await.unwrap();
    maps.create(&config("a", "y")).await.unwrap();
    for tier in ["x", "x2", "x"] {
        let patch = json!({"metadata": {"labels": {"tier": tier}}});
        maps.patch("a", PatchKind::Merge, patch).await.unwrap();
    }
    for expected in ["added a", "deleted a", "added a"] {
        assert_eq!(next(&mut events).await, expected);
    }
}

#[tokio::test]
async fn a_watch_resumes_from_before_the_cache_was_loaded() {
    let server = with_namespace().await;
    let client = client(&server);
    let maps: Resources<ConfigMap> = Resources::namespaced(client.clone(), "default");
    let first = maps.create(&config("a", "x")).await.unwrap();
    maps.create(&config("b", "x")).await.unwrap();
    let options = WatchOptions {
        resource_version: first.metadata.resource_version.clone(),
        ..WatchOptions::default()
    };
    let mut events = client.watch(target(), options).await.unwrap();
    assert_eq!(next(&mut events).await, "added b");
    maps.delete("b", Default::default()).await.unwrap();
    assert_eq!(next(&mut events).await, "deleted b");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_gets_bookmarks_and_ends_in_time() {
    let server = with_namespace().await;
    let client = client(&server);
    let options = WatchOptions { bookmarks: true, timeout_s: Some(90), ..WatchOptions::default() };
    let mut events = client.watch(target(), options).await.unwrap();
    assert!(matches!(events.next().await.unwrap().unwrap(), WatchEvent::Bookmark { .. }));
    assert!(events.next().await.is_none());
}
