//! Custom resources selected by their own fields.
//!
//! Source: `test/e2e/apimachinery/crd_selectable_fields.go`.
//! Differs: upstream's two versions are converted by a webhook; here they share their fields, so
//! that both versions select without one.

use serde_json::{Value, json};

use super::{
    definitions::definition,
    objects::{Objects, name, names, quoted},
    world::World,
};

const GROUP: &str = "stable.example.com";

async fn watch(objects: &Objects, selector: &str, from: &str) -> super::objects::Watch {
    let query = format!("fieldSelector={}&resourceVersion={from}", quoted(selector));
    objects.watch_by(&query).await
}

/// What an informer does: a list, and a watch from its version on.
async fn inform(objects: &Objects, selector: &str) -> super::objects::Watch {
    let list = objects.try_list(&format!("fieldSelector={}", quoted(selector))).await.unwrap();
    watch(objects, selector, list["metadata"]["resourceVersion"].as_str().unwrap()).await
}

/// Lists, watches and informers with a selector have what it matches, each version by its own
/// fields; an object that does not match any more is deleted to them.
pub(super) async fn must_list_and_watch_custom_resources_matching_the_field_selector() {
    let world = World::with_namespace("selectable").await;
    let word = json!({"type": "string"});
    let schema = json!({"type": "object",
        "properties": {"host": word, "port": word, "hostPort": word}});
    let mut definition = definition(GROUP, "Endpoint", "Namespaced", &["v1", "v2"], &schema);
    let versions = &mut definition["spec"]["versions"];
    versions[0]["selectableFields"] = json!([{"jsonPath": ".hostPort"}]);
    versions[1]["selectableFields"] = json!([{"jsonPath": ".host"}, {"jsonPath": ".port"}]);
    world.define(definition).await;
    let v1 = world.of(&format!("{GROUP}/v1"), "Endpoint", "selectable").await;
    let v2 = world.of(&format!("{GROUP}/v2"), "Endpoint", "selectable").await;

    let mut by_host = [watch(&v2, "host=host1", "").await, inform(&v2, "host=host1").await];
    let mut by_both =
        [watch(&v2, "host=host1,port=80", "").await, inform(&v2, "host=host1,port=80").await];
    let mut by_v1 = watch(&v1, "hostPort=host1:80", "").await;
    let mut made: Vec<Value> = Vec::new();
    for (host, port) in [("host1", "80"), ("host1", "8080"), ("host2", "")] {
        let host_port = format!("{host}:{port}");
        made.push(
            v2.create(json!({"metadata": {"generateName": "selectable-field-cr"},
                "host": host, "port": port, "hostPort": host_port}))
                .await,
        );
    }
    let mut first_two = [name(&made[0]), name(&made[1])];
    first_two.sort_unstable();
    assert_eq!(names(&v2.list_by_field("host=host1").await), first_two);
    assert_eq!(names(&v2.list_by_field("host=host1,port=80").await), [name(&made[0])]);
    assert_eq!(names(&v1.list_by_field("hostPort=host1:80").await), [name(&made[0])]);
    assert_eq!(names(&v1.list_by_field("hostPort=host1:8080").await), [name(&made[1])]);

    v2.delete_by(&format!("fieldSelector={}", quoted("host=host1,port=80"))).await;
    let mut changed = v2.get(name(&made[1])).await;
    changed["host"] = json!("host2");
    v2.replace(changed).await;
    assert_eq!(v2.list_by_field("host=host1").await.len(), 0);
    assert_eq!(v2.list_by_field("host=host1,port=80").await.len(), 0);
    for watch in &mut by_host {
        watch.expect("ADDED", name(&made[0])).await;
        watch.expect("ADDED", name(&made[1])).await;
        watch.expect("DELETED", name(&made[0])).await;
        watch.expect("DELETED", name(&made[1])).await;
    }
    for watch in by_both.iter_mut().chain([&mut by_v1]) {
        watch.expect("ADDED", name(&made[0])).await;
        watch.expect("DELETED", name(&made[0])).await;
    }
}
