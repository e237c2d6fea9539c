//! The way through every verb that upstream's `API operations` tests share.

use serde_json::{Value, json};

use super::objects::{MERGE, Objects, annotate, name, names, quoted, refused};

/// The label that the objects of one test have.
pub(super) const LABEL: &str = "special-label=e2e";

/// Creates three of a kind, one of them twice, reads, lists, watches, patches, replaces and
/// deletes them, one alone and the others as a collection. `everywhere` are the same objects
/// over all namespaces. `more` works on the first one between updates and deletions.
pub(super) async fn every_verb(
    objects: &Objects,
    everywhere: Option<&Objects>,
    make: impl Fn(usize) -> Value,
    more: impl AsyncFnOnce(&Objects, Value),
) {
    let make = |number: usize| {
        let mut object = make(number);
        object["metadata"]["labels"]["special-label"] = json!("e2e");
        object
    };
    let first = objects.create(make(1)).await;
    if make(1)["metadata"]["name"].is_string() {
        assert_eq!(refused(objects.try_create(make(1)).await), (409, "AlreadyExists".into()));
    }
    objects.create(make(2)).await;
    assert_eq!(objects.get(name(&first)).await["metadata"]["uid"], first["metadata"]["uid"]);

    let from = objects.list_all(LABEL).await;
    let from = from["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watches = vec![objects.watch(LABEL, from).await];
    if let Some(everywhere) = everywhere {
        watches.push(everywhere.watch(LABEL, from).await);
    }
    let third = objects.create(make(3)).await;
    assert_eq!(objects.list(LABEL).await.len(), 3);
    if let Some(everywhere) = everywhere {
        assert_eq!(everywhere.list(LABEL).await.len(), 3);
    }

    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = objects.patch(name(&first), MERGE, patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    let mut changed = patched.clone();
    annotate(&mut changed, "updated", "true");
    let updated = objects.replace(changed).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    for watch in &mut watches {
        watch.expect_object("ADDED", &third).await;
        watch.expect_object("MODIFIED", &patched).await;
        watch.expect_object("MODIFIED", &updated).await;
    }
    drop(watches);

    more(objects, updated).await;

    objects.delete(name(&first)).await;
    objects.gone(name(&first)).await;
    let left = objects.list(LABEL).await;
    assert!(left.len() == 2 && !names(&left).contains(&name(&first)), "{left:?}");
    objects.delete_by(&format!("labelSelector={}", quoted(LABEL))).await;
    assert_eq!(objects.list(LABEL).await, [] as [Value; 0]);
}

/// Nothing besides.
pub(super) async fn nothing_more(_objects: &Objects, _first: Value) {}
