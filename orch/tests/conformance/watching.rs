//! Watches, as upstream's tests wait on them.
//!
//! Source: `k8s.io/client-go/tools/watch/until.go`.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
};

use crate::world::Kind;

/// What has become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One watch. Bookmarks are passed over; an error ends the test.
pub(crate) struct Watching<K> {
    events: Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>,
}

impl<K: Kind> Watching<K> {
    /// Everything since a version of the collection.
    pub(crate) async fn since(api: &Api<K>, params: WatchParams, version: &str) -> Self {
        let events = api.watch(&params, version).await.expect("a watch");
        Self { events: Box::pin(events) }
    }

    /// The objects with these labels.
    pub(crate) async fn labelled(api: &Api<K>, selector: &str, version: &str) -> Self {
        Self::since(api, WatchParams::default().labels(selector), version).await
    }

    /// The next change.
    pub(crate) async fn next(&mut self) -> (Change, K) {
        loop {
            match self.events.next().await.expect("the watch goes on").expect("an event") {
                WatchEvent::Added(object) => return (Change::Added, object),
                WatchEvent::Modified(object) => return (Change::Modified, object),
                WatchEvent::Deleted(object) => return (Change::Deleted, object),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => panic!("the watch failed: {status:?}"),
            }
        }
    }

    /// Passes over changes until `check` accepts one.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        at_most: Duration,
        mut check: impl FnMut(Change, &K) -> bool,
    ) -> K {
        let waiting = async {
            loop {
                let (change, object) = self.next().await;
                if check(change, &object) {
                    return object;
                }
            }
        };
        let found = tokio::time::timeout(at_most, waiting).await;
        found.unwrap_or_else(|_| panic!("not seen within {at_most:?}: {what}"))
    }
}

/// The version of a collection, to watch from.
pub(crate) async fn version<K: Kind>(api: &Api<K>) -> String {
    let list = api.list(&ListParams::default()).await.expect("a list");
    list.metadata.resource_version.expect("a list has a version")
}
