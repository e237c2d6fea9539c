//! The Watch service: many watches on one stream.
//!
//! One stream is one value that its connection polls: it reads the client's requests, follows the
//! store's watches, and holds the responses to what it read last. Nothing is buffered beyond that
//! here. A client that does not read stops its own stream, and with it the reading of the store's
//! watches, which hold what fits into their buffers and read the rest from the history later.
//!
//! # Progress
//! A request for progress is answered with a revision only after every watch of the stream is
//! known to have delivered everything up to it: by an event of that revision or a later one, or by
//! a progress item of the store; the answer is sent behind those events, in the same stream. With
//! a watch that begins in the future there is no answer, as in etcd, and neither without a watch.
//!
//! Source: `server/etcdserver/api/v3rpc/watch.go`, `server/storage/mvcc/watchable_store.go`.

mod open;
mod progress;
mod responses;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, SelectAll},
};
use tonic::{Request, Response, Status, Streaming};

pub(super) use self::progress::ProgressHub;
use self::{
    open::{OpenWatch, Opened},
    progress::{Asking, Pending},
};
use super::{convert::signed, refusal, shared::Shared};
use crate::{
    StoreError,
    protocol::etcdserverpb::{
        self as pb, watch_request::RequestUnion, watch_server::Watch as WatchApi,
    },
    store::{Revision, WatchItem},
};

/// The id of answers that are about no watch, or about all of the stream.
const NO_WATCH: i64 = -1;

/// The handle that the generated server wants: its streams outlive the call.
#[derive(Clone, Debug)]
pub(super) struct WatchService(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl WatchApi for WatchService {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let session = Box::new(Session::new(self.0.clone(), request.into_inner()));
        let responses = stream::try_unfold(session, |mut session| async move {
            Ok(session.next().await?.map(|response| (response, session)))
        });
        Ok(Response::new(responses.boxed()))
    }
}

/// An item of one of the store's watches.
type Item = (i64, Result<WatchItem, StoreError>);

/// One stream.
struct Session {
    shared: Arc<Shared>,
    /// None once the client has no more requests; its watches go on.
    requests: Option<Streaming<pb::WatchRequest>>,
    watches: BTreeMap<i64, OpenWatch>,
    items: SelectAll<BoxStream<'static, Item>>,
    /// Responses to what was read last.
    queue: VecDeque<pb::WatchResponse>,
    /// The id that the next watch gets whose client chose none.
    next_id: i64,
    /// The revision that the client waits to be told.
    pending: Option<Pending>,
    /// The newest request for progress that came while one was pending.
    pending_next: Option<Revision>,
    asking: Option<Asking>,
    /// Until watches that asked for it are notified of progress.
    ticker: Option<BoxFuture<'static, ()>>,
}

/// What a session waits for.
enum Step {
    Request(Option<pb::WatchRequest>),
    Item(Item),
    Tick,
    Ask,
    Stop,
}

impl Session {
    fn new(shared: Arc<Shared>, requests: Streaming<pb::WatchRequest>) -> Self {
        Self {
            shared,
            requests: Some(requests),
            watches: BTreeMap::new(),
            items: SelectAll::new(),
            queue: VecDeque::new(),
            next_id: 0,
            pending: None,
            pending_next: None,
            asking: None,
            ticker: None,
        }
    }

    /// The next response; `None` when there can be no more.
    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        loop {
            if let Some(response) = self.queue.pop_front() {
                return Ok(Some(response));
            }
            if self.requests.is_none() && self.watches.is_empty() {
                return Ok(None);
            }
            match self.step().await? {
                Step::Request(None) => self.requests = None,
                Step::Request(Some(request)) => self.handle(request).await?,
                Step::Item((id, item)) => self.take(id, item)?,
                Step::Tick => self.tick().await?,
                Step::Ask => self.ask().await?,
                Step::Stop => return Err(refusal::stopped()),
            }
        }
    }

    async fn step(&mut self) -> Result<Step, Status> {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => Step::Stop,
            request = request => Step::Request(request.map_err(|_| refusal::watch_canceled())?),
            Some(item) = self.items.next() => Step::Item(item),
            () = progress::wait(&mut self.ticker) => Step::Tick,
            () = progress::wait_to_ask(&mut self.asking) => Step::Ask,
        })
    }

    async fn handle(&mut self, request: pb::WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => self.progress_requested().await,
            // etcd overlooks what it does not understand.
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> Result<(), Status> {
        if let Some(reason) = self.refuses(&request) {
            let header = self.shared.header_now().await?;
            self.queue.push_back(pb::WatchResponse {
                header,
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason.into(),
                ..pb::WatchResponse::default()
            });
            return Ok(());
        }
        let id = self.id_for(request.watch_id);
        let (revision, opened) = open::open(&self.shared, id, &request).await?;
        let created = pb::WatchResponse {
            header: self.shared.header(revision),
            watch_id: id,
            created: true,
            ..pb::WatchResponse::default()
        };
        self.queue.push_back(created);
        match opened {
            Opened::Compacted(compacted) => self.compacted(id, compacted),
            Opened::Watch(watch, items) => {
                if watch.notifies_progress && self.ticker.is_none() {
                    self.ticker = Some(progress::ticker(&self.shared));
                }
                if let Some(pending) = &mut self.pending {
                    pending.joined(id, watch.delivered);
                }
                self.watches.insert(id, watch);
                self.items.push(items);
            }
        }
        Ok(())
    }

    /// Why a watch cannot be created, in etcd's words.
    fn refuses(&self, request: &pb::WatchCreateRequest) -> Option<&'static str> {
        if request.start_revision < 0 {
            return Some("etcdserver: mvcc: required revision has been compacted");
        }
        let end = &request.range_end[..];
        if !end.is_empty() && end != b"\0" && open::first_key(&request.key)[..] >= *end {
            return Some("mvcc: watcher range is empty");
        }
        if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            return Some("mvcc: duplicate watch ID provided on the WatchStream");
        }
        None
    }

    fn id_for(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        if !self.remove(id) {
            return Ok(());
        }
        let header = self.shared.header_now().await?;
        self.queue.push_back(pb::WatchResponse {
            header,
            watch_id: id,
            canceled: true,
            ..pb::WatchResponse::default()
        });
        self.answer_progress();
        Ok(())
    }

    /// Ends a watch; `false` if there is none of this id.
    fn remove(&mut self, id: i64) -> bool {
        let Some(watch) = self.watches.remove(&id) else { return false };
        watch.abort.abort();
        if let Some(pending) = &mut self.pending {
            pending.left(id);
        }
        true
    }

    /// Tells the client that a watch is over because what it has to deliver is compacted.
    fn compacted(&mut self, id: i64, compacted: Revision) {
        self.queue.push_back(pb::WatchResponse {
            // etcd gives no revision here.
            header: self.shared.header(0),
            watch_id: id,
            canceled: true,
            compact_revision: signed(compacted),
            ..pb::WatchResponse::default()
        });
    }

    fn take(&mut self, id: i64, item: Result<WatchItem, StoreError>) -> Result<(), Status> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        match item {
            Ok(WatchItem::Events(events)) => {
                let Some(last) = events.last() else { return Ok(()) };
                watch.delivered = watch.delivered.max(last.entry.mod_revision);
                if responses::push(&self.shared, &mut self.queue, id, watch, &events) {
                    // Events tell more than a notification.
                    watch.is_quiet = false;
                    watch.notification = None;
                }
            }
            Ok(WatchItem::Progress(revision)) => {
                watch.delivered = watch.delivered.max(revision);
                if watch.notification.take_if(|asked| *asked <= revision).is_some() {
                    self.queue.push_back(self.shared.progress_of(id, revision));
                }
            }
            Err(StoreError::Compacted { requested, compacted }) => {
                self.remove(id);
                // A store that does not tell the compaction's revision: it is at least this.
                self.compacted(id, compacted.max(requested + 1));
                self.answer_progress();
                return Ok(());
            }
            Err(error) => return Err(refusal::of(error)),
        }
        let delivered = watch.delivered;
        if self.pending.as_mut().is_some_and(|pending| pending.delivered(id, delivered)) {
            self.answer_progress();
        }
        Ok(())
    }
}

impl Shared {
    /// The response that every change up to `revision` has been delivered.
    fn progress_of(&self, watch_id: i64, revision: Revision) -> pb::WatchResponse {
        let header = self.header(revision);
        pb::WatchResponse { header, watch_id, ..pb::WatchResponse::default() }
    }
}
