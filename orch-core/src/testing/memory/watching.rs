//! Watches: the history from a revision on, through a filter.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::{sync::watch, time::Instant};

use super::{Shared, filter::Filter, store::Event};
use crate::{
    client::{ClientError, WatchEvent, WatchOptions, WatchStream},
    object::Object,
    resource::{ResourceType, Target},
};

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events that are taken from the history at a time; a watcher that reads slower than others
/// write falls behind and, past the end of the history, is told to list again.
const BATCH: usize = 256;

struct Watch {
    shared: Arc<Shared>,
    revision: watch::Receiver<u64>,
    resource: ResourceType,
    filter: Filter,
    position: u64,
    pending: VecDeque<WatchEvent>,
    bookmark_at: Option<Instant>,
    bookmarked: u64,
    ends_at: Option<Instant>,
    ended: bool,
}

pub(super) fn watch(
    shared: Arc<Shared>,
    target: Target,
    options: &WatchOptions,
) -> Result<WatchStream, ClientError> {
    let filter = Filter::of_watch(&target, options)?;
    let revision = shared.revision.subscribe();
    let now = Instant::now();
    let mut pending = VecDeque::new();
    let position = {
        let store = shared.store.lock();
        let from = options.resource_version.as_deref().filter(|v| !v.is_empty() && *v != "0");
        match from {
            Some(version) if !options.send_initial_events => {
                let position = store.parse_version(version)?;
                store.after(&target.resource, position, 1)?;
                position
            }
            _ => {
                let present = store.all(&target.resource, filter.namespace());
                let present = present.into_iter().filter(|object| filter.matches(object));
                pending.extend(present.map(WatchEvent::Added));
                if options.send_initial_events {
                    pending.push_back(WatchEvent::Bookmark {
                        resource_version: store.revision().to_string(),
                        initial_events_end: true,
                    });
                }
                store.revision()
            }
        }
    };
    let watch = Watch {
        shared,
        revision,
        resource: target.resource,
        filter,
        position,
        pending,
        bookmark_at: options.bookmarks.then(|| now + BOOKMARK_INTERVAL),
        bookmarked: position,
        ends_at: options.timeout_s.map(|s| now + Duration::from_secs(s.into())),
        ended: false,
    };
    Ok(stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item, watch))
    })
    .boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchEvent, ClientError>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            self.revision.borrow_and_update();
            if let Err(error) = self.fill() {
                self.ended = true;
                return Some(Err(error));
            }
            if self.pending.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Takes what happened since; the lock is not held while anything waits.
    fn fill(&mut self) -> Result<(), ClientError> {
        let (events, newest) = {
            let store = self.shared.store.lock();
            (store.after(&self.resource, self.position, BATCH)?, store.revision())
        };
        self.position = match events.last() {
            Some(last) if events.len() == BATCH => last.revision,
            _ => newest,
        };
        for event in events {
            self.pending.extend(self.seen(event)?);
        }
        Ok(())
    }

    /// What a change looks like through the filter.
    fn seen(&self, event: Event) -> Result<Option<WatchEvent>, ClientError> {
        let had = event.old.filter(|object| self.filter.matches(object));
        let has = event.new.filter(|object| self.filter.matches(object));
        Ok(match (had, has) {
            (None, Some(new)) => Some(WatchEvent::Added(new)),
            (Some(_), Some(new)) => Some(WatchEvent::Modified(new)),
            (Some(old), None) => Some(WatchEvent::Deleted(last_seen(&old, event.revision)?)),
            (None, None) => None,
        })
    }

    async fn wait(&mut self) {
        let never = Instant::now() + Duration::from_secs(365 * 86_400);
        let bookmark = self.bookmark_at.unwrap_or(never);
        let end = self.ends_at.unwrap_or(never);
        tokio::select! {
            changed = self.revision.changed() => self.ended |= changed.is_err(),
            () = tokio::time::sleep_until(end), if self.ends_at.is_some() => self.ended = true,
            () = tokio::time::sleep_until(bookmark), if self.bookmark_at.is_some() => {
                self.bookmark_at = Some(Instant::now() + BOOKMARK_INTERVAL);
                if self.bookmarked < self.position {
                    self.bookmarked = self.position;
                    self.pending.push_back(WatchEvent::Bookmark {
                        resource_version: self.position.to_string(),
                        initial_events_end: false,
                    });
                }
            }
        }
    }
}

/// The last state of what left, at the revision at which it left.
fn last_seen(old: &Object, revision: u64) -> Result<Arc<Object>, ClientError> {
    Ok(Arc::new(old.at_revision(revision)?))
}
