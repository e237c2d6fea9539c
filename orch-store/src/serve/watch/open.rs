//! Watches of a stream, and how they are opened.

use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, AbortHandle, BoxStream},
};
use tonic::Status;

use super::Item;
use crate::{
    StoreError,
    protocol::etcdserverpb::{self as pb, watch_create_request::FilterType},
    serve::{
        convert::{key_range, requested},
        refusal,
        shared::Shared,
    },
    store::{Revision, WatchRequest, WatchStream},
};

/// How often a watch of what comes next is begun anew because that was compacted meanwhile.
const ATTEMPTS: usize = 5;

/// One watch of a stream.
#[derive(Debug)]
pub(super) struct OpenWatch {
    /// Ends the store's side.
    pub(super) abort: AbortHandle,
    /// The first revision that is wanted.
    pub(super) start: Revision,
    /// Everything up to this has been delivered.
    pub(super) delivered: Revision,
    pub(super) with_previous: bool,
    pub(super) fragments: bool,
    pub(super) without_puts: bool,
    pub(super) without_deletions: bool,
    pub(super) notifies_progress: bool,
    /// Whether nothing was delivered since the last tick.
    pub(super) is_quiet: bool,
    /// The revision that the client is to be notified of once it is reached.
    pub(super) notification: Option<Revision>,
}

/// What became of the request for a watch.
pub(super) enum Opened {
    Watch(OpenWatch, BoxStream<'static, Item>),
    /// Its first revision is behind the compaction at this one.
    Compacted(Revision),
}

/// The first key of a watch: etcd takes no key for the smallest one.
pub(super) fn first_key(key: &Bytes) -> Bytes {
    if key.is_empty() { Bytes::from_static(b"\0") } else { key.clone() }
}

/// Opens a watch; gives the revision for its first response as well.
///
/// A watch of what comes next begins right after that revision, so that a client that is told it,
/// and resumes from there, misses nothing and sees nothing twice.
pub(super) async fn open(
    shared: &Shared,
    id: i64,
    request: &pb::WatchCreateRequest,
) -> Result<(Revision, Opened), Status> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let revision = shared.revision().await?;
        let wanted = requested(request.start_revision);
        let start = wanted.unwrap_or(revision + 1);
        let range = key_range(&first_key(&request.key), &request.range_end);
        match shared.store.watch(WatchRequest { range, from: Some(start) }).await {
            Ok(stream) => {
                let (watch, items) = opened(id, request, start, stream);
                return Ok((revision, Opened::Watch(watch, items)));
            }
            Err(StoreError::Compacted { .. }) if wanted.is_none() && attempts > 0 => {}
            Err(StoreError::Compacted { requested, compacted }) => {
                // A store that does not tell the compaction's revision: it is at least this.
                return Ok((revision, Opened::Compacted(compacted.max(requested + 1))));
            }
            Err(error) => return Err(refusal::of(error)),
        }
    }
}

fn opened(
    id: i64,
    request: &pb::WatchCreateRequest,
    start: Revision,
    stream: WatchStream,
) -> (OpenWatch, BoxStream<'static, Item>) {
    let (stream, abort) = stream::abortable(stream);
    let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
    let watch = OpenWatch {
        abort,
        start,
        delivered: start - 1,
        with_previous: request.prev_kv,
        fragments: request.fragment,
        without_puts: filters(FilterType::Noput),
        without_deletions: filters(FilterType::Nodelete),
        notifies_progress: request.progress_notify,
        is_quiet: true,
        notification: None,
    };
    (watch, stream.map(move |item| (id, item)).boxed())
}
