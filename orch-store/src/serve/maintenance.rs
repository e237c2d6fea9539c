//! The Maintenance service.

use std::{io::Read as _, sync::Arc};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    convert::{requested, signed},
    image, refusal,
    shared::{Shared, TERM},
};
use crate::{
    StoreError,
    protocol::etcdserverpb::{
        self as pb, alarm_request::AlarmAction, maintenance_server::Maintenance,
    },
    store::Revision,
};

/// So many bytes of a snapshot are sent in one message, as etcd does.
const SNAPSHOT_CHUNK: usize = 32 << 10;

/// How many messages of a snapshot wait for the client.
const SNAPSHOT_QUEUE: usize = 16;

/// How often what reads a whole revision begins anew because it was compacted meanwhile.
const ATTEMPTS: usize = 5;

/// The handle that the generated server wants: its streams outlive the call.
#[derive(Clone, Debug)]
pub(super) struct MaintenanceService(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        if request.into_inner().action() == AlarmAction::Activate {
            return Err(Status::unimplemented("etcdserver: alarms cannot be raised here"));
        }
        let header = self.0.header_now().await?;
        Ok(Response::new(pb::AlarmResponse { header, alarms: Vec::new() }))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let shared = &self.0;
        let size = i64::try_from(shared.size().await?).unwrap_or(i64::MAX);
        let revision = shared.revision().await?;
        Ok(Response::new(pb::StatusResponse {
            header: shared.header(revision),
            version: shared.options.version.clone(),
            db_size: size,
            leader: shared.options.member_id,
            raft_index: revision,
            raft_term: TERM,
            raft_applied_index: revision,
            errors: Vec::new(),
            db_size_in_use: size,
            is_learner: false,
            storage_version: image::STORAGE_VERSION.into(),
            // No quota.
            db_size_quota: 0,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        // Stores give space back when they compact.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(
        &self,
        _request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let (revision, hash) = self.hash_of(None).await?;
        Ok(Response::new(pb::HashResponse { header: self.0.header(revision), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let current = self.0.revision().await?;
        let (revision, hash) = self.hash_of(requested(request.into_inner().revision)).await?;
        let compacted = self.0.compacted().await?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.0.header(current.max(revision)),
            hash,
            // etcd's word for a store that was never compacted.
            compact_revision: compacted.map_or(-1, signed),
            hash_revision: signed(revision),
        }))
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let image = image::write(&self.0).await?;
        let (sender, receiver) = mpsc::channel(SNAPSHOT_QUEUE);
        tokio::task::spawn_blocking(move || send_image(image, &sender));
        let stopping = self.0.stopping.clone().cancelled_owned();
        Ok(Response::new(ReceiverStream::new(receiver).take_until(Box::pin(stopping)).boxed()))
    }
}

impl MaintenanceService {
    /// The checksum at a revision, or at the newest one, which is read again if it is compacted
    /// while it is read.
    async fn hash_of(&self, at: Option<Revision>) -> Result<(Revision, u32), Status> {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            let revision = match at {
                Some(revision) => revision,
                None => self.0.revision().await?,
            };
            match self.0.hash(revision).await {
                Err(StoreError::Compacted { .. }) if at.is_none() && attempts > 0 => {}
                hash => return Ok((revision, hash.map_err(refusal::of)?)),
            }
        }
    }
}

/// Sends an image in pieces, and what its bytes hash to as the last one. Ends early if the client
/// is gone. Blocks.
fn send_image(image: image::Image, sender: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>) {
    let image::Image { mut file, size } = image;
    let mut hash = Sha256::new();
    let mut remaining = size;
    while remaining > 0 {
        let mut blob =
            vec![0; SNAPSHOT_CHUNK.min(usize::try_from(remaining).unwrap_or(usize::MAX))];
        if let Err(error) = file.read_exact(&mut blob) {
            let _ = sender.blocking_send(Err(image::failed(&error)));
            return;
        }
        hash.update(&blob);
        remaining -= blob.len() as u64;
        if sender.blocking_send(Ok(piece(blob.into(), remaining))).is_err() {
            return;
        }
    }
    let _ = sender.blocking_send(Ok(piece(Bytes::copy_from_slice(&hash.finalize()), 0)));
}

fn piece(blob: Bytes, remaining_bytes: u64) -> pb::SnapshotResponse {
    let version = image::STORAGE_VERSION.into();
    pb::SnapshotResponse { header: None, remaining_bytes, blob, version }
}
