//! Events of the group `events.k8s.io`.
//!
//! Source: `test/e2e/instrumentation/events.go`.

use serde_json::{Value, json};

use super::{
    objects::{STRATEGIC, names},
    world::World,
};

const NAMESPACE: &str = "events";

fn event(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "regarding": {"namespace": NAMESPACE}, "eventTime": "2017-09-19T13:49:16.000000Z",
        "note": format!("This is {name}"), "action": "Do", "reason": "Test", "type": "Normal",
        "reportingController": "test-controller", "reportingInstance": "test-node",
    })
}

/// An event without what every write changes about it.
fn settled(mut event: Value) -> Value {
    let meta = event["metadata"].as_object_mut().unwrap();
    meta.remove("resourceVersion");
    meta.remove("managedFields");
    event
}

/// An event is found in its namespace and over all, by the reporter too, under the name that each
/// of the two groups has for it; a patch and an update change what they say and nothing else.
pub(super) async fn should_ensure_that_an_event_can_be_fetched_patched_deleted_and_listed() {
    let world = World::with_namespace(NAMESPACE).await;
    let events = world.of("events.k8s.io/v1", "Event", NAMESPACE).await;
    let everywhere = world.all("events.k8s.io/v1", "Event").await;
    let core = world.of("v1", "Event", NAMESPACE).await;
    let selector = "testevent-constant=true";
    events.create(event("event-test", "testevent-constant")).await;
    for objects in [&events, &everywhere] {
        assert_eq!(names(&objects.list(selector).await), ["event-test"]);
    }
    assert_eq!(names(&core.list_by_field("source=test-controller").await), ["event-test"]);
    let by_reporter = events.list_by_field("reportingController=test-controller").await;
    assert_eq!(names(&by_reporter), ["event-test"]);
    assert_eq!(events.list_by_field("reportingController=other").await.len(), 0);

    let mut expected = settled(events.get("event-test").await);
    let note = "This is a test event - patched";
    events.patch("event-test", STRATEGIC, json!({"note": note})).await;
    expected["note"] = json!(note);
    assert_eq!(settled(events.get("event-test").await), expected);

    expected["series"] = json!({"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    events.replace(expected.clone()).await;
    assert_eq!(settled(events.get("event-test").await), expected);

    events.delete("event-test").await;
    for objects in [&events, &everywhere] {
        assert_eq!(objects.list(selector).await.len(), 0);
    }
}

/// Events are found by their label and deleted by it.
pub(super) async fn should_delete_a_collection_of_events() {
    let world = World::with_namespace(NAMESPACE).await;
    let events = world.of("events.k8s.io/v1", "Event", NAMESPACE).await;
    for number in 1..=3 {
        events.create(event(&format!("test-event-{number}"), "testevent-set")).await;
    }
    assert_eq!(events.list("testevent-set=true").await.len(), 3);
    events.delete_all("testevent-set=true").await;
    assert_eq!(events.list("testevent-set=true").await.len(), 0);
}
