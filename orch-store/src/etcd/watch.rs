//! A watch that outlives its connection, and the member that it was at.

use std::{collections::HashMap, mem, sync::Arc};

use futures::stream;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{
    Inner,
    members::{Clients, RETRY_FIRST},
    message::{bounds, event, is_nothing, revision_of, signed},
    outcome::{Call, Cause, Failure},
    progress,
};
use crate::{
    StoreError,
    protocol::etcdserverpb::{self as pb, watch_request::RequestUnion},
    store::{
        Event, EventKind, KeyRange, RangeRequest, Revision, WatchItem, WatchRequest, WatchStream,
    },
};

/// The open watches, to ask for progress on.
#[derive(Debug, Default)]
pub(super) struct OpenWatches {
    next_id: u64,
    wanted: HashMap<u64, Arc<Notify>>,
}

impl OpenWatches {
    pub(super) fn want_progress(&self) {
        self.wanted.values().for_each(|wanted| wanted.notify_one());
    }
}

/// In the list of open watches as long as it lives.
struct Listed {
    inner: Arc<Inner>,
    id: u64,
    wanted: Arc<Notify>,
}

impl Listed {
    fn new(inner: Arc<Inner>) -> Self {
        let wanted = Arc::new(Notify::new());
        let mut watches = inner.watches.lock();
        watches.next_id += 1;
        let id = watches.next_id;
        watches.wanted.insert(id, wanted.clone());
        drop(watches);
        Self { inner, id, wanted }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.inner.watches.lock().wanted.remove(&self.id);
    }
}

struct Watch {
    inner: Arc<Inner>,
    listed: Listed,
    range: KeyRange,
    /// The first revision that has not been delivered.
    next: Revision,
    /// What etcd has sent of a revision that it has not sent all of.
    partial: Vec<Event>,
    connection: Option<Connection>,
    /// How often it broke without an answer in between.
    failures: u32,
    /// Progress was asked for and has not been dealt with.
    progress_wanted: bool,
}

struct Connection {
    member: usize,
    answers: Streaming<pb::WatchResponse>,
    /// Holds the request side open.
    requests: mpsc::Sender<pb::WatchRequest>,
    /// The store's revision when the watch was created.
    created_at: Revision,
}

/// Opens a watch; it is established when this returns.
pub(super) async fn open(
    inner: Arc<Inner>,
    request: WatchRequest,
) -> Result<WatchStream, StoreError> {
    let WatchRequest { range, from } = request;
    if is_nothing(&range) {
        return Err(StoreError::Invalid("a range without keys cannot be watched".into()));
    }
    let from = from.unwrap_or(0);
    // A member that lags behind would begin with what the others have long told.
    let newest = if from == 0 { newest(&inner, &range).await? } else { 0 };
    let connection = connect(&inner, &range, from).await;
    let connection = connection.map_err(|failure| failure.store_error(Call::read(from)))?;
    let next = if from == 0 { newest.max(connection.created_at) + 1 } else { from };
    let watch = Watch {
        listed: Listed::new(inner.clone()),
        inner,
        range,
        next,
        partial: Vec::new(),
        connection: Some(connection),
        failures: 0,
        progress_wanted: false,
    };
    Ok(Box::pin(stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        match watch.item().await {
            Ok(item) => Some((Ok(item), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// The revision of the newest change.
async fn newest(inner: &Arc<Inner>, range: &KeyRange) -> Result<Revision, StoreError> {
    let (key, _) = bounds(range);
    let request = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key(key)) };
    Ok(inner.range(&request).await?.revision)
}

async fn connect(
    inner: &Arc<Inner>,
    range: &KeyRange,
    from: Revision,
) -> Result<Connection, Failure> {
    let (key, range_end) = bounds(range);
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: signed(from),
        progress_notify: true,
        prev_kv: true,
        // Otherwise a thousand revisions come as one message, however large they are.
        fragment: true,
        ..pb::WatchCreateRequest::default()
    };
    inner.authenticated(Call::read(from), |clients| connect_to(clients, create.clone())).await
}

async fn connect_to(
    mut clients: Clients,
    create: pb::WatchCreateRequest,
) -> Result<Connection, Status> {
    let (requests, receiver) = mpsc::channel(2);
    let union = Some(RequestUnion::CreateRequest(create));
    let first = requests.try_send(pb::WatchRequest { request_union: union });
    first.map_err(|_| Status::internal("the request channel is closed"))?;
    let request = Request::new(ReceiverStream::new(receiver));
    let mut answers = clients.watch.watch(request).await?.into_inner();
    let created = answers.message().await?.ok_or_else(|| Status::unavailable("watch closed"))?;
    if created.canceled {
        // The reason is an error in print.
        let reason = created.cancel_reason;
        let reason = reason.rsplit_once("desc = ").map_or(&*reason, |(_, message)| message);
        return Err(Status::unavailable(reason));
    }
    let created_at = revision_of(created.header.as_ref());
    Ok(Connection { member: clients.index, answers, requests, created_at })
}

impl Watch {
    /// The next item, over as many connections as it takes. Dropping this future loses nothing:
    /// a message is taken off the connection and dealt with at one poll.
    async fn item(&mut self) -> Result<WatchItem, StoreError> {
        loop {
            let Some(connection) = &mut self.connection else {
                self.reconnect().await?;
                continue;
            };
            if self.progress_wanted {
                if let Some(item) = self.ask_for_progress().await {
                    return Ok(item);
                }
                continue;
            }
            let answer = tokio::select! {
                // What is there goes before what it would be told about.
                biased;
                answer = connection.answers.message() => answer,
                () = self.listed.wanted.notified() => {
                    self.progress_wanted = true;
                    continue;
                }
            };
            match answer {
                Ok(Some(answer)) => {
                    if let Some(item) = self.accept(answer)? {
                        return Ok(item);
                    }
                }
                Ok(None) => self.broke(&Status::unavailable("the stream has ended")),
                Err(status) => self.broke(&status),
            }
        }
    }

    /// Forgets the connection. What was sent of an unfinished revision is sent again.
    fn broke(&mut self, status: &Status) {
        tracing::debug!(%status, next = self.next, "a watch broke and is resumed");
        if let Some(connection) = self.connection.take() {
            self.inner.member_failed(connection.member);
        }
        self.partial.clear();
        self.failures += 1;
    }

    async fn reconnect(&mut self) -> Result<(), StoreError> {
        if self.failures > 0 {
            let doubled = RETRY_FIRST * 2u32.saturating_pow(self.failures.min(16) - 1);
            self.inner.pause(doubled.min(self.inner.options.watch_retry_max)).await;
        }
        match connect(&self.inner, &self.range, self.next).await {
            Ok(connection) => self.connection = Some(connection),
            // Neither time nor another member changes these; the user has been asked for anew.
            Err(failure) if matches!(failure.cause, Cause::Denied | Cause::Token) => {
                return Err(failure.store_error(Call::read(self.next)));
            }
            Err(_) => self.failures += 1,
        }
        Ok(())
    }

    /// Has etcd tell how far the watch is, or finds it out.
    async fn ask_for_progress(&mut self) -> Option<WatchItem> {
        let Some(connection) = &self.connection else { return None };
        if self.inner.has_ordered_progress(connection.member).await {
            let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
            // A full channel means that a request is already waiting; one is as good as two.
            let request = pb::WatchRequest { request_union: Some(union) };
            let _ = connection.requests.try_send(request);
            self.progress_wanted = false;
            return None;
        }
        // What is partly there is not nothing.
        let quiet = match self.partial.is_empty() {
            true => progress::quiet_until(&self.inner, &self.range, self.next).await,
            false => None,
        };
        self.progress_wanted = false;
        let revision = quiet?;
        self.next = self.next.max(revision + 1);
        Some(WatchItem::Progress(revision))
    }

    fn accept(&mut self, answer: pb::WatchResponse) -> Result<Option<WatchItem>, StoreError> {
        if answer.compact_revision > 0 {
            let compacted = answer.compact_revision.unsigned_abs();
            return Err(StoreError::Compacted { requested: self.next, compacted });
        }
        if answer.canceled {
            self.broke(&Status::unavailable(answer.cancel_reason));
            return Ok(None);
        }
        self.failures = 0;
        let is_progress = answer.events.is_empty() && !answer.fragment && !answer.created;
        let events = answer.events.into_iter().filter_map(event);
        // A resumed watch may be told again what it knows.
        self.partial.extend(events.filter(|event| event.entry.mod_revision >= self.next));
        if is_progress {
            let revision = revision_of(answer.header.as_ref());
            // A watch that starts in the future has nothing to tell yet.
            let progress = revision + 1 >= self.next;
            self.next = self.next.max(revision + 1);
            return Ok(progress.then_some(WatchItem::Progress(revision)));
        }
        self.whole_revisions(answer.fragment)
    }

    fn whole_revisions(&mut self, more_follows: bool) -> Result<Option<WatchItem>, StoreError> {
        let events = take_whole(&mut self.partial, more_follows);
        if let Some(event) = events.iter().find(|event| lost_its_past(event)) {
            let requested = event.entry.mod_revision;
            return Err(StoreError::Compacted { requested, compacted: 0 });
        }
        let Some(last) = events.last() else { return Ok(None) };
        self.next = last.entry.mod_revision + 1;
        Ok(Some(WatchItem::Events(events.into())))
    }
}

/// Takes what there is of whole revisions. etcd goes by whole revisions, too, except where it cuts
/// a message into fragments: then more of the last one may follow.
fn take_whole(partial: &mut Vec<Event>, more_follows: bool) -> Vec<Event> {
    let Some(last) = partial.last().map(|event| event.entry.mod_revision) else {
        return Vec::new();
    };
    let whole = match more_follows {
        true => partial.partition_point(|event| event.entry.mod_revision < last),
        false => partial.len(),
    };
    let rest = partial.split_off(whole);
    mem::replace(partial, rest)
}

/// Whether there must have been an entry before, and etcd could not find it any more.
fn lost_its_past(event: &Event) -> bool {
    let is_first = event.kind == EventKind::Put && event.entry.version == 1;
    event.previous.is_none() && !is_first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;

    fn event(revision: Revision, version: u64, kind: EventKind) -> Event {
        let entry = Entry {
            key: "k".into(),
            value: "v".into(),
            create_revision: 1,
            mod_revision: revision,
            version,
            lease: None,
        };
        Event { kind, entry, previous: None }
    }

    #[test]
    fn fragments_are_put_together_by_revisions() {
        let check = |fragments: &[(&[Revision], bool)], expected: &[&[Revision]]| {
            let mut partial = Vec::new();
            for ((revisions, more), expected) in fragments.iter().zip(expected) {
                partial.extend(revisions.iter().map(|r| event(*r, 1, EventKind::Put)));
                let whole = take_whole(&mut partial, *more);
                let whole: Vec<_> = whole.iter().map(|event| event.entry.mod_revision).collect();
                assert_eq!(whole, *expected, "{fragments:?}");
            }
            assert!(partial.is_empty(), "{fragments:?}");
        };
        check(&[(&[4, 4, 5], false)], &[&[4, 4, 5]]);
        check(&[(&[4, 4, 5], true), (&[5, 6], false)], &[&[4, 4], &[5, 5, 6]]);
        check(&[(&[4, 4], true), (&[4], true), (&[4, 5], false)], &[&[], &[], &[4, 4, 4, 4, 5]]);
        check(&[(&[4], true), (&[], false)], &[&[], &[4]]);
        check(&[(&[4], true), (&[6], true), (&[7], false)], &[&[], &[4], &[6, 7]]);
        check(&[(&[], false)], &[&[]]);
    }

    #[test]
    fn an_event_without_its_past_is_known() {
        assert!(!lost_its_past(&event(4, 1, EventKind::Put)));
        assert!(lost_its_past(&event(4, 2, EventKind::Put)));
        assert!(lost_its_past(&event(4, 0, EventKind::Delete)));
    }
}
