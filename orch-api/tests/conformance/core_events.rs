//! Events of the core group.
//!
//! Source: `test/e2e/instrumentation/core_events.go`.

use serde_json::{Value, json};

use super::{
    objects::{STRATEGIC, names},
    world::World,
};

const NAMESPACE: &str = "events";

fn event(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "message": format!("This is {name}"), "reason": "Test", "type": "Normal", "count": 1,
        "involvedObject": {"namespace": NAMESPACE},
    })
}

/// An event is found over all namespaces, its message patched, a series put into it by an update,
/// and it is gone after its deletion.
pub(super) async fn should_manage_the_lifecycle_of_an_event() {
    let world = World::with_namespace(NAMESPACE).await;
    let events = world.of("v1", "Event", NAMESPACE).await;
    let everywhere = world.all("v1", "Event").await;
    let made = events.create(event("event-test", "testevent-constant")).await;
    let found = everywhere.list("testevent-constant=true").await;
    assert_eq!(names(&found), ["event-test"]);
    assert_eq!(found[0]["metadata"]["namespace"], NAMESPACE);

    let message = "This is a test event - patched";
    events.patch("event-test", STRATEGIC, json!({"message": message})).await;
    let read = events.get("event-test").await;
    assert_eq!(read["message"], message);

    let mut changed = read;
    let series = json!({"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    changed["series"] = series.clone();
    events.replace(changed).await;
    let read = events.get("event-test").await;
    assert_eq!((&read["series"], &read["message"]), (&series, &json!(message)));
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);

    events.delete("event-test").await;
    assert_eq!(everywhere.list("testevent-constant=true").await.len(), 0);
}

/// Events are found by their label and deleted by it.
pub(super) async fn should_delete_a_collection_of_events() {
    let world = World::with_namespace(NAMESPACE).await;
    let events = world.of("v1", "Event", NAMESPACE).await;
    for number in 1..=3 {
        events.create(event(&format!("test-event-{number}"), "testevent-set")).await;
    }
    assert_eq!(events.list("testevent-set=true").await.len(), 3);
    events.delete_all("testevent-set=true").await;
    assert_eq!(events.list("testevent-set=true").await.len(), 0);
}
