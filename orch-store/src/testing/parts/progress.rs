//! Progress of watches.

use crate::{
    store::{KeyRange, Revision, Store, WatchItem},
    testing::{
        space::{Space, all, key},
        watcher::Watcher,
    },
};

/// Progress that was asked for comes, with a revision as new as the store's, and never before the
/// changes up to it.
///
/// # Panics
/// If the store does not keep the contract.
pub async fn progress(store: &dyn Store) {
    let space = Space::cleared(store).await;
    let mut quiet = space.watch(KeyRange::prefix(key("quiet/")), None).await;
    let mut busy = space.watch(all(), None).await;
    let newest = space.put("noise", "x").await;
    busy.events(1).await;
    await_progress(space, &mut quiet, newest).await;
    await_progress(space, &mut busy, newest).await;
    // Progress is not an end: changes come behind it.
    let newest = space.put("quiet/1", "x").await;
    assert_eq!(quiet.batch().await[0].entry.mod_revision, newest);
    await_progress(space, &mut quiet, newest).await;
    order(space).await;
}

/// Asks until the answer is as new as `newest`.
async fn await_progress(space: Space<'_>, watcher: &mut Watcher, newest: Revision) {
    loop {
        space.store.request_progress().await.expect("progress can be asked for");
        match watcher.next().await {
            Some(Ok(WatchItem::Progress(revision))) if revision >= newest => return,
            Some(Ok(WatchItem::Progress(_))) => {}
            other => panic!("instead of progress a watch that has read everything gave {other:?}"),
        }
    }
}

/// Progress never runs ahead of changes, also where it is asked for while some wait to be read:
/// what comes behind it is newer.
async fn order(space: Space<'_>) {
    let mut watcher = space.watch(all(), None).await;
    let mut newest = 0;
    for number in 0..200 {
        newest = space.put("busy", &number.to_string()).await;
        space.store.request_progress().await.expect("progress can be asked for");
    }
    let (mut seen, mut told) = (0, 0);
    while seen < newest {
        match watcher.next().await {
            Some(Ok(WatchItem::Progress(revision))) => told = revision.max(told),
            Some(Ok(WatchItem::Events(batch))) => {
                let first = batch[0].entry.mod_revision;
                assert!(first > told, "revision {first} came after progress to {told}");
                seen = batch[batch.len() - 1].entry.mod_revision;
            }
            other => panic!("a watch ended: {other:?}"),
        }
    }
}
