//! Leases.

use futures::stream;

use super::*;

async fn time_to_live(server: &Server, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    server.lease().lease_time_to_live(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_lease_from_its_grant_to_its_end() {
    let server = Server::start().await;
    let grant = |id, ttl| pb::LeaseGrantRequest { id, ttl };
    let chosen = server.lease().lease_grant(grant(0, 60)).await.unwrap().into_inner();
    assert!(chosen.id > 0 && chosen.ttl == 60 && chosen.error.is_empty());
    let named = server.lease().lease_grant(grant(5, -3)).await.unwrap().into_inner();
    assert_eq!((named.id, named.ttl, named.header.unwrap().revision), (5, 2, 1));
    let again = said(server.lease().lease_grant(grant(5, 60)).await);
    assert_eq!(again, (Code::FailedPrecondition, "etcdserver: lease already exists".into()));
    let long = said(server.lease().lease_grant(grant(6, 9_000_000_001)).await);
    assert_eq!(long, (Code::OutOfRange, "etcdserver: too large lease TTL".into()));

    for key in ["y", "x"] {
        let request = pb::PutRequest { lease: chosen.id, ..put(key, "") };
        server.kv().put(request).await.unwrap();
    }
    let status = time_to_live(&server, chosen.id).await;
    assert_eq!((status.granted_ttl, status.keys), (60, vec![bytes("x"), bytes("y")]));
    assert!((58..=60).contains(&status.ttl), "{}", status.ttl);
    let unknown = time_to_live(&server, 99).await;
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl), (99, -1, 0));
    let leases = server.lease().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
    let mut ids: Vec<_> = leases.into_inner().leases.iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [5, chosen.id]);

    let revoke = || pb::LeaseRevokeRequest { id: chosen.id };
    let revoked = server.lease().lease_revoke(revoke()).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, 4);
    let gone = said(server.lease().lease_revoke(revoke()).await);
    assert_eq!(gone, (Code::NotFound, "etcdserver: requested lease not found".into()));
    let left = server.kv().range(range("\0", "\0")).await.unwrap().into_inner();
    assert_eq!(left.count, 0);
}

#[tokio::test]
async fn a_stream_keeps_leases_alive() {
    let server = Server::start().await;
    server.lease().lease_grant(pb::LeaseGrantRequest { id: 5, ttl: 60 }).await.unwrap();
    let requests = [5, 99, 5].map(|id| pb::LeaseKeepAliveRequest { id });
    let answers = server.lease().lease_keep_alive(stream::iter(requests)).await.unwrap();
    let mut answers = answers.into_inner();
    for (id, ttl) in [(5, 60), (99, 0), (5, 60)] {
        let answer = soon("a keep-alive", answers.message()).await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl, answer.header.unwrap().revision), (id, ttl, 1));
    }
    assert_eq!(soon("the end", answers.message()).await.unwrap(), None);
}

#[tokio::test]
async fn a_lease_that_is_not_kept_alive_expires() {
    let server = Server::with(ServeOptions { lease_ttl_s_min: 1, ..<_>::default() }).await;
    server.lease().lease_grant(pb::LeaseGrantRequest { id: 5, ttl: 1 }).await.unwrap();
    let request = pb::PutRequest { lease: 5, ..put("k", "") };
    server.kv().put(request).await.unwrap();
    let mut watch = watch::Client::open(&server).await;
    watch.create(pb::WatchCreateRequest { key: bytes("k"), ..<_>::default() }).await;
    let events = watch.events(0, 1).await;
    assert_eq!(events[0].r#type, 1, "a deletion: {events:?}");
    assert_eq!(time_to_live(&server, 5).await.ttl, -1);
}
