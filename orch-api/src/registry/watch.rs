//! Watches.
//!
//! Source: `k8s.io/apiserver/pkg/storage/cacher`, KEP-3157 (WatchList).

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use orch_core::{
    ApiError, ClientError, Target,
    client::{WatchEvent, WatchOptions, WatchStream},
    status::FieldError,
};
use orch_store::{EventKind, KeyRange, StoreError, WatchItem, WatchRequest};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, Sleep},
};

use super::{Addressed, Caller, list, single_name_as_field, to_served_object};
use crate::{
    cache::{
        Cache, Change, Collection, Filter, First, Item, NotOpened, Opened, Selectable, decode,
        reloading, store_error,
    },
    catalog::Resource,
    server::Inner,
};

/// How often a watcher that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts if the client does not say: upstream draws between this and its double.
const TIMEOUT_S: u64 = 1800;

impl Inner {
    pub(crate) async fn watch(
        self: &Arc<Self>,
        caller: &Caller,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ApiError> {
        let mut target = target;
        target.subresource = None;
        target.name = None;
        let mut at = self.address(target, "watch").await?;
        single_name_as_field(&mut at.target, options.field_selector.as_deref());
        self.authorize(caller, &at.target, "watch").await?;
        at.warn_of_deprecation(caller);
        at.target.name = None;
        let filter = Arc::new(Filter::parse(
            &at.resource,
            at.strategy.clone(),
            at.namespace(),
            options.label_selector.as_deref(),
            options.field_selector.as_deref(),
        )?);
        let version = list::parse_version(options.resource_version.as_deref())?;
        if options.send_initial_events && !options.bookmarks {
            let why = "sendInitialEvents is forbidden for watch unless allowWatchBookmarks is set to true";
            let error = FieldError::forbidden("sendInitialEvents", why);
            return Err(list::invalid_options(&[error]));
        }
        let collection = self.cache.collection(&at.resource).await?;
        let from = match version {
            None => {
                let current = self.cache.current_revision().await?;
                self.cache.fresh(current).await?;
                None
            }
            Some(0) => None,
            Some(version) if options.send_initial_events => {
                self.cache.fresh(version).await?;
                None
            }
            Some(version) => Some(version),
        };
        let opened = match collection.watch(&filter, from, || self.cache.seen()) {
            Ok(opened) => opened,
            Err(NotOpened::Reloading) => return Err(reloading()),
            Err(NotOpened::TooOld) => {
                let revision = from.unwrap_or_default();
                return self.watch_history(&at, filter, revision, &options).await;
            }
        };
        Ok(self.stream(&at, &collection, &filter, opened, &options))
    }

    fn timeout(&self, options: &WatchOptions) -> Duration {
        Duration::from_secs(match options.timeout_s.filter(|seconds| *seconds > 0) {
            Some(seconds) => u64::from(seconds),
            None => TIMEOUT_S + self.environment.random.below(TIMEOUT_S),
        })
    }

    fn stream(
        &self,
        at: &Addressed,
        collection: &Arc<Collection>,
        filter: &Filter,
        opened: Opened,
        options: &WatchOptions,
    ) -> WatchStream {
        let mut first: VecDeque<WatchEvent> = VecDeque::new();
        match &opened.first {
            First::Changes(changes) => {
                first.extend(changes.iter().filter_map(|change| change.through(filter)));
            }
            First::Objects(snapshot) => {
                let prefix = at.resource.collection_prefix(at.namespace());
                let items = snapshot.select(filter, &prefix);
                first.extend(items.map(|(_, item)| WatchEvent::Added(item.object.clone())));
            }
        }
        if options.send_initial_events {
            first.push_back(WatchEvent::Bookmark {
                resource_version: opened.revision.to_string(),
                initial_events_end: true,
            });
        }
        let bookmarks = options.bookmarks.then(|| {
            let start = tokio::time::Instant::now() + BOOKMARK_EVERY;
            let mut interval = tokio::time::interval_at(start, BOOKMARK_EVERY);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        let watch = Watch {
            first,
            events: opened.events,
            _registered: Registered { collection: Arc::downgrade(collection), id: opened.id },
            bookmarks,
            ends: Box::pin(tokio::time::sleep(self.timeout(options))),
            cache: self.cache.clone(),
            due: None,
            told: 0,
            over: false,
        };
        self.served_events(at.resource.clone(), watch.boxed())
    }

    /// The events in the version that the client asked for.
    fn served_events(&self, resource: Arc<Resource>, events: WatchStream) -> WatchStream {
        match resource.converter() {
            Some(_) => self.converted_events(resource, events),
            None => served(resource, events),
        }
    }

    /// A watch from before what the cache remembers, served from the store's own history.
    async fn watch_history(
        &self,
        at: &Addressed,
        filter: Arc<Filter>,
        revision: u64,
        options: &WatchOptions,
    ) -> Result<WatchStream, ApiError> {
        let prefix = at.resource.collection_prefix(at.namespace());
        let request = WatchRequest { range: KeyRange::prefix(prefix), from: Some(revision + 1) };
        let compacted = move |compacted: u64| {
            ApiError::expired(format!("too old resource version: {revision} ({compacted})"))
        };
        let events = match self.store.watch(request).await {
            Ok(events) => events,
            Err(StoreError::Compacted { compacted: oldest, .. }) => return Err(compacted(oldest)),
            Err(error) => return Err(store_error(error)),
        };
        let selectable = Selectable::of(&at.resource);
        let told = events.flat_map(move |item| {
            let told: Vec<Result<WatchEvent, ClientError>> = match item {
                Ok(WatchItem::Events(events)) => events
                    .iter()
                    .filter_map(|event| replay(event, selectable).through(&filter))
                    .map(Ok)
                    .collect(),
                Ok(WatchItem::Progress(_)) => Vec::new(),
                Err(StoreError::Compacted { compacted: oldest, .. }) => {
                    vec![Err(compacted(oldest).into())]
                }
                Err(error) => vec![Err(store_error(error).into())],
            };
            stream::iter(told)
        });
        let told = told.take_until(tokio::time::sleep(self.timeout(options)));
        Ok(self.served_events(at.resource.clone(), told.boxed()))
    }
}

/// A change from the store's history.
fn replay(event: &orch_store::Event, selectable: Selectable) -> Change {
    let item = |entry: &orch_store::Entry| {
        decode(&entry.key, &entry.value, entry.mod_revision)
            .map(|object| Item::new(object, selectable))
    };
    let new = (event.kind == EventKind::Put).then(|| item(&event.entry)).flatten();
    Change::new(event.entry.mod_revision, event.previous.as_ref().and_then(item), new)
}

/// The events of what is converted without asking anybody.
fn served(resource: Arc<Resource>, events: WatchStream) -> WatchStream {
    if !resource.converts() {
        return events;
    }
    let convert = move |event| {
        let to = |object| to_served_object(&resource, object).map_err(ClientError::from);
        Ok(match event? {
            WatchEvent::Added(object) => WatchEvent::Added(to(object)?),
            WatchEvent::Modified(object) => WatchEvent::Modified(to(object)?),
            WatchEvent::Deleted(object) => WatchEvent::Deleted(to(object)?),
            other => other,
        })
    };
    events.map(convert).boxed()
}

/// Takes a watcher off its collection when the stream is dropped.
struct Registered {
    collection: Weak<Collection>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(collection) = self.collection.upgrade() {
            collection.unwatch(self.id);
        }
    }
}

struct Watch {
    first: VecDeque<WatchEvent>,
    events: mpsc::Receiver<WatchEvent>,
    _registered: Registered,
    bookmarks: Option<Interval>,
    ends: Pin<Box<Sleep>>,
    cache: Arc<Cache>,
    /// A bookmark to be sent once the queue, which was filled up to it, is empty.
    due: Option<u64>,
    /// The newest revision that was told: no bookmark goes back behind it.
    told: u64,
    over: bool,
}

impl Watch {
    fn tell(&mut self, event: WatchEvent) -> Poll<Option<Result<WatchEvent, ClientError>>> {
        if let WatchEvent::Added(object)
        | WatchEvent::Modified(object)
        | WatchEvent::Deleted(object) = &event
        {
            self.told = self.told.max(object.revision().unwrap_or_default());
        }
        Poll::Ready(Some(Ok(event)))
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(event) = self.first.pop_front() {
            return self.tell(event);
        }
        if self.due.is_none()
            && let Some(interval) = &mut self.bookmarks
            && interval.poll_tick(cx).is_ready()
        {
            // Read before the queue is: what the queue holds then is no newer than it tells.
            self.due = Some(self.cache.seen());
        }
        match self.events.poll_recv(cx) {
            Poll::Ready(Some(event)) => return self.tell(event),
            Poll::Ready(None) => {
                self.over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        if let Some(revision) = self.due.take() {
            return Poll::Ready(Some(Ok(WatchEvent::Bookmark {
                resource_version: revision.max(self.told).to_string(),
                initial_events_end: false,
            })));
        }
        if self.ends.as_mut().poll(cx).is_ready() {
            self.over = true;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}
