//! The Cluster and Auth services: one member, and nobody needs a password.

use tonic::{Request, Response, Status};

use super::{refusal, shared::Shared};
use crate::protocol::etcdserverpb::{self as pb, auth_server::Auth, cluster_server::Cluster};

#[tonic::async_trait]
impl Cluster for Shared {
    async fn member_list(
        &self,
        _request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let mut client_urls = self.options.advertise_client_urls.clone();
        if client_urls.is_empty() {
            client_urls.extend(self.own_url.get().cloned());
        }
        let member = pb::Member {
            id: self.options.member_id,
            name: self.options.member_name.clone(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: client_urls,
            is_learner: false,
        };
        let header = self.header_now().await?;
        Ok(Response::new(pb::MemberListResponse { header, members: vec![member] }))
    }
}

#[tonic::async_trait]
impl Auth for Shared {
    async fn auth_status(
        &self,
        _request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let header = self.header_now().await?;
        // The revision that etcd's users and roles have before anybody changed them.
        Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }

    async fn authenticate(
        &self,
        _request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(refusal::auth_not_enabled())
    }
}
