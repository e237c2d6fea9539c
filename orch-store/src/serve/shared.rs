//! What all services of one server share.

use std::{path::Path, sync::Arc, sync::OnceLock, time::Duration};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{ServeOptions, convert::signed, refusal, watch::ProgressHub};
use crate::{
    StoreError,
    protocol::etcdserverpb as pb,
    store::{KeyRange, LeasedStore, RangeRequest, Revision, pages},
};

/// The term that all responses have: there is no Raft, and an etcd that works has one that is
/// greater than 0.
pub(super) const TERM: u64 = 2;

/// A message may be so much larger than the largest write, as etcd has it.
const OVERHEAD_BYTES: usize = 512 << 10;

/// So many entries are read at once where a whole range is read.
const PAGE: usize = 16_384;

/// How long a size that was summed up is told.
const SIZE_AGE_MAX: Duration = Duration::from_secs(10);

/// The store, the options, and what is the same for every connection.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn LeasedStore>,
    pub(super) options: ServeOptions,
    pub(super) progress: ProgressHub,
    /// Cancelled when the server stops: streams end.
    pub(super) stopping: CancellationToken,
    /// The URL of the address that is listened on.
    pub(super) own_url: OnceLock<String>,
    size: Mutex<Option<(Instant, u64)>>,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn LeasedStore>, options: ServeOptions) -> Self {
        Self {
            store,
            options,
            progress: ProgressHub::default(),
            stopping: CancellationToken::new(),
            own_url: OnceLock::new(),
            size: Mutex::default(),
        }
    }

    /// The largest message.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.options.request_bytes_max.saturating_add(OVERHEAD_BYTES)
    }

    /// The header of a response that is of `revision`.
    pub(super) fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.options.cluster_id,
            member_id: self.options.member_id,
            revision: signed(revision),
            raft_term: TERM,
        })
    }

    /// The store's newest revision.
    pub(super) async fn revision(&self) -> Result<Revision, Status> {
        // A key that nobody has: the shortest way through every store.
        let request = RangeRequest { count_only: true, ..RangeRequest::new(KeyRange::key("\0")) };
        Ok(self.store.range(request).await.map_err(refusal::of)?.revision)
    }

    /// The header of a response that has no revision of its own.
    pub(super) async fn header_now(&self) -> Result<Option<pb::ResponseHeader>, Status> {
        Ok(self.header(self.revision().await?))
    }

    /// The oldest revision that can be read; `None` where nothing was compacted yet.
    pub(super) async fn compacted(&self) -> Result<Option<Revision>, Status> {
        let oldest = RangeRequest {
            revision: Some(1),
            count_only: true,
            ..RangeRequest::new(KeyRange::key("\0"))
        };
        match self.store.range(oldest).await {
            Ok(_) => Ok(None),
            Err(StoreError::Compacted { compacted, .. }) => Ok(Some(compacted)),
            Err(error) => Err(refusal::of(error)),
        }
    }

    /// Reads every key as it is at `revision`, in order and in pages, so that others have their
    /// turn between them.
    pub(super) async fn each_page(
        &self,
        revision: Revision,
        mut visit: impl FnMut(Vec<crate::store::Entry>),
    ) -> Result<(), StoreError> {
        let everything =
            RangeRequest { revision: Some(revision), ..RangeRequest::new(KeyRange::prefix("")) };
        let mut pages = pages(self.store.clone(), everything, PAGE);
        while let Some(page) = pages.next().await {
            visit(page?.entries);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// How large the store is, in bytes.
    pub(super) async fn size(&self) -> Result<u64, Status> {
        if let Some(folder) = self.options.data_folder.clone() {
            let size = tokio::task::spawn_blocking(move || folder_size(&folder)).await;
            return Ok(size.unwrap_or(0));
        }
        let known = *self.size.lock();
        if let Some((_, size)) = known.filter(|(at, _)| at.elapsed() < SIZE_AGE_MAX) {
            return Ok(size);
        }
        let mut size = 0;
        let revision = self.revision().await?;
        let sum = |entries: Vec<crate::store::Entry>| {
            size += entries.iter().map(|e| (e.key.len() + e.value.len()) as u64).sum::<u64>();
        };
        self.each_page(revision, sum).await.map_err(refusal::of)?;
        *self.size.lock() = Some((Instant::now(), size));
        Ok(size)
    }
}

/// The sum of the sizes of a folder's files; what vanishes meanwhile counts for nothing.
fn folder_size(folder: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    let sizes = files.filter_map(|file| file.ok()?.metadata().ok());
    sizes.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()).sum()
}
