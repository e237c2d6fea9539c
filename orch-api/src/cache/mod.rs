//! The watch cache: what the store holds, decoded once and shared, and who wants to know of changes.
//!
//! One feed follows the whole store; each resource's collection is loaded when it is first listed
//! or watched. So starting a server reads nothing, and the cache's position advances with every
//! commit, whatever it was about: a read of the most recent state waits until the feed has reached
//! the store's revision, which is at most the distance of an event.
//!
//! Source: `k8s.io/apiserver/pkg/storage/cacher`. Differs: upstream has one feed a resource.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use futures::StreamExt;
use orch_core::{ApiError, Environment, Object, awaited::Awaited, status::Reason};
use orch_store::{
    Entry, Event, KeyRange, RangeRequest, Revision, Store, StoreError, WatchItem, WatchRequest,
};
use parking_lot::{Mutex, RwLock};
use tokio::task::AbortHandle;

mod collection;
mod filter;
mod recent;
mod watchers;

pub(crate) use collection::{Collection, First, NotOpened, Opened, decode};
use collection::{Loading, Phase};
pub(crate) use filter::{Filter, Item, Selectable};
use recent::Recent;
pub(crate) use watchers::Change;

use crate::catalog::Resource;

/// Where everything lies in the store.
pub(crate) const ROOT: &str = "/registry/";
/// How long a read waits for a revision before it gives up, as upstream's.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it waits before it asks the store for progress: a write elsewhere may be the newest.
const NUDGE: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(200);
const WRITTEN_SLOTS: usize = 1024;
/// How many entries are read from the store at once.
const PAGE: usize = 1000;

type Slot = Mutex<Option<(Revision, Arc<Object>)>>;

/// The cache of a server.
pub(crate) struct Cache {
    store: Arc<dyn Store>,
    environment: Environment,
    collections: RwLock<HashMap<String, Arc<Collection>>>,
    /// Up to here, everything was told to every collection. Zero: the feed is not running.
    seen: Awaited<Revision>,
    feed: OnceLock<AbortHandle>,
    /// Objects that this process wrote, by revision, so that the feed need not decode them again.
    written: Box<[Slot]>,
    /// Objects that were read one by one, of resources that nobody lists or watches.
    recent: Recent,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} collections)", self.collections.read().len())
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.get() {
            feed.abort();
        }
    }
}

/// What a store's failure is to a client of the API.
///
/// Differs: upstream answers 500 where etcd does not say whether a write took place, as where it
/// did not. Here that is a timeout, which tells clients that they do not know.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { requested, compacted } => ApiError::expired(format!(
            "The resourceVersion for the provided list is too old: {requested} ({compacted})"
        )),
        StoreError::Future { requested, current } => too_large(requested, current),
        StoreError::Unknown(_) => ApiError::new(
            Reason::Timeout,
            "Timeout: the store did not say whether the write took place",
        ),
        StoreError::Unavailable(why) => ApiError::new(Reason::ServiceUnavailable, why),
        other => ApiError::internal(other),
    }
}

/// The answer while the cache is being read again.
///
/// Source: `k8s.io/apiserver/pkg/storage/cacher`.
pub(crate) fn reloading() -> ApiError {
    ApiError::too_many_requests("storage is (re)initializing", 1)
}

/// The error of a revision that has not been reached.
///
/// Source: `k8s.io/apiserver/pkg/storage/errors.go`, `NewTooLargeResourceVersionError`.
pub(crate) fn too_large(requested: Revision, current: Revision) -> ApiError {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
    let message = format!("Too large resource version: {requested}, current: {current}");
    let cause = StatusCause {
        reason: Some("ResourceVersionTooLarge".into()),
        message: Some("Too large resource version".into()),
        field: None,
    };
    ApiError::new(Reason::Timeout, format!("Timeout: {message}")).with_details(StatusDetails {
        causes: Some(vec![cause]),
        retry_after_seconds: Some(1),
        ..StatusDetails::default()
    })
}

impl Cache {
    pub(crate) fn new(store: Arc<dyn Store>, environment: Environment) -> Arc<Self> {
        Arc::new(Self {
            store,
            environment,
            collections: RwLock::default(),
            seen: Awaited::new(0),
            feed: OnceLock::new(),
            written: (0..WRITTEN_SLOTS).map(|_| Mutex::new(None)).collect(),
            recent: Recent::default(),
        })
    }

    /// Up to which revision everything has been taken in.
    pub(crate) fn seen(&self) -> Revision {
        self.seen.get()
    }

    /// A resource's collection, if it is in use.
    pub(crate) fn peek(&self, resource: &Resource) -> Option<Arc<Collection>> {
        self.collections.read().get(&resource.prefix).cloned()
    }

    /// The object of an entry that was read from the store: the cached one, if that is as new.
    pub(crate) fn object(&self, resource: &Resource, entry: &Entry) -> Option<Arc<Object>> {
        let cached = self.peek(resource);
        cached
            .and_then(|collection| collection.at(&entry.key, entry.mod_revision))
            .or_else(|| self.recent.object(entry))
    }

    /// A resource's collection, loaded.
    pub(crate) async fn collection(
        self: &Arc<Self>,
        resource: &Resource,
    ) -> Result<Arc<Collection>, ApiError> {
        let collection = match self.peek(resource) {
            Some(collection) => collection,
            None => {
                let mut all = self.collections.write();
                let entry = all.entry(resource.prefix.clone());
                entry.or_insert_with(|| Arc::new(Collection::new(resource))).clone()
            }
        };
        if collection.phase.get() == Phase::Ready {
            return Ok(collection);
        }
        self.start_feed();
        // The feed must be running before the range is read, or changes between would be lost.
        let running = tokio::time::timeout(FRESH_TIMEOUT, self.seen.wait_for(|seen| seen > 0));
        if running.await.is_err() {
            return Err(ApiError::new(Reason::ServiceUnavailable, "the store cannot be watched"));
        }
        if let Some(loading) = collection.start_loading() {
            tokio::spawn(load(self.store.clone(), loading));
        }
        // Whoever loads may fail: then it is cold again, and the next reader tries.
        let settled = collection.phase.wait_for(|phase| phase != Phase::Loading).await;
        if settled == Phase::Ready {
            return Ok(collection);
        }
        let why = "the resource could not be read from the store";
        Err(ApiError::new(Reason::ServiceUnavailable, why))
    }

    /// Forgets a resource that is served no more, and ends its watches.
    pub(crate) fn forget(&self, prefix: &str) {
        let forgotten = self.collections.write().remove(prefix);
        if let Some(collection) = forgotten {
            collection.reset();
        }
    }

    /// Waits until everything up to `revision` has been taken in.
    pub(crate) async fn fresh(&self, revision: Revision) -> Result<(), ApiError> {
        if self.seen() >= revision {
            return Ok(());
        }
        let fresh = || self.seen.wait_for(|seen| seen >= revision);
        if tokio::time::timeout(NUDGE, fresh()).await.is_ok() {
            return Ok(());
        }
        self.store.request_progress().await.map_err(store_error)?;
        let wait = tokio::time::timeout(FRESH_TIMEOUT, fresh());
        let reached = wait.await.is_ok();
        if reached { Ok(()) } else { Err(too_large(revision, self.seen())) }
    }

    /// The store's newest revision.
    pub(crate) async fn current_revision(&self) -> Result<Revision, ApiError> {
        revision_of(&*self.store).await.map_err(store_error)
    }

    /// Hands over what this process has just written.
    pub(crate) fn wrote(&self, revision: Revision, object: &Arc<Object>) {
        if self.feed.get().is_some() {
            *self.slot(revision).lock() = Some((revision, object.clone()));
        }
    }

    fn slot(&self, revision: Revision) -> &Slot {
        &self.written[(revision % WRITTEN_SLOTS as u64) as usize]
    }

    fn take_written(&self, revision: Revision) -> Option<Arc<Object>> {
        let mut slot = self.slot(revision).lock();
        match slot.take() {
            Some((of, object)) if of == revision => Some(object),
            other => {
                *slot = other;
                None
            }
        }
    }

    fn start_feed(self: &Arc<Self>) {
        self.feed.get_or_init(|| {
            let (store, environment) = (self.store.clone(), self.environment.clone());
            tokio::spawn(follow(store, environment, Arc::downgrade(self))).abort_handle()
        });
    }

    fn take_in(&self, events: &[Event]) {
        let Some(last) = events.last() else { return };
        {
            let collections = self.collections.read();
            let mut cached: Option<&Arc<Collection>> = None;
            for event in events {
                let key = &event.entry.key;
                if !cached.is_some_and(|c| key.starts_with(&c.prefix)) {
                    cached = prefix_of(key).and_then(|prefix| collections.get(prefix));
                }
                if let Some(collection) = cached {
                    collection.apply(event, &mut |revision| self.take_written(revision));
                }
            }
        }
        self.advance(last.entry.mod_revision);
    }

    fn advance(&self, revision: Revision) {
        self.seen.update(|seen| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        });
    }

    /// Starts anew: nothing is loaded until the feed runs again.
    fn reset(&self) {
        self.seen.set(0);
        for collection in self.collections.read().values() {
            collection.reset();
        }
    }
}

/// The resource's prefix of a key: two segments, or three where upstream nests resources.
fn prefix_of(key: &[u8]) -> Option<&str> {
    let rest = key.strip_prefix(ROOT.as_bytes())?;
    let segment =
        |from: usize| rest[from..].iter().position(|b| *b == b'/').map(|at| from + at + 1);
    let mut end = segment(0)?;
    if rest.starts_with(b"services/") || rest[..end].contains(&b'.') {
        end = segment(end)?;
    }
    std::str::from_utf8(&key[..ROOT.len() + end]).ok()
}

async fn load(store: Arc<dyn Store>, loading: Loading) {
    let request = RangeRequest::new(KeyRange::prefix(loading.prefix()));
    // Page by page: a second copy of every entry would stay in the allocator's hands.
    let mut pages = orch_store::pages(store, request, PAGE);
    let (mut objects, mut revision) = (imbl::OrdMap::new(), None);
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "a resource could not be read from the store");
                return;
            }
        };
        revision.get_or_insert(page.revision);
        // Every second one first: what is inserted in order leaves the leaves of the map half
        // empty, and the others then fill them.
        let (first, second): (Vec<_>, Vec<_>) =
            page.entries.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
        for (_, entry) in first.into_iter().chain(second) {
            if let Some(object) = decode(&entry.key, &entry.value, entry.mod_revision) {
                objects.insert(entry.key, loading.item(object));
            }
        }
    }
    if let Some(revision) = revision {
        loading.finish(revision, objects);
    }
}

/// Follows the store for as long as the cache lives.
async fn follow(store: Arc<dyn Store>, environment: Environment, cache: Weak<Cache>) {
    let mut from: Option<Revision> = None;
    loop {
        let ended = follow_once(&*store, &cache, &mut from).await;
        let Some(cache) = cache.upgrade() else { return };
        match ended {
            // What lies between is gone: everything is read anew.
            Err(StoreError::Compacted { .. }) => {
                cache.reset();
                from = None;
                continue;
            }
            Err(error) => tracing::warn!(%error, "the store's watch ended"),
            Ok(()) => {}
        }
        drop(cache);
        environment.clock.sleep(RETRY).await;
    }
}

/// One watch of the store, until it ends. `from` is where the next one goes on.
async fn follow_once(
    store: &dyn Store,
    cache: &Weak<Cache>,
    from: &mut Option<Revision>,
) -> Result<(), StoreError> {
    let range = KeyRange::prefix(ROOT);
    let mut stream = store.watch(WatchRequest { range, from: *from }).await?;
    if from.is_none() {
        // The watch is established: whatever is committed from now on arrives.
        let revision = revision_of(store).await?;
        let Some(cache) = cache.upgrade() else { return Ok(()) };
        cache.advance(revision);
        *from = Some(revision + 1);
    }
    while let Some(item) = stream.next().await {
        let Some(cache) = cache.upgrade() else { return Ok(()) };
        match item? {
            WatchItem::Events(events) => cache.take_in(&events),
            WatchItem::Progress(revision) => cache.advance(revision),
        }
        *from = Some(cache.seen() + 1);
    }
    Ok(())
}

async fn revision_of(store: &dyn Store) -> Result<Revision, StoreError> {
    let mut request = RangeRequest::new(KeyRange::key(ROOT));
    request.count_only = true;
    Ok(store.range(request).await?.revision)
}
