//! The requests of Kubernetes' API server, in their exact shapes.
//!
//! Source: `k8s.io/apiserver/pkg/storage/etcd3/store.go`, `compact.go`, `watcher.go`,
//! `lease_manager.go`; `go.etcd.io/etcd/client/v3/kubernetes`.

use compare::{CompareResult, CompareTarget, TargetUnion};

use super::*;

const PODS: &str = "/registry/pods/";

async fn txn(server: &Server, request: pb::TxnRequest) -> pb::TxnResponse {
    soon("a transaction", server.kv().txn(request)).await.unwrap().into_inner()
}

/// An optimistic put: the key must be as `revision` left it, and is read if it is not.
fn optimistic_put(key: &str, value: &str, revision: i64, reads: bool) -> pb::TxnRequest {
    let failure = if reads { vec![range_op(range(key, ""))] } else { vec![] };
    pb::TxnRequest {
        compare: vec![mod_revision_is(key, revision)],
        success: vec![put_op(put(key, value))],
        failure,
    }
}

fn optimistic_delete(key: &str, revision: i64) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![mod_revision_is(key, revision)],
        success: vec![delete_op(key, "", true)],
        failure: vec![range_op(range(key, ""))],
    }
}

fn read(answer: &pb::TxnResponse) -> &pb::RangeResponse {
    match answer.responses[0].response.as_ref() {
        Some(response_op::Response::ResponseRange(range)) => range,
        other => panic!("instead of a range: {other:?}"),
    }
}

#[tokio::test]
async fn objects_are_created_updated_and_deleted() {
    let server = Server::start().await;
    let key = "/registry/pods/default/web";
    let created = txn(&server, optimistic_put(key, "1", 0, false)).await;
    assert!(created.succeeded);
    let put = |answer: &pb::TxnResponse| match answer.responses[0].response.clone() {
        Some(response_op::Response::ResponsePut(put)) => put.header.unwrap().revision,
        other => panic!("instead of a put: {other:?}"),
    };
    assert_eq!(put(&created), 2);
    let again = txn(&server, optimistic_put(key, "1", 0, false)).await;
    assert_eq!((again.succeeded, again.responses.len()), (false, 0));

    let updated = txn(&server, optimistic_put(key, "2", 2, true)).await;
    assert_eq!((updated.succeeded, updated.header.unwrap().revision), (true, 3));
    let stale = txn(&server, optimistic_put(key, "3", 2, true)).await;
    assert!(!stale.succeeded);
    let current = &read(&stale).kvs[0];
    assert_eq!((&current.value[..], current.mod_revision), (&b"2"[..], 3));

    let stale = txn(&server, optimistic_delete(key, 2)).await;
    assert_eq!((stale.succeeded, read(&stale).kvs[0].mod_revision), (false, 3));
    let deleted = txn(&server, optimistic_delete(key, 3)).await;
    let Some(response_op::Response::ResponseDeleteRange(removal)) = &deleted.responses[0].response
    else {
        panic!("{deleted:?}")
    };
    assert_eq!((removal.deleted, &removal.prev_kvs[0].value[..]), (1, &b"2"[..]));
    assert_eq!(removal.header.unwrap().revision, 4);
    let gone = txn(&server, optimistic_put(key, "3", 3, true)).await;
    assert_eq!((gone.succeeded, read(&gone).kvs.len()), (false, 0));
}

#[tokio::test]
async fn collections_are_listed_in_pages_of_one_revision() {
    let server = Server::start().await;
    for number in 0..5 {
        server.put(&format!("{PODS}default/p{number}"), "x").await;
    }
    let first = pb::RangeRequest { limit: 2, ..range(PODS, "/registry/pods0") };
    let mut page = server.kv().range(first.clone()).await.unwrap().into_inner();
    let revision = page.header.unwrap().revision;
    let (mut names, mut remaining) = (Vec::new(), Vec::new());
    loop {
        names.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        remaining.push(page.count - page.kvs.len() as i64);
        server.delete(&format!("{PODS}default/p4")).await;
        if !page.more {
            break;
        }
        let next = [&names[names.len() - 1][..], b"\0"].concat();
        let request = pb::RangeRequest { key: next.into(), revision, ..first.clone() };
        page = server.kv().range(request).await.unwrap().into_inner();
    }
    assert_eq!((names.len(), remaining), (5, vec![3, 1, 0]));
    let count = pb::RangeRequest { count_only: true, ..range(PODS, "/registry/pods0") };
    assert_eq!(server.kv().range(count).await.unwrap().into_inner().count, 4);
}

/// The compactor of each API server: whoever finds the version that it saw last compacts.
#[tokio::test]
async fn one_of_several_compactors_compacts() {
    let server = Server::start().await;
    let attempt = async |version: i64, revision: &str| {
        let same = (CompareResult::Equal, CompareTarget::Version);
        let union = TargetUnion::Version(version);
        let request = pb::TxnRequest {
            compare: vec![compare("compact_rev_key", same.0, same.1, union)],
            success: vec![put_op(put("compact_rev_key", revision))],
            failure: vec![range_op(range("compact_rev_key", ""))],
        };
        txn(&server, request).await
    };
    let won = attempt(0, "1").await;
    assert_eq!((won.succeeded, won.header.unwrap().revision), (true, 2));
    let lost = attempt(0, "1").await;
    assert!(!lost.succeeded);
    let current = &read(&lost).kvs[0];
    assert_eq!((current.version, &current.value[..]), (1, &b"1"[..]));
    server.put("a", "1").await;
    assert!(attempt(1, "3").await.succeeded);
    let request = pb::CompactionRequest { revision: 3, physical: false };
    server.kv().compact(request).await.unwrap();
}

#[tokio::test]
async fn a_watch_starts_after_a_list_and_asks_for_progress() {
    let server = Server::start().await;
    server.put(&format!("{PODS}default/a"), "1").await;
    let list = server.kv().range(range(PODS, "/registry/pods0")).await.unwrap().into_inner();
    let revision = list.header.unwrap().revision;
    server.put(&format!("{PODS}default/a"), "2").await;
    server.delete(&format!("{PODS}default/a")).await;
    server.put("/registry/events/x", "1").await;
    let mut client = watch::Client::open(&server).await;
    let request = pb::WatchCreateRequest {
        key: bytes(PODS),
        range_end: bytes("/registry/pods0"),
        start_revision: revision + 1,
        prev_kv: true,
        progress_notify: true,
        ..<_>::default()
    };
    client.create(request).await;
    let events = client.events(0, 2).await;
    let previous: Vec<_> = events.iter().map(|event| event.prev_kv.clone().unwrap()).collect();
    assert_eq!((&previous[0].value[..], &previous[1].value[..]), (&b"1"[..], &b"2"[..]));
    assert_eq!(events[1].kv.as_ref().unwrap().mod_revision, 4);
    // A consistent read from the cache: the watch is told once it has reached the newest revision.
    client.ask_for_progress().await;
    let progress = client.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 5));
}

#[tokio::test]
async fn objects_that_expire_share_a_lease() {
    let server = Server::start().await;
    let grant = pb::LeaseGrantRequest { ttl: 3660, id: 0 };
    let lease = server.lease().lease_grant(grant).await.unwrap().into_inner().id;
    for name in ["a", "b"] {
        let key = format!("/registry/events/{name}");
        let request = pb::TxnRequest {
            compare: vec![mod_revision_is(&key, 0)],
            success: vec![put_op(pb::PutRequest { lease, ..put(&key, "x") })],
            failure: vec![],
        };
        assert!(txn(&server, request).await.succeeded);
    }
    server.lease().lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.unwrap();
    let left = server.kv().range(range("/registry/events/", "/registry/events0")).await.unwrap();
    assert_eq!(left.into_inner().count, 0);
}
