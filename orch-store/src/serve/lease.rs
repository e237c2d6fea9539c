//! The Lease service.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{kv::lease, refusal, shared::Shared};
use crate::{
    engine::leases::TTL_S_MAX,
    protocol::etcdserverpb::{self as pb, lease_server::Lease},
};

/// The handle that the generated server wants: its streams outlive the call.
#[derive(Clone, Debug)]
pub(super) struct LeaseService(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > TTL_S_MAX {
            return Err(refusal::lease_ttl_too_large());
        }
        let ttl = ttl.max(self.0.options.lease_ttl_s_min).max(1);
        let id = self.0.store.grant(lease(id), ttl).await.map_err(refusal::of)?;
        let header = self.0.header_now().await?;
        Ok(Response::new(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        if !self.0.store.revoke(request.into_inner().id).await.map_err(refusal::of)? {
            return Err(refusal::lease_not_found());
        }
        Ok(Response::new(pb::LeaseRevokeResponse { header: self.0.header_now().await? }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let state = (self.0.clone(), request.into_inner());
        let answers = stream::try_unfold(state, |(shared, mut requests)| async move {
            let request = tokio::select! {
                biased;
                () = shared.stopping.cancelled() => return Err(refusal::stopped()),
                request = requests.message() => request?,
            };
            let Some(request) = request else { return Ok(None) };
            Ok(Some((keep_alive(&shared, request.id).await?, (shared, requests))))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let found = self.0.store.lease(request.id).await.map_err(refusal::of)?;
        let header = self.0.header_now().await?;
        let answer = pb::LeaseTimeToLiveResponse { header, id: request.id, ..<_>::default() };
        Ok(Response::new(match found {
            None => pb::LeaseTimeToLiveResponse { ttl: -1, ..answer },
            Some(status) => pb::LeaseTimeToLiveResponse {
                ttl: i64::try_from(status.remaining.as_secs()).unwrap_or(i64::MAX),
                granted_ttl: status.granted_ttl_s,
                keys: if request.keys { status.keys } else { Vec::new() },
                ..answer
            },
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let ids = self.0.store.leases().await.map_err(refusal::of)?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.0.header_now().await?, leases }))
    }
}

async fn keep_alive(shared: &Shared, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    // The revision from before: at the header's revision the lease was alive.
    let header = shared.header_now().await?;
    let ttl = shared.store.keep_alive(id).await.map_err(refusal::of)?.unwrap_or(0);
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}
