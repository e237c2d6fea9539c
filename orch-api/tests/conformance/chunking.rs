//! Long lists in parts.
//!
//! Source: `test/e2e/apimachinery/chunking.go`.

use std::sync::Arc;

use orch_store::{MemoryStore, Store};
use serde_json::{Value, json};

use super::{
    objects::{Objects, items, name, refused, text, version},
    world::World,
};

const TOTAL: usize = 400;
const NAMESPACE: &str = "chunking";

async fn templates(world: &World) -> Objects {
    let templates = world.of("v1", "PodTemplate", NAMESPACE).await;
    for number in 0..TOTAL {
        let spec = json!({"containers": [{"name": "test", "image": "test2"}]});
        let name = format!("template-{number:04}");
        templates.create(json!({"metadata": {"name": name}, "template": {"spec": spec}})).await;
    }
    templates
}

/// Reads from a token to the end, in parts of changing size. Every part must continue the one
/// before, be of one version, and say how much is left.
async fn read_on(templates: &Objects, mut token: String, mut found: usize) -> Value {
    let mut of_version = None;
    let mut limit = 7;
    loop {
        let page = templates.try_list(&format!("limit={limit}&continue={token}")).await.unwrap();
        let own = items(&page);
        assert!(own.len() <= limit);
        let version = page["metadata"]["resourceVersion"].clone();
        assert_eq!(*of_version.get_or_insert_with(|| version.clone()), version);
        for item in &own {
            assert_eq!(name(item), format!("template-{found:04}"));
            found += 1;
        }
        token = text(&page, "/metadata/continue").to_owned();
        let remaining = &page["metadata"]["remainingItemCount"];
        if token.is_empty() {
            assert!(remaining.is_null(), "{remaining}");
            assert_eq!(found, TOTAL);
            return version;
        }
        assert_eq!(remaining.as_u64(), Some((TOTAL - found) as u64));
        limit = limit * 3 % 41 + 1;
    }
}

/// Pages of a list, of whatever sizes, are of the version that the first one is of and tell how
/// many items come after them; a limit above the number of items gives the whole.
pub(super) async fn should_return_chunks_of_results_for_list_calls() {
    let world = World::with_namespace(NAMESPACE).await;
    let templates = templates(&world).await;
    for _ in 0..3 {
        read_on(&templates, String::new(), 0).await;
    }
    let whole = templates.try_list(&format!("limit={}", TOTAL + 1)).await.unwrap();
    assert_eq!(items(&whole).len(), TOTAL);
}

/// A token of a version that was compacted is refused as expired, and the refusal has another
/// token, with which the list goes on from the same key in the newest version.
pub(super) async fn should_support_continue_listing_from_the_last_key() {
    let world = World::with_namespace(NAMESPACE).await;
    let templates = templates(&world).await;
    let limit = TOTAL / 10;
    let first = templates.try_list(&format!("limit={limit}")).await.unwrap();
    assert_eq!(items(&first).len(), limit);
    assert_eq!(first["metadata"]["remainingItemCount"], TOTAL - limit);
    // The version of the list must not be the newest one when it is compacted.
    let made = templates
        .patch("template-0399", super::objects::MERGE, json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    let store: Arc<MemoryStore> = world.store.clone();
    store.compact(version(&made)).await.unwrap();

    let token = text(&first, "/metadata/continue");
    let query = format!("limit={limit}&continue={token}");
    let status = templates.try_list(&query).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"), "{status:?}");
    let next = status.metadata.clone().and_then(|list| list.continue_).expect("another token");
    let second = templates.try_list(&format!("limit={limit}&continue={next}")).await.unwrap();
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(items(&second).len(), limit);
    assert_eq!(name(&items(&second)[0]), format!("template-{limit:04}"));
    assert_eq!(second["metadata"]["remainingItemCount"], TOTAL - 2 * limit);
    let token = text(&second, "/metadata/continue").to_owned();
    let of = read_on(&templates, token, 2 * limit).await;
    assert_eq!(of, second["metadata"]["resourceVersion"]);
    assert_eq!(refused(templates.try_list(&query).await).0, 410);
}
