//! Watchers that do not keep up.

use futures::{StreamExt as _, stream};

use crate::{
    store::{KeyRange, Store, Write},
    testing::{
        space::{Space, all, key},
        watcher::revisions,
    },
};

/// More than any buffer holds.
const CHANGES: usize = 20_000;

/// So many are written at once.
const CONCURRENT: usize = 64;

/// So many keys are written, in turn.
const KEYS: usize = 50;

/// A watcher that reads nothing while a great deal happens holds up nobody, loses nothing, and is
/// live again when it has read all of it.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn slow_watches(store: &dyn Store) {
    let space = Space::cleared(store).await;
    let one = KeyRange::key(key("slow/7"));
    let mut slow = space.watch(all(), None).await;
    let mut narrow = space.watch(one.clone(), None).await;
    let write = async |number: usize| {
        let key = key(format_args!("slow/{}", number % KEYS));
        space.committed(Write::put(key, number.to_string())).await.0
    };
    let written = stream::iter(0..CHANGES).map(write).buffer_unordered(CONCURRENT);
    let mut written: Vec<_> = written.collect().await;
    written.sort_unstable();
    assert!(written.is_sorted_by(|a, b| a < b), "a revision was given twice");

    let newest = written[CHANGES - 1];
    let mut resumed = space.watch(one.clone(), Some(written[0])).await;
    let (events, ended) = slow.until(newest).await;
    assert!(ended.is_none(), "nothing was compacted, but a slow watcher ended: {ended:?}");
    assert!(revisions(&events) == written, "a slow watcher did not get every change in order");
    let mut of_one: Vec<_> =
        events.iter().filter(|event| one.contains(&event.entry.key)).cloned().collect();
    for pair in of_one.windows(2) {
        assert_eq!(pair[1].previous.as_ref(), Some(&pair[0].entry), "what was before is told");
    }
    // Live again, all of them.
    let last = space.put("slow/7", "last").await;
    let latest = slow.events(1).await;
    assert_eq!(revisions(&latest), [last], "a watcher that has caught up is live again");
    of_one.extend(latest);
    let (narrow, ended) = narrow.until(last).await;
    assert!(ended.is_none(), "nothing was compacted, but a slow watcher ended: {ended:?}");
    assert!(narrow == of_one, "a slow watcher of one key did not get its changes in order");
    assert!(resumed.until(last).await.0 == of_one, "the past is not what a slow watcher saw");
}
