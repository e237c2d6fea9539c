//! A watch that outlives its connection.

use std::{sync::Arc, time::Duration};

use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataValue};

use super::{Call, Inner, bounds, entry, revision_of, signed, store_error};
use crate::{
    StoreError,
    protocol::{
        etcdserverpb::{self as pb, watch_request::RequestUnion},
        mvccpb,
    },
    store::{Event, EventKind, KeyRange, Revision, WatchItem, WatchRequest, WatchStream},
};

const RETRY_FIRST: Duration = Duration::from_millis(50);

struct Watch {
    inner: Arc<Inner>,
    range: KeyRange,
    /// The first revision that has not been delivered.
    next: Revision,
    connection: Option<Connection>,
    pause: Duration,
}

struct Connection {
    answers: Streaming<pb::WatchResponse>,
    _open: Open,
}

/// Registered for progress requests as long as it lives; holds the request side open.
struct Open {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.inner.watches.lock().senders.remove(&self.id);
    }
}

/// Opens a watch; it is established when this returns.
pub(super) async fn open(
    inner: Arc<Inner>,
    request: WatchRequest,
) -> Result<WatchStream, StoreError> {
    let from = request.from.unwrap_or(0);
    let connect = connect(&inner, &request.range, from);
    let connected = tokio::time::timeout(inner.options.request_timeout, connect).await;
    let connected = connected.unwrap_or_else(|_| Err(Status::deadline_exceeded("timed out")));
    let (connection, current) = connected.map_err(|e| store_error(Call::Read(from), e))?;
    let next = if from == 0 { current + 1 } else { from };
    let connection = Some(connection);
    let watch = Watch { inner, range: request.range, next, connection, pause: RETRY_FIRST };
    Ok(Box::pin(stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        match watch.item().await {
            Ok(item) => Some((Ok(item), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// Gives the connection and the revision at which the watch was created.
async fn connect(
    inner: &Arc<Inner>,
    range: &KeyRange,
    from: Revision,
) -> Result<(Connection, Revision), Status> {
    let (key, range_end) = bounds(range);
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: signed(from),
        progress_notify: true,
        prev_kv: true,
        ..pb::WatchCreateRequest::default()
    };
    let (sender, receiver) = mpsc::channel(2);
    let union = Some(RequestUnion::CreateRequest(create));
    let first = sender.try_send(pb::WatchRequest { request_union: union });
    first.map_err(|_| Status::internal("the request channel is closed"))?;
    let mut request = Request::new(ReceiverStream::new(receiver));
    // A member that has lost its leader must end the watch instead of falling silent.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut answers = inner.watch.clone().watch(request).await?.into_inner();
    let created = answers.message().await?.ok_or_else(|| Status::unavailable("watch closed"))?;
    if created.canceled {
        return Err(Status::unavailable(created.cancel_reason));
    }
    let revision = revision_of(created.header.as_ref());
    let id = {
        let mut watches = inner.watches.lock();
        watches.next_id += 1;
        let id = watches.next_id;
        watches.senders.insert(id, sender);
        id
    };
    let open = Open { inner: inner.clone(), id };
    Ok((Connection { answers, _open: open }, revision))
}

impl Watch {
    /// The next item, over as many connections as it takes. Dropping this future loses nothing:
    /// a message is taken off the connection and dealt with at one poll.
    async fn item(&mut self) -> Result<WatchItem, StoreError> {
        loop {
            let Some(connection) = &mut self.connection else {
                self.reconnect().await;
                continue;
            };
            match connection.answers.message().await {
                Ok(Some(answer)) => {
                    if let Some(item) = self.accept(answer)? {
                        return Ok(item);
                    }
                }
                Ok(None) => self.connection = None,
                Err(status) => {
                    tracing::debug!(%status, next = self.next, "a watch broke and is resumed");
                    self.connection = None;
                }
            }
        }
    }

    async fn reconnect(&mut self) {
        match connect(&self.inner, &self.range, self.next).await {
            Ok((connection, _)) => {
                self.connection = Some(connection);
                self.pause = RETRY_FIRST;
            }
            Err(_) => {
                let environment = &self.inner.options.environment;
                // Between half and all of the pause, so that many watches do not come at once.
                let pause = self.pause.mul_f64(0.5 + environment.random.unit() / 2.0);
                environment.clock.sleep(pause).await;
                self.pause = (self.pause * 2).min(self.inner.options.watch_retry_max);
            }
        }
    }

    fn accept(&mut self, answer: pb::WatchResponse) -> Result<Option<WatchItem>, StoreError> {
        if answer.compact_revision > 0 {
            let compacted = answer.compact_revision.unsigned_abs();
            return Err(StoreError::Compacted { requested: self.next, compacted });
        }
        if answer.canceled {
            self.connection = None;
            return Ok(None);
        }
        let revision = revision_of(answer.header.as_ref());
        let events = answer.events.into_iter().filter_map(event);
        // A resumed watch may be told again what it knows.
        let events: Vec<_> = events.filter(|e| e.entry.mod_revision >= self.next).collect();
        let Some(last) = events.last() else {
            // A watch that starts in the future has nothing to tell yet.
            let progress = !answer.created && revision + 1 >= self.next;
            self.next = self.next.max(revision + 1);
            return Ok(progress.then_some(WatchItem::Progress(revision)));
        };
        self.next = last.entry.mod_revision + 1;
        Ok(Some(WatchItem::Events(events.into())))
    }
}

fn event(event: mvccpb::Event) -> Option<Event> {
    let kind = match event.r#type() {
        mvccpb::event::EventType::Put => EventKind::Put,
        mvccpb::event::EventType::Delete => EventKind::Delete,
    };
    Some(Event { kind, entry: entry(event.kv?), previous: event.prev_kv.map(entry) })
}
