//! Watches of ConfigMaps.
//!
//! Source: `test/e2e/apimachinery/watch.go`.

use serde_json::{Value, json};

use super::{
    objects::{Objects, text},
    world::World,
};

const NAMESPACE: &str = "watch";

async fn maps(world: &World) -> Objects {
    world.of("v1", "ConfigMap", NAMESPACE).await
}

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch-this-configmap": label}}})
}

fn labelled(label: &str) -> String {
    format!("watch-this-configmap={label}")
}

/// Writes a number into a map, as an update.
async fn mutate(maps: &Objects, name: &str, number: u32) -> Value {
    let mut map = maps.get(name).await;
    map["data"]["mutation"] = json!(number.to_string());
    maps.replace(map).await
}

/// Changes a map's label, as an update.
async fn relabel(maps: &Objects, name: &str, label: &str) -> Value {
    let mut map = maps.get(name).await;
    map["metadata"]["labels"]["watch-this-configmap"] = json!(label);
    maps.replace(map).await
}

fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// Watchers by label see the creation, changes and deletion of what has the label, and nothing
/// of what has another one; one for either label sees all, in order.
pub(super) async fn should_observe_add_update_and_delete_watch_notifications_on_configmaps() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = maps(&world).await;
    let mut of_a = maps.watch(&labelled("A"), "").await;
    let mut of_b = maps.watch(&labelled("B"), "").await;
    let mut of_both = maps.watch("watch-this-configmap in (A,B)", "").await;

    let made = maps.create(map("a", "A")).await;
    let first = mutate(&maps, "a", 1).await;
    let second = mutate(&maps, "a", 2).await;
    maps.delete("a").await;
    let made_b = maps.create(map("b", "B")).await;
    maps.delete("b").await;
    let end_a = maps.create(map("end-a", "A")).await;

    for watch in [&mut of_a, &mut of_both] {
        watch.expect_object("ADDED", &made).await;
        watch.expect_object("MODIFIED", &first).await;
        watch.expect_object("MODIFIED", &second).await;
        watch.expect("DELETED", "a").await;
    }
    for watch in [&mut of_b, &mut of_both] {
        watch.expect_object("ADDED", &made_b).await;
        watch.expect("DELETED", "b").await;
    }
    of_a.expect_object("ADDED", &end_a).await;
    of_both.expect_object("ADDED", &end_a).await;
    let end_b = maps.create(map("end-b", "B")).await;
    of_b.expect_object("ADDED", &end_b).await;
}

/// A watch from an old version has everything that happened after it, and nothing before.
pub(super) async fn should_be_able_to_start_watching_from_a_specific_resource_version() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = maps(&world).await;
    maps.create(map("m", "X")).await;
    let first = mutate(&maps, "m", 1).await;
    let second = mutate(&maps, "m", 2).await;
    maps.delete("m").await;
    let mut watch = maps.watch(&labelled("X"), resource_version(&first)).await;
    watch.expect_object("MODIFIED", &second).await;
    watch.expect("DELETED", "m").await;
}

/// A second watch that begins with the version that a first one saw last has what came between.
pub(super) async fn should_be_able_to_restart_watching_from_the_last_resource_version_observed() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = maps(&world).await;
    let mut broken = maps.watch(&labelled("X"), "").await;
    let made = maps.create(map("m", "X")).await;
    mutate(&maps, "m", 1).await;
    broken.expect_object("ADDED", &made).await;
    let last = broken.expect("MODIFIED", "m").await;
    drop(broken);
    let second = mutate(&maps, "m", 2).await;
    let mut restarted = maps.watch(&labelled("X"), resource_version(&last)).await;
    maps.delete("m").await;
    restarted.expect_object("MODIFIED", &second).await;
    restarted.expect("DELETED", "m").await;
}

/// An object that loses the label is a deletion to who watches the label, and a creation when it
/// has it again; what happens to it in between is not seen.
pub(super) async fn should_observe_an_object_deletion_if_it_stops_meeting_the_requirements() {
    let world = World::with_namespace(NAMESPACE).await;
    let maps = maps(&world).await;
    let mut watch = maps.watch(&labelled("X"), "").await;
    let made = maps.create(map("m", "X")).await;
    let first = mutate(&maps, "m", 1).await;
    relabel(&maps, "m", "wrong-value").await;
    watch.expect_object("ADDED", &made).await;
    watch.expect_object("MODIFIED", &first).await;
    watch.expect("DELETED", "m").await;
    mutate(&maps, "m", 2).await;
    let restored = relabel(&maps, "m", "X").await;
    let third = mutate(&maps, "m", 3).await;
    maps.delete("m").await;
    watch.expect_object("ADDED", &restored).await;
    watch.expect_object("MODIFIED", &third).await;
    watch.expect("DELETED", "m").await;
}

/// Watches that begin at each event of a first one, while somebody goes on writing, all see the
/// same versions in the same order.
pub(super) async fn should_receive_events_on_concurrent_watches_in_same_order() {
    const ROUNDS: usize = 100;
    let world = World::with_namespace(NAMESPACE).await;
    let maps = maps(&world).await;
    let from = maps.list_all("").await;
    let writer = maps.clone();
    let writes = tokio::spawn(async move {
        // What exists is changed, deleted and made again, so that every type of event comes.
        for number in 0..2 * ROUNDS {
            let name = format!("cm-{}", number % 7);
            match number / 7 % 3 {
                0 => drop(writer.create(json!({"metadata": {"name": name}})).await),
                1 => drop(mutate(&writer, &name, 1).await),
                _ => drop(writer.delete(&name).await),
            }
        }
    });
    let mut watches = vec![maps.watch("", resource_version(&from)).await];
    for _ in 0..ROUNDS {
        let (first, others) = watches.split_first_mut().unwrap();
        let (kind, object) = first.next().await;
        for other in others {
            let (their_kind, their_object) = other.next().await;
            assert_eq!(resource_version(&object), resource_version(&their_object));
            assert_eq!(kind, their_kind);
        }
        watches.push(maps.watch("", resource_version(&object)).await);
    }
    writes.await.unwrap();
}
