//! Waiting in a test: for what, for how long, and what was seen instead.

use std::{collections::BTreeMap, fmt, time::Duration};

use futures::{StreamExt, TryStreamExt, pin_mut};
use serde::de::DeserializeOwned;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchParams},
    core::WatchEvent,
};

use super::TestCluster;

/// How long an expectation waits unless told otherwise, on the cluster's clock.
const PATIENCE: Duration = Duration::from_secs(600);
/// How many lines of the timeline a failed expectation shows.
const TOLD_LINES: usize = 40;
/// Servers end a watch after some minutes; ours is told to, so that it is begun anew in time.
const WATCH_SECONDS: u32 = 290;

/// An expectation of one object. Nothing happens until it is told what to expect.
#[must_use = "it waits only when it is told for what, and awaited"]
pub struct Expectation<'c, K> {
    all: ExpectationOfAll<'c, K>,
    name: String,
}

/// An expectation of all objects of a kind. Nothing happens until it is told what to expect.
#[must_use = "it waits only when it is told for what, and awaited"]
pub struct ExpectationOfAll<'c, K> {
    cluster: &'c TestCluster,
    api: Api<K>,
    within: Duration,
    name: Option<String>,
}

impl<K> fmt::Debug for Expectation<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expectation({} within {:?})", self.name, self.all.within)
    }
}

impl<K> fmt::Debug for ExpectationOfAll<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpectationOfAll(within {:?})", self.within)
    }
}

impl<'c, K> Expectation<'c, K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
{
    pub(super) fn new(cluster: &'c TestCluster, api: Api<K>, name: String) -> Self {
        let mut all = ExpectationOfAll::new(cluster, api);
        all.name = Some(name.clone());
        Self { all, name }
    }

    /// How long to wait, on the cluster's clock. Default: ten minutes.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.all.within = deadline;
        self
    }

    /// Waits until the object is as `check` wants it, and gives it. `what` completes the sentence
    /// 'expected the object to ...'. The check sees `None` while there is no such object.
    ///
    /// # Panics
    /// If that does not happen in time. The message says what the object was last, and what
    /// happened in the cluster.
    pub async fn to(self, what: &str, mut check: impl FnMut(Option<&K>) -> bool) -> K {
        let found = self.wait(what, |object| check(object) && object.is_some()).await;
        found.expect("the check wants an object")
    }

    /// Waits until there is no such object.
    ///
    /// # Panics
    /// As [`to`](Self::to).
    pub async fn to_be_gone(self) {
        self.wait("be gone", |object| object.is_none()).await;
    }

    async fn wait(self, what: &str, mut check: impl FnMut(Option<&K>) -> bool) -> Option<K> {
        let Self { all, name } = self;
        let mut found = all.wait(&name, what, |objects| check(objects.first())).await;
        found.pop()
    }
}

impl<'c, K> ExpectationOfAll<'c, K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
{
    pub(super) fn new(cluster: &'c TestCluster, api: Api<K>) -> Self {
        Self { cluster, api, within: PATIENCE, name: None }
    }

    /// How long to wait, on the cluster's clock. Default: ten minutes.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.within = deadline;
        self
    }

    /// Waits until the objects, by namespace and name, are as `check` wants them, and gives them.
    ///
    /// # Panics
    /// If that does not happen in time. The message says what the objects were last, and what
    /// happened in the cluster.
    pub async fn to(self, what: &str, check: impl FnMut(&[K]) -> bool) -> Vec<K> {
        self.wait("", what, check).await
    }

    async fn wait(self, name: &str, what: &str, mut check: impl FnMut(&[K]) -> bool) -> Vec<K> {
        let mut seen = Vec::new();
        let met = {
            let follow = self.follow(&mut seen, &mut check);
            let deadline = self.cluster.environment().clock.sleep(self.within);
            pin_mut!(follow);
            tokio::select! {
                biased;
                () = follow => true,
                () = deadline => false,
            }
        };
        if !met {
            self.fail(name, what, &seen).await;
        }
        seen
    }

    /// Follows the objects until the check is satisfied. What was seen last is in `seen`.
    async fn follow(&self, seen: &mut Vec<K>, check: &mut impl FnMut(&[K]) -> bool) {
        let fields = self.name.as_ref().map(|name| format!("metadata.name={name}"));
        let (mut list, mut watch) = (ListParams::default(), WatchParams::default());
        list.field_selector.clone_from(&fields);
        watch.field_selector = fields;
        let watch = watch.timeout(WATCH_SECONDS);
        loop {
            let listed = match self.api.list(&list).await {
                Ok(listed) => listed,
                // A resource that is not served yet, or a server that refuses for now.
                Err(error) => {
                    tracing::debug!(%error, "not listed");
                    self.cluster.environment().clock.sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let version = listed.metadata.resource_version.clone().unwrap_or_default();
            let mut objects: BTreeMap<(String, String), K> =
                listed.items.into_iter().map(|object| (key(&object), object)).collect();
            *seen = objects.values().cloned().collect();
            if check(seen) {
                return;
            }
            let Ok(events) = self.api.watch(&watch, &version).await else { continue };
            let events = events.into_stream();
            pin_mut!(events);
            while let Some(Ok(event)) = events.next().await {
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        objects.insert(key(&object), object);
                    }
                    WatchEvent::Deleted(object) => {
                        objects.remove(&key(&object));
                    }
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(_) => break,
                }
                *seen = objects.values().cloned().collect();
                if check(seen) {
                    return;
                }
            }
        }
    }

    async fn fail(&self, name: &str, what: &str, seen: &[K]) -> ! {
        let kind = K::kind(&());
        let who = if name.is_empty() { format!("all {kind}s") } else { format!("{kind} {name}") };
        let within = self.within;
        let instead = match seen {
            [] => "there is none".to_owned(),
            seen => format!("{seen:#?}"),
        };
        let told = match self.cluster.timeline().await {
            Ok(timeline) => timeline.last(TOLD_LINES).to_string(),
            Err(error) => error.to_string(),
        };
        let seed = self.cluster.seed();
        panic!(
            "expected {who} to {what} within {within:?}; seen instead: {instead}\n\
             what happened last (seed {seed}):\n{told}"
        );
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}
