//! Notes what a store is asked and answers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;

use super::{Call, History, Outcome, Recorded, Seen, Tick, Watched};
use crate::{
    StoreError,
    store::{
        Event, KeyRange, Precondition, RangeRequest, RangeResponse, Revision, Store, StoreReader,
        Transaction, TransactionOutcome, WatchItem, WatchRequest, WatchStream, Write, WriteOutcome,
    },
};

/// A store that notes everything that it is asked, and does it. Cheap to clone; clones write into
/// the same history.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use orch_store::{MemoryStore, Store, Write, testing::history};
///
/// let store = Arc::new(MemoryStore::default());
/// let recorder = history::Recorder::start(store.clone(), store, "/test/").await?;
/// recorder.write(Write::create("/test/a", "1")).await?;
/// recorder.write(Write::create("/test/a", "2")).await?;
/// recorder.mark().await?;
/// history::check(&recorder.history().await?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Recorder<S: ?Sized> {
    store: Arc<S>,
    truth: Arc<dyn Store>,
    course: Arc<Mutex<Course>>,
}

impl<S: ?Sized> Clone for Recorder<S> {
    fn clone(&self) -> Self {
        let Self { store, truth, course } = self;
        Self { store: store.clone(), truth: truth.clone(), course: course.clone() }
    }
}

#[derive(Debug)]
struct Course {
    prefix: Bytes,
    start: RangeResponse,
    /// The mark's revision.
    mark: Option<Revision>,
    clock: Tick,
    calls: Vec<Recorded>,
    watches: Vec<Watched>,
}

impl Course {
    fn tick(&mut self) -> Tick {
        self.clock += 1;
        self.clock
    }
}

/// What an error says about whether something was done.
fn outcome(error: &StoreError) -> Outcome {
    match error {
        StoreError::Compacted { requested, .. } => Outcome::Compacted { requested: *requested },
        StoreError::Future { requested, .. } => Outcome::Future { requested: *requested },
        StoreError::Unknown(_) | StoreError::Io(..) => Outcome::Unknown(error.to_string()),
        _ => Outcome::Nothing(error.to_string()),
    }
}

impl<S: ?Sized> Recorder<S> {
    /// Begins to record what `store` is asked about keys that begin with `prefix`. The log is
    /// taken from `truth`: the same store, or what is beneath it if it misbehaves.
    ///
    /// # Errors
    /// Those of a range of `truth`.
    pub async fn start(
        store: Arc<S>,
        truth: Arc<dyn Store>,
        prefix: impl Into<Bytes>,
    ) -> Result<Self, StoreError> {
        let prefix = prefix.into();
        let start = truth.range(RangeRequest::new(KeyRange::prefix(prefix.clone()))).await?;
        let course =
            Course { prefix, start, mark: None, clock: 0, calls: Vec::new(), watches: Vec::new() };
        Ok(Self { store, truth, course: Arc::new(Mutex::new(course)) })
    }

    /// The revision at which the recording began.
    pub fn started_at(&self) -> Revision {
        self.course.lock().start.revision
    }

    /// The key that [`mark`](Self::mark) writes: the last one of the prefix.
    pub fn mark_key(&self) -> Bytes {
        let prefix = self.course.lock().prefix.clone();
        [&prefix[..], b"\xff\xffmark"].concat().into()
    }

    /// Ends the recording: puts the mark into the store and removes it again. What comes behind it
    /// is not judged, but watchers see it, and can stop there.
    ///
    /// # Errors
    /// Those of writes.
    pub async fn mark(&self) -> Result<(), StoreError> {
        let key = self.mark_key();
        let outcome = self.truth.write(Write::put(key.clone(), "")).await?;
        let (WriteOutcome::Committed { revision, .. }
        | WriteOutcome::PreconditionFailed { revision, .. }) = outcome;
        self.course.lock().mark = Some(revision);
        self.truth.write(Write::delete(key, Precondition::None)).await?;
        Ok(())
    }

    /// What was recorded up to the mark.
    ///
    /// # Errors
    /// Those of a watch from the start of the recording; [`StoreError::Invalid`] without a mark.
    pub async fn history(&self) -> Result<History, StoreError> {
        let (prefix, start, mark, calls, watches) = {
            let course = self.course.lock();
            let (calls, watches) = (course.calls.clone(), course.watches.clone());
            (course.prefix.clone(), course.start.clone(), course.mark, calls, watches)
        };
        let mark = mark.ok_or_else(|| StoreError::Invalid("the recording has no mark".into()))?;
        let log = self.log(&prefix, start.revision, mark).await?;
        Ok(History { prefix, start, end: mark - 1, calls, watches, log })
    }

    async fn log(
        &self,
        prefix: &Bytes,
        start: Revision,
        mark: Revision,
    ) -> Result<Vec<Event>, StoreError> {
        let range = KeyRange::prefix(prefix.clone());
        let request = WatchRequest { range, from: Some(start + 1) };
        let mut items = self.truth.watch(request).await?;
        let mut log = Vec::new();
        while let Some(item) = items.next().await {
            let WatchItem::Events(events) = item? else { continue };
            let wanted = events.iter().filter(|event| event.entry.mod_revision < mark);
            log.extend(wanted.cloned());
            if events.last().is_some_and(|event| event.entry.mod_revision >= mark) {
                return Ok(log);
            }
        }
        Err(StoreError::Unavailable("the log ended before the mark".into()))
    }

    async fn record<T: Clone>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, StoreError>>,
        told: fn(T) -> Outcome,
    ) -> Result<T, StoreError> {
        let index = {
            let mut course = self.course.lock();
            let began = course.tick();
            course.calls.push(Recorded { call, began, ended: None });
            course.calls.len() - 1
        };
        let answer = answer.await;
        let outcome = match &answer {
            Ok(answer) => told(answer.clone()),
            Err(error) => outcome(error),
        };
        let mut course = self.course.lock();
        let ended = course.tick();
        course.calls[index].ended = Some((ended, outcome));
        answer
    }
}

#[async_trait]
impl<S: StoreReader + ?Sized> StoreReader for Recorder<S> {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let answer = self.store.range(request.clone());
        self.record(Call::Range(request), answer, Outcome::Range).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let WatchRequest { range, from } = request.clone();
        let began = self.course.lock().tick();
        let items = self.store.watch(request).await?;
        let index = {
            let mut course = self.course.lock();
            let opened = course.tick();
            course.watches.push(Watched { range, from, began, opened, seen: Vec::new() });
            course.watches.len() - 1
        };
        let course = self.course.clone();
        Ok(Box::pin(items.inspect(move |item| {
            let seen = match item {
                Ok(WatchItem::Events(events)) => Seen::Events(events.clone()),
                Ok(WatchItem::Progress(revision)) => Seen::Progress(*revision),
                Err(error) => Seen::Ended(error.to_string()),
            };
            course.lock().watches[index].seen.push(seen);
        })))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.store.request_progress().await
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Recorder<S> {
    async fn write(&self, write: Write) -> Result<WriteOutcome, StoreError> {
        let answer = self.store.write(write.clone());
        self.record(Call::Write(write), answer, Outcome::Write).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, StoreError> {
        let answer = self.store.transact(transaction.clone());
        self.record(Call::Transact(transaction), answer, Outcome::Transact).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let answer = self.store.compact(revision);
        self.record(Call::Compact(revision), answer, |()| Outcome::Compact).await
    }
}
