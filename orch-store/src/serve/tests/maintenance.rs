//! Status, hashes, members, and that nobody needs a password.

use super::*;
use crate::protocol::etcdserverpb::{auth_client::AuthClient, cluster_client::ClusterClient};

#[tokio::test]
async fn the_status_is_of_a_leader_without_alarms() {
    let server = Server::start().await;
    server.put("key", "value").await;
    let status = server.maintenance().status(pb::StatusRequest {}).await.unwrap().into_inner();
    let header = status.header.unwrap();
    assert_eq!((status.leader, header.revision), (header.member_id, 2));
    assert_eq!((status.db_size, status.raft_index, status.raft_term), (8, 2, header.raft_term));
    assert_eq!((&*status.version, status.errors.len()), ("3.6.5", 0));
    let alarms = server.maintenance().alarm(pb::AlarmRequest::default()).await.unwrap();
    assert!(alarms.into_inner().alarms.is_empty());
    let raise = pb::AlarmRequest { action: 1, member_id: 0, alarm: 1 };
    assert_eq!(said(server.maintenance().alarm(raise).await).0, Code::Unimplemented);
    assert!(server.maintenance().defragment(pb::DefragmentRequest {}).await.is_ok());
}

#[tokio::test]
async fn hashes_tell_stores_apart() {
    let [one, other] = [Server::start().await, Server::start().await];
    let hash = async |server: &Server, revision| {
        let request = pb::HashKvRequest { revision };
        server.maintenance().hash_kv(request).await.unwrap().into_inner()
    };
    for server in [&one, &other] {
        server.put("a", "1").await;
        server.put("b", "2").await;
    }
    let same = hash(&one, 0).await;
    assert_eq!(same, hash(&other, 0).await);
    assert_eq!((same.hash_revision, same.compact_revision), (3, -1));
    one.put("b", "3").await;
    other.put("b", "4").await;
    assert_ne!(hash(&one, 0).await.hash, hash(&other, 0).await.hash);
    let before = hash(&one, 3).await;
    assert_eq!((before.hash, before.hash_revision), (same.hash, 3));
    assert_eq!(before.header.unwrap().revision, 4);
    one.compact(4).await;
    assert_eq!(hash(&one, 0).await.compact_revision, 4);
    let gone = one.maintenance().hash_kv(pb::HashKvRequest { revision: 3 }).await;
    assert_eq!(said(gone).1, "etcdserver: mvcc: required revision has been compacted");
    let whole = one.maintenance().hash(pb::HashRequest {}).await.unwrap().into_inner();
    assert_eq!(whole.hash, hash(&one, 0).await.hash);
}

#[tokio::test]
async fn there_is_one_member_and_no_password() {
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel.clone());
    let list = cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
    let list = list.into_inner();
    assert_eq!(list.members.len(), 1);
    assert_eq!(list.members[0].id, list.header.unwrap().member_id);
    assert_eq!(list.members[0].client_ur_ls, [format!("http://{}", server.address)]);
    let mut auth = AuthClient::new(server.channel.clone());
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert!(!status.enabled);
    let request = pb::AuthenticateRequest { name: "root".into(), password: "x".into() };
    let refused = said(auth.authenticate(request).await);
    let expected = "etcdserver: authentication is not enabled";
    assert_eq!(refused, (Code::FailedPrecondition, expected.into()));
}

#[tokio::test]
async fn the_health_service_answers() {
    let server = Server::start().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest::default();
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
}
